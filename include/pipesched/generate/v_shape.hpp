// SPDX-License-Identifier: MIT
#pragma once

// The families on the V placement, rank r hosting stages r and 2pp-1-r, so that the last stage lies where the first does and the
// first backward starts where the forward began: ZB-V in its hand-made order, and V-Half, V-Min and 1F1B-V from building
// blocks. (ZB-V by greedy search is in zb_greedy.hpp.)
// Source: Qi et al., "Pipeline Parallelism with Controllable Memory" (arXiv 2405.15362); for ZB-V PyTorch's
// ScheduleZBVZeroBubble, for the others the authors' scheduler (sail-sg/zero-bubble-pipeline-parallelism 39f2c186), whose orders
// these are.

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/generate/building_block.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

inline constexpr params_rule zbv_rule{.family = "zbv", .stages_per_rank = 2};
inline constexpr params_rule v_half_rule{.family = "v_half", .stages_per_rank = 2};
inline constexpr params_rule v_min_rule{.family = "v_min", .stages_per_rank = 2};
inline constexpr params_rule v_1f1b_rule{.family = "v_1f1b", .stages_per_rank = 2};

namespace detail {

// The order for n >= 2pp-1 micro-batches; a goes down the V, b back up.
template <cell_sink Sink>
constexpr void emit_whole_zbv(std::int64_t P, std::int64_t r, std::int64_t n, Sink& sink) {
  const stage_ops a(r, 0), b(2 * P - 1 - r, 1);
  const std::int64_t ahead = 2 * P - r - 1;  // forwards of a before the steady state
  const std::int64_t with_a = n - ahead;     // rounds of the steady state that have one more
  repeat(sink, 2 * (P - r) - 1, a.F(0));
  repeat(sink, r, b.F(0), a.F(2 * (P - r) - 1));
  repeat(sink, P - r, b.F(r), b.I(0), b.W(0));
  repeat(sink, with_a, a.F(ahead), a.I(0), a.W(0), b.F(P), b.I(P - r), b.W(P - r));
  repeat(sink, n - P - with_a, a.I(with_a), a.W(with_a), b.F(P + with_a), b.I(P - r + with_a), b.W(P - r + with_a));
  repeat(sink, r, a.I(n - P), b.I(n - r));
  repeat(sink, P - r, a.I(n - P + r), a.W(n - P));
  repeat(sink, r, b.W(n - r));
  repeat(sink, r, a.W(n - r));
}

}  // namespace detail

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_zbv(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(zbv_rule, p, rank);
  const std::int64_t whole = std::max(p.micro, 2 * p.pp - 1);
  if (!p.forward_only && p.micro == whole) return detail::emit_whole_zbv(p.pp, rank, whole, sink);
  cell_filter::to out(sink);
  cell_filter kept(out, p.micro, p.micro, p.forward_only);
  detail::emit_whole_zbv(p.pp, rank, whole, kept);
}

/// ZB-V for every pp >= 1 and micro >= 1; below 2 pp - 1 micro-batches the order of 2 pp - 1 without the surplus, as PyTorch
/// does it. For micro >= 2 pp and F = I = W the span has no bubble and the makespan one of pp - 1, as ranks start one F after
/// the other; every rank keeps 2 pp activations of one stage, as much memory as 1F1B's rank 0.
/// @throws schedule_error on bad parameters. Linear in the number of cells, but for pp^2 if micro < 2 pp - 1.
constexpr schedule make_zbv_schedule(const pipeline_params& p) {
  require(zbv_rule, p);
  return make_schedule_of(zbv_rule, p, placement::vee(p.pp), [&](std::int64_t r, auto& sink) { emit_zbv(p, r, sink); });
}

/// The row of one rank alone.
constexpr std::vector<cell> make_zbv_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_zbv(p, r, sink); }, rank);
}

