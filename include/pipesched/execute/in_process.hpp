// SPDX-License-Identifier: MIT
#pragma once

// All ranks as threads of one process, messages in its memory.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/executor.hpp"
#include "pipesched/execute/hub.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// Copies by memcpy.
struct host_mover {
  static constexpr bool orders = false;  // what it has moved is there
  template <typename Where>
  void posted(message_side, const Where&) {}
  template <typename Where>
  void move(std::uint32_t, message_side from, message_side into, std::size_t size, const Where&) {
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
/// measured timeline, empty unless asked for. @throws what the first trainer that failed has thrown, once all threads have
/// ended; pipeline_aborted if it was a stall. @pre check(p) is true
template <typename MakeTrainer>
timeline run_in_process(const program& p, MakeTrainer&& make_trainer, const run_options& options = {}) {
  const auto ranks = static_cast<std::uint32_t>(p.actions.count());
  timeline measured{.schedule = p.schedule};
  if (options.record) measured.intervals = rows<interval>::for_overwrite_like(p.schedule.cells);
  in_process_hub hub(p, options.time_limit);
  using trainer_type = std::remove_cvref_t<std::invoke_result_t<MakeTrainer&, std::uint32_t>>;
  std::vector<std::unique_ptr<trainer_type>> trainers(ranks);  // until all threads have ended
  std::vector<std::exception_ptr> errors(ranks);
  std::atomic<std::uint32_t> first{ranks};  // the rank that failed first
  std::atomic<std::uint32_t> ready{0};
  std::chrono::steady_clock::time_point zero;
  const auto run = [&](std::uint32_t rank) {
    try {
      trainers[rank].reset(new trainer_type(make_trainer(rank)));
      if (ready.fetch_add(1) + 1 == ranks) {
        zero = std::chrono::steady_clock::now();
        ready.store(2 * ranks);
      }
      while (ready.load() < 2 * ranks && !hub.aborted()) std::this_thread::yield();
      in_process transport(hub, rank);
      execute(p, rank, *trainers[rank], transport, options.record ? measured[rank] : std::span<interval>(), zero);
    } catch (...) {
      errors[rank] = std::current_exception();
      std::string cause = "an exception of unknown type";
      try {
        throw;
      } catch (const std::exception& e) {
        cause = e.what();
      } catch (...) {
      }
      std::uint32_t nobody = ranks;
      first.compare_exchange_strong(nobody, rank);
      hub.abort(rank, cause);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (std::uint32_t rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  }
  if (first != ranks) std::rethrow_exception(errors[first]);
  return measured;
}

}  // namespace pipesched
