// SPDX-License-Identifier: MIT
#pragma once

// A GPT computed from its sizes, by published formulas of floating-point operations, activation bytes and parameters.

#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include "pipesched/model/model.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

struct gpt_sizes {
  std::uint32_t layers, hidden, heads;
  std::uint32_t sequence = 2048, vocabulary = 51200, micro_batch = 1;
  std::uint32_t tensor_parallel =
      1;  ///< with sequence parallelism: operations, activations and weights are divided by it
  /// Bytes of weights, gradients and optimizer state for each parameter: 2 + 4 + 12 with Adam in mixed precision.
  double bytes_per_parameter = 18;
  /// The attention keeps no scores: they are computed again in the backward, or by a fused kernel. If not, 5as/h times more.
  bool selective_recomputation = true;
  /// Operations that a rank reaches in a second. 0: times are numbers of operations.
  double operations_per_second = 0;
};

/// The numbers that the model of gpt_model() is made of, for one micro-batch through the whole model without recomputation.
struct gpt_totals {
  double parameters;           ///< 12lh^2 (1 + 13/(12h) + (V+s)/(12lh)), with one copy of the embedding
  double operations;           ///< forward and backward: 72Bsh^2 l (1 + s/(6h) + V/(12lh))
  double layer_activations;    ///< bytes of one layer: Bsh (34 + 5as/h), or 34 Bsh
  double recomputed_share;     ///< part of a layer's activations that selective recomputation does not keep
  double recomputed_overhead;  ///< its operations, as a part of those of a layer
  /// Its operations in all layers: 4Bs^2hl, one more forward of the attention. Equation 8 of arXiv 2205.05198 counts three times
  /// as many, 12Bs^2hl, and the overheads printed there follow from that. Its authors confirm the error in NVIDIA/Megatron-LM,
  /// issue 523.
  double recomputed_operations;
};

namespace detail {

inline void require_gpt(const gpt_sizes& g) {
  const auto require = [](std::uint32_t value, std::string_view name) {
    if (value == 0) throw schedule_error(concat({"gpt_model() needs ", name, " of at least 1; got 0, nearest 1"}));
  };
  require(g.layers, "layers"), require(g.hidden, "hidden"), require(g.heads, "heads"), require(g.sequence, "sequence");
  require(g.vocabulary, "vocabulary"), require(g.micro_batch, "micro_batch");
  require(g.tensor_parallel, "tensor_parallel");
  for (const double value : {g.bytes_per_parameter, g.operations_per_second})
    if (!(value >= 0 && value <= std::numeric_limits<double>::max()))
      throw schedule_error(concat({"gpt_model() needs finite numbers that are not negative; got ", value}));
}

}  // namespace detail

/// @throws schedule_error for a size of 0
/// Source: parameters and operations, Narayanan et al., arXiv 2104.04473, equations 2 and 3 (72 instead of 96, as nothing is
/// recomputed); activations and selective recomputation, Korthikanti et al., arXiv 2205.05198, table 2, section 5 and appendix A.
inline gpt_totals totals_of(const gpt_sizes& g) {
  detail::require_gpt(g);
  const double l = g.layers, h = g.hidden, s = g.sequence, b = g.micro_batch, v = g.vocabulary;
  const double scores = 5.0 * g.heads * s / h;
  return {.parameters = 12 * l * h * h * (1 + 13 / (12 * h) + (v + s) / (12 * l * h)),
          .operations = 72 * b * s * l * h * h * (1 + s / (6 * h) + v / (12 * l * h)),
          .layer_activations = b * s * h * (34 + (g.selective_recomputation ? 0 : scores)),
          .recomputed_share = scores / (34 + scores),
          .recomputed_overhead = (4 * b * s * s * h) / (3 * (24 * b * s * h * h + 4 * b * s * s * h)),
          .recomputed_operations = 4 * b * s * s * h * l};
}

/// A layer of the kind "embedding", g.layers of "block", and one of "head", on one of the tensor-parallel ranks. A block's I has
/// the gradients of its inputs and of the attention, which has no weights; its W those of its weights. Messages have 2 bytes a
/// number. The head keeps its input and logits of 4 bytes, the embedding a mask; each has its own copy of the embedding's
/// weights. Recomputation is that of the whole block.
/// @throws schedule_error for a size of 0, or a number that is negative or not finite
/// Source: as totals_of(); the first and last layer, arXiv 2205.05198, section 4.3.
inline model gpt_model(const gpt_sizes& g) {
  detail::require_gpt(g);
  const double h = g.hidden, s = g.sequence, b = g.micro_batch, v = g.vocabulary, t = g.tensor_parallel;
  const double unit = g.operations_per_second > 0 ? t * g.operations_per_second : t;
  const double linear = 24 * b * s * h * h / unit, attention = 4 * b * s * s * h / unit,
               logits = 2 * b * s * h * v / unit;
  const double tokens = b * s * h / t, message = 2 * tokens;
  const double scores = g.selective_recomputation ? 0 : 5.0 * g.heads * s / h;
  model m;
  m.time_unit = g.operations_per_second > 0 ? time_unit::s : time_unit::none;
  m.layers = {{.kind = "embedding",
               .forward = 0,
               .backward_input = 0,
               .backward_weight = 0,
               .kept = tokens,
               .weights = g.bytes_per_parameter * h * (v + s) / t,
               .message = message},
              {.kind = "block",
               .count = g.layers,
               .forward = linear + attention,
               .backward_input = linear + 2 * attention + (g.selective_recomputation ? attention : 0),
               .backward_weight = linear,
               .kept = tokens * (34 + scores),
               .kept_input = message,
               .weights = g.bytes_per_parameter * (12 * h * h + 13 * h) / t,
               .message = message},
              {.kind = "head",
               .forward = logits,
               .backward_input = logits,
               .backward_weight = logits,
               .kept = 4 * tokens + 4 * b * s * v / t,
               .kept_input = message,
               .weights = g.bytes_per_parameter * h * v / t}};
  return m;
}

}  // namespace pipesched
