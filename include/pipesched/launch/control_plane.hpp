// SPDX-License-Identifier: MIT
#pragma once

// A notice board over TCP: every process keeps a connection to process 0. A process that is killed loses it, and all others
// are told at once. POSIX.
//
// Whoever can reach the port of process 0 can join or end the job, as with the stores of other launchers: keep it inside
// the cluster.

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/launch/control_server.hpp"
#include "pipesched/launch/launch_environment.hpp"
#include "pipesched/launch/notice_board.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Construction and destruction are collective.
class control_plane : public notice_board {
 public:
  /// As a launcher has it.
  /// @param time_limit  how long to wait for other processes
  /// @throws schedule_error if process 0 cannot listen, its host name is unknown, or it cannot be reached in time. An unknown
  /// name is asked for again until then, since the name of a container may come later than its peers
  explicit control_plane(const launch_environment& e,
                         std::chrono::duration<double> time_limit = std::chrono::seconds(60))
      : rank_(e.rank), size_(e.size), time_limit_(detail::checked_time_limit(time_limit)) {
    require_rank();
    if (rank_ == 0) server_ = std::make_unique<detail::control_server>(size_, e.port, time_limit);
    join(rank_ == 0 ? "127.0.0.1" : e.address, rank_ == 0 ? server_->port() : e.port,
         "MASTER_ADDR is the name or address of its host");
  }
  /// As MPI has it, or whatever else can hand bytes of process 0 to all.
  /// @param broadcast  called once with a span of bytes: those of process 0 into those of all others.
  ///                   MPI: [&](std::span<std::byte> b) { MPI_Bcast(b.data(), int(b.size()), MPI_BYTE, 0, comm); }
  template <typename Broadcast>
  control_plane(std::uint32_t rank, std::uint32_t size, Broadcast&& broadcast,
                std::chrono::duration<double> time_limit = std::chrono::seconds(60))
      : rank_(rank), size_(size), time_limit_(detail::checked_time_limit(time_limit)) {
    require_rank();
    struct {
      std::array<char, 256> host{};
      std::uint16_t port = 0;
    } where;
    std::exception_ptr error;
    if (rank == 0) {
      try {
        server_ = std::make_unique<detail::control_server>(size, std::uint16_t{0}, time_limit);
        ::gethostname(where.host.data(), where.host.size() - 1);
        where.port = server_->port();
      } catch (...) {
        error = std::current_exception();
      }
    }
    broadcast(std::as_writable_bytes(std::span(&where, 1)));
    if (error) std::rethrow_exception(error);
    if (where.port == 0) throw schedule_error("process 0 cannot listen");
    join(rank == 0 ? "127.0.0.1" : where.host.data(), where.port, "every host of the job has to know it");
  }
  control_plane(const control_plane&) = delete;
  control_plane& operator=(const control_plane&) = delete;
  /// Process 0 stays, within the time limit, until all others have left.
  ~control_plane() override {
    try {
      if (std::uncaught_exceptions() > exceptions_)
        tell_failure(detail::concat({"process ", rank_, " left with an exception"}));
      {
        const std::lock_guard lock(mutex_);
        send('b', "");
      }
      until([&] { return out_.empty() || failed_to_send_; }, time_limit_ / 4);
      ::shutdown(socket_.get(), SHUT_WR);  // and no end of the connection before all that was sent has been read
      until([&] { return at_end_; }, time_limit_ / 4);
    } catch (...) {  // no memory
    }
  }

  std::uint32_t process() const override { return rank_; }
  std::uint32_t processes() const override { return size_; }

  std::string tell_failure(std::string_view cause) override {
    {
      const std::lock_guard lock(mutex_);
      if (!failure_) send('f', cause.substr(0, 1u << 16));
    }
    until([&] { return failure_.has_value(); }, std::min(time_limit_ / 4, std::chrono::duration<double>(2)));
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::string(cause);  // process 0 does not answer
    return *failure_;
  }
  void tell_place(std::string_view place, bool stands_still) override {
    const std::lock_guard lock(mutex_);
    if (out_.empty()) send(stands_still ? 'w' : 'p', place.substr(0, 1u << 12));
  }
  std::optional<std::string> failure() override {
    const std::lock_guard lock(mutex_);
    listen();
    return failure_;
  }
  std::string share(std::string_view mine) override {
    give('s', mine);
    wait_for([&] { return !shared_.empty(); });
    std::string text = std::move(shared_.front());
    shared_.pop_front();
    return text;
  }
  std::vector<std::string> gather(std::string_view mine) override {
    give('g', mine);
    wait_for([&] { return rank_ == 0 ? gathered_.size() >= size_ : out_.empty(); });
    if (rank_ != 0) return {};
    const std::vector<std::string> all(gathered_.begin(), gathered_.begin() + size_);
    gathered_.erase(gathered_.begin(), gathered_.begin() + size_);
    return all;
  }

 private:
  using clock = std::chrono::steady_clock;

