// SPDX-License-Identifier: MIT
#pragma once

// A cost model with a number for every stage: times, transfers, overlapped pairs, and bytes.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/cost/per_stage.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Duration of an overlapped cell of two passes, for all stages or for two given ones.
struct pair_time {
  pass_pair passes{};
  std::optional<std::array<std::uint16_t, 2>> stages{};  ///< of `passes.first` and `passes.second`; default: any
  double time = 0;

  /// True if it prices this cell. The order of the cell's ops does not matter.
  constexpr bool prices(const cell& c) const noexcept {
    const auto is = [&](std::size_t first, std::size_t second) {
      return c[first].pass == passes.first && c[second].pass == passes.second &&
             (!stages || ((*stages)[0] == c[first].stage && (*stages)[1] == c[second].stage));
    };
    return is(0, 1) || is(1, 0);
  }

  friend constexpr bool operator==(const pair_time&, const pair_time&) = default;
};

/// A link between two ranks, in one direction.
struct rank_link {
  std::uint32_t from = 0, to = 0;
  double latency = 0;
  std::optional<double> bandwidth{};  ///< bytes per unit of time; default: infinite

  friend constexpr bool operator==(const rank_link&, const rank_link&) = default;
};

/// Costs by stage, and by rank and micro-batch where these differ. Transfers are by cut: entry s is between stages s and
/// s+1, for activations and gradients alike.
///
/// The duration of an overlapped cell (a;b) is the first of these that is given:
///  1. the entry of `pairs` for its two passes and stages, else the one for its two passes;
///  2. `overlapped`, by the stage of a, if the cell is an F with a B or an I;
///  3. with an `overlap_efficiency` e, and at most a + b: max(sum of compute, sum of communication) / e if any
///     communication is given, else max(a, b) / e;
///  4. a + b.
///
/// With micro-batches of lengths l >= k, it is k times that and l - k times the longer op alone.
struct stage_costs {
  per_stage forward = 1;
  optional_per_stage backward_input{};         ///< default: backward - backward_weight, or half of backward, or 1
  optional_per_stage backward_weight{};        ///< default: backward - backward_input, or half of backward, or 1
  optional_per_stage backward{};               ///< default: backward_input + backward_weight
  optional_per_stage overlapped{};             ///< of F with B and F with I
  std::optional<double> overlap_efficiency{};  ///< 0 < e <= 1; not beside `overlapped`

  /// Durations of overlapped cells by their passes and, where given, stages.
  std::vector<pair_time> pairs{};
  /// Cells that a planner may use; default: F with B, F with I, and whatever `pairs` prices. simulate() takes any cell.
  std::optional<pass_pair_set> allowed_pairs{};

  /// Communication inside each op (expert all-to-all), a part of its duration that a partner's compute can hide.
  per_stage forward_communication = 0;
  per_stage backward_input_communication = 0;
  per_stage backward_weight_communication = 0;

  /// Times at which outputs leave an overlapped cell, from its start; default: at its end.
  optional_per_stage release_forward{};
  optional_per_stage release_backward{};

  /// Over a cut between two ranks: transfer_time (latency) + message_bytes / bandwidth, the second only if a bandwidth
  /// is given, in bytes per unit of time. A link carries any number of messages at a time.
  per_stage transfer_time = 0;
  per_stage message_bytes = 0;
  optional_per_stage bandwidth{};
  /// Between these ranks: latency + message_bytes / bandwidth, whatever transfer_time and bandwidth say of the cut.
  std::vector<rank_link> links{};

  /// By rank: its durations are divided by it; default: 1 each.
  std::vector<double> rank_speeds{};
  /// By micro-batch, relative lengths: durations, bytes kept and messages are multiplied by them; default: 1 each.
  std::vector<double> micro_batches{};

  /// Bytes: kept from the start of F; freed at the end of I; freed at the end of W (default: the rest); parameters,
  /// gradients and optimizer state of the stage.
  per_stage kept_by_forward = 0;
  per_stage freed_by_input = 0;
  optional_per_stage freed_by_weight{};
  per_stage weight_bytes = 0;

  constexpr bool micro_batches_alike() const noexcept { return micro_batches.empty(); }

