// SPDX-License-Identifier: MIT
#pragma once

// The bounds that follow from the least times of every op: of one micro-batch from end to end, and of each rank. bounds.hpp
// looks the times up.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/simulate/detail/bound_unit.hpp"
#include "pipesched/simulate/schedule_class.hpp"

namespace pipesched::detail {

class rank_bounds {
 protected:
  constexpr rank_bounds(const placement& where, std::uint32_t micro, const schedule_class& of)
      : p_(where), micro_(micro), class_(of), hosted_(where.ranks()) {}
  ~rank_bounds() = default;

  constexpr void set_whole(bound_unit& u) const {
    if (class_.forward_only) return;
    u.whole = u.of(pass::backward).busy;
    if (class_.split_backward)
      u.whole = std::min(u.whole, u.of(pass::backward_input).busy + u.of(pass::backward_weight).busy);
  }

  constexpr double gradient_step(const bound_unit& u) const {
    const double whole = u.of(pass::backward).step;
    return class_.split_backward ? std::min(whole, u.of(pass::backward_input).step) : whole;
  }

  // One micro-batch, forward through all stages and back, as fast as each op can be.
  constexpr void set_heads(bound_unit* stage) {
    const std::size_t last = p_.stages() - 1;
    for (std::size_t s = 0; s < last; ++s)
      stage[s + 1].head = stage[s].head + stage[s].of(pass::forward).step + stage[s].after_forward;
    stage[last].back = stage[last].head + stage[last].of(pass::forward).busy;
    if (class_.forward_only) return;
    for (std::size_t s = last; s > 0; --s)
      stage[s - 1].back = stage[s].back + gradient_step(stage[s]) + stage[s].after_gradient;
  }
  // Before the first backward of the step, no F shares its cell with a backward or a W.
  constexpr void set_first_starts() {
    double none_before = std::numeric_limits<double>::max();  // no backward starts earlier
    const std::size_t last = p_.stages() - 1;
    for (std::size_t chain = 0; chain < units_.size(); chain += p_.stages()) {
      double end = 0;
      for (std::size_t s = 0; s < last; ++s)
        end += units_[chain + s].of(pass::forward).forward_step + units_[chain + s].after_forward;
      none_before = std::min(none_before, end + units_[chain + last].of(pass::forward).forward_busy);
    }
    for (std::size_t chain = 0; chain < units_.size(); chain += p_.stages()) {
      bound_unit* const stage = &units_[chain];
      const auto after = [&](std::size_t s, double alone, double any) {
        return std::min(stage[s].first_forward + alone, std::max(stage[s].first_forward, none_before) + any);
      };
      for (std::size_t s = 0; s < last; ++s) {
        const bound_unit::least& F = stage[s].of(pass::forward);
        stage[s + 1].first_forward = after(s, F.forward_step, F.step) + stage[s].after_forward;
      }
      const bound_unit::least& F = stage[last].of(pass::forward);
      stage[last].first_backward = after(last, F.forward_busy, F.busy);
      if (class_.forward_only) continue;
      for (std::size_t s = last; s > 0; --s)
        stage[s - 1].first_backward = stage[s].first_backward + gradient_step(stage[s]) + stage[s].after_gradient;
    }
  }
  // A backward takes its own time until the step ends. If it shares its cell with an F, the backward of that F is yet to come.
  constexpr void set_rests(const std::vector<std::size_t>& hosted) {
    if (class_.forward_only) return;
    double after_forward = std::numeric_limits<double>::max();
    for (std::size_t i : hosted)
      after_forward = std::min(after_forward, units_[i].trained ? turn(units_[i]) + units_[i].whole : 0);
    for (std::size_t i : hosted) {
      bound_unit& u = units_[i];
      if (!u.trained) continue;
      const bound_unit::least& backward = u.of(pass::backward);
      u.rest = std::min(backward.apart_busy, backward.busy + after_forward);
      if (u.split_backward)
        u.rest = std::min(u.rest, u.of(pass::backward_input).busy + u.of(pass::backward_weight).busy);
    }
  }
  constexpr void set_tails(bound_unit* stage) {
    const std::size_t last = p_.stages() - 1;
    if (class_.forward_only) {
      offer(stage[last].first_backward, 0, "one micro-batch from end to end");
      for (std::size_t s = last; s-- > 0;)
        stage[s].tail =
            stage[s].after_forward + (s + 1 == last ? stage[last].of(pass::forward).busy
                                                    : stage[s + 1].of(pass::forward).step + stage[s + 1].tail);
      return;
    }
    for (std::size_t s = 1; s <= last; ++s)
      stage[s].tail =
          stage[s].after_gradient + std::max(stage[s - 1].rest, gradient_step(stage[s - 1]) + stage[s - 1].tail);
    double end = 0;
    for (std::size_t s = 0; s <= last; ++s) end = std::max(end, stage[s].first_backward + stage[s].rest);
    offer(end, 0, "one micro-batch from end to end");
  }
  // Least time from the end of the unit's F to the start of its backward.
  constexpr double turn(const bound_unit& u) const {
    const bound_unit::least& forward = u.of(pass::forward);
    return std::max(0.0, u.back - u.head - forward.step - forward.slack);
  }

