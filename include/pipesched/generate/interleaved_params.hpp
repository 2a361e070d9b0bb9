// SPDX-License-Identifier: MIT
#pragma once

// The parameters of the families on a looped placement, where rank r hosts stages r, pp + r, 2 pp + r, ...
// Micro-batches pass through the chunks of a rank in groups: one group through the first chunk, then through the
// second, ..., then the next group.

#include <algorithm>
#include <cstdint>
#include <optional>

#include "pipesched/generate/params.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// `make_interleaved_1f1b_schedule({.pp = 4, .micro = 8, .chunks = 2})`
struct interleaved_params {
  std::int64_t pp;                           ///< pipeline ranks
  std::int64_t micro;                        ///< micro-batches per step, any number
  std::int64_t chunks;                       ///< stages per rank, 1 to 256
  bool forward_only = false;                 ///< evaluation
  std::optional<std::int64_t> group_size{};  ///< micro-batches per group; the default depends on the family
  bool extra_warm_up = false;  ///< interleaved 1F1B: one more forward before the first backward of each rank
  bool overlap = false;        ///< interleaved 1F1B: F&B pairs in the steady state; implies extra_warm_up
};

namespace detail {

constexpr void require(const family_limits& limits, const interleaved_params& p) {
  if (p.chunks < 1 || p.chunks > max_chunks)
    throw schedule_error(concat({limits.family, " needs 1 to 256 chunks per rank; got chunks = ", p.chunks,
                                 ", nearest ", p.chunks < 1 ? 1 : max_chunks}));
  family_limits with_chunks = limits;
  with_chunks.stages_per_rank = p.chunks;
  pipesched::require(with_chunks, {.pp = p.pp, .micro = p.micro});
  if (p.group_size && !limits.takes.contains(parameter::group_size))
    refuse_parameter(limits.family, parameter::group_size, *p.group_size);
  if (p.extra_warm_up && !limits.takes.contains(parameter::extra_warm_up))
    refuse_parameter(limits.family, parameter::extra_warm_up, "true");
  if (p.overlap && !limits.takes.contains(parameter::overlap))
    refuse_parameter(limits.family, parameter::overlap, "true");
}

constexpr void require_rank(const family_limits& limits, const interleaved_params& p, std::int64_t rank) {
  require(limits, p);
  pipesched::require(limits, {.pp = p.pp, .micro = 1}, rank);
}

// Groups of at least pp micro-batches, so that no rank waits between two groups.
constexpr void require_long_groups(const family_limits& limits, const interleaved_params& p) {
  const std::int64_t least = std::min(p.pp, p.micro);
  if (p.group_size && *p.group_size < least)
    throw schedule_error(
        concat({limits.family, " needs groups of at least pp micro-batches, or of all of them; got group_size = ",
                *p.group_size, ", nearest ", least}));
}

}  // namespace detail

}  // namespace pipesched
