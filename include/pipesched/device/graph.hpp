// SPDX-License-Identifier: MIT
#pragma once

// A step captured once and replayed: slots, and so addresses, are the same in every step.

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/device/handle.hpp"
#include "pipesched/device/runtime.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The work of a step in the streams of its ranks, as one graph. The ranks are run by one thread: all of a process, or one
/// whose transport needs no other.
template <device_runtime R>
class step_graph {
 public:
  /// Captures what `enqueue()` puts into the ranks' compute streams and into streams that wait for them. It must wait for
  /// all that it starts, as finish() does, and for no device. Run a step before: what a runtime loads at first use cannot
  /// be captured.
  /// @throws device_error, with the runtime's text; whatever enqueue() throws
  template <typename Enqueue>
  step_graph(R runtime, std::span<const device_rank<R>> ranks, Enqueue&& enqueue)
      : runtime_(std::move(runtime)), ranks_(ranks.begin(), ranks.end()) {
    if (ranks_.empty()) throw schedule_error("a graph needs the streams of at least one rank");
    const auto where = [] { return std::string("capturing a step"); };
    for (const device_rank<R>& r : ranks_) joins_.push_back(detail::make_event(runtime_, r.device, false, where));
    detail::require(runtime_, runtime_.begin_capture(origin()), "StreamBeginCapture", where);
    typename R::graph graph{};
    try {
      fork(where);
      enqueue();
      join(where);
    } catch (...) {
      if (runtime_.succeeded(runtime_.end_capture(origin(), graph))) runtime_.destroy(graph);
      throw;
    }
    detail::require(runtime_, runtime_.end_capture(origin(), graph), "StreamEndCapture", where);
    graph_ = {runtime_, graph};
  }

  /// Puts the step after what is in the streams of all ranks, and before what comes into them.
  void launch() {
    const auto where = [] { return std::string("replaying a step"); };
    join(where);
    detail::require(runtime_, runtime_.launch(graph_.handle(), origin()), "GraphLaunch", where);
    fork(where);
  }

 private:
  typename R::stream origin() const { return ranks_[0].compute; }
  // The other streams continue after what is in the first one.
  void fork(const auto& where) {
    if (ranks_.size() > 1) detail::record(runtime_, joins_[0].handle(), origin(), where);
    for (std::size_t r = ranks_.size(); r-- > 1;) detail::wait(runtime_, ranks_[r].compute, joins_[0].handle(), where);
  }
  // The first stream continues after what is in the others.
  void join(const auto& where) {
    for (std::size_t r = ranks_.size(); r-- > 1;) {
      detail::record(runtime_, joins_[r].handle(), ranks_[r].compute, where);
      detail::wait(runtime_, origin(), joins_[r].handle(), where);
    }
  }

  R runtime_;
  std::vector<device_rank<R>> ranks_;
  std::vector<device_handle<R, typename R::event>> joins_;  // by rank
  device_handle<R, typename R::graph> graph_;
};

}  // namespace pipesched