  void require_rank() const {
    if (rank_ >= size_) throw schedule_error(detail::concat({"a job of ", size_, " processes has no process ", rank_}));
  }
  // @param hint  for a host name that is unknown
  void join(const std::string& host, std::uint16_t port, std::string_view hint) {
    const auto start = clock::now();
    const std::string service = std::to_string(port);
    where_ = detail::concat({host, " port ", port});
    while (!connect(host, service, start + std::chrono::duration_cast<clock::duration>(time_limit_))) {
      if (clock::now() - start > time_limit_) {  // until then process 0 may come yet
        if (!unknown_name_.empty())
          throw schedule_error(detail::concat({"process ", rank_, " does not know the host name \"", host,
                                               "\" of process 0 (", unknown_name_, "); ", hint}));
        throw schedule_error(
            detail::concat({"process ", rank_, " cannot reach process 0 at ", where_, " within the time limit"}));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    detail::prepare_socket(socket_.get());
    const std::lock_guard lock(mutex_);
    send('h', detail::concat({"pipesched ", rank_, " ", size_}));
  }
  bool connect(const std::string& host, const std::string& service, clock::time_point until) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    int error = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found);
    if (error != 0 && is_this_host(host)) error = ::getaddrinfo("127.0.0.1", service.c_str(), &hints, &found);
    unknown_name_ = error == 0 ? "" : ::gai_strerror(error);
    if (error != 0) return false;
    bool connected = false;
    for (const addrinfo* a = found; a != nullptr && !connected; a = a->ai_next) {
      detail::socket_handle s(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol));
      if (s.get() < 0) continue;
      connected = ::connect(s.get(), a->ai_addr, a->ai_addrlen) == 0;
      const auto enough = std::min(until, clock::now() + std::chrono::seconds(3));  // another address may answer
      while (!connected && (errno == EINPROGRESS || errno == EINTR) && clock::now() < enough) {
        pollfd polled{s.get(), POLLOUT, 0};
        if (::poll(&polled, 1, 50) <= 0) {
          errno = EINTR;
          continue;
        }
        socklen_t size = sizeof errno;
        ::getsockopt(s.get(), SOL_SOCKET, SO_ERROR, &errno, &size);
        connected = errno == 0;
      }
      connected = connected && !is_to_itself(s.get());
      if (connected) socket_ = std::move(s);
    }
    ::freeaddrinfo(found);
    return connected;
  }
  // Names of this host, which need not be in any table: a bare root folder has no /etc/hosts.
  static bool is_this_host(const std::string& name) {
    std::array<char, 256> own{};
    return name == "localhost" || (::gethostname(own.data(), own.size() - 1) == 0 && name == own.data());
  }
  // As may be where the port is one that is given to whoever connects, and nobody listens there.
  static bool is_to_itself(int fd) {
    sockaddr_storage own{}, peer{};
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_size);
    ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_size);
    return own_size == peer_size && std::memcmp(&own, &peer, own_size) == 0;
  }

  // @pre mutex_ is held, here, in push() and in listen(). None of them waits.
  void send(char kind, std::string_view text) {
    out_.add(detail::pack(kind, text));
    push();
  }
  void push() { failed_to_send_ = failed_to_send_ || !out_.push(socket_.get()); }
  void listen() {
    push();
    at_end_ = !detail::receive_some(socket_.get(), in_);
    try {
      while (auto f = detail::unpack(in_)) {
        if (f->kind == 's') shared_.push_back(std::move(f->text));
        if (f->kind == 'g') gathered_.push_back(std::move(f->text));
        if (f->kind == 'f' && !failure_) failure_ = std::move(f->text);
      }
    } catch (const schedule_error&) {
      if (!failure_) failure_ = detail::concat({"what listens at ", where_, " is not process 0 of this job"});
    }
    if ((at_end_ || failed_to_send_) && !failure_) failure_ = "process 0 is gone";
  }
  void give(char kind, std::string_view mine) {
    const std::lock_guard lock(mutex_);
    listen();
    if (failure_) throw pipeline_aborted("aborted: " + *failure_);
    if (mine.size() > detail::longest_frame)
      throw schedule_error(detail::concat(
          {"processes share and gather at most ", detail::longest_frame, " bytes each; got ", mine.size()}));
    send(kind, mine);
  }
  template <typename Done>
  void wait_for(Done&& done) {
    if (!until([&] { return done() || failure_; }, time_limit_))
      tell_failure(
          detail::concat({"process ", rank_, " waits for the others, not all of which came within the time limit"}));
    const std::lock_guard lock(mutex_);
    if (!done()) throw pipeline_aborted("aborted: " + *failure_);
  }
  template <typename Done>
  bool until(Done&& done, std::chrono::duration<double> limit) {
    for (const auto start = clock::now(); clock::now() - start < limit;) {
      pollfd polled{socket_.get(), POLLIN, 0};
      {
        const std::lock_guard lock(mutex_);
        listen();
        if (done()) return true;
        if (!out_.empty()) polled.events = POLLIN | POLLOUT;
      }
      ::poll(&polled, 1, 50);  // another thread may have taken what came
    }
    return false;
  }

  std::uint32_t rank_, size_;
  std::chrono::duration<double> time_limit_;
  std::unique_ptr<detail::control_server> server_;
  detail::socket_handle socket_;
  std::mutex mutex_;
  std::string where_, in_, unknown_name_;  // unknown_name_: why the host name of process 0 is; else empty
  detail::outgoing out_;
  bool failed_to_send_ = false, at_end_ = false;
  std::deque<std::string> shared_, gathered_;
  std::optional<std::string> failure_;
  int exceptions_ = std::uncaught_exceptions();
};

}  // namespace pipesched
