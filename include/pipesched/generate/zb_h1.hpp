// SPDX-License-Identifier: MIT
#pragma once

// ZB-H1: the greedy order for F = I = W and free transfers, with the memory of 1F1B.

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

inline constexpr family zb_h1_family{
    .name = "zb_h1",
    .summary = "ZB-H1: the greedy order for F = I = W with the memory of 1F1B",
    .source = "Qi et al., Zero Bubble Pipeline Parallelism (arXiv 2401.10241), section 2, table 2",
    .place = linear_placement,
    .search = [](const family_params& p,
                 const placement& where) { return detail::zb_rows(p, where, static_cast<double>(p.pp)); },
    .peak =
        [](const family_params& p, std::int64_t) {
          return activation_peak{p.pp, false};
        },
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      if (p.forward_only) return std::nullopt;
      return zb1p_family.formula(p, t);
    }};

/// ZB-H1: the greedy order for F = I = W and free transfers, with a limit of pp activations. For micro >= pp, W <= F
/// and W <= I, the bubble is (pp-1)(F+I-W), that of zb1p.
/// @throws schedule_error on bad parameters. O(pp * micro).
inline schedule make_zb_h1_schedule(const pipeline_params& p) { return zb_h1_family.make(p); }

/// The row of one rank. It makes the whole schedule first.
inline std::vector<cell> make_zb_h1_row(const pipeline_params& p, std::integral auto rank) {
  return zb_h1_family.row(p, rank);
}

}  // namespace pipesched
