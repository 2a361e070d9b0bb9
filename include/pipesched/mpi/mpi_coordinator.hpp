// SPDX-License-Identifier: MIT
#pragma once

// A coordinator over MPI, for jobs that mpirun or srun starts with MPI: no port, no address, no token. It hears of failures
// that a process reports; of a process that is killed only the launcher, or a time limit, tells.

#include <mpi.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Construction and destruction are collective.
class mpi_coordinator : public coordinator {
 public:
  /// Works over duplicates of the communicator. @pre MPI_Init_thread has provided MPI_THREAD_MULTIPLE: transports ask for
  /// failures in a thread of their own. @throws schedule_error if it has not
  explicit mpi_coordinator(MPI_Comm communicator, std::chrono::duration<double> time_limit = std::chrono::minutes(10))
      : limit_(detail::checked_time_limit(time_limit)) {
    int provided = 0, rank = 0, size = 0;
    MPI_Query_thread(&provided);
    if (provided != MPI_THREAD_MULTIPLE)
      throw schedule_error("mpi_coordinator needs MPI_THREAD_MULTIPLE of MPI_Init_thread, which has provided less");
    MPI_Comm_dup(communicator, &data_);
    MPI_Comm_dup(communicator, &reports_);
    MPI_Comm_rank(data_, &rank), MPI_Comm_size(data_, &size);
    rank_ = static_cast<std::uint32_t>(rank), size_ = static_cast<std::uint32_t>(size);
    sent_.resize(size_, MPI_REQUEST_NULL);
  }
  mpi_coordinator(const mpi_coordinator&) = delete;
  mpi_coordinator& operator=(const mpi_coordinator&) = delete;
  /// After a failure the communicators are not freed, as other processes may no longer be there to take part.
  ~mpi_coordinator() override {
    if (failure()) return;
    MPI_Comm_free(&data_);
    MPI_Comm_free(&reports_);
  }

  std::uint32_t rank() const override { return rank_; }
  std::uint32_t size() const override { return size_; }

  std::string broadcast(std::string_view mine) override {
    std::string text(mine);
    std::uint64_t length = mine.size();
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Ibarrier(data_, &request);
    wait(request);
    MPI_Ibcast(&length, 1, MPI_UINT64_T, 0, data_, &request);
    wait(request);
    text.resize(length);
    MPI_Ibcast(text.data(), count_of(length), MPI_BYTE, 0, data_, &request);
    wait(request);
    return text;
  }
  std::vector<parcel> exchange(std::span<const parcel> mine) override {
    std::vector<parcel> out(mine.begin(), mine.end());
    std::ranges::stable_sort(out, {}, &parcel::rank);
    std::vector<int> counts(size_), lengths;  // parcels for each process; the lengths of all of them
    std::string bytes;
    for (const parcel& p : out) {
      if (p.rank >= size_)
        throw schedule_error(detail::concat({"a job of ", size_, " processes has no process ", p.rank}));
      ++counts[p.rank];
      lengths.push_back(count_of(p.text.size()));
      bytes += p.text;
    }
    const std::vector<int> in_counts = all_to_all(std::vector<int>(size_, 1), counts, std::vector<int>(size_, 1));
    const std::vector<int> in_lengths = all_to_all(counts, lengths, in_counts);
    const auto sums = [&](const std::vector<int>& parts, const std::vector<int>& of) {
      std::vector<int> sum(size_);
      std::size_t next = 0;
      for (std::uint32_t r = 0; r < size_; ++r)
        for (int n = parts[r]; n > 0; --n) sum[r] += of[next++];
      return sum;
    };
    const std::vector<int> out_bytes = sums(counts, lengths), in_bytes = sums(in_counts, in_lengths);
    const std::vector<char> received = all_to_all(out_bytes, std::vector<char>(bytes.begin(), bytes.end()), in_bytes);
    std::vector<parcel> in;
    std::size_t at = 0, next = 0;
    for (std::uint32_t r = 0; r < size_; ++r)
      for (int n = in_counts[r]; n > 0; --n) {
        const auto length = static_cast<std::size_t>(in_lengths[next++]);
        in.push_back({r, std::string(received.data() + at, length)});
        at += length;
      }
    return in;
  }

