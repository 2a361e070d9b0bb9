// SPDX-License-Identifier: MIT
#pragma once

// All ranks of a process run by one thread, by turns. For devices, whose work is only put into streams: needed where a step
// is captured into a graph, and enough where the host has time to spare.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/execute/executor.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Runs one step of all ranks. A rank goes on until it would have to wait for another one; as sends and receives do not
/// wait, a program that verify() passes comes to its end. The thread's device is the rank's while that runs.
/// @param trainers, transports  by rank. @throws trainer_error around what a trainer throws; schedule_error if no rank can go on
template <typename Trainer, transport Transport>
requires requires(Transport& t, const action& a) { t.waits(a), t.finish_waits(); }
void execute_by_turns(const program& p, std::span<Trainer> trainers, std::span<Transport* const> transports) {
  const std::size_t ranks = p.actions.size();
  if (trainers.size() != ranks || transports.size() != ranks)
    throw schedule_error(detail::concat({"a program of ", ranks, " ranks needs as many trainers and transports; got ",
                                         trainers.size(), " and ", transports.size()}));
  std::vector<detail::rank_run<Trainer, Transport, true>> runs;
  for (std::uint32_t r = 0; r < ranks; ++r) runs.emplace_back(p, r, trainers[r], *transports[r]);
  std::vector<std::uint32_t> next(ranks, 0);
  for (std::size_t left = p.actions.all().size(); left > 0;) {
    const std::size_t before = left;
    for (std::size_t r = 0; r < ranks; ++r) {
      const auto goes_on = [&] {
        return next[r] < runs[r].actions.size() && !transports[r]->waits(runs[r].actions[next[r]]);
      };
      if constexpr (requires { transports[r]->select_device(); })
        if (goes_on()) transports[r]->select_device();
      for (; goes_on(); ++next[r], --left) runs[r].run(next[r]);
    }
    if (left == before) throw schedule_error("no rank can go on; verify() says why");
  }
  for (std::size_t r = 0; r < ranks; ++r)
    if (transports[r]->finish_waits()) throw schedule_error("a message has no other side; verify() says which");
  for (Transport* t : transports) t->finish();
}

}  // namespace pipesched
