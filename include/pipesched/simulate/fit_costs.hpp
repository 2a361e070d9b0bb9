// SPDX-License-Identifier: MIT
#pragma once

// Stage costs fitted to a measured timeline, so that other schedules can be simulated with them.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

namespace detail {

// The median, 0 without samples: measured times have outliers to one side.
inline double median(std::vector<double>& samples) {
  if (samples.empty()) return 0;
  const auto middle = samples.begin() + std::ssize(samples) / 2;
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

// Samples of a timeline, by stage or cut.
struct cost_samples {
  using by_stage = std::vector<std::vector<double>>;
  std::array<by_stage, std::size(pass_table)> of_pass;  // [pass][stage]
  by_stage of_overlapped;                               // F with B or I, by the stage of the first op
  by_stage of_cut;                                      // transfers of tensors that were waited for
  std::map<std::tuple<pass, std::uint16_t, pass, std::uint16_t>, std::vector<double>>
      of_pair;  // other overlapped cells

  explicit cost_samples(std::size_t stages) : of_overlapped(stages), of_cut(stages) { of_pass.fill(by_stage(stages)); }

  void add(const cell& c, double duration) {
    if (!c.overlapped())
      of_pass[static_cast<std::size_t>(c[0].pass)][c[0].stage].push_back(duration);
    else if (pass_pair_set::forward_with_backward().contains(pair_of(c)))
      of_overlapped[c[0].stage].push_back(duration);
    else
      of_pair[std::min(std::tuple(c[0].pass, c[0].stage, c[1].pass, c[1].stage),
                       std::tuple(c[1].pass, c[1].stage, c[0].pass, c[0].stage))]
          .push_back(duration);
  }
};

// The time of R; if none was measured that of F, but at most that of a backward which recomputes inside.
inline double time_of_recompute(cost_samples& samples, std::size_t stage, double forward) {
  const auto of = [&](pass p) -> std::vector<double>& { return samples.of_pass[static_cast<std::size_t>(p)][stage]; };
  double time = of(pass::recompute).empty() ? forward : median(of(pass::recompute));
  for (const pass inside : {pass::recompute_backward, pass::recompute_backward_input})
    if (!of(inside).empty()) time = std::min(time, median(of(inside)));
  return time;
}

inline void sample_transfers(const timeline& t, tensor_table<double>& made, cost_samples& samples) {
  const schedule& s = t.schedule;
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (std::size_t i = 0; i < s[rank].size(); ++i) {
      const double start = t[rank][i].start, free = i == 0 ? 0 : t[rank][i - 1].end;
      if (!(start > free)) continue;
      double last = -1;
      tensor_id which;
      for (op o : s[rank][i])
        if (const auto in = input_of(o, s.chain()); in && made[*in] > last) last = made[*in], which = *in;
      if (last >= free && s.placement.rank_of(which.stage, which.micro) != rank)
        samples.of_cut[which.kind == tensor_kind::gradient ? which.stage - 1u : which.stage].push_back(
            std::max(0.0, start - last));
    }
}

}  // namespace detail

/// The costs of each stage in the timeline's unit of time, as medians: F, B, I, W and R; F with B or I in one cell, by the
/// stage of its first op; other overlapped cells as entries of `pairs`; and the transfer over each cut, from the cells that
/// waited for it. Missing values are estimated: I = W = B/2 if only B was measured; F = B = pair/2 if all ops of a stage were
/// overlapped; R = F, and B or I the rest, if only an RB or RI was measured; 0 for a transfer that no cell waited for. A
/// timeline holds no bytes. Linear in the number of ops.
/// @throws schedule_error unless the timeline has one interval of finite times per cell and its schedule is valid.
inline stage_costs fit_costs(const timeline& t) {
  detail::require_timeline(t);
  const schedule& s = t.schedule;
  const std::size_t stages = s.stages();
  detail::cost_samples samples(stages);
  detail::tensor_table<double> made(s, -1.0);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (std::size_t i = 0; i < s[rank].size(); ++i) {
      samples.add(s[rank][i], t[rank][i].end - t[rank][i].start);
      for (op o : s[rank][i])
        if (const auto out = output_of(o, s.chain())) made[*out] = t[rank][i].end;
    }
  detail::sample_transfers(t, made, samples);

  std::vector<double> F, B, I, W, R, pair, transfer;
  bool any_pair = false, any_whole = false, any_again = false;
  for (std::size_t stage = 0; stage < stages; ++stage) {
    const auto time = [&](pass p) { return detail::median(samples.of_pass[static_cast<std::size_t>(p)][stage]); };
    const auto ran = [&](pass p) { return !samples.of_pass[static_cast<std::size_t>(p)][stage].empty(); };
    const bool whole = ran(pass::backward) || ran(pass::recompute_backward);
    const double paired = detail::median(samples.of_overlapped[stage]);
    F.push_back(time(pass::forward)), B.push_back(time(pass::backward));
    I.push_back(time(pass::backward_input)), W.push_back(time(pass::backward_weight));
    if (F.back() == 0) F.back() = paired / 2;
    R.push_back(detail::time_of_recompute(samples, stage, F.back()));
    any_again = any_again || ran(pass::recompute) || R.back() != F.back();
    if (B.back() == 0) B.back() = std::max(0.0, time(pass::recompute_backward) - R.back());
    if (I.back() == 0) I.back() = std::max(0.0, time(pass::recompute_backward_input) - R.back());
    if (B.back() == 0 && I.back() == 0) B.back() = paired / 2;
    if (I.back() == 0 && W.back() == 0) I.back() = W.back() = B.back() / 2;
    if (B.back() == 0) B.back() = I.back() + W.back();
    pair.push_back(paired > 0 ? paired : F.back() + B.back());
    transfer.push_back(detail::median(samples.of_cut[stage]));
    any_pair = any_pair || paired > 0, any_whole = any_whole || whole;
  }
  stage_costs costs{.forward = per_stage(std::move(F)),
                    .backward_input = per_stage(std::move(I)),
                    .backward_weight = per_stage(std::move(W)),
                    .transfer_time = per_stage(std::move(transfer))};
  if (any_whole) costs.backward = per_stage(std::move(B));
  if (any_again) costs.recompute = per_stage(std::move(R));
  if (any_pair) costs.overlapped = per_stage(std::move(pair));
  for (auto& [key, durations] : samples.of_pair) {
    const auto [first, first_stage, second, second_stage] = key;
    costs.pairs.push_back({{first, second}, {{first_stage, second_stage}}, detail::median(durations)});
  }
  return costs;
}

}  // namespace pipesched
