// SPDX-License-Identifier: MIT
#pragma once

// The parameters that every family takes, and the refusal of those it cannot.

#include <cstdint>
#include <string_view>

#include "pipesched/cost_model.hpp"
#include "pipesched/error.hpp"
#include "pipesched/placement.hpp"

namespace pipesched {

/// Named arguments: `make_1f1b_schedule({.pp = 8, .micro = 20})`. The numbers are wider than any legal value, so that
/// one too large is refused with a sentence instead of wrapping round.
struct pipeline_params {
  std::int64_t pp;            ///< pipeline ranks, 1 ... 65536
  std::int64_t micro;         ///< micro-batches of the step, 1 ... 2^28 / stages
  bool forward_only = false;  ///< evaluation: the forwards of the same order, nothing else
};

/// The parameters of every family together, for tools: a family takes those that it knows.
struct schedule_params {
  std::int64_t pp;
  std::int64_t micro;
  bool forward_only = false;
  std::int64_t chunks = 2;      ///< stages a rank, for looped placements
  std::int64_t group_size = 0;  ///< micro-batches a group, for interleaved families; 0: the family's own
  bool extra_warm_up = false;   ///< interleaved 1F1B
  bool overlap = false;         ///< interleaved 1F1B: F&B pairs
  std::int64_t waves = 1;       ///< Hanayo
  stage_costs costs{};          ///< for families that look at costs: the greedy ones
  double memory_limit = 0;      ///< likewise, in activations of one stage; 0: as many as 1F1B

  constexpr operator pipeline_params() const {  // NOLINT: the three that all know
    return {.pp = pp, .micro = micro, .forward_only = forward_only};
  }
};

/// The most (stage, micro-batch) pairs of one schedule; one of this size takes about 10 GiB.
inline constexpr std::int64_t max_pairs = std::int64_t{1} << 28;

/// What a family asks of `pp` and `micro`.
struct family_limits {
  std::string_view family;
  std::int64_t stages_per_rank = 1;
  bool even_pp = false;
};

/// @throws schedule_error unless 1 <= pp, pp even where the family needs it, stages <= 65536, 1 <= micro,
/// and stages * micro <= 2^28.
constexpr void require(const family_limits& rule, const pipeline_params& p) {
  using detail::concat;
  const std::int64_t max_pp = max_stages / rule.stages_per_rank;
  if (rule.even_pp && p.pp < 2)
    throw schedule_error(
        concat({rule.family, " needs an even number of pipeline ranks; got pp = ", p.pp, ", nearest 2"}));
  if (p.pp < 1)
    throw schedule_error(concat({rule.family, " needs at least 1 pipeline rank; got pp = ", p.pp, ", nearest 1"}));
  if (p.pp > max_pp)
    throw schedule_error(
        concat({rule.family, " needs at most ", max_pp, " pipeline ranks (stages are 16-bit numbers); got pp = ", p.pp,
                ", nearest ", max_pp}));
  if (rule.even_pp && p.pp % 2 != 0)
    throw schedule_error(concat({rule.family, " needs an even number of pipeline ranks; got pp = ", p.pp, ", nearest ",
                                 p.pp - 1, " or ", p.pp + 1}));
  if (p.micro < 1)
    throw schedule_error(concat({rule.family, " needs at least 1 micro-batch; got micro = ", p.micro, ", nearest 1"}));
  const std::int64_t stages = p.pp * rule.stages_per_rank;
  if (p.micro > max_pairs / stages)
    throw schedule_error(concat({rule.family, " needs stages x micro-batches of at most 2^28; got ", stages,
                                 " stages x micro = ", p.micro, ", nearest micro = ", max_pairs / stages}));
}

/// @throws schedule_error unless the parameters are legal and 0 <= rank < pp.
constexpr void require(const family_limits& rule, const pipeline_params& p, std::int64_t rank) {
  require(rule, p);
  if (rank < 0 || rank >= p.pp)
    throw schedule_error(detail::concat({rule.family, " needs a rank from 0 to pp - 1 = ", p.pp - 1,
                                         "; got rank = ", rank, ", nearest ", rank < 0 ? 0 : p.pp - 1}));
}

}  // namespace pipesched