  // Attribution of the time that overlapped cells save. The saving of a pair is charged in full, to one op or in parts to
  // both; or each op counts its least share of a cell, half of a pair.
  enum class charge { forward, others, halves, shares };

  // Least time that an op adds to the work of its rank. `weights`: true if W's are part of the work.
  constexpr double net(const bound_unit& u, pass p, charge who, bool weights) const {
    const bound_unit::least& at = u.of(p);
    if (who == charge::shares) return at.share;
    const double like = p == pass::forward ? at.with_F
                        : weights          ? std::max(at.with_gradient, at.with_W)
                                           : at.with_gradient;
    const double unlike = p != pass::forward ? at.with_F
                          : weights          ? std::max(at.with_gradient, at.with_W)
                                             : at.with_gradient;
    const bool pays = (who == charge::forward) == (p == pass::forward);
    double saved = like / 2;
    if (who == charge::halves)
      saved = std::max(saved, unlike / 2);
    else if (pays)
      saved = std::max(saved, unlike);
    return at.alone - (weights ? saved : std::max(saved, at.beside_W));
  }

  // The lowest stage of each chain on the rank is the one whose backward comes last, the highest the one whose forward does.
  constexpr bool comes_last(const bound_unit& u, const std::vector<std::size_t>& hosted) const {
    return std::none_of(hosted.begin(), hosted.end(), [&](std::size_t i) {
      const bound_unit& other = units_[i];
      return other.micro == u.micro && (class_.forward_only ? other.stage > u.stage : other.stage < u.stage);
    });
  }

  constexpr void bound_rank(std::uint32_t rank) {
    const double head = first_forward(rank);
    for (charge who : {charge::forward, charge::others, charge::halves, charge::shares}) {
      bound_work(rank, head, who);
      if (class_.pairs.empty()) break;  // no time can be saved
    }
    if (class_.memory_cap && *class_.memory_cap > 0) bound_memory(rank, head);
  }

  constexpr void bound_work(std::uint32_t rank, double head, charge who) {
    const auto& hosted = hosted_[rank];
    double forwards = again_.empty() ? 0 : again_[rank], gradients = 0, whole = forwards;
    for (std::size_t i : hosted) {
      const bound_unit& u = units_[i];
      forwards += u.count * net(u, pass::forward, who, false);
      if (class_.forward_only) continue;
      double gradient = net(u, pass::backward, who, false);
      if (class_.split_backward) {
        gradient = std::min(gradient, net(u, pass::backward_input, who, false));
        whole += u.count * (net(u, pass::forward, who, true) +
                            std::min(net(u, pass::backward, who, true), net(u, pass::backward_input, who, true) +
                                                                            net(u, pass::backward_weight, who, true)));
      }
      gradients += u.count * gradient;
    }
    double after = std::numeric_limits<double>::max();
    for (std::size_t i : hosted)
      if (comes_last(units_[i], hosted)) after = std::min(after, after_last(units_[i], who));
    if (!class_.forward_only && class_.split_backward) {
      offer(head + whole, rank, "head and work of the rank");
      offer(head + forwards + gradients + after, rank, "head, forwards and gradients of the rank, and their tail");
    } else {
      offer(head + forwards + gradients + after, rank, "head, work and tail of the rank");
    }
  }

