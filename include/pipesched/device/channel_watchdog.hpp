// SPDX-License-Identifier: MIT
#pragma once

// The watchdog of one rank, a thread of its own: it hears of failures of other processes (coordinator), asks the library for
// errors, and sees whether anything moves. When something fails, or the rank's own thread has stopped the messages, it ends
// those in progress, and the process if the rank stays in a callback. It calls no function of the device, so nothing that keeps
// the device keeps it.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include "pipesched/device/channel_progress.hpp"
#include "pipesched/device/channel_set.hpp"
#include "pipesched/execute/trainer.hpp"
#include "pipesched/launch/coordinator.hpp"

namespace pipesched::detail {

template <device_runtime R, message_library<typename R::stream> L>
class channel_watchdog {
 public:
  /// @throws schedule_error for time limits out of range. @pre all arguments outlive it
  channel_watchdog(channel_set<R, L>& channels, channel_progress<R>& progress, coordinator& job,
                   const channel_transport_options& options)
      : channels_(channels), progress_(progress), job_(job), options_(options) {
    for (const auto limit : {options.time_limit, options.start_limit, options.pause_limit, options.abort_limit})
      checked_time_limit(limit);
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  }
  /// Waits until it has ended what it was at: at most the time of its limits, then the last resort.
  void stop() { thread_ = {}; }

 private:
  using phase = typename channel_progress<R>::phase;
  using clock = std::chrono::steady_clock;
  using seconds = std::chrono::duration<double>;

  void run(const std::stop_token& stop) {
    try {
      watch(stop);
    } catch (...) {  // of the job
      channels_.abort(concat({place(), ": ", text_of_exception()}));
    }
    if (!channels_.stopped()) return;
    channels_.end_messages();
    wait_for_rank(stop);
  }
  void watch(const std::stop_token& stop) {
    const seconds shorter = std::min(options_.time_limit, options_.start_limit);
    const auto tick = std::clamp<seconds>(shorter / 100, std::chrono::milliseconds(1), std::chrono::milliseconds(20));
    std::mutex unused;
    std::unique_lock lock(unused);
    std::condition_variable_any never;
    while (!channels_.stopped()) {
      never.wait_for(lock, stop, tick, [] { return false; });
      find_failure();
      if (channels_.stopped() || stop.stop_requested()) return;
      look_for_progress(std::min<seconds>(shorter / 10, std::chrono::seconds(1)));
    }
  }
  // A rank in a callback that does not return keeps its process, and so its launcher, from ending.
  void wait_for_rank(const std::stop_token& stop) {
    const auto ends = [&] { return stop.stop_requested() || progress_.current_phase() == phase::between_steps; };
    if (!wait_within(options_.abort_limit, ends)) channels_.end_process(place() + " has not returned");
  }
  void find_failure() {
    if (channels_.hear()) return;
    const std::string error = channels_.find_error();
    if (!error.empty() && !channels_.hears_cause()) channels_.abort(concat({place(), ": ", error}));
  }
  void look_for_progress(seconds report_every) {
    const phase in = progress_.current_phase();
    const auto now = clock::now();
    if (const auto position = progress_.now(); !(position == last_) || in == phase::between_steps)
      last_ = position, moved_ = now;
    const progress_state state = state_after(now - std::max(moved_, job_.last_pause()), in);
    if (state == progress_state::stalled && in == phase::connects)
      channels_.abort(place() + ": the first messages have not moved within the time limit");
    else if (now - moved_ > limit_of(in) + options_.pause_limit)
      channels_.abort(state == progress_state::stalled  // and process 0 does not answer
                          ? nothing_moved(place())
                          : place() + ": a rank has not come back between its steps within the pause limit");
    if (state == std::exchange(known_, state) && now - reported_ < report_every) return;
    job_.report_position(place(), state), reported_ = now;
  }
  progress_state state_after(seconds still, phase in) const {
    if (in == phase::between_steps) return progress_state::between_steps;
    const seconds limit = limit_of(in);
    return still > limit ? progress_state::stalled : still > limit / 2 ? progress_state::waits : progress_state::moves;
  }
  seconds limit_of(phase in) const { return in == phase::connects ? options_.start_limit : options_.time_limit; }
  std::string place() const { return progress_.device_place(); }

  channel_set<R, L>& channels_;
  channel_progress<R>& progress_;
  coordinator& job_;
  const channel_transport_options& options_;
  typename channel_progress<R>::position last_;
  clock::time_point moved_ = clock::now(), reported_ = moved_;  // when it last moved; last reported its place
  progress_state known_ = progress_state::between_steps;
  std::jthread thread_;  // last: it uses all of these
};

}  // namespace pipesched::detail
