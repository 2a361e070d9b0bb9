// SPDX-License-Identifier: MIT
#pragma once

// Stage costs fitted to a measured timeline, so that other schedules can be simulated with them.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// Whether the times of all ranks come from one clock; without one, nothing is known of transfers.
enum class rank_clocks : std::uint8_t { common, own };

namespace detail {

// The sample that median() takes if two are in the middle.
enum class middle_of_two : std::uint8_t { lower, upper };
// The median, 0 without samples. By default the lower one of two in the middle, as durations have outliers upwards.
inline double median(std::vector<double>& samples, middle_of_two which = middle_of_two::lower) {
  if (samples.empty()) return 0;
  const auto middle = samples.begin() + (std::ssize(samples) - (which == middle_of_two::lower ? 1 : 0)) / 2;
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

inline bool any_backward(const cost_samples& samples, std::size_t stage) {
  for (const pass p : {pass::backward, pass::backward_input, pass::recompute_backward, pass::recompute_backward_input})
    if (!samples.of_pass[static_cast<std::size_t>(p)][stage].empty()) return true;
  return false;
}

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

inline void sample_timeline(const timeline& t, bool with_transfers, cost_samples& samples) {
  require_timeline(t);
  const schedule& s = t.schedule;
  tensor_table<double> made(s, -1.0);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (std::size_t i = 0; i < s[rank].size(); ++i) {
      samples.add(s[rank][i], t[rank][i].end - t[rank][i].start);
      for (op o : s[rank][i])
        if (const auto out = output_of(o, s.chain())) made[*out] = t[rank][i].end;
    }
  if (with_transfers) sample_transfers(t, made, samples);
}

inline cost_samples samples_of(std::span<const timeline> times, rank_clocks clocks) {
  if (times.empty()) throw schedule_error("fit_costs() needs at least 1 timeline; got 0, nearest 1");
  cost_samples samples(times[0].schedule.stages());
  for (const timeline& t : times) {
    if (t.schedule.stages() != times[0].schedule.stages())
      throw schedule_error(concat({"fit_costs() needs timelines with as many stages; got ", times[0].schedule.stages(),
                                   " and ", t.schedule.stages()}));
    sample_timeline(t, clocks == rank_clocks::common, samples);
  }
  return samples;
}

}  // namespace detail

/// The costs of each stage in the timelines' unit of time, as medians over micro-batches and timelines: F, B, I, W and R; F with
/// B or I in one cell, by the stage of its first op; other overlapped cells as entries of `pairs`; and the transfer over each
/// cut, from the cells that waited for it. Missing values are estimated: I = W = B/2 if only B was measured; F = B = pair/2 if all
/// ops of a stage were overlapped; R = F, and B or I the rest, if only an RB or RI was measured; 0 for a transfer that no cell
/// waited for. A timeline holds no bytes. Linear in the number of ops.
/// @throws schedule_error unless there is a timeline, all have as many stages, and each has one interval of finite times per cell
/// and a valid schedule.
inline stage_costs fit_costs(std::span<const timeline> times, rank_clocks clocks = rank_clocks::common) {
  detail::cost_samples samples = detail::samples_of(times, clocks);
  const std::size_t stages = times[0].schedule.stages();

  // Clocks that differ a little shorten the transfers of one direction, down to 0, and lengthen those of the other.
  constexpr auto upper = detail::middle_of_two::upper;
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
    transfer.push_back(detail::median(samples.of_cut[stage], upper));
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
/// The same for one timeline.
inline stage_costs fit_costs(const timeline& t) { return fit_costs(std::span(&t, 1)); }

namespace detail {

// "stage 3", "stages 0, 1, 2, 3 and 2 more", or "all stages". @param what  the singular: "stage"
inline std::string list_of_places(const std::vector<std::size_t>& places, std::size_t all, std::string_view what) {
  if (places.size() == all && all > 1) return concat({"all ", what, "s"});
  std::string text = concat({what, places.size() == 1 ? " " : "s "});
  for (std::size_t i = 0; i < places.size() && i < 4; ++i) text += concat({i == 0 ? "" : ", ", places[i]});
  return places.size() > 4 ? concat({text, " and ", places.size() - 4, " more"}) : text;
}

}  // namespace detail

/// One sentence for each kind of value of fit_costs() that was not measured. @pre as for fit_costs()
inline std::vector<std::string> estimates_of(std::span<const timeline> times,
                                             rank_clocks clocks = rank_clocks::common) {
  using detail::concat;
  const detail::cost_samples samples = detail::samples_of(times, clocks);
  const schedule& s = times[0].schedule;
  const auto ran = [&](pass p, std::size_t stage) {
    return !samples.of_pass[static_cast<std::size_t>(p)][stage].empty();
  };
  std::vector<std::size_t> halves, pairs, cuts, forwards;
  std::size_t between_ranks = 0;
  for (std::size_t stage = 0; stage < s.stages(); ++stage) {
    if (!detail::any_backward(samples, stage) && samples.of_overlapped[stage].empty() &&
        !ran(pass::backward_weight, stage))
      forwards.push_back(stage);
    if (ran(pass::backward, stage) && !ran(pass::backward_input, stage) && !ran(pass::backward_weight, stage))
      halves.push_back(stage);
    if (!samples.of_overlapped[stage].empty() && (!ran(pass::forward, stage) || !detail::any_backward(samples, stage)))
      pairs.push_back(stage);
    const std::uint32_t at = static_cast<std::uint32_t>(stage);
    if (at + 1 == s.stages() || s.placement.rank_of(at, 0) == s.placement.rank_of(at + 1, 0)) continue;
    ++between_ranks;
    if (samples.of_cut[stage].empty()) cuts.push_back(stage);
  }
  std::vector<std::string> notes;
  if (!forwards.empty())
    notes.push_back(
        concat({"B of ", detail::list_of_places(forwards, s.stages(), "stage"), " takes no time, as none ran alone"}));
  if (!halves.empty())
    notes.push_back(
        concat({"I = W = B/2 of ", detail::list_of_places(halves, s.stages(), "stage"), ", as neither ran"}));
  if (!pairs.empty())
    notes.push_back(concat({"F or B of ", detail::list_of_places(pairs, s.stages(), "stage"),
                            " is half of a pair, as it never ran alone"}));
  if (!cuts.empty() && clocks == rank_clocks::common)
    notes.push_back(concat(
        {"the transfer over ", detail::list_of_places(cuts, between_ranks, "cut"), " is 0, as no cell waited for it"}));
  return notes;
}

}  // namespace pipesched