  // Least time after the forwards and gradients of a rank, of which the unit's is the last. Its backward may be whole and
  // take longer than the least gradient, or leave a W.
  constexpr double after_last(const bound_unit& u, charge who) const {
    if (class_.forward_only) return u.after_cell(pass::forward);
    const double whole = net(u, pass::backward, who, false) + u.after_cell(pass::backward);
    if (!class_.split_backward) return u.after_cell(pass::backward);
    const double split = net(u, pass::backward_input, who, false) +
                         std::max(u.of(pass::backward_weight).busy, u.after_cell(pass::backward_input));
    return std::min(whole, split) -
           std::min(net(u, pass::backward, who, false), net(u, pass::backward_input, who, false));
  }

  // Most live activations of one stage on the rank under the cap.
  constexpr std::size_t live_activations(std::uint32_t rank) const {
    std::size_t stages = 0;
    for (std::uint32_t replica = 0; replica < p_.replicas(); ++replica) {
      std::size_t of_replica = 0;
      for (std::uint16_t host : p_.rank_of_stage(replica)) of_replica += host == rank;
      stages = std::max(stages, of_replica);
    }
    const double live = *class_.memory_cap * static_cast<double>(stages) * (1 + 1e-12);
    return live < 1e15 ? static_cast<std::size_t>(std::max(0.0, live)) : std::numeric_limits<std::size_t>::max() / 4;
  }

  // Little's law: the lifetimes of all activations of a rank, divided by how many may live at a time.
  constexpr void bound_memory(std::uint32_t rank, double head) {
    if (class_.recompute) return;  // what is recomputed is not kept all the time
    std::array<double, 2> lifetimes{}, stages{};
    for (std::size_t i : hosted_[rank]) {
      const bound_unit& u = units_[i];
      const bool kept = !class_.forward_only && u.stage >= chain_.first_trained;
      const double lifetime = kept ? u.back - u.head + u.whole : u.of(pass::forward).busy;
      lifetimes[u.replica] += u.count * lifetime;
    }
    for (std::uint32_t replica = 0; replica < p_.replicas(); ++replica)
      for (std::uint16_t host : p_.rank_of_stage(replica)) stages[replica] += host == rank;
    double bound = head;
    for (std::size_t replica = 0; replica < 2; ++replica) {
      if (stages[replica] == 0) continue;
      double cap = *class_.memory_cap * stages[replica];  // in activations of one stage
      const bool counted = stages[1 - replica] == 0 || stages[0] == stages[1];
      if (counted && cap < 1e15) cap = static_cast<double>(static_cast<std::int64_t>(cap * (1 + 1e-12)));  // whole ones
      if (cap > 0) bound += lifetimes[replica] / cap;
    }
    offer(bound, rank, "lifetimes of activations under the memory cap");
  }

  constexpr double first_forward(std::uint32_t rank) const {
    double first = std::numeric_limits<double>::max();
    for (std::size_t i : hosted_[rank]) first = std::min(first, units_[i].first_forward);
    return first;
  }

  // Lowers a bound by the rounding of its sums and of the simulation, unless they are exact. True if it is the largest so far.
  constexpr bool offer(double makespan, std::uint32_t rank, std::string_view reason) {
    if (!exact_.holds_for(2 * work_ops())) makespan *= 1 - 8 * path() * std::numeric_limits<double>::epsilon();
    if (!(makespan > best_.makespan && makespan <= std::numeric_limits<double>::max())) return false;
    best_ = {.makespan = makespan, .rank = rank, .reason = reason};
    if (!hosted_[rank].empty()) best_.first_forward = first_forward(rank);
    return true;
  }

  // Ops of a step, and about as many as the longest path through it has.
  constexpr double work_ops() const { return static_cast<double>(p_.stages()) * micro_ * 4; }
  constexpr double path() const {
    return 4 * static_cast<double>(micro_) * static_cast<double>(p_.stages()) / p_.ranks() + 4.0 * p_.stages();
  }

  const placement& p_;
  std::uint32_t micro_;
  schedule_class class_;
  stage_chain chain_ = chain_of(p_.stages(), class_.backward);
  std::vector<bound_unit> units_;                 // chain by chain, each stage by stage
  std::vector<std::vector<std::size_t>> hosted_;  // [rank]: units
  std::vector<double> again_;                     // [rank]: time of what is recomputed; empty: not counted
  mutable exactness exact_;
  lower_bound_result best_;
};

}  // namespace pipesched::detail
