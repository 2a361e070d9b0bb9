// SPDX-License-Identifier: MIT
#pragma once

// The parameters of the families on a looped placement, where rank r hosts stages r, pp + r, 2 pp + r, ...
// Micro-batches pass through the chunks of a rank in groups: one group through the first chunk, then through the
// second, ..., then the next group.

#include <algorithm>
#include <cstdint>
#include <optional>

#include "pipesched/generate/family.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// `make_interleaved_1f1b_schedule({.pp = 4, .micro = 8, .chunks = 2})`
struct interleaved_params {
  std::int64_t pp;                           ///< pipeline ranks
  std::int64_t micro;                        ///< micro-batches per step, any number
  std::int64_t chunks = 2;                   ///< stages per rank, 1 to 256
  bool forward_only = false;                 ///< evaluation
  std::optional<std::int64_t> group_size{};  ///< micro-batches per group; the default depends on the family
  bool extra_warm_up = false;  ///< interleaved 1F1B: one more forward before the first backward of each rank
  bool overlap = false;        ///< interleaved 1F1B: F&B pairs in the steady state; implies extra_warm_up

  constexpr operator family_params() const {  // NOLINT: all else at its default
    return {.pp = pp,
            .micro = micro,
            .forward_only = forward_only,
            .chunks = chunks,
            .group_size = group_size,
            .extra_warm_up = extra_warm_up,
            .overlap = overlap};
  }
};

namespace detail {

constexpr interleaved_params interleaved(const family_params& p) {
  return {.pp = p.pp,
          .micro = p.micro,
          .chunks = chunks_of(p),
          .forward_only = p.forward_only,
          .group_size = p.group_size,
          .extra_warm_up = p.extra_warm_up,
          .overlap = p.overlap};
}

// Groups of at least pp micro-batches, so that no rank waits between two groups.
constexpr void require_long_groups(const family& f, const family_params& p) {
  const std::int64_t least = std::min(p.pp, p.micro);
  if (p.group_size && *p.group_size < least)
    throw schedule_error(concat(
        {f.name, " needs groups of at least pp micro-batches, or of all of them; got group_size = ", *p.group_size,
         ", nearest ", least}));
}

}  // namespace detail

}  // namespace pipesched
