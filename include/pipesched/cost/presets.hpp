// SPDX-License-Identifier: MIT
#pragma once

// Measured costs of published models.

#include "pipesched/cost/stage_costs.hpp"

namespace pipesched {

/// DeepSeek-V3's measured costs in milliseconds: four MoE layers per stage, EP64, TP1, sequences of 4096. Alone a forward
/// takes 97.39 ms and a full backward 135.32 ms; as an overlapped pair they take 129.01 ms, as the compute of one hides
/// the all-to-all of the other. The traces hold no pipeline transfers; they cost nothing here.
/// Source: deepseek-ai/profile-data, train.json, kernel times by annotation.
inline stage_costs deepseek_v3_costs() {
  return {.forward = 17.48 + 18.41 + 26.76 + 34.74,         // attention, MLP, dispatch, combine
          .backward_input = 37.36 + 21.22 + 29.95 + 23.08,  // attention, MLP, dispatch, combine
          .backward_weight = 9.55 + 14.16,                  // attention, MLP
          .overlapped = 129.01,
          .forward_communication = 26.76 + 34.74,
          .backward_input_communication = 29.95 + 23.08,
          .time_unit = time_unit::ms};
}

}  // namespace pipesched
