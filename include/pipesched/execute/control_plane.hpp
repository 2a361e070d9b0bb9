// SPDX-License-Identifier: MIT
#pragma once

// A notice board over TCP: every process keeps a connection to process 0. A process that is killed loses it, and all others
// are told at once. POSIX.
//
// Whoever can reach the port of process 0 can join or end the job, as with the stores of other launchers: keep it inside the
// cluster.

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/control_server.hpp"
#include "pipesched/execute/launch_environment.hpp"
#include "pipesched/execute/notice_board.hpp"

namespace pipesched {

/// Construction and destruction are collective.
class control_plane : public notice_board {
 public:
  /// As a launcher has it.
  /// @param time_limit  how long to wait for other processes
  /// @throws schedule_error if process 0 cannot listen, or cannot be reached in time
  explicit control_plane(const launch_environment& e,
                         std::chrono::duration<double> time_limit = std::chrono::seconds(60))
      : rank_(e.rank), size_(e.size), time_limit_(time_limit) {
    if (rank_ == 0) server_ = std::make_unique<detail::control_server>(size_, e.port, time_limit);
    join(rank_ == 0 ? "127.0.0.1" : e.address, rank_ == 0 ? server_->port() : e.port);
  }
  /// As MPI has it, or whatever else can hand bytes of process 0 to all.
  /// @param broadcast  called once with a span of bytes: those of process 0 into those of all others.
  ///                   MPI: [&](std::span<std::byte> b) { MPI_Bcast(b.data(), int(b.size()), MPI_BYTE, 0, comm); }
  template <typename Broadcast>
  control_plane(std::uint32_t rank, std::uint32_t size, Broadcast&& broadcast,
                std::chrono::duration<double> time_limit = std::chrono::seconds(60))
      : rank_(rank), size_(size), time_limit_(time_limit) {
    struct {
      std::array<char, 256> host{};
      std::uint16_t port = 0;
    } where;
    if (rank == 0) {
      server_ = std::make_unique<detail::control_server>(size, std::uint16_t{0}, time_limit);
      ::gethostname(where.host.data(), where.host.size() - 1);
      where.port = server_->port();
    }
    broadcast(std::as_writable_bytes(std::span(&where, 1)));
    join(rank == 0 ? "127.0.0.1" : where.host.data(), where.port);
  }
  control_plane(const control_plane&) = delete;
  control_plane& operator=(const control_plane&) = delete;
  /// Process 0 stays, within the time limit, until all others have left.
  ~control_plane() override {
    const std::lock_guard lock(mutex_);
    send('b', "");
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
    send(stands_still ? 'w' : 'p', place.substr(0, 1u << 12));
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
    if (rank_ != 0) return {};
    wait_for([&] { return gathered_.size() >= size_; });
    const std::vector<std::string> all(gathered_.begin(), gathered_.begin() + size_);
    gathered_.erase(gathered_.begin(), gathered_.begin() + size_);
    return all;
  }

 private:
  using clock = std::chrono::steady_clock;

  void join(const std::string& host, std::uint16_t port) {
    const auto start = clock::now();
    const std::string service = std::to_string(port);
    while (!connect(host, service)) {  // process 0 may not be there yet
      if (clock::now() - start > time_limit_)
        throw schedule_error(detail::concat(
            {"process ", rank_, " cannot reach process 0 at ", host, " port ", port, " within the time limit"}));
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    detail::prepare_socket(socket_.get());
    send('h', detail::concat({"pipesched ", rank_, " ", size_}));
  }
  bool connect(const std::string& host, const std::string& service) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    if (::getaddrinfo(host.c_str(), service.c_str(), &hints, &found) != 0) return false;
    for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
      detail::socket_handle s(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
      if (s.get() < 0 || ::connect(s.get(), a->ai_addr, a->ai_addrlen) != 0) continue;
      socket_ = std::move(s);
      break;
    }
    ::freeaddrinfo(found);
    return socket_.get() >= 0;
  }

  // @pre mutex_ is held, here and in listen()
  void send(char kind, std::string_view text) {
    const std::string bytes = detail::pack(kind, text);
    for (std::size_t at = 0; at < bytes.size();) {
      const ssize_t n = ::send(socket_.get(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (n <= 0) return;  // listen() tells
      at += static_cast<std::size_t>(n);
    }
  }
  void listen() {
    const bool goes_on = detail::receive_some(socket_.get(), in_);
    while (auto f = detail::unpack(in_)) {
      if (f->kind == 's') shared_.push_back(std::move(f->text));
      if (f->kind == 'g') gathered_.push_back(std::move(f->text));
      if (f->kind == 'f' && !failure_) failure_ = std::move(f->text);
    }
    if (!goes_on && !failure_) failure_ = "process 0 is gone";
  }
  void give(char kind, std::string_view mine) {
    const std::lock_guard lock(mutex_);
    listen();
    if (failure_) throw pipeline_aborted("aborted: " + *failure_);
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
      {
        const std::lock_guard lock(mutex_);
        listen();
        if (done()) return true;
      }
      pollfd polled{socket_.get(), POLLIN, 0};
      ::poll(&polled, 1, 50);  // another thread may have taken what came
    }
    return false;
  }

  std::uint32_t rank_, size_;
  std::chrono::duration<double> time_limit_;
  std::unique_ptr<detail::control_server> server_;
  detail::socket_handle socket_;
  std::mutex mutex_;
  std::string in_;
  std::deque<std::string> shared_, gathered_;
  std::optional<std::string> failure_;
};

}  // namespace pipesched
