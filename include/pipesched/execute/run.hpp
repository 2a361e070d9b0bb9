// SPDX-License-Identifier: MIT
#pragma once

// The driver: run() runs the steps of one rank, run_all() those of all ranks of a process.

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pipesched/execute/executor.hpp"
#include "pipesched/execute/steps.hpp"
#include "pipesched/execute/trainer.hpp"
#include "pipesched/execute/transport.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

namespace detail {

// The trainer at a place of a container of trainers, or of pointers to them.
template <typename Trainers>
auto& trainer_at(Trainers& trainers, std::size_t rank) {
  auto& at = trainers[rank];
  if constexpr (requires { *at; })
    return *at;
  else
    return at;
}

// The times of a rank's cells, to be measured; none if nothing is.
inline std::span<interval> cells_of(timeline& measured, std::uint32_t rank) {
  return measured.intervals.size() == 0 ? std::span<interval>() : measured[rank];
}

// All ranks of a world, by turns in this thread. @param measured  empty: nothing is
template <typename Trainers, typename World>
void run_by_turns(const program& p, Trainers& trainers, World& world, timeline& measured, const run_options& o) {
  using transport_type = typename World::transport_type;
  using trainer_type = std::remove_reference_t<decltype(trainer_at(trainers, 0))>;
  std::deque<transport_type> transports;
  std::deque<rank_executor<trainer_type, transport_type>> ranks;
  for (std::uint32_t r = 0; r < p.actions.size(); ++r)
    ranks.emplace_back(p, r, trainer_at(trainers, r), transports.emplace_back(world, r), cells_of(measured, r));
  step_loop(p, ranks, world).run(o);
}

// All ranks of a world, each in a thread. @throws what the first rank that failed has thrown, once all threads have ended
template <typename Trainers, typename World>
void run_in_threads(const program& p, Trainers& trainers, World& world, timeline& measured, const run_options& o) {
  using transport_type = typename World::transport_type;
  std::vector<std::unique_ptr<transport_type>> transports;  // all before the first step: no rank waits for one to begin
  for (std::uint32_t r = 0; r < p.actions.size(); ++r) transports.push_back(std::make_unique<transport_type>(world, r));
  std::vector<std::future<void>> ends;
  const auto run_rank = [&](std::uint32_t r) {
    const auto transport = std::move(transports[r]);  // ends with its last step: the others do not wait for more
    const auto run = [&] {
      std::array own{rank_executor(p, r, trainer_at(trainers, r), *transport, cells_of(measured, r))};
      step_loop(p, own, world).run(o);
    };
    or_abort(run, [&](const std::string& text) { world.abort(r, text); });
  };
  const auto start = [&] {
    for (std::uint32_t r = 0; r < p.actions.size(); ++r) ends.push_back(std::async(std::launch::async, run_rank, r));
  };
  or_abort(start, [&](const std::string& text) {
    world.abort(static_cast<std::uint32_t>(ends.size()), "no thread: " + text);
  });
  for (const std::future<void>& end : ends) end.wait();
  if (world.aborted()) ends[world.culprit()].get();
  for (std::future<void>& end : ends)
    if (end.valid()) end.get();
}

}  // namespace detail

/// Runs steps of one rank, and calls the trainer's `begin_step(step)` and `end_step(step)` around each of them: the latter
/// once the rank, or its device, is through. Returns the start and end of its cells in the last step, in seconds since all
/// ranks began it; nothing unless options.record. A step makes no allocation, lock or virtual call of its own; a transport may.
/// @throws trainer_error, with rank and place, around what the trainer throws; pipeline_aborted if another rank has failed or
/// nothing came within the transport's time limit; schedule_error if rank, trainer, one of its buffers or the transport does
/// not fit the program; errors of the transport. All other ranks end, too.
/// @pre verify(p) is true; every rank runs the same program with the same options
template <typename Trainer, transport Transport>
std::vector<interval> run(const program& p, std::integral auto number, Trainer& trainer, Transport& transport,
                          const run_options& options = {}) {
  const auto rank = static_cast<std::uint32_t>(number);
  std::vector<interval> measured;
  const auto run_own = [&] {
    detail::require_options<Transport>(options);
    if (options.one_thread)
      throw schedule_error("one_thread is an option of run_all(); run() runs one rank, in the thread of its caller");
    detail::require_rank(p, number);
    if (options.record) measured.resize(p.schedule[rank].size());
    std::array own{detail::rank_executor(p, rank, trainer, transport, measured)};
    detail::step_loop(p, own, transport).run(options);
  };
  detail::or_abort(run_own, [&](const std::string& text) { detail::abort_transport(transport, text); });
  return measured;
}

/// Runs steps of all ranks of this process, as run() does, with one thread per rank. Returns the timeline of the last step; its
/// intervals are empty unless options.record.
/// @param trainers  by rank: a vector or deque of trainers, or of pointers to them
/// @param world     thread_world, or that of a runtime of devices (device/peer_transport.hpp). Its ranks may run any number of
///                  programs one after the other, until one fails
/// @throws as run(), what the first rank that failed has thrown, once all have ended
template <typename Trainers, typename World>
timeline run_all(const program& p, Trainers& trainers, World& world, const run_options& options = {}) {
  using trainer_type = std::remove_reference_t<decltype(detail::trainer_at(trainers, 0))>;
  detail::require_options<World>(options);
  if (trainers.size() != p.actions.size())
    throw schedule_error(detail::concat({"a program of ", detail::count_text(p.actions.size(), "rank"),
                                         " needs as many trainers; got ", trainers.size()}));
  for (std::uint32_t r = 0; r < p.actions.size(); ++r) detail::require_trainer<trainer_type>(p, r);
  const auto forget = [](World* of) { of->forget_program(); };
  const std::unique_ptr<World, decltype(forget)> at_the_end(&world);
  world.prepare(p);
  timeline measured{.schedule = p.schedule};
  if (options.record) measured.intervals = rows<interval>::for_overwrite_like(p.schedule.cells);
  const auto run_ranks = [&] {
    if (options.one_thread || options.graph)
      detail::run_by_turns(p, trainers, world, measured, options);
    else
      detail::run_in_threads(p, trainers, world, measured, options);
  };
  detail::or_abort(run_ranks, [&](const std::string& text) {
    world.abort(0, text);  // a failure of no rank, as of a graph; the first is kept
    if constexpr (requires { world.drain(); }) world.drain();
  });
  return measured;
}

}  // namespace pipesched
