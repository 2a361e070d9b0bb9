// SPDX-License-Identifier: MIT
#pragma once

// ZB-H2: the greedy order for F = I = W and free transfers, with nearly twice the memory of 1F1B.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/zb_rows.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

inline constexpr family zb_h2_family{
    .name = "zb_h2",
    .summary = "ZB-H2: the greedy order for F = I = W with nearly twice the memory of 1F1B; no bubble in the span",
    .source = "Qi et al., Zero Bubble Pipeline Parallelism (arXiv 2401.10241), section 2, table 2",
    .place = linear_placement,
    .search = [](const family_params& p,
                 const placement& where) { return detail::zb_rows(p, where, 2 * static_cast<double>(p.pp) - 1); },
    .peak =
        [](const family_params& p, std::int64_t) {
          return activation_peak{2 * p.pp - 1, false};
        },
    // A bubble of the span: ranks start one F after the other, and the last ends that much later.
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      if (p.forward_only) return std::nullopt;
      return closed_form{.formula = "(PP-1)(F+I-2W)",
                         .source = "Zero Bubble, arXiv 2401.10241, table 2",
                         .assumes = "micro >= 2 pp - 1, F = I = W",
                         .bubble = static_cast<double>(p.pp - 1) * (t.F + t.I - 2 * t.W),
                         .peak_activations = static_cast<double>(std::min(p.micro, 2 * p.pp - 1)),
                         .fails = detail::first_failing(
                             {{p.micro >= 2 * p.pp - 1, "micro >= 2 pp - 1"}, {t.F == t.I && t.I == t.W, "F = I = W"}}),
                         .of_span = true};
    },
    .unit_bubble = [](const family_params& p) -> std::optional<std::int64_t> {
      if (p.micro < 2 * p.pp - 1) return std::nullopt;
      return p.pp - 1;
    }};

/// ZB-H2: the greedy order for F = I = W and free transfers, with a limit of 2 pp - 1 activations. For micro >= 2 pp - 1
/// and F = I = W, the span has no bubble.
/// @throws schedule_error on bad parameters. O(pp * micro).
inline schedule make_zb_h2_schedule(const pipeline_params& p) { return zb_h2_family.make(p); }

/// The row of one rank. It makes the whole schedule first.
inline std::vector<cell> make_zb_h2_row(const pipeline_params& p, std::integral auto rank) {
  return zb_h2_family.row(p, rank);
}

}  // namespace pipesched
