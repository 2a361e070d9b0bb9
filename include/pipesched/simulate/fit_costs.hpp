// SPDX-License-Identifier: MIT
#pragma once

// From a measured timeline to stage costs, so that other schedules can be simulated with what this one took.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/cost_model.hpp"
#include "pipesched/dependencies.hpp"
#include "pipesched/op.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

namespace detail {

// The middle one; 0 of none. Measured times have outliers to one side.
inline double median(std::vector<double>& samples) {
  if (samples.empty()) return 0;
  const auto middle = samples.begin() + std::ssize(samples) / 2;
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

}  // namespace detail

/// The costs of each stage as the median over its cells of a timeline, in the timeline's unit: F, B, I, W, an overlapped
/// pair by the stage of its first op, and the transfer of what a stage makes, from those cells that began when it came.
/// What the timeline does not tell is filled in: of a stage with B alone, I and W are half of it each; of one whose ops are
/// all overlapped, an op is half a pair; a transfer that nobody waited for costs nothing. Bytes are not in a timeline.
/// @pre t is true. Linear in the number of ops.
inline stage_costs fit_costs(const timeline& t) {
  const schedule& s = t.schedule;
  const std::size_t stages = s.stages();
  using samples = std::vector<std::vector<double>>;
  std::array<samples, 5> of_pass;  // by pass and stage
  of_pass.fill(samples(stages));
  samples of_pair(stages), of_transfer(stages);

  detail::tensor_table<double> made(s, -1.0);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (std::size_t i = 0; i < s[rank].size(); ++i) {
      const cell& c = s[rank][i];
      const double lasted = t[rank][i].end - t[rank][i].start;
      (c.overlapped() ? of_pair[c[0].stage] : of_pass[static_cast<std::size_t>(c[0].pass)][c[0].stage])
          .push_back(lasted);
      for (op o : c)
        if (const auto out = output_of(o, s.stages())) made[*out] = t[rank][i].end;
    }
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (std::size_t i = 0; i < s[rank].size(); ++i) {
      const double start = t[rank][i].start, free = i == 0 ? 0 : t[rank][i - 1].end;
      if (!(start > free)) continue;
      double last = -1;
      tensor_id which;
      for (op o : s[rank][i])
        if (const auto in = input_of(o, s.stages()); in && made[*in] > last) last = made[*in], which = *in;
      if (last >= free && s.placement.rank_of(which.stage, which.micro) != rank)
        of_transfer[which.stage].push_back(std::max(0.0, start - last));
    }

  std::vector<double> F, B, I, W, pair, transfer;
  bool any_pair = false, any_whole = false;
  for (std::size_t stage = 0; stage < stages; ++stage) {
    const auto time = [&](pass p) { return detail::median(of_pass[static_cast<std::size_t>(p)][stage]); };
    const bool whole = !of_pass[static_cast<std::size_t>(pass::backward)][stage].empty();
    const double paired = detail::median(of_pair[stage]);
    F.push_back(time(pass::forward)), B.push_back(time(pass::backward));
    I.push_back(time(pass::backward_input)), W.push_back(time(pass::backward_weight));
    if (F.back() == 0) F.back() = paired / 2;
    if (B.back() == 0 && I.back() == 0) B.back() = paired / 2;
    if (I.back() == 0 && W.back() == 0) I.back() = W.back() = B.back() / 2;
    if (B.back() == 0) B.back() = I.back() + W.back();
    pair.push_back(paired > 0 ? paired : F.back() + B.back());
    transfer.push_back(detail::median(of_transfer[stage]));
    any_pair = any_pair || paired > 0, any_whole = any_whole || whole;
  }
  stage_costs costs{.forward = per_stage(std::move(F)),
                    .backward_input = per_stage(std::move(I)),
                    .backward_weight = per_stage(std::move(W)),
                    .transfer_time = per_stage(std::move(transfer))};
  if (any_whole) costs.backward = per_stage(std::move(B));
  if (any_pair) costs.overlapped = per_stage(std::move(pair));
  return costs;
}

}  // namespace pipesched
