// SPDX-License-Identifier: MIT
#pragma once

// ZB1P, the ZB-H1 order: 1F1B with the backward split into I and W. I sends the gradient on at once; rank r runs each W
// r micro-batches after its I, which fills the bubbles of the cool-down with no more memory than rank 0 of 1F1B.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family zb1p_family{
    .name = "zb1p",
    .summary = "1F1B with a split backward (ZB-H1): a third of the bubble, the same memory",
    .source = "Qi et al., Zero Bubble Pipeline Parallelism (arXiv 2401.10241), section 2.1, figure 2, table 2",
    .place = linear_placement,
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const stage_ops s(rank);
          if (p.forward_only) return repeat(sink, p.micro, s.F(0));
          const std::int64_t warm_up = std::min(p.micro, p.pp - rank);
          const std::int64_t steady = p.micro - warm_up;      // a forward follows I(k) for k < steady ...
          const std::int64_t late = std::min(rank, p.micro);  // ... and before it W(k - late) for k >= late
          const std::int64_t both = std::max(steady, late);
          repeat(sink, warm_up, s.F(0));
          repeat(sink, std::min(steady, late), s.I(0), s.F(warm_up));
          repeat(sink, steady - late, s.I(late), s.W(0), s.F(warm_up + late));
          repeat(sink, late - steady, s.I(steady));
          repeat(sink, p.micro - both, s.I(both), s.W(both - late));
          repeat(sink, late, s.W(p.micro - late));
        },
    .peak = [](const family_params& p, std::int64_t) { return activation_peak{std::min(p.micro, p.pp)}; },
    // DeepSeek's table writes (PP-1)(F+B-2W) with B the full backward, the paper (p-1)(T_F+T_B-T_W): the same for
    // B = I + W.
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      if (p.forward_only) return detail::evaluation_on_a_line(p, t);
      return closed_form{.formula = "(PP-1)(F+B-2W)",
                         .source = "Zero Bubble, arXiv 2401.10241, table 2",
                         .assumes = "micro >= pp, W <= F, W <= I",
                         .bubble = static_cast<double>(p.pp - 1) * (t.F + t.I - t.W),
                         .peak_activations = static_cast<double>(std::min(p.micro, p.pp)),
                         .fails = detail::first_failing(
                             {{p.micro >= p.pp, "micro >= pp"}, {t.W <= t.F, "W <= F"}, {t.W <= t.I, "W <= I"}})};
    }};

/// ZB1P for every pp >= 1 and micro >= 1. For micro >= pp, W <= F and W <= I, the bubble is (pp-1)(F+I-W), which is
/// (pp-1)(F+B-2W) with B the full backward. Every rank keeps min(micro, pp) activations until their W's.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_zb1p_schedule(const pipeline_params& p) { return zb1p_family.make(p); }

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_zb1p_row(const pipeline_params& p, std::integral auto rank) {
  return zb1p_family.row(p, rank);
}

}  // namespace pipesched
