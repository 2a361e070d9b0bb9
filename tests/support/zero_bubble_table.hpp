// SPDX-License-Identifier: MIT
#pragma once

// Rows of the zero-bubble paper's tables, tests/golden/zero_bubble_paper_table5.json.

#include <cmath>
#include <nlohmann/json.hpp>
#include <pipesched/cost/stage_costs.hpp>

namespace pipesched::tests {

/// The costs of a row, in microseconds and the paper's units of memory.
inline stage_costs zero_bubble_costs(const nlohmann::json& row) {
  const auto microseconds = [&](const char* name) { return std::round(row["table9_ms"][name].get<double>() * 1000); };
  const double kept = row["mem"]["M_B"].get<double>(), for_weights = row["mem"]["M_W"].get<double>();
  return {.forward = microseconds("F"),
          .backward_input = microseconds("B"),  // the paper's B is our I
          .backward_weight = microseconds("W"),
          .transfer_time = microseconds("C"),
          .kept_by_forward = kept,
          .freed_by_input = kept - for_weights,
          .freed_by_weight = per_stage(for_weights)};
}

}  // namespace pipesched::tests
