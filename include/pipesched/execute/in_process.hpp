// SPDX-License-Identifier: MIT
#pragma once

// All ranks as threads of one process, messages in its memory.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/executor.hpp"
#include "pipesched/execute/hub.hpp"
#include "pipesched/execute/run_ranks.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// Copies by memcpy.
struct host_mover {
  static constexpr bool orders = false;  // what it has moved is there
  template <typename Where>
  void posted(message_side, const Where&) {}
  template <typename Where>
  void move(std::uint32_t, std::size_t, message_side from, message_side into, std::size_t size, const Where&) {
    if (size > 0) std::memcpy(into.bytes, from.bytes, size);
  }
};

using in_process_hub = basic_hub<host_mover>;
using in_process = basic_in_process<host_mover>;
static_assert(transport<in_process>);

/// Options of run_in_process().
struct run_options {
  bool record = false;                           ///< measure the timeline
  std::chrono::duration<double> time_limit{60};  ///< for one message
};

/// Runs one step with a thread a rank, each with the trainer that `make_trainer(rank)` makes there, and returns the
/// measured timeline, empty unless asked for. A trainer's `begin_step(0)` and `end_step(0)` are called around the step if it
/// has them.
/// @throws trainer_error, with rank and place, around what the first trainer that failed has thrown, once all threads have
/// ended; pipeline_aborted if it was a stall. @pre verify(p) is true
template <typename MakeTrainer>
timeline run_in_process(const program& p, MakeTrainer&& make_trainer, const run_options& options = {}) {
  const auto ranks = static_cast<std::uint32_t>(p.actions.size());
  timeline measured{.schedule = p.schedule};
  if (options.record) measured.intervals = rows<interval>::for_overwrite_like(p.schedule.cells);
  in_process_hub hub(p, options.time_limit);
  using trainer_type = detail::made_trainer<MakeTrainer, std::uint32_t>;
  std::vector<std::unique_ptr<trainer_type>> trainers(ranks);  // until all threads have ended
  std::chrono::steady_clock::time_point zero = std::chrono::steady_clock::now();
  std::atomic_flag started;
  detail::run_ranks(hub, ranks, [&](std::uint32_t rank, detail::meeting_point<host_mover>& together) {
    detail::call_trainer(
        rank, [] { return std::string("its start"); },
        [&] { trainers[rank].reset(new trainer_type(make_trainer(rank))); });
    together.wait();
    if (!started.test_and_set()) zero = std::chrono::steady_clock::now();
    together.wait();
    in_process transport(hub, rank);
    detail::run_step(rank, *trainers[rank], 0, [&] {
      detail::execute<true>(p, rank, *trainers[rank], transport,
                            options.record ? measured[rank] : std::span<interval>(), zero);
    });
  });
  return measured;
}

}  // namespace pipesched
