// SPDX-License-Identifier: MIT
#pragma once

// What process 0 runs for control_plane.hpp, in a thread: it hears all processes and tells all.
//
// A frame is the length of its text (4 bytes, of this machine's order), a letter and the text:
//
//   to the server      h "pipesched <rank> <size>", the first; s what is shared; g what is gathered; p a place, w one where it
//                      stands still; f a failure; b it leaves
//   to the processes   s what process 0 has shared, once all have come; f the first failure; to process 0 also g, one frame
//                      of every process in turn

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// A socket, closed with this.
class socket_handle {
 public:
  socket_handle() = default;
  explicit socket_handle(int fd) : fd_(fd) {}
  socket_handle(socket_handle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  socket_handle& operator=(socket_handle&& other) noexcept { return std::swap(fd_, other.fd_), *this; }
  ~socket_handle() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

/// Notices are small and wanted at once; a host that is gone is noticed within some twenty seconds.
inline void prepare_socket(int fd) {
  const auto set = [&](int level, int name, int value) { ::setsockopt(fd, level, name, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 5), set(IPPROTO_TCP, TCP_KEEPINTVL, 5), set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 20000);
}

struct frame {
  char kind = 0;
  std::string text{};
};
inline std::string pack(char kind, std::string_view text) {
  const auto length = static_cast<std::uint32_t>(text.size());
  std::string bytes(sizeof length, 0);
  std::memcpy(bytes.data(), &length, sizeof length);
  return (bytes += kind) += text;
}
inline constexpr std::size_t longest_frame = std::size_t{1} << 28, longest_greeting = 64;
/// Takes the first frame off what has come. @throws schedule_error for one that is too long to be one
inline std::optional<frame> unpack(std::string& bytes, std::size_t longest = longest_frame) {
  std::uint32_t length = 0;
  if (bytes.size() < sizeof length + 1) return std::nullopt;
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > longest) throw schedule_error("a frame that is too long");
  if (bytes.size() < sizeof length + 1 + length) return std::nullopt;
  frame f{bytes[sizeof length], bytes.substr(sizeof length + 1, length)};
  bytes.erase(0, sizeof length + 1 + length);
  return f;
}
/// What is to be sent, as far as the other side takes it.
class outgoing {
 public:
  bool empty() const { return at_ == bytes_.size(); }
  void add(std::string_view text) {
    if (at_ > 0) bytes_.erase(0, std::exchange(at_, 0));
    bytes_ += text;
  }
  /// Never waits. False if it failed.
  bool push(int fd) {
    while (!empty()) {
      const ssize_t n = ::send(fd, bytes_.data() + at_, bytes_.size() - at_, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n > 0) at_ += static_cast<std::size_t>(n);
      if (n < 0 && errno != EINTR) return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    return true;
  }

 private:
  std::string bytes_;
  std::size_t at_ = 0;  // sent
};
/// Puts behind `bytes` what has come, at most some at a time. False at the end of the connection.
inline bool receive_some(int fd, std::string& bytes) {
  std::array<char, 65536> buffer;
  for (int i = 0; i < 16; ++i) {
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n > 0) bytes.append(buffer.data(), static_cast<std::size_t>(n));
    if (n == 0) return false;
    if (n < 0 && errno != EINTR) return errno == EAGAIN || errno == EWOULDBLOCK;
  }
  return true;
}

class control_server {
 public:
  /// @param port  0: any that is free. @throws schedule_error if it cannot be had
  control_server(std::uint32_t size, std::uint16_t port, std::chrono::duration<double> time_limit)
      : time_limit_(time_limit), processes_(size) {
    rlimit files{};  // one for every process
    if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max)
      files.rlim_cur = files.rlim_max, ::setrlimit(RLIMIT_NOFILE, &files);
    if (!listen_on(AF_INET6, port) && !listen_on(AF_INET, port))
      throw schedule_error(concat({"process 0 cannot listen on port ", port, ": ",
                                   std::system_category().message(errno), "; MASTER_PORT is another one"}));
    thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
  }
  /// Waits, within the time limit, until all processes have left or been lost.
  ~control_server() { thread_ = {}; }

