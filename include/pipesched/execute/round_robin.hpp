// SPDX-License-Identifier: MIT
#pragma once

// All ranks of a world run by one thread, by turns. A rank runs until it would have to wait for another one. As sends and
// receives do not wait, a program that verify() passes ends. For devices, whose work is only put into streams:
// needed where a step is captured into a graph, and enough where the host has time to spare.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/execute/executor.hpp"
#include "pipesched/execute/steps.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

template <typename Ranks, typename World>
class round_robin {
 public:
  round_robin(const program& p, Ranks& ranks, World& world) : p_(p), ranks_(ranks), world_(world) {}

  /// @throws whatever a rank throws, once the world knows of it
  void run(const run_options& o, timeline& measured) {
    for_each([&](auto& rank) { rank.transport().prepare(p_, rank.memory()); });
    const std::size_t end = o.first_step + o.steps;
    std::size_t step = o.first_step;
    for (; step < end && !(o.graph && step > o.first_step); ++step) {
      const bool records = o.record && step + 1 == end;
      for_each([&](auto& rank) { rank.begin_step(step); });
      if (records) start_clocks(measured);
      run_step();
      finish_step(step, records, measured);
    }
    if (step < end)
      for (auto graph = capture(world_, [&] { run_step(); }); step < end; ++step) {
        for_each([&](auto& rank) { rank.begin_step(step); });
        graph.launch();
        finish_step(step, false, measured);
      }
  }

 private:
  // Calls `f(rank)` for all ranks, each with its device.
  template <typename F>
  void for_each(F&& f) {
    for (auto& rank : ranks_) with(rank, [&] { f(rank); });
  }
  template <typename Rank, typename F>
  void with(Rank& rank, F&& f) {
    try {
      if constexpr (requires { rank.transport().select_device(); }) rank.transport().select_device();
      f();
    } catch (...) {
      world_.abort(rank.rank(), text_of_exception());
      throw;
    }
  }

  void start_clocks(timeline& measured) {
    for_each([](auto& rank) { make_clock(rank); });
    const auto zero = std::chrono::steady_clock::now();
    for_each([&](auto& rank) {
      if constexpr (requires { rank.transport().start_clock(); })
        rank.transport().start_clock();
      else
        rank.record(measured[rank.rank()], zero);
    });
  }
  void finish_step(std::size_t step, bool records, timeline& measured) {
    for_each([](auto& rank) { synchronize(rank); });
    for_each([&](auto& rank) {
      if (records) stop_clock(rank, measured[rank.rank()]);
      rank.end_step(step);
    });
  }

  void run_step() {
    std::vector<std::uint32_t> next(ranks_.size(), 0);
    std::size_t left = p_.actions.all().size();
    while (left > 0) {
      const std::size_t before = left;
      for (auto& rank : ranks_) {
        std::uint32_t& n = next[rank.rank()];
        const auto goes_on = [&] { return n < rank.actions().size() && !rank.waits(n); };
        if (!goes_on()) continue;
        with(rank, [&] {
          for (; goes_on(); ++n, --left) rank.run(n);
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
  World& world_;
};

}  // namespace pipesched::detail
