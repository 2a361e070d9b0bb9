// SPDX-License-Identifier: MIT
#pragma once

// Steps of one rank of an edge_transport, with all that a failure asks for.

#include <cstddef>

#include "pipesched/device/device.hpp"
#include "pipesched/device/edge_transport.hpp"
#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/executor.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched {

/// Steps of one rank, with warm() before them. A trainer's `begin_step(step)` and `end_step(step)` are called around every
/// step if it has them, the latter once the device is through: there an optimizer may go.
/// @throws trainer_error, with rank and place, around what the trainer has thrown in a step; else pipeline_aborted, if another
/// rank has failed or nothing moved
template <typename Trainer, device_runtime R, typename L>
void run_steps(const program& p, Trainer& trainer, edge_transport<R, L>& transport, std::size_t steps = 1) {
  try {
    transport.select_device();
    transport.warm(trainer);
    for (std::size_t step = 0; step < steps; ++step)
      detail::run_step(transport.rank(), trainer, step, [&] {
        detail::execute<true>(p, transport.rank(), trainer, transport, {}, {});
        transport.synchronize();
      });
  } catch (...) {
    transport.abort(detail::text_of_exception());
    throw;
  }
}

}  // namespace pipesched