  std::uint16_t port() const {
    sockaddr_in6 bound{};  // the port is where sockaddr_in has it, too
    socklen_t size = sizeof bound;
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&bound), &size);
    return ntohs(bound.sin6_port);
  }

 private:
  using clock = std::chrono::steady_clock;

  struct connection {
    socket_handle socket;
    std::string in{};
    outgoing out{};
    std::uint32_t rank = ~0u;  // ~0: has not said
    bool closed = false;
  };
  struct process {
    enum { missing, there, left, lost } is = missing;
    std::deque<std::string> shared{}, gathered{};
    std::string place{};
    bool stands_still = false;
  };

  bool listen_on(int family, std::uint16_t port) {
    socket_handle s(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1, off = 0;
    ::setsockopt(s.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in6 six{};
    sockaddr_in four{};
    if (family == AF_INET6) ::setsockopt(s.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    six.sin6_family = AF_INET6, six.sin6_addr = in6addr_any, six.sin6_port = htons(port);
    four.sin_family = AF_INET, four.sin_addr.s_addr = htonl(INADDR_ANY), four.sin_port = htons(port);
    const auto* address = family == AF_INET6 ? reinterpret_cast<sockaddr*>(&six) : reinterpret_cast<sockaddr*>(&four);
    const socklen_t size = family == AF_INET6 ? sizeof six : sizeof four;
    if (::bind(s.get(), address, size) != 0 || ::listen(s.get(), SOMAXCONN) != 0) return false;
    listener_ = std::move(s);
    return true;
  }

  void serve(const std::stop_token& stop) {
    std::optional<clock::time_point> stopped;
    std::vector<pollfd> polled;
    while (true) {
      if (stop.stop_requested() && !stopped) stopped = clock::now();
      if (stopped && (all_gone() || clock::now() - *stopped > time_limit_)) return;
      polled.assign(1, {listener_.get(), POLLIN, 0});
      for (const connection& c : connections_)
        polled.push_back({c.socket.get(), static_cast<short>(c.out.empty() ? POLLIN : POLLIN | POLLOUT), 0});
      ::poll(polled.data(), polled.size(), 10);
      for (std::size_t i = 0; i < connections_.size(); ++i)
        if (polled[i + 1].revents != 0) read(connections_[i]);
      if (polled[0].revents != 0) accept();
      for (connection& c : connections_) write(c);
      std::erase_if(connections_, [](const connection& c) { return c.closed; });
    }
  }
  bool all_gone() const {
    const bool told =
        std::all_of(connections_.begin(), connections_.end(), [](const auto& c) { return c.out.empty(); });
    return told &&
           std::none_of(processes_.begin(), processes_.end(), [](const process& p) { return p.is == process::there; });
  }
  void accept() {
    while (true) {
      socket_handle s(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (s.get() < 0 && (errno == EMFILE || errno == ENFILE))
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (s.get() < 0) return;
      prepare_socket(s.get());
      connections_.push_back({.socket = std::move(s)});
    }
  }
  void read(connection& c) {
    const bool goes_on = receive_some(c.socket.get(), c.in);
    try {
      while (const auto f = unpack(c.in, c.rank == ~0u ? longest_greeting : longest_frame))
        if (!take(c, *f)) return close(c);
    } catch (const schedule_error&) {  // no process of ours
      return close(c);
    }
    if (!goes_on) close(c);
  }
  static void write(connection& c) {
    if (!c.closed) c.out.push(c.socket.get());  // what fails is seen by the next read
  }
  void close(connection& c) {
    c.closed = true;
    if (c.rank == ~0u || processes_[c.rank].is != process::there) return;
    processes_[c.rank].is = process::lost;
    const std::string& place = processes_[c.rank].place;
    fail(concat({"process ", c.rank, " is gone", place.empty() ? "" : ", last seen as ", place}));
  }

  // False if the connection is to end.
  bool take(connection& c, const frame& f) {
    if (c.rank == ~0u) return f.kind == 'h' && greet(c, f.text);
    process& from = processes_[c.rank];
    switch (f.kind) {
      case 's': from.shared.push_back(f.text), share(); return true;
      case 'g': from.gathered.push_back(f.text), gather(); return true;
      case 'p': from.place = f.text, from.stands_still = false; return true;
      case 'w': from.place = f.text, from.stands_still = true; return true;
      case 'f': fail(f.text); return true;
      case 'b': from.is = process::left, share(), gather(); return true;
      default: return false;
    }
  }
  bool greet(connection& c, std::string_view text) {
    constexpr std::string_view magic = "pipesched ";
    std::uint32_t rank = 0, size = 0;
    if (text.substr(0, magic.size()) != magic) return false;
    text.remove_prefix(magic.size());
    const auto [after, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
    if (error != std::errc{} || after == text.data() + text.size()) return false;
    if (std::from_chars(after + 1, text.data() + text.size(), size).ec != std::errc{}) return false;
    if (size != processes_.size() || rank >= size || processes_[rank].is != process::missing) {
      c.out.add(pack('f', concat({"process ", rank, " of ", size, " has come to a job of ", processes_.size(),
                                  size == processes_.size() ? ", where it is already" : ""})));
      write(c);
      return false;
    }
    c.rank = rank;
    processes_[rank].is = process::there;
    if (failure_) c.out.add(pack('f', *failure_));
    return true;
  }
  void share() {
    while (std::none_of(processes_.begin(), processes_.end(), [](const process& p) { return p.shared.empty(); })) {
      const std::string text = pack('s', processes_[0].shared.front());
      for (process& p : processes_) p.shared.pop_front();
      for (connection& c : connections_)
        if (c.rank != ~0u) c.out.add(text);
    }
    blame_who_left(&process::shared);
  }
  void gather() {
    while (std::none_of(processes_.begin(), processes_.end(), [](const process& p) { return p.gathered.empty(); }))
      for (process& p : processes_) {
        for (connection& c : connections_)
          if (c.rank == 0) c.out.add(pack('g', p.gathered.front()));
        p.gathered.pop_front();
      }
    blame_who_left(&process::gathered);
  }
  void blame_who_left(std::deque<std::string> process::*given) {
    const auto awaited = [&](const process& p) { return !(p.*given).empty(); };
    if (std::none_of(processes_.begin(), processes_.end(), awaited)) return;
    for (std::uint32_t r = 0; r < processes_.size(); ++r)
      if (processes_[r].is == process::left && (processes_[r].*given).empty())
        return fail(concat({"process ", r, " has left, and others wait for it"}));
  }
  void fail(std::string cause) {
    if (failure_) return;
    constexpr int max_lines = 64;
    std::string missing;
    int lines = 0;
    for (std::uint32_t r = 0; r < processes_.size(); ++r) {
      const process& p = processes_[r];
      if (p.is == process::missing) missing += concat({" ", r});
      if (p.stands_still && p.is == process::there && ++lines <= max_lines) cause += "\n" + p.place;
    }
    if (lines > max_lines) cause += concat({"\nand ", lines - max_lines, " more"});
    failure_ = missing.empty() ? std::move(cause) : std::move(cause) + "\nnot there yet: process" + missing;
    for (connection& c : connections_)
      if (c.rank != ~0u) c.out.add(pack('f', *failure_));
  }

  std::chrono::duration<double> time_limit_;
  socket_handle listener_;
  std::vector<process> processes_;  // by rank
  std::vector<connection> connections_;
  std::optional<std::string> failure_;
  std::jthread thread_;  // last: it uses all of these
};

}  // namespace pipesched::detail
