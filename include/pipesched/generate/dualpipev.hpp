// SPDX-License-Identifier: MIT
#pragma once

// DualPipeV: DualPipe folded in half ("cut in half"), so that one copy of the parameters is enough. Rank r hosts stages
// r and 2pp-1-r.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/two_streams.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"

namespace pipesched {

inline constexpr family dualpipev_family{
    .name = "dualpipev",
    .summary = "DualPipe folded into a V: two stages per rank, one copy of the parameters",
    .source = "the order of deepseek-ai/DualPipe 3da1bbe",
    .limits = {.stages_per_rank = 2},
    .place = vee_placement,
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const std::int64_t accepted = std::max(p.micro, 2 * p.pp);
          const stage_ops down(rank, 0), back(2 * p.pp - 1 - rank, 1);
          emit_truncated(sink, p.micro == accepted, p.micro, p.micro,
                         [&](auto& to) { detail::emit_two_streams(p.pp, rank, accepted, down, back, to); });
        },
    .peak =
        [](const family_params& p, std::int64_t) {
          return activation_peak{2 * p.pp + 1, p.micro >= 2 * p.pp};
        },
    // On pp ranks with PP = 2 pp stages; times of one stage.
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      if (p.forward_only) return std::nullopt;
      return closed_form{.formula = "(PP/2-1)(F&B+B-3W)",
                         .source = "deepseek-ai/DualPipe, README",
                         .assumes = "micro >= 2 pp, F = I = W, B = I + W, B <= F&B <= F+B",
                         .bubble = static_cast<double>(p.pp - 1) * (t.FB + t.B - 3 * t.W),
                         .peak_activations = static_cast<double>(2 * p.pp + 1) / 2,
                         .fails = detail::first_failing({{p.micro >= 2 * p.pp, "micro >= 2 pp"},
                                                         {t.F == t.I && t.I == t.W, "F = I = W"},
                                                         {t.B == t.I + t.W, "B = I + W"},
                                                         {t.B <= t.FB && t.FB <= t.F + t.B, "B <= F&B <= F+B"}})};
    }};

/// DualPipeV for every pp >= 1 and micro >= 1, of 2 pp stages. If the reference accepts the numbers (micro >= 2 pp),
/// the order is that of the reference; otherwise it is that of micro = 2 pp without the surplus. For micro >= 2 pp, F =
/// I = W and F&B = F + B, the bubble is (pp-1)(F&B + B - 3W) of one stage, and every rank keeps 2 pp + 1 activations of
/// one stage.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_dualpipev_schedule(const pipeline_params& p) { return dualpipev_family.make(p); }

/// The row of one rank. Linear in its length and, if micro < 2 pp, in pp.
constexpr std::vector<cell> make_dualpipev_row(const pipeline_params& p, std::integral auto rank) {
  return dualpipev_family.row(p, rank);
}

}  // namespace pipesched