  /// Times of the stage's backward and its halves.
  constexpr detail::backward_times backward_times(std::uint32_t stage) const noexcept {
    const double input = backward_input ? backward_input[stage] : 0,
                 weight = backward_weight ? backward_weight[stage] : 0, whole = backward ? backward[stage] : 0;
    return detail::resolve_backward(backward_input ? &input : nullptr, backward_weight ? &weight : nullptr,
                                    backward ? &whole : nullptr);
  }

  /// Durations on a rank of speed 1, and on a rank.
  constexpr double duration(op o) const noexcept { return length_of(o.micro) * unit_duration(o); }
  constexpr double duration(const cell& c) const noexcept {
    if (micro_batches.empty()) return unit_duration(c);
    if (!c.overlapped()) return duration(c[0]);
    const double a = length_of(c[0].micro), b = length_of(c[1].micro);
    const double together = std::min(a, b) * unit_duration(c);
    return a == b ? together : together + (std::max(a, b) - std::min(a, b)) * unit_duration(c[a > b ? 0 : 1]);
  }
  constexpr double duration(const cell& c, std::uint32_t rank) const noexcept { return duration(c) / speed_of(rank); }

  constexpr double length_of(std::uint32_t micro) const noexcept {
    return micro_batches.empty() ? 1 : micro_batches[micro];
  }
  constexpr double speed_of(std::uint32_t rank) const noexcept { return rank_speeds.empty() ? 1 : rank_speeds[rank]; }

  /// Durations for micro-batches of length 1, on a rank of speed 1.
  constexpr double unit_duration(op o) const noexcept {
    switch (o.pass) {
      case pass::forward: return forward[o.stage];
      case pass::backward: return backward ? backward[o.stage] : backward_times(o.stage).whole;
      case pass::backward_input: return backward_input ? backward_input[o.stage] : backward_times(o.stage).input;
      case pass::backward_weight: return backward_weight ? backward_weight[o.stage] : backward_times(o.stage).weight;
      case pass::none: break;
    }
    return 0;
  }

  constexpr double communication(op o) const noexcept {
    switch (o.pass) {
      case pass::forward: return forward_communication[o.stage];
      case pass::backward: return backward_input_communication[o.stage] + backward_weight_communication[o.stage];
      case pass::backward_input: return backward_input_communication[o.stage];
      case pass::backward_weight: return backward_weight_communication[o.stage];
      case pass::none: break;
    }
    return 0;
  }

  constexpr double unit_duration(const cell& c) const noexcept {
    const double a = unit_duration(c[0]);
    if (!c.overlapped()) return a;
    const double b = unit_duration(c[1]);
    if (const pair_time* given = find_pair(c)) return given->time;
    if (overlapped && pass_pair_set::forward_with_backward().contains(pair_of(c))) return overlapped[c[0].stage];
    if (!overlap_efficiency) return a + b;
    const double communicated = communication(c[0]) + communication(c[1]);
    const double ideal = communicated > 0 ? std::max(a + b - communicated, communicated) : std::max(a, b);
    return std::min(ideal / *overlap_efficiency, a + b);
  }

  constexpr double release(const cell& c, std::size_t i, std::uint32_t rank) const noexcept {
    const double end = duration(c, rank);
    const auto& at = c[i].pass == pass::forward ? release_forward : release_backward;
    return c.overlapped() && at ? std::min(at[c[i].stage] * length_of(c[i].micro) / speed_of(rank), end) : end;
  }

  constexpr double transfer(std::uint32_t from, std::uint32_t to, tensor_id t) const noexcept {
    const std::uint32_t cut = t.kind == tensor_kind::gradient ? t.stage - 1u : t.stage;
    const auto sent = [&](double per_time) { return message_bytes[cut] * length_of(t.micro) / per_time; };
    for (const rank_link& link : links)
      if (link.from == from && link.to == to) return link.latency + (link.bandwidth ? sent(*link.bandwidth) : 0);
    return transfer_time[cut] + (bandwidth ? sent(bandwidth[cut]) : 0);
  }

  constexpr double bytes(op o) const noexcept {
    const double length = length_of(o.micro);
    const double kept = length * kept_by_forward[o.stage], by_input = length * freed_by_input[o.stage];
    const double by_weight = freed_by_weight ? length * freed_by_weight[o.stage] : kept - by_input;
    switch (o.pass) {
      case pass::forward: return kept;
      case pass::backward: return -(by_input + by_weight);
      case pass::backward_input: return -by_input;
      case pass::backward_weight: return -by_weight;
      case pass::none: break;
    }
    return 0;
  }
  constexpr double weights(std::uint32_t stage) const noexcept { return weight_bytes[stage]; }

