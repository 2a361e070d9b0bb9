// SPDX-License-Identifier: MIT
#pragma once

// The steps of one rank, and what the drivers of run.hpp share.

#include <chrono>
#include <cstddef>
#include <limits>
#include <span>

#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Options of run() and run_all().
struct run_options {
  std::size_t steps = 1;
  std::size_t first_step = 0;  ///< number of the first step, for begin_step() and end_step()
  bool record = false;         ///< measure the cells of the last step
  /// Devices: capture the second step into a graph and replay it for all steps from then on. The hooks are not captured.
  bool graph = false;
  bool one_thread = false;  ///< run_all(): this thread alone runs all ranks, by turns; so it does with `graph`
};

namespace detail {

/// A transport, or a world for all its ranks, that makes a graph of what a function puts into streams.
template <typename T>
concept captures = requires(T& t, void (&enqueue)()) {
  t.capture(enqueue);
};

/// @param Target  the transport or world that captures. @throws schedule_error, before anything runs
template <typename Target>
void require_options(const run_options& o) {
  if (o.graph && !captures<Target>) throw schedule_error("a graph needs ranks on devices");
  if (o.steps > std::numeric_limits<std::size_t>::max() - o.first_step)
    throw schedule_error(concat({"steps are numbered up to 2^64 - 1; got ", o.steps, " from ", o.first_step, " on"}));
  if (o.record && o.steps == 0) throw schedule_error("a timeline is of at least 1 step; got 0");
  if (o.record && o.graph && o.steps > 1)
    throw schedule_error("the cells of a graph cannot be measured; record a step without one");
}

template <typename Rank>
void synchronize(Rank& rank) {
  if constexpr (requires { rank.transport().synchronize(); }) rank.transport().synchronize();
}
/// Makes what the clock of a device needs and waits for the device, so that all clocks can start at one time.
template <typename Rank>
void make_clock(Rank& rank) {
  if constexpr (requires { rank.transport().start_clock(); }) rank.transport().start_clock();
  synchronize(rank);
}
template <typename Rank>
void start_clock(Rank& rank, std::span<interval> into) {
  make_clock(rank);
  auto zero = std::chrono::steady_clock::now();
  if constexpr (requires { rank.transport().meet(); }) zero = rank.transport().meet();
  if constexpr (requires { rank.transport().start_clock(); })
    rank.transport().start_clock();
  else
    rank.record(into, zero);
}
template <typename Rank>
void stop_clock(Rank& rank, std::span<interval> into) {
  if constexpr (requires { rank.transport().read_clock(into); })
    rank.transport().read_clock(into);
  else
    rank.record({}, {});
}
template <typename Target, typename Enqueue>
auto capture(Target& target, Enqueue&& enqueue) {
  if constexpr (captures<Target>) {
    return target.capture(enqueue);
  } else {
    struct none {  // unreachable: require_options() refuses it
      void launch() {}
    };
    return none{};
  }
}

template <typename Rank>
void run_steps(const program& p, Rank& rank, const run_options& o, std::span<interval> measured) {
  auto& transport = rank.transport();
  if constexpr (requires { transport.select_device(); }) transport.select_device();
  if constexpr (requires { transport.prepare(p, rank.memory()); }) transport.prepare(p, rank.memory());
  const std::size_t end = o.first_step + o.steps;
  std::size_t step = o.first_step;
  for (; step < end && !(o.graph && step > o.first_step); ++step) {
    const bool records = o.record && step + 1 == end;
    rank.begin_step(step);
    if (records) start_clock(rank, measured);
    rank.run();
    synchronize(rank);
    if (records) stop_clock(rank, measured);
    rank.end_step(step);
  }
  if (step < end)
    for (auto graph = capture(transport, [&] { rank.run(); }); step < end; ++step) {
      rank.begin_step(step);
      graph.launch();
      synchronize(rank);
      rank.end_step(step);
    }
  if constexpr (requires { transport.leave(); }) transport.leave();
}

}  // namespace detail

}  // namespace pipesched
