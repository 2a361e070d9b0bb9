// SPDX-License-Identifier: MIT
#pragma once

// A coordinator over TCP (standalone Asio): every process keeps a connection to process 0, and all hear at once of one
// that is killed, as its connection ends. Process 0 listens on the interface of the job's master address alone, and takes
// no process without the job's token. Neither is encrypted: keep the port inside the cluster.

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
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

#include "pipesched/execute/transport.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/launch/detail/connection.hpp"
#include "pipesched/launch/detail/job.hpp"
#include "pipesched/launch/environment.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Construction and destruction are collective.
class tcp_coordinator : public coordinator {
 public:
  using seconds = std::chrono::duration<double>;

  /// For the processes of a launcher.
  /// @param time_limit  how long to wait for other processes, here and in collective calls
  /// @throws schedule_error if process 0 cannot listen, if the name of its host is unknown, or if it cannot be reached in
  /// time. An unknown name is looked up again until then: the name of a container may appear after its peers have started
  explicit tcp_coordinator(const launch_environment& e, seconds time_limit = std::chrono::minutes(10))
      : rank_(e.rank), size_(e.size), limit_(detail::checked_time_limit(time_limit)), token_(e.token) {
    require_rank();
    if (rank_ == 0)
      listen(e.listen.empty() ? e.address : e.listen, e.port);
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
    require_rank();
    struct {
      std::array<char, 256> host{};
      std::array<std::uint32_t, 4> token{};
      std::uint16_t port = 0;
    } where;
    std::exception_ptr error;
    if (rank == 0) {
      try {
        std::random_device random;
        for (std::uint32_t& word : where.token) word = random();
        listen("", 0);
        ::gethostname(where.host.data(), where.host.size() - 1);
        where.port = acceptors_.front().local_endpoint().port();
      } catch (...) {
        error = std::current_exception();
      }
    }
    broadcast(std::as_writable_bytes(std::span(&where, 1)));
    if (error) std::rethrow_exception(error);
    if (where.port == 0) throw schedule_error("process 0 cannot listen");
    for (std::uint32_t word : where.token) token_ += std::to_string(word) + '.';
    if (rank != 0) connect(where.host.data(), where.port, "every host of the job has to know it");
    start();
  }
  tcp_coordinator(const tcp_coordinator&) = delete;
  tcp_coordinator& operator=(const tcp_coordinator&) = delete;
  /// Process 0 waits, within the time limit, until all others have left.
  ~tcp_coordinator() override {
    try {
      if (std::uncaught_exceptions() > exceptions_)
        report_failure(detail::concat({"process ", rank_, " left with an exception"}));
      post_frame(detail::frame::leave, "");
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, rank_ == 0 ? limit_ : limit_ / 4, [&] { return over_; });
    } catch (...) {  // no memory
    }
    io_.stop();
  }

  std::uint32_t rank() const override { return rank_; }
  std::uint32_t size() const override { return size_; }

  std::string broadcast(std::string_view mine) override {
    give(detail::frame::broadcast, mine);
    return wait_for(broadcasts_);
  }
  std::vector<parcel> exchange(std::span<const parcel> mine) override {
    for (const parcel& p : mine)
      if (p.rank >= size_)
        throw schedule_error(detail::concat({"a job of ", size_, " processes has no process ", p.rank}));
    give(detail::frame::exchange, detail::pack(mine));
    return detail::unpack(wait_for(exchanges_)).value();
  }
  std::string report_failure(std::string_view cause) override {
    post_frame(detail::frame::failure, cause.substr(0, std::size_t{1} << 16));
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::min(limit_ / 4, seconds(2)), [&] { return failure_.has_value(); });
    if (!failure_) failure_ = std::string(cause);  // process 0 does not answer
    return *failure_;
  }
  void report_position(std::string_view position, progress_state state) override {
    const std::lock_guard lock(mutex_);
    position_.assign(1, static_cast<char>(state)).append(position.substr(0, std::size_t{1} << 12));
    if (std::exchange(position_pending_, true)) return;  // the latest is sent
    asio::post(io_, [this] {
      std::unique_lock guard(mutex_);
      position_pending_ = false;
      std::string text = position_;
      guard.unlock();
      send_own(detail::frame::position, std::move(text));
    });
  }
  std::optional<std::string> failure() override {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  using clock = std::chrono::steady_clock;
  using tcp = asio::ip::tcp;

  void require_rank() const {
    if (rank_ >= size_) throw schedule_error(detail::concat({"a job of ", size_, " processes has no process ", rank_}));
  }

  // Names of this host need not be in any table: a bare root folder has no /etc/hosts.
  static bool is_this_host(const std::string& name) {
    std::array<char, 256> own{};
    return name == "localhost" || (::gethostname(own.data(), own.size() - 1) == 0 && name == own.data());
  }
  tcp::resolver::results_type resolve(const std::string& host, std::uint16_t port, std::error_code& error) {
    tcp::resolver resolver(io_);
    const std::string service = std::to_string(port);
    auto found = resolver.resolve(host, service, error);
    if (error && is_this_host(host)) found = resolver.resolve("127.0.0.1", service, error);
    return found;
  }

  // @param host  whose addresses to listen on; empty: all interfaces
  void listen(const std::string& host, std::uint16_t port) {
    rlimit files{};  // one for every process
    if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max)
      files.rlim_cur = files.rlim_max, ::setrlimit(RLIMIT_NOFILE, &files);
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
      if (host.empty() && !acceptors_.empty()) return;  // IPv6 has IPv4 in it
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
    while (!try_connect(resolve(host, port, unknown), end)) {
      if (clock::now() > end) {  // until then process 0 may still come
        if (unknown)
          throw schedule_error(detail::concat({"process ", rank_, " does not know the host name \"", host,
                                               "\" of process 0 (", unknown.message(), "); ", hint}));
        throw schedule_error(
            detail::concat({"process ", rank_, " cannot reach process 0 at ", where_, " within the time limit"}));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  bool try_connect(const tcp::resolver::results_type& places, clock::time_point end) {
    for (const auto& place : places) {  // one after the other, each at most three seconds: another may answer
      tcp::socket socket(io_);
      std::optional<std::error_code> result;
      socket.async_connect(place, [&](std::error_code error) { result = error; });
      const auto give_up = std::min(end, clock::now() + std::chrono::seconds(3));
      while (!result && io_.run_one_until(give_up) > 0) {
      }
      if (!result) socket.close(), io_.poll();
      if (!result || *result) continue;
      // A socket may reach itself where the port is in the range for outgoing connections and no process listens there.
      std::error_code error;
      if (socket.local_endpoint(error) == socket.remote_endpoint(error) || error) continue;
      server_ = std::make_shared<detail::connection>(std::move(socket));
      return true;
    }
    return false;
  }

  void start() {
    if (rank_ == 0) {
      members_.resize(size_);
      job_ = std::make_unique<detail::job>(
          size_, [this](std::uint32_t process, detail::frame::kind kind, const std::string& text) {
            if (process == 0)
              take({kind, text});
            else if (members_[process])
              members_[process]->send(kind, text);
          });
      job_->join(0);
      for (tcp::acceptor& a : acceptors_) accept(a);
    } else {
      server_->on_frame = [this](detail::frame f) { return take(std::move(f)); };
      server_->on_close = [this] { lose_server(); };
      server_->send(detail::frame::greeting, detail::concat({"pipesched ", rank_, " ", size_, " ", token_}));
      server_->read();
    }
    io_.restart();
    thread_ = std::jthread([this] { io_.run(); });
  }

  // In the thread of io_, as all that follows up to give().
  void accept(tcp::acceptor& at) {
    at.async_accept([this, &at](std::error_code error, tcp::socket socket) {
      if (!error) {
        auto c = std::make_shared<detail::connection>(std::move(socket));
        c->longest = detail::max_greeting;
        c->on_frame = [this, c = c.get()](const detail::frame& f) { return greet(*c, f); };
        c->read();
      } else {  // such as too many open files
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      accept(at);
    });
  }
  bool greet(detail::connection& c, const detail::frame& f) {
    constexpr std::string_view magic = "pipesched ";
    if (f.is != detail::frame::greeting || !f.text.starts_with(magic)) return false;
    std::string_view rest = std::string_view(f.text).substr(magic.size());
    const auto rank = detail::read_number(rest, ~0u);
    if (!rank || !rest.starts_with(' ')) return false;
    rest.remove_prefix(1);
    const auto size = detail::read_number(rest, ~0u);
    if (!size || rest != " " + token_) return false;
    if (*size != size_ || *rank >= size_ || !job_->is_awaited(*rank)) {
      c.send(detail::frame::failure, detail::concat({"process ", *rank, " of ", *size, " has joined a job of ", size_,
                                                     *size == size_ ? ", which has it already" : ""}));
      return false;
    }
    members_[*rank] = c.shared_from_this();
    c.longest = detail::max_frame;
    c.on_close = [this, rank = *rank] {
      members_[rank].reset();
      job_->lose(rank);
      note_end();
    };
    c.on_frame = [this, rank = *rank](detail::frame frame) {
      const bool leaves = frame.is == detail::frame::leave;
      return job_->take(rank, std::move(frame)) && !leaves;
    };
    job_->join(*rank);
    return true;
  }
  void note_end() {
    const std::lock_guard lock(mutex_);
    over_ = job_->is_over() && std::ranges::none_of(members_, [](const auto& c) { return c != nullptr; });
    changed_.notify_all();
  }
  void lose_server() {
    const std::lock_guard lock(mutex_);
    over_ = true;
    if (!failure_) failure_ = "process 0 is gone";
    changed_.notify_all();
  }
  // A frame to this process.
  bool take(detail::frame f) {
    const std::lock_guard lock(mutex_);
    if (f.is == detail::frame::broadcast) broadcasts_.push_back(std::move(f.text));
    if (f.is == detail::frame::exchange) exchanges_.push_back(std::move(f.text));
    if (f.is == detail::frame::failure && !failure_) failure_ = std::move(f.text);
    changed_.notify_all();
    if (f.is == detail::frame::broadcast || f.is == detail::frame::exchange || f.is == detail::frame::failure)
      return true;
    if (!failure_) failure_ = detail::concat({"what listens at ", where_, " is not process 0 of this job"});
    return false;
  }
  void send_own(detail::frame::kind kind, std::string text) {
    if (rank_ != 0) return server_->send(kind, text);
    job_->take(0, {kind, std::move(text)});
    if (kind == detail::frame::leave) note_end();
  }

  // In the threads of the caller.
  void post_frame(detail::frame::kind kind, std::string_view text) {
    asio::post(io_, [this, kind, copy = std::string(text)]() mutable { send_own(kind, std::move(copy)); });
  }
  void give(detail::frame::kind kind, std::string_view mine) {
    if (const auto cause = failure()) throw pipeline_aborted("aborted: " + *cause);
    if (mine.size() > detail::max_frame)
      throw schedule_error(
          detail::concat({"processes share at most ", detail::max_frame, " bytes each; got ", mine.size()}));
    post_frame(kind, mine);
  }
  std::string wait_for(std::deque<std::string>& results) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, limit_, [&] { return !results.empty() || failure_; })) {
      lock.unlock();
      report_failure(detail::concat({"process ", rank_, " waits for the others, and not all came in time"}));
      lock.lock();
    }
    if (results.empty()) throw pipeline_aborted("aborted: " + *failure_);
    std::string text = std::move(results.front());
    results.pop_front();
    return text;
  }

  std::uint32_t rank_, size_;
  seconds limit_;
  std::string token_, where_;
  int exceptions_ = std::uncaught_exceptions();

  std::mutex mutex_;  // of what callers and the thread of io_ share: down to over_
  std::condition_variable changed_;
  std::deque<std::string> broadcasts_, exchanges_;
  std::optional<std::string> failure_;
  std::string position_;
  bool position_pending_ = false;
  bool over_ = false;  // the connection to process 0 has ended; on process 0: all others have gone

  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_ = asio::make_work_guard(io_);
  std::vector<tcp::acceptor> acceptors_;                      // process 0
  std::unique_ptr<detail::job> job_;                          // process 0
  std::vector<std::shared_ptr<detail::connection>> members_;  // process 0: by rank
  std::shared_ptr<detail::connection> server_;                // the others: to process 0
  std::jthread thread_;                                       // last: it uses all of these
};

}  // namespace pipesched
