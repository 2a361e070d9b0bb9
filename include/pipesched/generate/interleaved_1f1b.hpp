// SPDX-License-Identifier: MIT
#pragma once

// Interleaved 1F1B: 1F1B with several stages per rank on a looped placement, which divides the bubble by their number.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/chunk_walk.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/interleaved_params.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

namespace detail {

// The forwards before the first backward of a rank. @pre group_size is given
constexpr std::int64_t interleaved_warm_up(const interleaved_params& p, std::int64_t rank) {
  const std::int64_t ahead = (p.chunks - 1) * *p.group_size + 2 * (p.pp - 1 - rank);
  return std::min(ahead + (p.extra_warm_up || p.overlap ? 1 : 0), p.micro * p.chunks);
}

template <cell_sink Sink>
constexpr void emit_whole_interleaved_1f1b(const interleaved_params& p, std::int64_t rank, Sink& sink) {
  chunk_walk forwards(p, rank, false), backwards(p, rank, true);
  if (p.forward_only) return emit_walk(sink, p.micro * p.chunks, forwards, pass::forward);
  const std::int64_t warm_up = interleaved_warm_up(p, rank);
  emit_walk(sink, warm_up, forwards, pass::forward);
  for (std::int64_t left = p.micro * p.chunks - warm_up; left > 0;) {
    const std::int64_t run = std::min({left, forwards.run(), backwards.run()});
    const cell F = forwards.ops().F(0), B = backwards.ops().B(0);
    if (p.overlap)
      repeat(sink, run, overlap(F, B));
    else
      repeat(sink, run, F, B);
    forwards.advance(run), backwards.advance(run);
    left -= run;
  }
  emit_walk(sink, warm_up, backwards, pass::backward);
}

}  // namespace detail

inline constexpr family interleaved_1f1b_family{
    .name = "interleaved_1f1b",
    .summary = "1F1B with several stages per rank, which divides the bubble by their number",
    .source =
        "Narayanan et al., Efficient Large-Scale Language Model Training (arXiv 2104.04473), section 2.2; the "
        "order is that of PyTorch's ScheduleInterleaved1F1B",
    .limits = {.takes = {parameter::chunks, parameter::group_size, parameter::extra_warm_up, parameter::overlap}},
    .place = looped_placement,
    .emit =
        [](const family_params& all, std::int64_t rank, auto& sink) {
          const interleaved_params p = detail::interleaved(all);
          detail::pad_to_whole_groups(
              p, detail::group_size_of(p), sink,
              [&](const interleaved_params& whole, auto& to) { detail::emit_whole_interleaved_1f1b(whole, rank, to); });
        },
    .check = [](const family& f, const family_params& p) { detail::require_long_groups(f, p); },
    .peak =
        [](const family_params& all, std::int64_t rank) {
          interleaved_params p = detail::interleaved(all);
          p.group_size = detail::group_size_of(p);
          if (p.micro % *p.group_size != 0) return activation_peak{p.micro * p.chunks, false};
          return activation_peak{std::min(p.micro * p.chunks, detail::interleaved_warm_up(p, rank) + 1)};
        },
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      if (p.forward_only || p.group_size || p.overlap || p.extra_warm_up) return std::nullopt;
      const std::int64_t v = chunks_of(p);
      return closed_form{
          .formula = "(PP-1)(F+B)",
          .source = "Megatron-LM, arXiv 2104.04473, section 2.2",
          .assumes = "micro a multiple of pp",
          .bubble = static_cast<double>(p.pp - 1) * (t.F + t.B),
          .peak_activations =
              static_cast<double>(std::min(p.micro * v, 2 * (p.pp - 1) + (v - 1) * p.pp + 1)) / static_cast<double>(v),
          .fails = detail::first_failing({{p.micro % p.pp == 0, "micro a multiple of pp"}})};
    }};

/// Interleaved 1F1B for every pp, micro, chunks >= 1 and groups of at least pp micro-batches. The default groups are
/// PyTorch's where PyTorch accepts the numbers (micro a multiple of max(1, micro / pp)); otherwise groups are of pp
/// micro-batches, without the surplus of the last one. For micro a multiple of pp and groups of pp, the bubble is
/// (pp-1)(F+B) of one stage. Rank r keeps min(micro * chunks, (chunks-1) group_size + 2(pp-1-r) + 1) activations of one
/// stage, one more with extra_warm_up or overlap. With `overlap`, the steady state consists of F&B cells, as in
/// Megatron, MindSpeed and Kimi K2, which hide expert all-to-all without DualPipe.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_interleaved_1f1b_schedule(const interleaved_params& p) {
  return interleaved_1f1b_family.make(p);
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_interleaved_1f1b_row(const interleaved_params& p, std::integral auto rank) {
  return interleaved_1f1b_family.row(p, rank);
}

}  // namespace pipesched
