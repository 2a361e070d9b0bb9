// SPDX-License-Identifier: MIT
#pragma once

// The steps of the ranks that one thread runs: a single one, or all of a process by turns. By turns, a rank runs until it would
// have to wait for another one. As sends and receives do not wait, a program that verify() passes ends. This is for devices,
// whose work is only put into streams: needed where a step is captured into a graph, and enough where the host has time to
// spare.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "pipesched/execute/trainer.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Options of run() and run_all().
struct run_options {
  std::size_t steps = 1;
  std::size_t first_step = 0;  ///< number of the first step, for begin_step() and end_step()
  bool record = false;         ///< measure the cells of the last step
  /// Devices: capture the second step into a graph and replay it for all steps from then on. The hooks are not captured.
  bool graph = false;
  bool one_thread = false;  ///< run_all() alone: this thread runs all ranks, by turns; so it does with `graph`
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
    throw schedule_error(concat({"first_step + steps is at most 2^64 - 1; got ", o.first_step, " + ", o.steps}));
  if (o.record && o.steps == 0) throw schedule_error("a timeline is of at least 1 step; got 0");
  if (o.record && o.graph && o.steps > 1)
    throw schedule_error("the cells of a graph cannot be measured; record a step without one");
}

/// Calls `f()`. If it throws, `abort(text)` hears the text of the exception before anyone else.
template <typename F, typename Abort>
decltype(auto) or_abort(F&& f, Abort&& abort) {
  try {
    return f();
  } catch (...) {
    abort(text_of_exception());
    throw;
  }
}

template <typename Transport>
void abort_transport(Transport& transport, const std::string& cause) {
  if constexpr (requires { transport.abort(cause); }) transport.abort(cause);
}

/// @param Ranks   rank_executors, by pipeline rank if there are several
/// @param Target  captures the graph: the transport of a single rank, or the world of all
template <typename Ranks, typename Target>
class step_loop {
 public:
  step_loop(const program& p, Ranks& ranks, Target& target) : p_(p), ranks_(ranks), target_(target) {}

  /// @throws whatever a rank throws, once its transport has heard of it
  void run(const run_options& o) {
    for_each([&](auto& rank) { rank.prepare(); });
    const std::size_t end = o.first_step + o.steps;
    std::size_t step = o.first_step;
    for (; step < end && !(o.graph && step > o.first_step); ++step) {
      const bool records = o.record && step + 1 == end;
      for_each([&](auto& rank) { rank.begin_step(step); });
      if (records) start_clocks();
      run_step();
      finish_step(step, records);
    }
    if constexpr (captures<Target>)
      if (step < end)
        for (auto graph = target_.capture([&] { run_step(); }); step < end; ++step) {
          for_each([&](auto& rank) { rank.begin_step(step); });
          graph.launch();
          finish_step(step, false);
        }
    for_each([](auto& rank) {
      if constexpr (requires { rank.transport().leave(); }) rank.transport().leave();
    });
  }

 private:
  // Calls `f(rank)` for all ranks, each with its device.
  template <typename F>
  void for_each(F&& f) {
    for (auto& rank : ranks_) with(rank, [&] { f(rank); });
  }
  template <typename Rank, typename F>
  void with(Rank& rank, F&& f) {
    const auto call = [&] {
      if constexpr (requires { rank.transport().select_device(); }) rank.transport().select_device();
      f();
    };
    or_abort(call, [&](const std::string& text) {
      if (ranks_.size() > 1) abort_transport(rank.transport(), text);  // that of a single rank is for its driver
    });
  }

  // All clocks start at one time, once their devices are through with what the hooks have put into streams.
  void start_clocks() {
    for_each([](auto& rank) { rank.make_clock(); });
    auto zero = std::chrono::steady_clock::now();
    for_each([&](auto& rank) {
      if constexpr (requires { rank.transport().meet(); })
        if (ranks_.size() == 1) zero = rank.transport().meet();
    });
    for_each([&](auto& rank) { rank.start_clock(zero); });
  }
  void finish_step(std::size_t step, bool records) {
    for_each([](auto& rank) { rank.synchronize(); });
    for_each([&](auto& rank) {
      if (records) rank.stop_clock();
      rank.end_step(step);
    });
  }

  void run_step() {
    if constexpr (requires { ranks_[0].transport().is_done(0); })
      if (ranks_.size() > 1) return run_by_turns();
    for_each([](auto& rank) { rank.run(); });
  }
  void run_by_turns() {
    std::vector<std::uint32_t> next(ranks_.size(), 0);
    std::size_t left = p_.actions.all().size();
    while (left > 0) {
      const std::size_t before = left;
      for (auto& rank : ranks_) {
        std::uint32_t& n = next[rank.rank()];
        const auto can_continue = [&] { return n < rank.actions().size() && !rank.waits(n); };
        if (!can_continue()) continue;
        with(rank, [&] {
          for (; can_continue(); ++n, --left) rank.run(n);
        });
      }
      if (left == before) throw schedule_error("no rank can continue; verify() says why");
    }
    for (const auto& rank : ranks_)
      if (rank.waits_at_end()) throw schedule_error("a message has no other side; verify() says which");
    for_each([](auto& rank) { rank.transport().finish(); });
  }

  const program& p_;
  Ranks& ranks_;
  Target& target_;
};

}  // namespace detail

}  // namespace pipesched
