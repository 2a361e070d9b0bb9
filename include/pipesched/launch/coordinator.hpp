// SPDX-License-Identifier: MIT
#pragma once

// A coordinator lets the processes of a job find each other at the start, and hear of a failure later. The
// transports know this interface alone. tcp_coordinator.hpp implements it over TCP, mpi/mpi_coordinator.hpp over MPI.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pipesched {

/// A text to, or from, a process.
struct parcel {
  std::uint32_t rank = 0;  ///< of the process
  std::string text{};      ///< any bytes

  friend bool operator==(const parcel&, const parcel&) = default;
};

/// Threads may call its functions concurrently, except the collective ones: broadcast() and exchange().
class coordinator {
 public:
  virtual ~coordinator() = default;

  /// The number of this process, from 0, and the number of processes.
  virtual std::uint32_t rank() const = 0;
  virtual std::uint32_t size() const = 0;

  /// Collective: returns what process 0 has given, after all processes have called it.
  /// @throws pipeline_aborted if a process fails, or if not all call it within the time limit
  virtual std::string broadcast(std::string_view mine) = 0;
  /// Collective: sends each parcel to the process that it names, and returns those that were sent to this process, each
  /// with the number of its sender, in ascending order. @throws pipeline_aborted as broadcast() does
  virtual std::vector<parcel> exchange(std::span<const parcel> mine) = 0;

  /// Reports to all processes that this one has failed. Returns the first failure of the job, which may be another's, with
  /// the positions of the processes that have reported a stall.
  virtual std::string report_failure(std::string_view cause) = 0;
  /// Reports where this process is. All processes hear of it if this one is lost, and, if it stalls, with the next failure.
  virtual void report_position(std::string_view position, bool stalled) = 0;
  /// The first failure that this process has heard of, its own included. Never waits.
  virtual std::optional<std::string> failure() = 0;
};

/// Collective: on process 0 what every process has given, by process; on the others nothing. @throws as exchange() does
inline std::vector<std::string> gather(coordinator& all, std::string_view mine) {
  const parcel to_0{0, std::string(mine)};
  std::vector<std::string> given;
  for (parcel& p : all.exchange({&to_0, 1})) given.push_back(std::move(p.text));
  return given;
}

}  // namespace pipesched
