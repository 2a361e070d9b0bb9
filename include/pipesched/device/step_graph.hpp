// SPDX-License-Identifier: MIT
#pragma once

// A step captured once and replayed: slots, and so addresses, are the same in every step.

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/device/device.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// What a step puts into the streams of its ranks, as one graph. Captured are ranks that one thread runs: all of a process
/// (execute_by_turns), or one whose transport needs no other (NCCL's).
template <device_runtime R>
class step_graph {
 public:
  /// Captures what `enqueue()` puts into the ranks' compute streams and into streams that wait for them. It must wait for
  /// all that it starts, as finish() does, and for no device. Run a step before: what a runtime loads at first use cannot
  /// be captured.
  /// @throws device_error, with what the runtime says; whatever enqueue() throws
  template <typename Enqueue>
  step_graph(R runtime, std::span<const device_rank<R>> ranks, Enqueue&& enqueue) : runtime_(std::move(runtime)) {
    const auto where = [] { return std::string("capturing a step"); };
    if (ranks.empty()) throw schedule_error("a graph needs the streams of at least one rank");
    origin_ = ranks[0].compute;
    const auto fork = detail::make_event(runtime_, ranks[0].device, false, where);
    std::vector<device_handle<R, typename R::event>> joins;
    for (std::size_t r = 1; r < ranks.size(); ++r)
      joins.push_back(detail::make_event(runtime_, ranks[r].device, false, where));
    detail::require(runtime_, runtime_.begin_capture(origin_), "StreamBeginCapture", where);
    typename R::graph graph{};
    try {
      detail::require(runtime_, runtime_.record(fork.handle(), origin_), "EventRecord", where);
      for (std::size_t r = 1; r < ranks.size(); ++r)
        detail::require(runtime_, runtime_.wait(ranks[r].compute, fork.handle()), "StreamWaitEvent", where);
      enqueue();
      for (std::size_t r = 1; r < ranks.size(); ++r) {
        detail::require(runtime_, runtime_.record(joins[r - 1].handle(), ranks[r].compute), "EventRecord", where);
        detail::require(runtime_, runtime_.wait(origin_, joins[r - 1].handle()), "StreamWaitEvent", where);
      }
    } catch (...) {
      if (runtime_.succeeded(runtime_.end_capture(origin_, graph))) runtime_.destroy(graph);
      throw;
    }
    detail::require(runtime_, runtime_.end_capture(origin_, graph), "StreamEndCapture", where);
    graph_ = {runtime_, graph};
  }

  /// Puts the step into the stream of the first rank; the streams of the others do not wait for it.
  void launch() {
    detail::require(runtime_, runtime_.launch(graph_.handle(), origin_), "GraphLaunch",
                    [] { return std::string("replaying a step"); });
  }

 private:
  R runtime_;
  typename R::stream origin_{};
  device_handle<R, typename R::graph> graph_;
};

}  // namespace pipesched