  /// Cells that a planner may use.
  constexpr pass_pair_set may_overlap() const {
    if (allowed_pairs) return *allowed_pairs;
    pass_pair_set all = pass_pair_set::forward_with_backward();
    for (const pair_time& p : pairs) all.insert(p.passes);
    return all;
  }

  /// @throws schedule_error if an array has another length than 1 or `stages` (or `stages` - 1, for cuts), a number is
  /// negative, infinite or NaN, a backward is shorter than its one given half, communication is longer than its op, the
  /// efficiency is not in (0, 1] or stands beside `overlapped`, a pair names a stage that does not exist or is given
  /// twice, a bandwidth is 0, or more is freed than kept.
  constexpr void check(std::uint32_t stages) const {
    for_each_field(*this, [&](const auto& field, std::string_view name) {
      const bool per_cut = is_per_cut(name);
      if constexpr (requires { field.has_value(); }) {
        if (field) field->check(name, stages, per_cut);
      } else {
        field.check(name, stages, per_cut);
      }
    });
    if (overlap_efficiency && !(*overlap_efficiency > 0 && *overlap_efficiency <= 1))
      throw schedule_error(detail::concat({"costs: overlap_efficiency is more than 0 and at most 1; got ",
                                           *overlap_efficiency, ", nearest ", *overlap_efficiency > 1 ? "1" : "0.01"}));
    if (overlap_efficiency && overlapped)
      throw schedule_error(
          "costs: overlapped and overlap_efficiency both give the time of an F with a B; expected one of "
          "them");
    if (bandwidth)
      for (double value : bandwidth->values())
        if (value == 0) throw schedule_error("costs: bandwidth is 0; expected more than 0");
    check_pairs(stages);
    for (std::uint32_t s = 0; s < stages; ++s) check_stage(s);
  }
  /// Also if there are speeds for another number of ranks, lengths for another number of micro-batches, or one of them is 0;
  /// if a link is between ranks that do not exist, or given twice.
  constexpr void check(std::uint32_t stages, std::uint32_t ranks, std::uint32_t micro) const {
    check(stages);
    check_factors(rank_speeds, "rank_speeds", ranks, "rank");
    check_factors(micro_batches, "micro_batches", micro, "micro-batch");
    check_links(ranks);
  }

  /// Calls `f(field, name)` for every number or array, a per_stage or an optional one, with the name it has in JSON.
  template <typename Self, typename F>
  static constexpr void for_each_field(Self& self, F&& f) {
    f(self.forward, "forward");
    f(self.backward_input, "backward_input");
    f(self.backward_weight, "backward_weight");
    f(self.backward, "backward");
    f(self.overlapped, "overlapped");
    f(self.forward_communication, "communication.forward");
    f(self.backward_input_communication, "communication.backward_input");
    f(self.backward_weight_communication, "communication.backward_weight");
    f(self.release_forward, "release.forward");
    f(self.release_backward, "release.backward");
    f(self.transfer_time, "transfer");
    f(self.message_bytes, "message_bytes");
    f(self.bandwidth, "bandwidth");
    f(self.kept_by_forward, "memory.kept_by_forward");
    f(self.freed_by_input, "memory.freed_by_input");
    f(self.freed_by_weight, "memory.freed_by_weight");
    f(self.weight_bytes, "memory.weights");
  }

  /// True for the fields with one number per cut between stages.
  static constexpr bool is_per_cut(std::string_view name) noexcept {
    return name == "transfer" || name == "message_bytes" || name == "bandwidth";
  }

  friend constexpr bool operator==(const stage_costs&, const stage_costs&) = default;

 private:
  constexpr const pair_time* find_pair(const cell& c) const noexcept {
    const pair_time* general = nullptr;
    for (const pair_time& p : pairs) {
      if (!p.prices(c)) continue;
      if (p.stages) return &p;
      general = &p;
    }
    return general;
  }

