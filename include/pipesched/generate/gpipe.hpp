// SPDX-License-Identifier: MIT
#pragma once

// GPipe: all forwards, then all backwards.

#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family gpipe_family{
    .name = "gpipe",
    .summary = "all forwards, then all backwards",
    .source =
        "Huang et al., GPipe (arXiv 1811.06965), figure 2c; the backward order is that of PyTorch's ScheduleGPipe",
    .place = linear_placement,
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const stage_ops s(rank);
          repeat(sink, p.micro, s.F(0));
          repeat(sink, p.micro, s.B(0));
        },
    .peak = [](const family_params& p, std::int64_t) { return activation_peak{p.micro}; },
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      if (p.forward_only) return detail::evaluation_on_a_line(p, t);
      return closed_form{.formula = "(PP-1)(F+B)",
                         .source = "GPipe, arXiv 1811.06965, section 2.3",
                         .assumes = "",
                         .bubble = static_cast<double>(p.pp - 1) * (t.F + t.B),
                         .peak_activations = static_cast<double>(p.micro)};
    }};

/// GPipe for every pp >= 1 and micro >= 1. The bubble is (pp-1)(F+B); every rank keeps all `micro` activations.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_gpipe_schedule(const pipeline_params& p) { return gpipe_family.make(p); }

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_gpipe_row(const pipeline_params& p, std::integral auto rank) {
  return gpipe_family.row(p, rank);
}

}  // namespace pipesched
