// SPDX-License-Identifier: MIT
#pragma once

// One step of one rank over MPI, with all that a failure asks for.

#include <mpi.h>

#include <chrono>
#include <span>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/executor.hpp"
#include "pipesched/mpi/mpi.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// Options of run_mpi().
struct mpi_options {
  std::chrono::duration<double> time_limit{60};  ///< for one message
  std::span<interval> record = {};               ///< of this rank's cells, in seconds since `zero`; empty: not measured
  std::chrono::steady_clock::time_point zero{};
};

/// One step of this process's rank, and no more: for many steps keep a transport, catch as this does, and leave() after the
/// last. Returns on all ranks or on none. Collective. A trainer's `begin_step(0)` and `end_step(0)` are called around the step
/// if it has them.
/// @throws trainer_error, with rank and place, around what this rank's trainer has thrown; else pipeline_aborted, with the
/// rank, the op and the text, if another's has, or if it was a stall. @pre verify(p) is true
template <typename Trainer>
void run_mpi(const program& p, MPI_Comm communicator, Trainer& trainer, const mpi_options& options = {}) {
  mpi_transport transport(p, communicator, options.time_limit);
  try {
    detail::run_step(transport.rank(), trainer, 0, [&] {
      detail::execute<true>(p, transport.rank(), trainer, transport, options.record, options.zero);
    });
    transport.leave();
  } catch (...) {
    transport.abort(detail::text_of_exception());
    throw;
  }
}

}  // namespace pipesched
