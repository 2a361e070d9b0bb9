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
#include <utility>
#include <vector>

#include "pipesched/execute/transport.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/launch/detail/parcels.hpp"
#include "pipesched/mpi/detail/notices.hpp"
#include "pipesched/mpi/mpi_error.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

// Calls `f(memory)`. If it throws, its collective operation is abandoned and MPI may still use the memory, which then stays.
template <typename Memory, typename F>
auto kept_after_failure(Memory&& of, F&& f) {
  auto memory = std::make_unique<Memory>(std::forward<Memory>(of));
  try {
    return f(*memory);
  } catch (...) {
    static_cast<void>(memory.release());
    throw;
  }
}

}  // namespace detail

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
    detail::require_mpi(MPI_Comm_dup(communicator, &data_), "MPI_Comm_dup");
    notices_ = std::make_unique<detail::mpi_notices>(communicator);
  }
  mpi_coordinator(const mpi_coordinator&) = delete;
  mpi_coordinator& operator=(const mpi_coordinator&) = delete;
  /// After a failure the communicators are not freed, as other processes may no longer take part.
  ~mpi_coordinator() override {
    if (notices_->failure()) {
      static_cast<void>(notices_.release());  // MPI may still read from them
      return;
    }
    MPI_Comm_free(&data_);
    notices_->free();
  }

  std::uint32_t rank() const override { return notices_->rank(); }
  std::uint32_t size() const override { return notices_->size(); }

  std::string broadcast(std::string_view mine) override {
    meet();
    struct {
      std::uint64_t length;
      std::string text;
    } memory{mine.size(), std::string(mine)};
    return detail::kept_after_failure(std::move(memory), [&](auto& m) {
      MPI_Request request = MPI_REQUEST_NULL;
      MPI_Ibcast(&m.length, 1, MPI_UINT64_T, 0, data_, &request);
      wait(request);
      m.text.resize(m.length);
      MPI_Ibcast(m.text.data(), count_of(m.length), MPI_BYTE, 0, data_, &request);
      wait(request);
      return std::move(m.text);
    });
  }
  std::vector<parcel> exchange(std::span<const parcel> mine) override {
    std::vector<std::string> to(size());  // each with this process as the sender
    for (const parcel& p : mine) {
      if (p.rank >= size())
        throw schedule_error(detail::concat({"a job of ", size(), " processes has no process ", p.rank}));
      const parcel sent{rank(), p.text};
      to[p.rank] += detail::pack({&sent, 1});
    }
    struct texts {
      std::string all;
      std::vector<int> lengths, at;
    };
    struct {
      texts out, in;
    } memory;
    for (const std::string& text : to) memory.out.lengths.push_back(count_of(text.size())), memory.out.all += text;
    memory.out.at = offsets(memory.out.lengths), memory.in.lengths.resize(size());
    meet();
    return detail::kept_after_failure(std::move(memory), [&](auto& m) {
      MPI_Request request = MPI_REQUEST_NULL;
      MPI_Ialltoall(m.out.lengths.data(), 1, MPI_INT, m.in.lengths.data(), 1, MPI_INT, data_, &request);
      wait(request);
      m.in.at = offsets(m.in.lengths);
      m.in.all.resize(static_cast<std::size_t>(m.in.at.back()));
      MPI_Ialltoallv(m.out.all.data(), m.out.lengths.data(), m.out.at.data(), MPI_BYTE, m.in.all.data(),
                     m.in.lengths.data(), m.in.at.data(), MPI_BYTE, data_, &request);
      wait(request);
      return detail::unpack(m.in.all).value();
    });
  }

  std::string report_failure(std::string_view cause) override {
    const auto locked = [this](auto&& f) {
      const std::lock_guard lock(mutex_);
      return f();
    };
    const std::string first = locked([&] { return fail(cause); });
    const auto sent = [&] { return locked([this] { return notices_->has_sent_failure(); }); };
    detail::wait_within(std::chrono::seconds(2), sent);  // a receiver may be gone
    return first;
  }
  /// Sends nothing as long as the process moves.
  void report_position(std::string_view position, progress_state state) override {
    const std::lock_guard lock(mutex_);
    if (state == progress_state::moves && state_ == progress_state::moves) return;
    if (notices_->report_position(std::string(1, static_cast<char>(state)).append(position))) state_ = state;
    if (state != progress_state::stalled) return;
    for (const auto& other : notices_->positions())
      if (state_of(other.text) == progress_state::between_steps) return;
    fail(nothing_moved(position));
  }
  std::optional<std::string> failure() override {
    const std::lock_guard lock(mutex_);
    return notices_->failure();
  }

 private:
  static progress_state state_of(std::string_view notice) {
    return notice.empty() ? progress_state::moves : static_cast<progress_state>(notice[0]);
  }
  // Reports a failure with the positions of the processes that wait.
  std::string fail(std::string_view cause) {
    std::string text(cause);
    for (const auto& other : notices_->positions())
      if (const auto state = state_of(other.text); state == progress_state::waits || state == progress_state::stalled)
        text.append("\n").append(other.text, 1);
    return notices_->report_failure(text);
  }
  static int count_of(std::uint64_t bytes) {
    constexpr std::uint64_t max = 0x7FFF'FFFF;
    if (bytes > max)
      throw schedule_error(detail::concat({"processes share at most ", max, " bytes each; got ", bytes}));
    return static_cast<int>(bytes);
  }
  // Of texts of these lengths, one after the other; at last their end.
  static std::vector<int> offsets(const std::vector<int>& lengths) {
    std::vector<int> at{0};
    for (const int length : lengths)
      at.push_back(count_of(static_cast<std::uint64_t>(std::int64_t{at.back()} + length)));
    return at;
  }
  // Waits until all processes are here: no late one then writes into the memory of a collective operation that was abandoned.
  void meet() {
    require_going();
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Ibarrier(data_, &request);
    wait(request);
  }
  // Waits for a collective operation, unless a process fails or the time is over; the operation is then abandoned.
  void wait(MPI_Request& request) {
    const auto ends = [&] {
      int done = 0;
      MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      if (done == 0) require_going();
      return done != 0;
    };
    if (detail::wait_within(limit_, ends)) return;
    report_failure(detail::concat({"process ", rank(), " waits for the others, and not all came in time"}));
    require_going();
  }
  void require_going() {
    if (const auto cause = failure()) throw pipeline_aborted("aborted: " + *cause);
  }

  std::chrono::duration<double> limit_;
  MPI_Comm data_ = MPI_COMM_NULL;
  std::unique_ptr<detail::mpi_notices> notices_;
  std::mutex mutex_;                              // of notices_
  progress_state state_ = progress_state::moves;  // as the other processes know it
};

}  // namespace pipesched