  // The stages of a pair of equal passes are unordered, as the ops of a cell are.
  static constexpr bool same_cells(const pair_time& a, const pair_time& b) noexcept {
    if (!(a.passes == b.passes) || a.stages.has_value() != b.stages.has_value()) return false;
    if (!a.stages) return true;
    const std::array swapped{(*b.stages)[1], (*b.stages)[0]};
    const bool same_order = a.passes.first == b.passes.first, equal_passes = a.passes.first == a.passes.second;
    return (same_order && *a.stages == *b.stages) || ((!same_order || equal_passes) && *a.stages == swapped);
  }

  static constexpr void check_factors(const std::vector<double>& factors, std::string_view name, std::uint32_t expected,
                                      std::string_view what) {
    if (!factors.empty() && factors.size() != expected)
      throw schedule_error(
          detail::concat({"costs: ", name, " has ", factors.size(), factors.size() == 1 ? " number" : " numbers",
                          "; expected ", expected, ", one per ", what}));
    for (std::size_t i = 0; i < factors.size(); ++i) check_positive(factors[i], detail::concat({name, "[", i, "]"}));
  }
  static constexpr void check_positive(double value, const std::string& name) {
    detail::require_cost(value, name);
    if (value == 0) throw schedule_error(detail::concat({"costs: ", name, " is 0; expected more than 0"}));
  }

  constexpr void check_links(std::uint32_t ranks) const {
    for (std::size_t i = 0; i < links.size(); ++i) {
      const rank_link& link = links[i];
      const std::string name = detail::concat({"links[", i, "]"});
      for (const std::uint32_t rank : {link.from, link.to})
        if (rank >= ranks)
          throw schedule_error(detail::concat(
              {"costs: ", name, " names rank ", rank, "; expected 0 to ", ranks - 1, ", nearest ", ranks - 1}));
      if (link.from == link.to)
        throw schedule_error(
            detail::concat({"costs: ", name, " is from rank ", link.from, " to itself; expected two ranks"}));
      detail::require_cost(link.latency, name + ".latency");
      if (link.bandwidth) check_positive(*link.bandwidth, name + ".bandwidth");
      for (std::size_t before = 0; before < i; ++before)
        if (links[before].from == link.from && links[before].to == link.to)
          throw schedule_error(detail::concat(
              {"costs: ", name, " is for the ranks of links[", before, "]; expected one link for a pair"}));
    }
  }

  constexpr void check_pairs(std::uint32_t stages) const {
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const pair_time& p = pairs[i];
      if (p.passes.first == pass::none || p.passes.second == pass::none)
        throw schedule_error(detail::concat({"costs: pairs[", i, "] has no two passes; expected two of F, B, I, W"}));
      if (!(p.time >= 0 && p.time <= std::numeric_limits<double>::max()))
        detail::require_cost(p.time, detail::concat({"pairs[", i, "].time"}));
      if (p.stages)
        for (std::uint16_t s : *p.stages)
          if (s >= stages)
            throw schedule_error(detail::concat(
                {"costs: pairs[", i, "] names stage ", s, "; expected 0 to ", stages - 1, ", nearest ", stages - 1}));
      for (std::size_t before = 0; before < i; ++before)
        if (same_cells(pairs[before], p))
          throw schedule_error(detail::concat(
              {"costs: pairs[", i, "] prices the cells of pairs[", before, "] again; expected one price"}));
    }
  }

  constexpr void check_stage(std::uint32_t s) const {
    detail::require_rest_of_backward(backward_times(s), s);
    const auto check_part = [&](std::string_view pass, double part, double whole) {
      if (part > whole)
        throw schedule_error(detail::concat({"costs: communication.", pass, " of stage ", s, " is ", part,
                                             ", more than the op's ", whole, "; nearest ", whole}));
    };
    check_part("forward", forward_communication[s], forward[s]);
    check_part("backward_input", backward_input_communication[s], backward_times(s).input);
    check_part("backward_weight", backward_weight_communication[s], backward_times(s).weight);
    const double freed = freed_by_input[s] + (freed_by_weight ? freed_by_weight[s] : 0);
    if (freed > kept_by_forward[s])
      throw schedule_error(
          detail::concat({"costs: stage ", s, " frees ", freed, " bytes, more than the ", kept_by_forward[s],
                          " that its forward keeps; nearest ", kept_by_forward[s]}));
  }
};

static_assert(cost_model<stage_costs>);

}  // namespace pipesched
