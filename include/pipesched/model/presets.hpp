// SPDX-License-Identifier: MIT
#pragma once

// Models with published costs.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "pipesched/cost/presets.hpp"
#include "pipesched/model/model.hpp"

namespace pipesched {

/// MoE layers of DeepSeek-V3, in milliseconds: a quarter of the times of deepseek_v3_costs(), whose stages have four, alone and
/// as a pair of F with B or I. The profile has no dense layer, embedding, head or bytes. V3 has 58 MoE layers.
/// Source: deepseek-ai/profile-data, train.json.
inline model deepseek_v3_model(std::uint32_t layers = 58) {
  const stage_costs four = deepseek_v3_costs();
  const double pair = four.overlapped[0] / 4;
  return {.time_unit = time_unit::ms,
          .layers = {{.kind = "moe",
                      .count = layers,
                      .forward = four.forward[0] / 4,
                      .backward_input = four.backward_input[0] / 4,
                      .backward_weight = four.backward_weight[0] / 4}},
          .pairs = {{{"moe", "moe"}, {pass::forward, pass::backward}, pair},
                    {{"moe", "moe"}, {pass::forward, pass::backward_input}, pair}}};
}

/// Ratios of single layers, with the forward of a block as the unit; hardware unknown, no communication.
/// Source: Sullivan-24/PipelineSimulator, data/profiled_data.py: Gemma, hidden 1536, sequences of 4096, vocabulary 256k.
inline model gemma_model() {
  return {.layers = {{.kind = "block", .count = 32, .forward = 1, .backward_input = 1.65, .backward_weight = 0.22},
                     {.kind = "head", .forward = 5.72, .backward_input = 1.21, .backward_weight = 0.58}}};
}
/// The same for a model like DeepSeek's: hidden 2048, sequences of 4096, vocabulary 131k. The source gives the dense layers no
/// W; 0.2 of their 2.05 are taken for it, as the source's own code does.
inline model deepseek_like_model() {
  return {.layers = {{.kind = "dense", .count = 3, .forward = 1, .backward_input = 1.85, .backward_weight = 0.2},
                     {.kind = "moe", .count = 29, .forward = 2.28, .backward_input = 3.49, .backward_weight = 0.16},
                     {.kind = "head", .forward = 6.26, .backward_input = 1.98, .backward_weight = 0.82}}};
}

/// Names for command lines and files.
inline constexpr std::array<std::string_view, 3> model_names = {"deepseek_v3", "gemma_h1536_s4096_v256k",
                                                                "deepseek_h2048_s4096_v131k"};
/// The model of that name; nothing for other names.
inline std::optional<model> find_model(std::string_view name) {
  if (name == model_names[0]) return deepseek_v3_model();
  if (name == model_names[1]) return gemma_model();
  if (name == model_names[2]) return deepseek_like_model();
  return std::nullopt;
}

}  // namespace pipesched
