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
#include "pipesched/cost/machine.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/cost/per_stage.hpp"
#include "pipesched/cost/time_unit.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/keyed_list.hpp"

namespace pipesched {

/// Costs by stage, and by rank and micro-batch where these differ. Transfers are by cut: entry s is between stages s and
/// s+1, for activations and gradients alike.
///
/// The duration of an overlapped cell (a;b) is the first of these that is given:
///  1. the entry of `pairs` for its two passes and stages, else the one for its two passes;
///  2. `overlapped`, by the stage of a, if the cell is an F with a B or an I;
///  3. with an `overlap_efficiency` e, and at most a + b: max(sum of compute, sum of communication) / e if any
///     communication is given, else max(a, b) / e;
///  4. a + b.
/// A backward that recomputes inside lasts `recompute` longer, alone and in a pair, unless `pairs` prices that pair: "F(RB)".
///
/// With micro-batches of lengths l >= k, it is k times that and l - k times the op of the longer micro-batch alone.
struct stage_costs {
  per_stage forward = 1;
  optional_per_stage backward_input{};         ///< default: backward - backward_weight, or half of backward, or 1
  optional_per_stage backward_weight{};        ///< default: backward - backward_input, or half of backward, or 1
  optional_per_stage backward{};               ///< default: backward_input + backward_weight
  optional_per_stage recompute{};              ///< R; default: forward
  optional_per_stage overlapped{};             ///< of F with B and F with I
  std::optional<double> overlap_efficiency{};  ///< 0 < e <= 1; not beside `overlapped`

  /// Durations of overlapped cells by their passes and, where given, stages.
  keyed_list<pair_time> pairs{};
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
  link_busy transfers_busy = link_busy::none;  ///< the ranks that such a transfer keeps busy
  /// Between these ranks: latency + message_bytes / bandwidth, whatever transfer_time and bandwidth say of the cut.
  keyed_list<rank_link> links{};

  /// By rank: its durations are divided by it; default: 1 each.
  std::vector<double> rank_speeds{};
  /// By micro-batch, relative lengths: durations, bytes kept and messages are multiplied by them; default: 1 each.
  std::vector<double> micro_batches{};

  /// Bytes: kept from the start of F; freed at the end of I; freed at the end of W (default: the rest). In place of
  /// freed_by_input, what is kept between the end of I and the end of W, which may be more than before. The part of
  /// kept_by_forward that recomputation starts from, and all that F keeps then; parameters, gradients and optimizer state of
  /// the stage.
  per_stage kept_by_forward = 0;
  per_stage freed_by_input = 0;
  optional_per_stage freed_by_weight{};
  optional_per_stage context{};
  per_stage kept_input = 0;
  per_stage weight_bytes = 0;
  /// Bytes on top while an op runs: of F, B, I and W (default: as B) and R (default: as F). A backward that recomputes inside
  /// takes the larger of its own and R's.
  per_stage transient_forward = 0;
  per_stage transient_backward = 0;
  optional_per_stage transient_backward_input{};
  optional_per_stage transient_backward_weight{};
  optional_per_stage transient_recompute{};