  std::string report_failure(std::string_view cause) override {
    if (const auto first = failure()) return *first;
    const std::lock_guard lock(mutex_);
    failure_ = std::string(cause.substr(0, max_text));
    for (std::uint32_t r = 0; r < size_; ++r)
      if (r != rank_)
        MPI_Isend(failure_->data(), count_of(failure_->size()), MPI_BYTE, static_cast<int>(r), failure_tag, reports_,
                  &sent_[r]);
    int sent = 0;  // within a moment: a receiver may be gone
    for (const auto start = clock::now(); sent == 0 && clock::now() - start < std::chrono::seconds(2);)
      MPI_Testall(static_cast<int>(size_), sent_.data(), &sent, MPI_STATUSES_IGNORE);
    return *failure_;
  }
  /// Positions are not passed on: a report has that of the process that failed alone.
  void report_position(std::string_view, bool) override {}
  std::optional<std::string> failure() override {
    const std::lock_guard lock(mutex_);
    int there = 0;
    MPI_Status status;
    if (failure_ || MPI_Iprobe(MPI_ANY_SOURCE, failure_tag, reports_, &there, &status) != MPI_SUCCESS || there == 0)
      return failure_;
    int length = 0;
    MPI_Get_count(&status, MPI_BYTE, &length);
    failure_.emplace(static_cast<std::size_t>(length), ' ');
    MPI_Recv(failure_->data(), length, MPI_BYTE, status.MPI_SOURCE, failure_tag, reports_, MPI_STATUS_IGNORE);
    return failure_;
  }

 private:
  using clock = std::chrono::steady_clock;
  static constexpr int failure_tag = 1;
  static constexpr std::size_t max_text = std::size_t{1} << 16;

  static int count_of(std::uint64_t bytes) {
    constexpr std::uint64_t max = 0x7FFF'FFFF;
    if (bytes > max)
      throw schedule_error(detail::concat({"processes share at most ", max, " bytes each; got ", bytes}));
    return static_cast<int>(bytes);
  }
  // Waits for a collective operation, unless a process fails or the time is over; the operation is then abandoned.
  void wait(MPI_Request& request) {
    int done = 0;
    for (const auto start = clock::now();;) {
      MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      if (done != 0) return;
      if (clock::now() - start > limit_)
        report_failure(detail::concat({"process ", rank_, " waits for the others, and not all came in time"}));
      if (const auto cause = failure()) throw pipeline_aborted("aborted: " + *cause);
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  // Sends out[...] by process, so many values to each, and returns what the others have sent.
  template <typename T>
  std::vector<T> all_to_all(const std::vector<int>& to, const std::vector<T>& out, const std::vector<int>& from) {
    std::vector<int> to_at(size_), from_at(size_);
    for (std::uint32_t r = 1; r < size_; ++r)
      to_at[r] = to_at[r - 1] + to[r - 1], from_at[r] = from_at[r - 1] + from[r - 1];
    std::vector<T> in(static_cast<std::size_t>(from_at.back() + from.back()));
    const MPI_Datatype type = sizeof(T) == 1 ? MPI_BYTE : MPI_INT;
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Ialltoallv(out.data(), to.data(), to_at.data(), type, in.data(), from.data(), from_at.data(), type, data_,
                   &request);
    wait(request);
    return in;
  }

  std::uint32_t rank_ = 0, size_ = 0;
  std::chrono::duration<double> limit_;
  MPI_Comm data_ = MPI_COMM_NULL, reports_ = MPI_COMM_NULL;
  std::mutex mutex_;
  std::optional<std::string> failure_;
  std::vector<MPI_Request> sent_;  // of failure_, by process
};

}  // namespace pipesched
