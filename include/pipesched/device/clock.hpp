// SPDX-License-Identifier: MIT
#pragma once

// The times of a rank's cells on its device, and the end of its steps.

#include <chrono>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/device/handle.hpp"
#include "pipesched/device/runtime.hpp"
#include "pipesched/execute/transport.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// The end of a rank's step and, while the clock runs, the start and end of every cell.
template <device_runtime R>
class rank_clock {
 public:
  rank_clock(R runtime, const device_rank<R>& place, const auto& where)
      : runtime_(std::move(runtime)), place_(place), end_(make_event(runtime_, place.device, false, where)) {}

  /// Makes the events of so many cells, if there are fewer, and starts the clock.
  void start(std::size_t cells, const auto& where) {
    if (times_.empty()) zero_ = make_event(runtime_, place_.device, true, where);
    while (times_.size() < 2 * cells) times_.push_back(make_event(runtime_, place_.device, true, where));
    detail::record(runtime_, zero_.handle(), place_.compute, where);
    runs_ = true;
  }
  /// The start (2 i) or end (2 i + 1) of cell i.
  void record(std::size_t n, const auto& where) {
    if (runs_) detail::record(runtime_, times_[n].handle(), place_.compute, where);
  }
  /// Stops the clock and returns the cells' starts and ends in seconds. @pre ended()
  void read(std::span<interval> cells, const auto& where) {
    const auto time = [&](std::size_t n) {
      float ms = 0;
      require(runtime_, runtime_.elapsed_ms(zero_.handle(), times_[n].handle(), ms), "EventElapsedTime", where);
      return ms / 1e3;
    };
    for (std::size_t i = 0; i < cells.size(); ++i) cells[i] = {time(2 * i), time(2 * i + 1)};
    runs_ = false;
  }

  void record_end(const auto& where) { detail::record(runtime_, end_.handle(), place_.compute, where); }
  bool ended(const auto& where) {
    bool done = false;
    require(runtime_, runtime_.query(end_.handle(), done), "EventQuery", where);
    return done;
  }
  /// Waits until what is in a stream of the device now is done or failed, or until the time is up. False if the time is up.
  bool wait_until_empty(typename R::stream s, std::chrono::steady_clock::time_point until) noexcept {
    bool done = false;
    if (!runtime_.succeeded(runtime_.record(end_.handle(), s))) return true;
    return wait_within(until - std::chrono::steady_clock::now(),
                       [&] { return !runtime_.succeeded(runtime_.query(end_.handle(), done)) || done; });
  }

 private:
  R runtime_;
  device_rank<R> place_;
  bool runs_ = false;
  std::vector<device_handle<R, typename R::event>> times_;
  device_handle<R, typename R::event> zero_, end_;
};

}  // namespace pipesched::detail
