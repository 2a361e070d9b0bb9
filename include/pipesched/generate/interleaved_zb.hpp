// SPDX-License-Identifier: MIT
#pragma once

// Interleaved zero bubble: interleaved 1F1B with the backward split. I sends the gradient on at once; rank r runs each
// W r I's later.

#include <concepts>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/chunk_walk.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/interleaved_params.hpp"

namespace pipesched {

inline constexpr family interleaved_zb_family{
    .name = "interleaved_zb",
    .summary = "interleaved 1F1B with a split backward",
    .source = "the order of PyTorch's ScheduleInterleavedZeroBubble",
    .limits = {.takes = {parameter::chunks, parameter::group_size}},
    .place = looped_placement,
    .emit =
        [](const family_params& all, std::int64_t rank, auto& sink) {
          const interleaved_params p = detail::interleaved(all);
          detail::pad_to_whole_groups(p, detail::group_size_of(p), sink,
                                      [&](const interleaved_params& whole, auto& to) {
                                        detail::emit_whole_interleaved_zb(whole, rank, rank, to);
                                      });
        },
    .check = [](const family& f, const family_params& p) { detail::require_long_groups(f, p); },
    .peak =
        [](const family_params& p, std::int64_t) {
          return activation_peak{p.micro * chunks_of(p), false};
        }};

/// Interleaved zero bubble for every pp, micro, chunks >= 1, with half the warm-up of interleaved 1F1B. Groups and
/// departures from PyTorch are those of interleaved 1F1B. Takes neither extra_warm_up nor overlap.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_interleaved_zb_schedule(const interleaved_params& p) { return interleaved_zb_family.make(p); }

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_interleaved_zb_row(const interleaved_params& p, std::integral auto rank) {
  return interleaved_zb_family.row(p, rank);
}

}  // namespace pipesched
