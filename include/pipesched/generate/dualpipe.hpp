// SPDX-License-Identifier: MIT
#pragma once

// DualPipe: micro-batches enter from both ends of the pipeline and every stage is held twice. In the steady state each
// cell is the forward of one direction overlapped with the backward of the other.

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

inline constexpr family dualpipe_family{
    .name = "dualpipe",
    .summary = "DeepSeek-V3: micro-batches from both ends, forwards overlapped with backwards; even pp",
    .source =
        "DeepSeek-AI, DeepSeek-V3 Technical Report (arXiv 2412.19437), section 3.2.1, figure 5, table 2; the order "
        "of deepseek-ai/DualPipe 3da1bbe, including the first pair of the middle ranks, which is not overlapped",
    .limits = {.even_pp = true},
    .place = bidirectional_placement,
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const std::int64_t accepted = std::max(p.micro + p.micro % 2, 2 * p.pp);
          const std::int64_t first_up = (p.micro + 1) / 2;  // the first micro-batch of replica 1
          const stage_ops down(rank, 0), up(p.pp - 1 - rank, 1, first_up);
          const bool upper = rank < p.pp / 2;
          emit_truncated(sink, p.micro == accepted, first_up, p.micro, [&](auto& to) {
            detail::emit_two_streams(p.pp / 2, std::min(rank, p.pp - 1 - rank), accepted / 2, upper ? down : up,
                                     upper ? up : down, to);
          });
        },
    .peak =
        [](const family_params& p, std::int64_t) {
          return activation_peak{p.pp + 1, p.micro % 2 == 0 && p.micro >= 2 * p.pp};
        },
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      if (p.forward_only) return std::nullopt;
      return closed_form{.formula = "(PP/2-1)(F&B+B-3W)",
                         .source = "DeepSeek-V3, arXiv 2412.19437, table 2",
                         .assumes = "micro even and >= 2 pp, F = I = W, B = I + W, B <= F&B <= F+B",
                         .bubble = (static_cast<double>(p.pp) / 2 - 1) * (t.FB + t.B - 3 * t.W),
                         .peak_activations = static_cast<double>(p.pp + 1),
                         .fails = detail::first_failing({{p.micro >= 2 * p.pp, "micro >= 2 pp"},
                                                         {p.micro % 2 == 0, "micro even"},
                                                         {t.F == t.I && t.I == t.W, "F = I = W"},
                                                         {t.B == t.I + t.W, "B = I + W"},
                                                         {t.B <= t.FB && t.FB <= t.F + t.B, "B <= F&B <= F+B"}})};
    }};

/// DualPipe for every even pp and every micro >= 1. If the reference accepts the numbers (micro even and at least 2
/// pp), the order is that of the reference; otherwise it is that of the next accepted number of micro-batches, without
/// the surplus. In the accepted range, with F = I = W and F&B = F + B, the bubble is (pp/2-1)(F&B + B - 3W) and every
/// rank keeps pp + 1 activations; otherwise at most as many. The parameters of every stage are held twice.
/// `static_assert(verify(make_dualpipe_schedule({.pp = 8, .micro = 20})))` compiles within the default limits of g++
/// and clang.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_dualpipe_schedule(const pipeline_params& p) { return dualpipe_family.make(p); }

/// The row of one rank. Linear in its length.
constexpr std::vector<cell> make_dualpipe_row(const pipeline_params& p, std::integral auto rank) {
  return dualpipe_family.row(p, rank);
}

}  // namespace pipesched
