// SPDX-License-Identifier: MIT
#pragma once

// A coordinator lets the processes of a job find each other at the start, and hear of a failure later. The
// transports know this interface alone. tcp_coordinator.hpp implements it over TCP, store_coordinator.hpp over a store of the
// user's, mpi/mpi_coordinator.hpp over MPI.

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/execute/failure.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// A text to, or from, a process.
struct parcel {
  std::uint32_t rank = 0;  ///< of the process
  std::string text{};      ///< any bytes

  friend bool operator==(const parcel&, const parcel&) = default;
};

/// The state of a process.
enum class progress_state : std::uint8_t {
  moves,
  waits,         ///< nothing has moved for half of its time limit
  stalled,       ///< nothing has moved for its whole time limit
  between_steps  ///< it saves, evaluates, or loads data: a process that waits for it is not stalled
};

/// Threads may call its functions concurrently, except the collective ones: broadcast() and exchange().
class coordinator {
 public:
  virtual ~coordinator() = default;

  /// The number of this process, from 0, and the number of processes.
  virtual std::uint32_t rank() const = 0;
  virtual std::uint32_t size() const = 0;

  /// Collective: sends each parcel to the process that it names, and returns those that were sent to this process, each
  /// with the number of its sender, in ascending order, after all processes have called it.
  /// @throws pipeline_aborted if a process fails, or if not all call it within the time limit. Time in which one that is waited
  /// for is between steps does not count, for at most an hour. Over a store it counts.
  virtual std::vector<parcel> exchange(std::span<const parcel> mine) = 0;
  /// Collective: returns what process 0 has given, after all processes have called it. @throws as exchange() does
  virtual std::string broadcast(std::string_view mine) {
    std::string text(mine);
    for (std::uint64_t have = 1; have < size(); have *= 2) {  // the first so many processes have it
      std::vector<parcel> next;
      if (rank() < have && rank() + have < size()) next.push_back({static_cast<std::uint32_t>(rank() + have), text});
      for (parcel& given : exchange(next)) text = std::move(given.text);
    }
    return text;
  }

  /// Reports to all processes that this one has failed. Returns the first failure of the job, perhaps that of another
  /// process, with the positions of the processes that wait.
  virtual std::string report_failure(std::string_view cause) = 0;
  /// Reports the place and the state of this process, about once a second. All processes hear of the place if this one is
  /// lost, and, if it waits or is stalled, with the next failure. The job fails if one is stalled, unless another one is
  /// between steps and not in a collective call.
  virtual void report_position(std::string_view position, progress_state state) = 0;
  /// The time until which, as far as this process has heard, another one was between steps, and not in a collective call: what
  /// waits for it is not stalled. Never waits.
  virtual std::chrono::steady_clock::time_point last_pause() { return {}; }
  /// The first failure that this process has heard of, its own included. Never waits.
  virtual std::optional<std::string> failure() = 0;

 protected:
  void require_process(std::uint32_t r) const {
    if (r >= size())
      throw schedule_error(detail::concat({"a job of ", detail::count_text(size(), "process"), " has no process ", r}));
  }
  /// @throws pipeline_aborted once a process has failed
  void require_going() {
    if (const auto cause = failure()) throw pipeline_aborted("aborted: " + *cause);
  }
  /// Ends a collective call in which others have not taken part. @throws pipeline_aborted
  void fail_late() {
    report_failure(detail::concat({"process ", rank(), " waits for the others, and not all came in time"}));
    require_going();
  }
};

/// The failure of a process that is stalled at a place.
inline std::string nothing_moved(std::string_view place) {
  return std::string(place).append(": nothing moved within the time limit");
}

/// Collective: on process 0 what every process has given, by process; on the others nothing. @throws as exchange() does
inline std::vector<std::string> gather(coordinator& all, std::string_view mine) {
  const parcel to_0{0, std::string(mine)};
  std::vector<std::string> given;
  for (parcel& p : all.exchange({&to_0, 1})) given.push_back(std::move(p.text));
  return given;
}

}  // namespace pipesched
