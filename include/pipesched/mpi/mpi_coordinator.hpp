// SPDX-License-Identifier: MIT
#pragma once

// A coordinator over MPI, for jobs that mpirun or srun starts with MPI: it needs no port, address or token. Processes hear of
// failures that others report, and of positions where others stall; a killed process is noticed by the launcher or by a time
// limit alone.

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/execute/failure.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/launch/detail/texts.hpp"
#include "pipesched/mpi/detail/notices.hpp"
#include "pipesched/mpi/mpi_error.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Construction and destruction are collective.
class mpi_coordinator : public coordinator {
 public:
  /// Works over duplicates of the communicator.
  /// @param time_limit  how long to wait for other processes in collective calls
  /// @pre MPI_Init_thread has provided MPI_THREAD_MULTIPLE, as transports ask for failures in a thread of their own
  /// @throws schedule_error if it has provided less; mpi_error
  explicit mpi_coordinator(MPI_Comm communicator, std::chrono::duration<double> time_limit = std::chrono::minutes(10))
      : limit_(detail::checked_time_limit(time_limit)) {
    int provided = 0;
    MPI_Query_thread(&provided);
    if (provided != MPI_THREAD_MULTIPLE)
      throw schedule_error("mpi_coordinator needs MPI_THREAD_MULTIPLE of MPI_Init_thread, which has provided less");
    data_ = detail::duplicate(communicator);
    notices_ = std::make_unique<detail::mpi_notices>(communicator);
  }
  mpi_coordinator(const mpi_coordinator&) = delete;
  mpi_coordinator& operator=(const mpi_coordinator&) = delete;
  /// After a failure the communicators are not freed, as other processes may no longer take part.
  ~mpi_coordinator() override {
    bool failed = true;
    try {
      failed = notices_->failure().has_value();
    } catch (...) {  // no memory for a text
    }
    if (failed) {
      static_cast<void>(notices_.release());  // MPI may still read from them
      return;
    }
    MPI_Comm_free(&data_);
    notices_->free();
  }

  std::uint32_t rank() const override { return notices_->rank(); }
  std::uint32_t size() const override { return notices_->size(); }

  /// @throws mpi_error, too
  std::vector<parcel> exchange(std::span<const parcel> mine) override {
    auto memory = std::make_unique<mail>(size());
    for (const parcel& p : mine) {
      require_process(p.rank);
      const parcel from_here{rank(), p.text};
      memory->to[p.rank].text += detail::pack({&from_here, 1});
      memory->lengths[p.rank] = count_of(memory->to[p.rank].text.size());
    }
    const in_call here(*this);
    try {
      return exchange(*memory);
    } catch (...) {
      static_cast<void>(memory.release());  // MPI may still use it
      throw;
    }
  }

  std::string report_failure(std::string_view cause) override {
    const auto locked = [this](auto&& f) {
      const std::lock_guard lock(mutex_);
      return f();
    };
    const std::string first = locked([&] { return fail(std::string(cause)); });
    const auto sent = [&] { return locked([this] { return notices_->has_sent_failure(); }); };
    detail::wait_within(std::chrono::seconds(2), sent);  // a receiver may be gone
    return first;
  }
  /// Sends nothing as long as the process moves.
  void report_position(std::string_view position, progress_state state) override {
    const std::lock_guard lock(mutex_);
    if (in_call_ && state == progress_state::between_steps) state = progress_state::moves;
    if (state == progress_state::moves && state_ == progress_state::moves) return;
    if (notices_->report_position(position, state)) state_ = state;
    if (notices_->positions().stalls(rank())) fail(nothing_moved(position));
  }
  std::chrono::steady_clock::time_point last_pause() override {
    const std::lock_guard lock(mutex_);
    if (notices_->positions().any_between_steps()) last_pause_ = std::chrono::steady_clock::now();
    return last_pause_;
  }
  std::optional<std::string> failure() override {
    const std::lock_guard lock(mutex_);
    return notices_->failure();
  }

 private:
  // In a collective call a process delays no other one, though it may be between steps.
  class in_call {
   public:
    explicit in_call(mpi_coordinator& of) : of_(of) { set(true); }
    in_call(const in_call&) = delete;
    in_call& operator=(const in_call&) = delete;
    ~in_call() { set(false); }

   private:
    void set(bool is) {
      const std::lock_guard lock(of_.mutex_);
      of_.in_call_ = is;
      if (is && of_.state_ == progress_state::between_steps)
        of_.notices_->report_state(of_.state_ = progress_state::moves);
    }
    mpi_coordinator& of_;
  };

  // The texts of an exchange, by process.
  struct mail {
    struct side {
      std::string text{};
      MPI_Request request = MPI_REQUEST_NULL;
    };
    explicit mail(std::size_t size) : to(size), from(size), lengths(2 * size) {}
    std::vector<side> to, from;
    std::vector<int> lengths;  // to, from
  };

  std::vector<parcel> exchange(mail& m) {
    int* const lengths_from = m.lengths.data() + size();
    MPI_Request request = MPI_REQUEST_NULL;
    require_going();
    // No late process then writes into the memory of an exchange that was abandoned.
    detail::require_mpi(MPI_Ibarrier(data_, &request), "MPI_Ibarrier");
    wait(request);
    detail::require_mpi(MPI_Ialltoall(m.lengths.data(), 1, MPI_INT, lengths_from, 1, MPI_INT, data_, &request),
                        "MPI_Ialltoall");
    wait(request);
    for (std::size_t r = 0; r < size(); ++r) {
      m.from[r].text.resize(static_cast<std::size_t>(lengths_from[r]));
      start(m.from[r], r, MPI_Irecv, "MPI_Irecv");
      start(m.to[r], r, MPI_Isend, "MPI_Isend");
    }
    std::string received;
    for (std::size_t r = 0; r < size(); ++r) {
      wait(m.from[r].request);
      wait(m.to[r].request);
      received += m.from[r].text;
    }
    return detail::unpack(received).value();
  }
  template <typename Call>
  void start(mail::side& of, std::size_t process, Call call, const char* name) {
    if (of.text.empty()) return;
    detail::require_mpi(
        call(of.text.data(), count_of(of.text.size()), MPI_BYTE, static_cast<int>(process), 0, data_, &of.request),
        name);
  }
  // Reports a failure with the positions of the processes that wait.
  std::string fail(const std::string& cause) { return notices_->report_failure(notices_->positions().report(cause)); }
  static int count_of(std::size_t bytes) {
    constexpr std::size_t max = 0x7FFF'FFFF;
    if (bytes > max)
      throw schedule_error(detail::concat({"processes share at most ", max, " bytes each; got ", bytes}));
    return static_cast<int>(bytes);
  }
  // Waits for an operation, unless a process fails or the time is over; the operation is then abandoned.
  void wait(MPI_Request& request) {
    const auto ends = [&] {
      int done = 0;
      detail::require_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done == 0) require_going();
      return done != 0;
    };
    const auto pauses = [this] {
      const std::lock_guard lock(mutex_);
      return notices_->positions().any_between_steps();
    };
    if (!detail::wait_within(limit_, ends, true, pauses)) fail_late();
  }

  std::chrono::duration<double> limit_;
  MPI_Comm data_ = MPI_COMM_NULL;
  std::unique_ptr<detail::mpi_notices> notices_;
  std::mutex mutex_;                              // of notices_ and all that follows
  progress_state state_ = progress_state::moves;  // as the other processes know it
  bool in_call_ = false;
  std::chrono::steady_clock::time_point last_pause_{};
};

}  // namespace pipesched
