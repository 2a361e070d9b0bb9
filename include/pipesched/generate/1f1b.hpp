// SPDX-License-Identifier: MIT
#pragma once

// 1F1B, also called PipeDream-Flush and DAPPLE: rank r runs pp-r forwards, then one backward and one forward in turn,
// so that it keeps at most pp-r activations.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family one_f_one_b_family{
    .name = "1f1b",
    .summary = "one forward, one backward in turn: at most pp activations per rank",
    .source = "Narayanan et al., Memory-Efficient Pipeline-Parallel DNN Training (arXiv 2006.09503), section 3.2",
    .place = linear_placement,
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const stage_ops s(rank);
          if (p.forward_only) return repeat(sink, p.micro, s.F(0));
          const std::int64_t warm_up = std::min(p.micro, p.pp - rank);
          const std::int64_t steady = p.micro - warm_up;
          repeat(sink, warm_up, s.F(0));
          repeat(sink, steady, s.B(0), s.F(warm_up));
          repeat(sink, warm_up, s.B(steady));
        },
    .peak = [](const family_params& p, std::int64_t rank) { return activation_peak{std::min(p.micro, p.pp - rank)}; },
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      if (p.forward_only) return detail::evaluation_on_a_line(p, t);
      return closed_form{.formula = "(PP-1)(F+B)",
                         .source = "Zero Bubble, arXiv 2401.10241, table 2",
                         .assumes = "",
                         .bubble = static_cast<double>(p.pp - 1) * (t.F + t.B),
                         .peak_activations = static_cast<double>(std::min(p.micro, p.pp))};
    }};

/// 1F1B for every pp >= 1 and micro >= 1. The bubble is (pp-1)(F+B); rank r keeps min(micro, pp-r) activations.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_1f1b_schedule(const pipeline_params& p) { return one_f_one_b_family.make(p); }

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_1f1b_row(const pipeline_params& p, std::integral auto rank) {
  return one_f_one_b_family.row(p, rank);
}

}  // namespace pipesched
