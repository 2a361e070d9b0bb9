// SPDX-License-Identifier: MIT
#pragma once

// The order of the ops of one stage and micro-batch, as a table.

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "pipesched/core/op.hpp"

namespace pipesched::detail {

/// The state of a stage and micro-batch after the ops so far.
enum class op_state : std::uint8_t { nothing, has_forward, is_recomputed, has_input, complete, wrong };

/// The next state, by state and pass.
using op_transitions = std::array<std::array<op_state, std::size(pass_table)>, 6>;

/// For stages with a full backward, or with none in a forward-only schedule.
constexpr op_transitions transitions_of(bool forward_only) {
  op_transitions to{};
  for (auto& row : to) row.fill(op_state::wrong);
  const auto set = [&](op_state from, pass p, op_state then) {
    to[static_cast<std::size_t>(from)][static_cast<std::size_t>(p)] = then;
  };
  set(op_state::nothing, pass::forward, forward_only ? op_state::complete : op_state::has_forward);
  if (forward_only) return to;
  set(op_state::has_forward, pass::recompute, op_state::is_recomputed);
  for (const op_state from : {op_state::has_forward, op_state::is_recomputed}) {
    set(from, pass::backward, op_state::complete);
    set(from, pass::backward_input, op_state::has_input);
  }
  set(op_state::has_forward, pass::recompute_backward, op_state::complete);
  set(op_state::has_forward, pass::recompute_backward_input, op_state::has_input);
  set(op_state::has_input, pass::backward_weight, op_state::complete);
  return to;
}

}  // namespace pipesched::detail
