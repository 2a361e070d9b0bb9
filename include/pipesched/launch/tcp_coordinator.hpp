// SPDX-License-Identifier: MIT
#pragma once

// A coordinator over TCP (standalone Asio): every process keeps a connection to process 0, and all hear at once of one
// that is killed, as its connection ends. Process 0 listens on the interface of the job's master address alone, and takes
// no process without the job's token. Neither is encrypted: keep the port inside the cluster.

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/execute/failure.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/launch/detail/connection.hpp"
#include "pipesched/launch/detail/job.hpp"
#include "pipesched/launch/detail/texts.hpp"
#include "pipesched/launch/environment.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Construction and destruction are collective.
class tcp_coordinator : public coordinator {
  using clock = std::chrono::steady_clock;

 public:
  using seconds = std::chrono::duration<double>;

  /// For the processes of a launcher.
  /// @param time_limit  how long to wait for other processes, here and in collective calls; see exchange() for pauses
  /// @throws schedule_error if process 0 cannot listen, if the name of its host is unknown, or if it cannot be reached in
  /// time. An unknown name is looked up again until then: the name of a container may appear after its peers have started.
  /// A name server that does not answer is waited for as long as the system's resolver does
  explicit tcp_coordinator(const launch_environment& e, seconds time_limit = std::chrono::minutes(10))
      : rank_(e.rank), size_(e.size), limit_(detail::checked_time_limit(time_limit)), token_(e.token) {
    require_process(rank_);
    detail::require_token(token_, "the job's token");
    if (size_ > 1 && (e.address.empty() || e.port == 0))
      throw schedule_error(
          detail::concat({"a job of ", size_, " processes needs the address and port of process 0; got \"", e.address,
                          "\" and port ", e.port}));
    if (rank_ == 0)
      lead(e.listen.empty() ? e.address : e.listen, e.port);
    else
      connect(e.address, e.port, "MASTER_ADDR is the name or address of its host");
    start();
  }
  /// Over whatever can pass bytes of process 0 to all, such as MPI or a store: process 0 listens on a free port of all
  /// interfaces, and the job has a random token.
  /// @param broadcast  called once with a span of bytes: copies those of process 0 into those of all others.
  ///                   MPI: [&](std::span<std::byte> b) { MPI_Bcast(b.data(), int(b.size()), MPI_BYTE, 0, comm); }
  /// @throws schedule_error as above
  template <std::invocable<std::span<std::byte>> Broadcast>
  tcp_coordinator(std::uint32_t rank, std::uint32_t size, Broadcast&& broadcast,
                  seconds time_limit = std::chrono::minutes(10))
      : rank_(rank), size_(size), limit_(detail::checked_time_limit(time_limit)) {
    require_process(rank_);
    struct {
      std::array<char, 256> host{};
      std::array<char, 16> token{};
      std::uint16_t port = 0;  // 0: process 0 cannot listen
    } where;
    std::exception_ptr error;
    if (rank == 0) try {
        std::random_device random;
        for (char& byte : where.token) byte = static_cast<char>(random());
        where.port = lead("", 0);
        asio::ip::host_name().copy(where.host.data(), where.host.size() - 1);
      } catch (...) {
        error = std::current_exception();
      }
    broadcast(std::as_writable_bytes(std::span(&where, 1)));
    if (error) std::rethrow_exception(error);
    token_.assign(where.token.begin(), where.token.end());
    if (rank != 0 && where.port == 0) throw schedule_error("process 0 cannot listen");
    if (rank != 0) connect(where.host.data(), where.port, "every host of the job has to know it");
    start();
  }
  tcp_coordinator(const tcp_coordinator&) = delete;
  tcp_coordinator& operator=(const tcp_coordinator&) = delete;
  /// Process 0 waits, within the time limit, until all others have left.
  ~tcp_coordinator() override {
    try {
      if (leaves_.is_thrown()) report_failure(detail::concat({"process ", rank_, " left with an exception"}));
      post(detail::frame::leave, "");
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, rank_ == 0 ? limit_ : limit_ / 4, [&] { return over_; });
    } catch (...) {  // no memory
    }
    io_.stop();
  }

  std::uint32_t rank() const override { return rank_; }
  std::uint32_t size() const override { return size_; }

  std::vector<parcel> exchange(std::span<const parcel> mine) override {
    for (const parcel& p : mine) require_process(p.rank);
    require_going();
    std::string text = detail::pack(mine);
    if (text.size() > detail::max_frame)
      throw schedule_error(
          detail::concat({"processes share at most ", detail::max_frame, " bytes each; got ", text.size()}));
    post(detail::frame::exchange, std::move(text));
    std::unique_lock lock(mutex_);
    const auto ends = [&] { return result_ || failure_.is_known(); };
    const auto start = clock::now();
    bool in_time = changed_.wait_for(lock, limit_, ends);
    while (!in_time && clock::now() - start < std::max<seconds>(limit_, detail::longest_pause)) {
      answered_ = false;
      post(detail::frame::pause, "");
      in_time =
          changed_.wait_for(lock, std::min(limit_ / 4, seconds(2)), [&] { return answered_ || ends(); }) && ends();
      const seconds left = limit_ - (clock::now() - std::max(start, last_pause_));
      if (in_time || !answered_ || left.count() <= 0) break;
      in_time = changed_.wait_for(lock, left, ends);
    }
    std::optional<std::string> result = std::exchange(result_, std::nullopt);
    lock.unlock();
    if (!in_time) fail_late();
    if (!result) require_going();
    auto received = detail::unpack(*result).value();
    std::ranges::stable_sort(received, {}, &parcel::rank);  // they are in the order in which their senders came
    return received;
  }
  std::string report_failure(std::string_view cause) override {
    post(detail::frame::failure, std::string(cause.substr(0, std::size_t{1} << 16)));
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::min(limit_ / 4, seconds(2)), [&] { return failure_.is_known(); });
    failure_.set(std::string(cause));  // if process 0 does not answer
    return failure_.text();
  }
  void report_position(std::string_view position, progress_state state) override {
    asio::post(io_, [this, text = detail::pack(position.substr(0, std::size_t{1} << 12), state)]() mutable {
      const bool is_pending = !std::exchange(position_, std::move(text)).empty();
      if (is_pending) return;  // the latest is sent, soon or before any other frame
      timer_.expires_after(std::chrono::milliseconds(50));
      timer_.async_wait([this](std::error_code cancelled) {
        if (!cancelled) send_position();
      });
    });
  }
  clock::time_point last_pause() override {
    const std::lock_guard lock(mutex_);
    return last_pause_;
  }
  std::optional<std::string> failure() override { return failure_.get(); }

 private:
  using tcp = asio::ip::tcp;
  static constexpr const char* program_name = "pipesched";

  tcp::resolver::results_type resolve(const std::string& host, std::uint16_t port, std::error_code& error) {
    tcp::resolver resolver(io_);
    const std::string service = std::to_string(port);
    auto found = resolver.resolve(host, service, error);
    // Names of this host need not be in any table: a bare root folder has no /etc/hosts.
    if (error && (host == "localhost" || host == asio::ip::host_name()))
      found = resolver.resolve("127.0.0.1", service, error);
    return found;
  }

  // Process 0. Returns the port at which it listens; a process alone does not listen, and gets the port that it asked for.
  std::uint16_t lead(const std::string& host, std::uint16_t port) {
    job_.emplace(size_).join(0, size_, [this](detail::frame f) { take(std::move(f)); });
    send_ = [this](detail::frame f) { job_->take(0, std::move(f)); };
    if (size_ == 1) return port;
    rlimit files{};  // one for every process
    if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max)
      files.rlim_cur = files.rlim_max, ::setrlimit(RLIMIT_NOFILE, &files);
    listen(host, port);
    for (tcp::acceptor& a : acceptors_) accept(a);
    return acceptors_.front().local_endpoint().port();
  }
  // @param host  whose addresses to listen on; empty: all interfaces
  void listen(const std::string& host, std::uint16_t port) {
    std::vector<tcp::endpoint> places = {{tcp::v6(), port}, {tcp::v4(), port}};
    std::error_code error;
    if (!host.empty()) {
      const auto found = resolve(host, port, error);
      if (error)
        throw schedule_error(detail::concat({"process 0 does not know its host name \"", host, "\" (", error.message(),
                                             "); MASTER_ADDR is the name or address of its host"}));
      places.assign(found.begin(), found.end());
    }
    for (const tcp::endpoint& place : places) {
      try {
        acceptors_.emplace_back(io_, place);  // opens, binds and listens
      } catch (const std::system_error& e) {
        error = e.code();
      }
      if (host.empty() && !acceptors_.empty()) break;  // IPv6 has IPv4 in it
    }
    if (acceptors_.empty())
      throw schedule_error(detail::concat({"process 0 cannot listen at ", host, " port ", port, ": ", error.message(),
                                           "; MASTER_ADDR is an address of its host, PIPESCHED_LISTEN another one to "
                                           "listen on, MASTER_PORT a free port"}));
  }

  // @param hint  for a host name that is unknown
  void connect(const std::string& host, std::uint16_t port, std::string_view hint) {
    const auto end = clock::now() + std::chrono::duration_cast<clock::duration>(limit_);
    std::error_code unknown;
    where_ = detail::concat({host, " port ", port});
    do {
      for (const auto& place : resolve(host, port, unknown))  // each at most three seconds: another may answer
        if (join(place, std::min(end, clock::now() + std::chrono::seconds(3)))) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    } while (clock::now() < end);  // until then process 0 may still come
    if (unknown)
      throw schedule_error(detail::concat({"process ", rank_, " does not know the host name \"", host,
                                           "\" of process 0 (", unknown.message(), "); ", hint}));
    throw schedule_error(
        detail::concat({"process ", rank_, " cannot reach process 0 at ", where_, " within the time limit"}));
  }
  // False if nothing answers at this place until then.
  bool join(const tcp::endpoint& place, clock::time_point end) {
    tcp::socket socket(io_);
    std::error_code error;
    socket.async_connect(place, [&](std::error_code result) { error = result; });
    io_.restart();
    io_.run_until(end);
    if (!io_.stopped()) socket.close(), io_.run();  // no answer
    // A socket may reach itself where the port is in the range for outgoing connections and no process listens there.
    if (error || socket.local_endpoint(error) == socket.remote_endpoint(error) || error) return false;
    const auto server = std::make_shared<detail::connection>(std::move(socket));
    server->on_frame = [this](detail::frame f) { return take(std::move(f)); };
    send_ = [server](const detail::frame& f) { server->send(f); };
    send_({detail::frame::greeting, greeting(rank_, size_)});
    server->read();
    return true;
  }
  std::string greeting(std::uint32_t rank, std::uint32_t size) const {
    const parcel words[] = {{rank, program_name}, {size, token_}};
    return detail::pack(words);
  }

  void start() {
    io_.restart();
    thread_ = std::jthread([this, work = asio::make_work_guard(io_)] { io_.run(); });
  }

  // In the thread of io_, as all that follows up to take().
  void accept(tcp::acceptor& at) {
    at.async_accept([this, &at](std::error_code error, tcp::socket socket) {
      if (error)  // such as too many open files
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      else
        greet(std::make_shared<detail::connection>(std::move(socket)));
      accept(at);
    });
  }
  void greet(const std::shared_ptr<detail::connection>& with) {
    with->longest = detail::max_greeting;
    with->on_frame = [this, c = with.get(), rank = std::optional<std::uint32_t>()](detail::frame f) mutable {
      if (rank) return job_->take(*rank, std::move(f));
      const auto said = detail::unpack(f.text);
      if (f.is != detail::frame::greeting || !said || said->size() != 2) return false;
      const std::uint32_t process = said->front().rank, size = said->back().rank;
      if (f.text != greeting(process, size)) {  // another token, or a stranger
        const bool is_ours = said->front().text == program_name;
        if (is_ours)
          c->send({detail::frame::failure, detail::concat({"process 0 has another token than process ", process,
                                                           ": PIPESCHED_TOKEN is the same for all of a job"})});
        return is_ours;
      }
      c->longest = detail::max_frame;
      const auto send = [c = c->shared_from_this()](const detail::frame& to) { c->send(to); };
      if (job_->join(process, size, send)) rank = process;
      return true;
    };
    with->read();
    const auto timer = std::make_shared<asio::steady_timer>(io_, std::chrono::seconds(10));
    timer->async_wait([timer, stranger = std::weak_ptr(with)](std::error_code) {
      if (const auto c = stranger.lock(); c && c->longest == detail::max_greeting) c->close();
    });
  }
  void send_position() {
    if (!position_.empty()) send_({detail::frame::position, std::exchange(position_, {})});
  }
  // Takes a frame to this process. False if no more are to be read.
  bool take(detail::frame f) {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
    switch (f.is) {
      case detail::frame::exchange: result_ = std::move(f.text); return true;
      case detail::frame::pause: take_pause(f.text); return true;
      case detail::frame::failure: failure_.set(std::move(f.text)); return true;
      case detail::frame::end: over_ = true, failure_.set("process 0 is gone"); return false;
      default: failure_.set("what listens at " + where_ + " is not process 0 of this job"); return false;
    }
  }

  void take_pause(std::string_view milliseconds) {
    answered_ = true;
    std::int64_t ago = 0;
    if (std::from_chars(milliseconds.data(), milliseconds.data() + milliseconds.size(), ago).ec == std::errc{})
      last_pause_ = std::max(last_pause_, clock::now() - std::chrono::milliseconds(ago));
  }

  // In the threads of the caller.
  void post(detail::frame::kind kind, std::string text) {
    asio::post(io_, [this, f = detail::frame{kind, std::move(text)}]() mutable {
      send_position();
      send_(std::move(f));
    });
  }

  std::uint32_t rank_, size_;
  seconds limit_;
  std::string token_, where_;
  detail::departure leaves_;

  std::mutex mutex_;  // of what callers and the thread of io_ share: down to over_
  std::condition_variable changed_;
  std::optional<std::string> result_;  // of the exchange in progress
  bool answered_ = false;              // process 0 has said when the last pause was
  clock::time_point last_pause_{};
  detail::first_cause failure_;
  bool over_ = false;  // the connection to process 0 has ended; on process 0: all others have gone

  asio::io_context io_;
  std::string position_;                 // not sent yet, in the thread of io_
  asio::steady_timer timer_{io_};        // of the position
  std::deque<tcp::acceptor> acceptors_;  // process 0
  std::optional<detail::job> job_;       // process 0
  detail::job::sender send_;             // of frames to process 0, in the thread of io_
  std::jthread thread_;                  // last: it uses all of these
};

}  // namespace pipesched
