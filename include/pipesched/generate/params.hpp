// SPDX-License-Identifier: MIT
#pragma once

// The parameters that every family takes, and the limits that a family sets for them.

#include <cstdint>
#include <string_view>

#include "pipesched/core/placement.hpp"
#include "pipesched/generate/parameters.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Named arguments: `make_1f1b_schedule({.pp = 8, .micro = 20})`. The integers are wider than any legal value, so that
/// a value that is too large is refused instead of wrapping around.
struct pipeline_params {
  std::int64_t pp;            ///< pipeline ranks, 1 to 65536
  std::int64_t micro;         ///< micro-batches per step, 1 to 2^28 / stages
  bool forward_only = false;  ///< evaluation: the forwards in the same order, without backwards
};

/// The maximum number of (stage, micro-batch) pairs per schedule. A schedule of this size takes about 10 GiB.
inline constexpr std::int64_t max_pairs = std::int64_t{1} << 28;

/// The limits of a family: what it requires of `pp` and `micro`, and which optional parameters it takes.
struct family_limits {
  std::string_view family;
  std::int64_t stages_per_rank = 1;
  bool even_pp = false;
  parameter_set takes{};
};

namespace detail {

[[noreturn]] inline void refuse_parameter(std::string_view family, parameter which, piece got) {
  const std::string_view name = to_string(which);
  throw schedule_error(concat({family, " takes no ", name, "; got ", name, " = ", got}));
}

constexpr void require_pairs(std::string_view family, std::int64_t stages, std::int64_t micro) {
  if (micro > max_pairs / stages)
    throw schedule_error(concat({family, " needs stages x micro-batches of at most 2^28; got ", stages,
                                 " stages x micro = ", micro, ", nearest micro = ", max_pairs / stages}));
}

}  // namespace detail

/// @throws schedule_error unless 1 <= pp, pp is even where the family needs it, stages <= 65536, 1 <= micro,
/// and stages * micro <= 2^28.
constexpr void require(const family_limits& limits, const pipeline_params& p) {
  using detail::concat;
  const std::int64_t max_pp = max_stages / limits.stages_per_rank;
  if (limits.even_pp && p.pp < 2)
    throw schedule_error(
        concat({limits.family, " needs an even number of pipeline ranks; got pp = ", p.pp, ", nearest 2"}));
  if (p.pp < 1)
    throw schedule_error(concat({limits.family, " needs at least 1 pipeline rank; got pp = ", p.pp, ", nearest 1"}));
  if (p.pp > max_pp)
    throw schedule_error(
        concat({limits.family, " needs at most ", max_pp,
                " pipeline ranks (stages are 16-bit numbers); got pp = ", p.pp, ", nearest ", max_pp}));
  if (limits.even_pp && p.pp % 2 != 0)
    throw schedule_error(concat({limits.family, " needs an even number of pipeline ranks; got pp = ", p.pp,
                                 ", nearest ", p.pp - 1, " or ", p.pp + 1}));
  if (p.micro < 1)
    throw schedule_error(
        concat({limits.family, " needs at least 1 micro-batch; got micro = ", p.micro, ", nearest 1"}));
  detail::require_pairs(limits.family, p.pp * limits.stages_per_rank, p.micro);
}

/// @throws schedule_error unless the parameters are legal and 0 <= rank < pp.
constexpr void require(const family_limits& limits, const pipeline_params& p, std::int64_t rank) {
  require(limits, p);
  if (rank < 0 || rank >= p.pp)
    throw schedule_error(detail::concat({limits.family, " needs a rank from 0 to pp - 1 = ", p.pp - 1,
                                         "; got rank = ", rank, ", nearest ", rank < 0 ? 0 : p.pp - 1}));
}

}  // namespace pipesched