  /// The unit of all times, for output; nothing is converted.
  pipesched::time_unit time_unit = pipesched::time_unit::none;

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
      case pass::recompute: return recompute ? recompute[o.stage] : forward[o.stage];
      case pass::recompute_backward:
      case pass::recompute_backward_input:
        return unit_duration(detail::with_pass(o, without_recompute(o.pass))) +
               unit_duration(detail::with_pass(o, pass::recompute));
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
      case pass::recompute: return std::min(forward_communication[o.stage], unit_duration(o));
      default: break;
    }
    return 0;
  }

  constexpr double unit_duration(const cell& c) const noexcept {
    const double a = unit_duration(c[0]);
    if (!c.overlapped()) return a;
    if (const pair_time* given = find_pair(c)) return given->time;
    if (const auto [inside, rest] = detail::split_recompute(c); inside > 0) {
      double duration = unit_duration(rest);
      for (const op o : c)
        if (o.pass != without_recompute(o.pass)) duration += unit_duration(detail::with_pass(o, pass::recompute));
      return duration;
    }
    const double b = unit_duration(c[1]);
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
    if (const rank_link* link = find_link(from, to))
      return link->latency + (link->bandwidth ? sent(*link->bandwidth) : 0);
    return transfer_time[cut] + (bandwidth ? sent(bandwidth[cut]) : 0);
  }

  constexpr link_busy busy(std::uint32_t from, std::uint32_t to, tensor_id) const noexcept {
    const rank_link* const link = find_link(from, to);
    return link ? link->busy : transfers_busy;
  }
  constexpr bool keeps_ranks_busy() const noexcept {
    return transfers_busy != link_busy::none ||
           std::any_of(links.begin(), links.end(), [](const rank_link& l) { return l.busy != link_busy::none; });
  }

  constexpr double bytes(op o) const noexcept {
    const double length = length_of(o.micro);
    const double kept = length * kept_by_forward[o.stage];
    const double by_input = context ? kept - length * context[o.stage] : length * freed_by_input[o.stage];
    const double by_weight = freed_by_weight ? length * freed_by_weight[o.stage] : kept - by_input;
    switch (o.pass) {
      case pass::forward: return kept;
      case pass::backward: return freed_by_weight ? -(by_input + by_weight) : -kept;
      case pass::backward_input: return -by_input;
      case pass::backward_weight: return -by_weight;
      case pass::recompute: return kept - length * kept_input[o.stage];
      default: break;
    }
    return 0;
  }
  constexpr double transient(op o) const noexcept {
    const auto of = [&](pass p) {
      const per_stage& backward_bytes = transient_backward;
      switch (p) {
        case pass::forward: return transient_forward[o.stage];
        case pass::backward_input:
          return (transient_backward_input ? *transient_backward_input : backward_bytes)[o.stage];
        case pass::backward_weight:
          return (transient_backward_weight ? *transient_backward_weight : backward_bytes)[o.stage];
        case pass::recompute: return (transient_recompute ? *transient_recompute : transient_forward)[o.stage];
        default: return backward_bytes[o.stage];
      }
    };
    const pass own = without_recompute(o.pass);
    return length_of(o.micro) * (own == o.pass ? of(own) : std::max(of(own), of(pass::recompute)));
  }
  constexpr double message(tensor_id t) const noexcept {
    return message_bytes[t.kind == tensor_kind::gradient ? t.stage - 1u : t.stage] * length_of(t.micro);
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
  /// twice, a bandwidth is 0, more is freed than kept, kept_input is more than kept, or context stands beside what is freed.
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
    if (context && (freed_by_weight || freed_by_input != per_stage(0)))
      throw schedule_error(
          "costs: memory.context and memory.freed_by_input or freed_by_weight both give what I leaves for W; expected "
          "one of "
          "them");
    if (bandwidth)
      for (double value : bandwidth->values())
        if (value == 0) throw schedule_error("costs: bandwidth is 0; expected more than 0");
    detail::check_pairs(pairs, stages);
    for (std::uint32_t s = 0; s < stages; ++s) check_stage(s);
  }
  /// Also if there are speeds for another number of ranks, lengths for another number of micro-batches, or one of them is 0;
  /// if a link is between ranks that do not exist, or given twice.
  constexpr void check(std::uint32_t stages, std::uint32_t ranks, std::uint32_t micro) const {
    check(stages);
    detail::check_factors(rank_speeds, "rank_speeds", ranks, "rank");
    detail::check_factors(micro_batches, "micro_batches", micro, "micro-batch");
    detail::check_links(links, ranks);
  }

  /// Calls `f(field, name)` for every number or array, a per_stage or an optional one, with the name it has in JSON.
  template <typename Self, typename F>
  static constexpr void for_each_field(Self& self, F&& f) {
    f(self.forward, "forward");
    f(self.backward_input, "backward_input");
    f(self.backward_weight, "backward_weight");
    f(self.backward, "backward");
    f(self.recompute, "recompute");
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
    f(self.context, "memory.context");
    f(self.kept_input, "memory.kept_input");
    f(self.weight_bytes, "memory.weights");
    f(self.transient_forward, "transient.F");
    f(self.transient_backward, "transient.B");
    f(self.transient_backward_input, "transient.I");
    f(self.transient_backward_weight, "transient.W");
    f(self.transient_recompute, "transient.R");
  }

  /// True for the fields with one number per cut between stages.
  static constexpr bool is_per_cut(std::string_view name) noexcept {
    return name == "transfer" || name == "message_bytes" || name == "bandwidth";
  }

  /// True for the fields that a rank's share divides among its stages: not those of cuts, nor what one op needs while it runs.
  static constexpr bool is_divided(std::string_view name) noexcept {
    return !is_per_cut(name) && !name.starts_with("transient.");
  }

  friend constexpr bool operator==(const stage_costs&, const stage_costs&) = default;

 private:
  constexpr const rank_link* find_link(std::uint32_t from, std::uint32_t to) const noexcept {
    return links.find(detail::key_of_link(from, to));
  }

  constexpr const pair_time* find_pair(const cell& c) const noexcept {
    const pair_time* own = pairs.find(detail::key_of_pair(c[0].pass, c[0].stage, c[1].pass, c[1].stage));
    return own ? own : pairs.find(detail::key_of_pair(c[0].pass, -1, c[1].pass, -1));
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
    if (kept_input[s] > kept_by_forward[s])
      throw schedule_error(
          detail::concat({"costs: memory.kept_input of stage ", s, " is ", kept_input[s], ", more than the ",
                          kept_by_forward[s], " that its forward keeps; nearest ", kept_by_forward[s]}));
    const double freed = freed_by_input[s] + (freed_by_weight ? freed_by_weight[s] : 0);
    if (freed > kept_by_forward[s])
      throw schedule_error(
          detail::concat({"costs: stage ", s, " frees ", freed, " bytes, more than the ", kept_by_forward[s],
                          " that its forward keeps; nearest ", kept_by_forward[s]}));
  }
};

static_assert(cost_model<stage_costs>);

}  // namespace pipesched
