// SPDX-License-Identifier: MIT
#pragma once

// Group-interleaved 1F1B: interleaved 1F1B with half the warm-up and the backward split, each W right after its I,
// which keeps fewer activations.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/chunk_walk.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/interleaved_params.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

inline constexpr family group_interleaved_family{
    .name = "group_interleaved",
    .summary = "interleaved 1F1B with half the warm-up and a split backward: less memory (PipeOffload's GIS)",
    .source = "Wan et al., PipeOffload (arXiv 2503.01328), section 3; the order is that of the authors' scheduler",
    .limits = {.takes = {parameter::chunks, parameter::group_size}},
    .place = looped_placement,
    .emit =
        [](const family_params& all, std::int64_t rank, auto& sink) {
          const interleaved_params p = detail::interleaved(all);
          detail::pad_to_whole_groups(p, p.group_size.value_or(p.pp), sink,
                                      [&](const interleaved_params& whole, auto& to) {
                                        detail::emit_whole_interleaved_zb(whole, rank, 0, to);
                                      });
        },
    .check =
        [](const family& f, const family_params& p) {
          const std::int64_t least = (p.pp + 1) / 2;
          if (p.group_size && (*p.group_size < least || *p.group_size > p.pp))
            throw schedule_error(detail::concat(
                {f.name, " needs groups of pp/2 = ", least, " to pp = ", detail::count_text(p.pp, "micro-batch"),
                 "; got group_size = ", *p.group_size, ", nearest ", *p.group_size < least ? least : p.pp}));
        },
    .peak =
        [](const family_params& p, std::int64_t rank) {
          const std::int64_t group = p.group_size.value_or(p.pp), most = (chunks_of(p) - 1) * group + p.pp - rank;
          return activation_peak{std::min(p.micro * chunks_of(p), most), p.micro % group == 0};
        },
    .unit_bubble = [](const family_params& p) -> std::optional<std::int64_t> {
      if (p.group_size.value_or(p.pp) != p.pp || p.micro % p.pp != 0) return std::nullopt;
      return 2 * (p.pp - 1);
    }};

/// Group-interleaved 1F1B for every pp, micro, chunks >= 1. Rank r keeps (chunks-1) group_size + pp - r activations of
/// one stage. Groups are of pp micro-batches (GIS, the default) or, down to pp/2, of fewer (GIS-H: less memory, a
/// bubble that is (pp - group_size)(chunks - 1) F longer); the surplus of the last group is left out. With groups of
/// pp, micro a multiple of pp and F = I = W, the bubble is 2(pp-1)F of one stage. Takes neither extra_warm_up nor
/// overlap.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_group_interleaved_schedule(const interleaved_params& p) {
  return group_interleaved_family.make(p);
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_group_interleaved_row(const interleaved_params& p, std::integral auto rank) {
  return group_interleaved_family.row(p, rank);
}

}  // namespace pipesched
