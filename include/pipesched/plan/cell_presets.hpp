// SPDX-License-Identifier: MIT
#pragma once

// The inside of published overlapped cells.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pipesched/plan/cell_costs.hpp"
#include "pipesched/plan/cell_tasks.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The tasks of a MoE layer of DeepSeek-V3 in milliseconds: a quarter of the kernel times of the four layers of
/// deepseek_v3_costs(). In the profile 11.36 of the 14.16 ms of mlp(W) run on a second stream; here all are compute.
/// Source: deepseek-ai/profile-data, train.json, kernel times by annotation.
inline layer_tasks deepseek_v3_layer_tasks() {
  constexpr auto compute = cell_resource::compute, communication = cell_resource::communication;
  return {.kind = "moe",
          .forward = {{"attn(F)", 17.48 / 4, compute},
                      {"dispatch(F)", 26.76 / 4, communication},
                      {"mlp(F)", 18.41 / 4, compute},
                      {"combine(F)", 34.74 / 4, communication}},
          .backward = {{"combine(B)", 23.08 / 4, communication},
                       {"mlp(B)", 21.22 / 4, compute},
                       {"dispatch(B)", 29.95 / 4, communication},
                       {"attn(B)", 37.36 / 4, compute}},
          .weight = {{"mlp(W)", 14.16 / 4, 1, compute}, {"attn(W)", 9.55 / 4, 3, compute}}};
}

/// The measured length of a pair of F and B with four such layers each. Source: as above.
inline constexpr double deepseek_v3_pair = 129.01;

/// The order in which DeepSeek-V3 runs F (op 0) and B (op 1) of as many layers each, for cell_in_order(): per layer combine(B)
/// beside attn(F), dispatch(F) beside mlp(B), dispatch(B) beside mlp(W), mlp(F), combine(F) beside attn(B), attn(W).
/// @throws schedule_error for more layers than a model has
/// Source: as above.
inline std::vector<task_ref> deepseek_v3_order(std::uint32_t layers = 4) {
  if (layers > max_layers)
    throw schedule_error(detail::concat(
        {"deepseek_v3_order() takes at most ", max_layers, " layers; got ", layers, ", nearest ", max_layers}));
  std::vector<task_ref> order;
  for (std::uint32_t l = 0; l < layers; ++l) {
    const std::uint32_t chain = 4 * l, weight = 2 * l;
    order.insert(order.end(), {{1, false, chain},
                               {0, false, chain},
                               {0, false, chain + 1},
                               {1, false, chain + 1},
                               {1, false, chain + 2},
                               {1, true, weight},
                               {0, false, chain + 2},
                               {0, false, chain + 3},
                               {1, false, chain + 3},
                               {1, true, weight + 1}});
  }
  return order;
}

}  // namespace pipesched
