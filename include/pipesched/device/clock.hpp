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
  rank_clock(R& runtime, int device, const auto& where)
      : device_(device), end_(make_event(runtime, device, false, where)) {}

  /// Makes the events of so many cells, if there are fewer, and starts the clock.
  void start(R& runtime, typename R::stream s, std::size_t cells, const auto& where) {
    if (times_.empty()) zero_ = make_event(runtime, device_, true, where);
    while (times_.size() < 2 * cells) times_.push_back(make_event(runtime, device_, true, where));
    detail::record(runtime, zero_.handle(), s, where);
    runs_ = true;
  }
  /// The start (2 i) or end (2 i + 1) of cell i.
  void record(R& runtime, typename R::stream s, std::size_t n, const auto& where) {
    if (runs_) detail::record(runtime, times_[n].handle(), s, where);
  }
  /// Stops the clock and returns the cells' starts and ends in seconds. @pre ended()
  void read(R& runtime, std::span<interval> cells, const auto& where) {
    const auto time = [&](std::size_t n) {
      float ms = 0;
      require(runtime, runtime.elapsed_ms(zero_.handle(), times_[n].handle(), ms), "EventElapsedTime", where);
      return ms / 1e3;
    };
    for (std::size_t i = 0; i < cells.size(); ++i) cells[i] = {time(2 * i), time(2 * i + 1)};
    runs_ = false;
  }

  void record_end(R& runtime, typename R::stream s, const auto& where) {
    detail::record(runtime, end_.handle(), s, where);
  }
  bool ended(R& runtime, const auto& where) {
    bool done = false;
    require(runtime, runtime.query(end_.handle(), done), "EventQuery", where);
    return done;
  }
  typename R::event end() const { return end_.handle(); }

 private:
  int device_;
  bool runs_ = false;
  std::vector<device_handle<R, typename R::event>> times_;
  device_handle<R, typename R::event> zero_, end_;
};

/// Waits until what is in the stream now is done or failed, or until the time is up. False if the time is up.
/// @param e  any event of the device
template <device_runtime R>
bool wait_until_empty(R& runtime, typename R::event e, typename R::stream s,
                      std::chrono::steady_clock::time_point until) noexcept {
  bool done = false;
  if (!runtime.succeeded(runtime.record(e, s))) return true;
  return wait_within(until - std::chrono::steady_clock::now(),
                     [&] { return !runtime.succeeded(runtime.query(e, done)) || done; });
}

}  // namespace pipesched::detail