namespace detail {

constexpr schedule make_from_table(const params_rule& rule, const pipeline_params& p, placement where,
                                   const slot_table& table) {
  return {.name = rule.family,
          .placement = std::move(where),
          .micro = static_cast<std::uint32_t>(p.micro),
          .forward_only = p.forward_only,
          .cells = table.cells(p.forward_only)};
}

// A block of I's, and W's wherever they fit.
constexpr schedule make_split_v(const params_rule& rule, const pipeline_params& p, const building_block& block) {
  placement where = placement::vee(p.pp);
  slot_table table(where, block, p.micro);
  table.fill_weights();
  table.reorder_outside_steady();
  table.squeeze();
  table.fill_weights();
  table.reorder_after_steady();
  table.squeeze();
  table.fill_weights();
  return make_from_table(rule, p, std::move(where), table);
}

}  // namespace detail

/// V-Half for every pp >= 1 and micro >= 1: the activations of 1F1B halved, floor((pp+2)/2) of two stages, at half its
/// bubble. Holds as long as W + 2I >= 2F and W + 2F >= 2I.
/// Source: section 4 of the paper; a forward takes two slots a stage on the way down and one on the way back, a backward likewise.
/// @throws schedule_error on bad parameters. O(pp micro + pp^3), the second term small.
constexpr schedule make_v_half_schedule(const pipeline_params& p) {
  require(v_half_rule, p);
  const auto P = static_cast<std::int32_t>(p.pp);
  const std::int32_t pause = P % 2 == 0 ? 3 : 0;  // keeps slots apart
  detail::building_block block;
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(2 * i);
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(2 * P - 1 + i);
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(3 * P - 1 + pause + 2 * i);
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(5 * P - 1 + pause + i);
  return detail::make_split_v(v_half_rule, p, block);
}

/// V-Min for every pp >= 1 and micro >= 1: the least memory at full rate, floor((pp+4)/3) activations of two stages, at about
/// two thirds of 1F1B's bubble, if F, I and W last equally long; with other times the bubble grows with every
/// micro-batch, so simulate before you use it. Source: section 4 of the paper; a slot a stage.
/// @throws schedule_error on bad parameters. O(pp micro + pp^3), the second term small.
constexpr schedule make_v_min_schedule(const pipeline_params& p) {
  require(v_min_rule, p);
  const auto P = static_cast<std::int32_t>(p.pp);
  const std::int32_t pause = P % 3 == 0 ? 2 : 0;  // keeps slots apart
  detail::building_block block;
  for (std::int32_t i = 0; i < 2 * P; ++i) block.first.push_back(i);
  for (std::int32_t i = 0; i < 2 * P; ++i) block.first.push_back(2 * P + pause + i);
  return detail::make_split_v(v_min_rule, p, block);
}

/// 1F1B-V for every pp >= 1 and micro >= 1: two thirds of 1F1B's activations without splitting the backward.
/// Source: the authors' v1f1b.py; a forward takes a slot a stage, a backward two, and three more after every third one.
/// @throws schedule_error on bad parameters. O(pp micro + pp^3), the second term small.
constexpr schedule make_v_1f1b_schedule(const pipeline_params& p) {
  require(v_1f1b_rule, p);
  const auto P = static_cast<std::int32_t>(p.pp);
  detail::building_block block{.split = false};
  for (std::int32_t i = 0; i < 2 * P; ++i) block.first.push_back(i);
  std::int32_t slot = 2 * P + (P % 3 == 0 ? 3 : 0);
  std::int32_t until_pause = (P + 2) % 3 == 0 ? 3 : (P + 2) % 3;
  for (std::int32_t i = 0; i < 2 * P; ++i) {
    block.first.push_back(slot);
    slot += 2;
    if (--until_pause == 0) slot += 3, until_pause = 3;
  }
  placement where = placement::vee(p.pp);
  detail::slot_table table(where, block, p.micro);
  table.reorder_all();
  return detail::make_from_table(v_1f1b_rule, p, std::move(where), table);
}

}  // namespace pipesched
