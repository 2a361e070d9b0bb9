// SPDX-License-Identifier: MIT
#pragma once

// The engine of lower_bound(): least times of every op in any cell that a class of schedules allows, and the bounds that
// follow from them. Times are looked up once per stage where no cost depends on the micro-batch, else once per stage and
// micro-batch; the bounds are the same.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/simulate/detail/bound_unit.hpp"
#include "pipesched/simulate/schedule_class.hpp"

namespace pipesched::detail {

template <typename Costs>
class bounds {
 public:
  constexpr bounds(const placement& where, std::uint32_t micro, const Costs& costs, const schedule_class& of)
      : p_(where), micro_(micro), costs_(costs), class_(of), hosted_(where.ranks()) {
    passes_.push_back(pass::forward);
    if (!class_.forward_only) passes_.push_back(pass::backward);
    const bool frozen =
        std::find(class_.backward.begin(), class_.backward.end(), stage_backward::input) != class_.backward.end();
    if (!class_.forward_only && (class_.split_backward || frozen))
      passes_.insert(passes_.end(), {pass::backward_input, pass::backward_weight});
    if (micro_batches_alike(costs)) {
      for (std::uint32_t replica = 0; replica < p_.replicas(); ++replica)
        if (micros_of(replica) > 0) add_chain(replica, p_.replica_begin(replica), micros_of(replica));
    } else {
      for (std::uint32_t m = 0; m < micro_; ++m) add_chain(p_.replica_of(m), m, 1);
    }
  }

  /// Counts the recomputation of a schedule of the class, if none of its pairs can save that.
  constexpr void add_recompute(const schedule& s) {
    for (const pass_pair& p : class_.pairs.pairs())
      if (recomputes(p.first) || recomputes(p.second)) return;
    again_.assign(p_.ranks(), 0);
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
      for (const cell& c : s[rank]) {
        if (c.overlapped() || !recomputes(c[0].pass)) continue;
        const op kept = with_pass(c[0], without_recompute(c[0].pass));
        const double whole = noted(duration_of(costs_, rank, c));
        const double own = kept == c[0] ? 0 : noted(duration_of(costs_, rank, cell(kept)));
        again_[rank] += std::max(0.0, whole - own);
      }
  }

  constexpr lower_bound_result best() {
    for (const auto& hosted : hosted_) {
      for (std::size_t u : hosted) look_at_plain_cells(units_[u]);
      if (class_.recompute && !class_.pairs.empty())
        for (std::size_t a : hosted)
          for (std::size_t b : hosted) look_at_recompute(units_[a], units_[b]);
      if (!class_.pairs.empty())
        for (std::size_t a : hosted)
          for (std::size_t b : hosted) look_at_pairs(units_[a], units_[b]);
      for (std::size_t u : hosted) set_frozen(units_[u]), set_whole(units_[u]);
    }
    for (std::size_t chain = 0; chain < units_.size(); chain += p_.stages()) bound_chain(&units_[chain]);
    for (std::uint32_t rank = 0; rank < p_.ranks(); ++rank)
      if (!hosted_[rank].empty()) bound_rank(rank);
    return best_;
  }

 private:
  constexpr double micros_of(std::uint32_t replica) const {
    return p_.replicas() == 1 ? micro_ : replica == 0 ? micro_ - micro_ / 2 : micro_ / 2;
  }

  constexpr void add_chain(std::uint32_t replica, std::uint32_t micro, double count) {
    for (std::uint32_t stage = 0; stage < p_.stages(); ++stage) {
      hosted_[p_.rank_of(stage, micro)].push_back(units_.size());
      units_.push_back({.replica = replica, .stage = stage, .micro = micro, .count = count});
    }
  }

  constexpr op make(pass p, const bound_unit& u) const {
    return {p, p_.chunk_of(u.stage, u.micro), static_cast<std::uint16_t>(u.stage), u.micro};
  }
  // True if the output of the op goes to another rank.
  constexpr bool leaves(op o) const {
    const auto out = output_of(o, chain_);
    return out && p_.rank_of(o.stage, o.micro) != p_.rank_of(receiver_of(*out), o.micro);
  }
  constexpr double transfer_after(op o) const {
    if (!leaves(o)) return 0;
    const tensor_id out = *output_of(o, chain_);
    return noted(costs_.transfer(p_.rank_of(o.stage, o.micro), p_.rank_of(receiver_of(out), o.micro), out));
  }
  constexpr std::uint32_t rank_of(const cell& c) const { return p_.rank_of(c[0].stage, c[0].micro); }
  constexpr double noted(double value) const {
    if (!(value >= 0)) require_cost(value, "a duration, release or transfer");
    exact_.note(value);
    return value;
  }

  // Updates the least times of the cell's i-th op. If the op has no output, or the next op of the chain is on the same rank,
  // the next op starts after the cell, however early the output is released.
  constexpr void look_at_cell(bound_unit::least& at, const cell& c, std::size_t i, double duration) {
    const double release = output_of(c[i], chain_) ? noted(release_of(costs_, rank_of(c), c, i)) : duration;
    at.busy = std::min(at.busy, duration);
    at.share = std::min(at.share, duration / static_cast<double>(c.size()));
    at.step = std::min(at.step, leaves(c[i]) ? release : std::max(release, duration));
    at.slack = std::max(at.slack, duration - release);
  }

  // Calls `f` for the passes in which an op of the class may be: itself, and where it may recompute inside.
  template <typename F>
  constexpr void for_each_form(pass p, F&& f) const {
    f(p);
    if (class_.recompute && with_recompute(p) != p) f(with_recompute(p));
  }

  constexpr void look_at_plain_cells(bound_unit& u) {
    for (pass p : passes_) {
      bound_unit::least& at = u.of(p);
      at.alone = at.share = at.busy = at.step = std::numeric_limits<double>::max(), at.slack = 0;
      for_each_form(p, [&](pass form) { look_at_lone_cell(at, cell(make(form, u))); });
    }
    u.after_forward = transfer_after(make(pass::forward, u));
    if (!class_.forward_only) u.after_gradient = transfer_after(make(pass::backward, u));
  }
  constexpr void look_at_lone_cell(bound_unit::least& at, const cell& c) {
    const double duration = noted(duration_of(costs_, rank_of(c), c));
    at.alone = std::min(at.alone, duration), at.share = std::min(at.share, duration);
    look_at_cell(at, c, 0, duration);
  }

  // The work of an R is not counted: an op beside it is alone in its cell.
  constexpr void look_at_recompute(bound_unit& a, bound_unit& b) {
    for (pass p : passes_)
      for_each_form(p, [&](pass form) {
        if (!class_.pairs.contains({form, pass::recompute})) return;
        const op one = make(form, a), other = make(pass::recompute, b);
        for (const bool first : {true, false}) {
          const cell c = first ? cell(one, other) : cell(other, one);
          const double duration = noted(duration_of(costs_, rank_of(c), c));
          bound_unit::least& at = a.of(p);
          at.alone = std::min(at.alone, duration), at.share = std::min(at.share, duration);
          look_at_cell(at, c, first ? 0 : 1, duration);
        }
      });
  }

  // Takes in the cells with an op of a first and one of b second, and the reverse if the class allows either order.
  constexpr void look_at_pairs(bound_unit& a, bound_unit& b) {
    for (pass first : passes_)
      for (pass second : passes_)
        for_each_form(first, [&](pass x) {
          for_each_form(second, [&](pass y) {
            if (!class_.pairs.contains({x, y}) || (!class_.either_order && x > y)) return;
            const op one = make(x, a), other = make(y, b);
            if (a.count == 1 && b.count == 1 &&
                (one == other || depends(one, other, chain_) || depends(other, one, chain_)))
              return;
            look_at_pair(a.of(first), b.of(second), cell(one, other));
          });
        });
  }

  constexpr void look_at_pair(bound_unit::least& a, bound_unit::least& b, const cell& c) {
    const double duration = noted(duration_of(costs_, rank_of(c), c)), saving = a.alone + b.alone - duration;
    const auto save = [&](bound_unit::least& at, pass partner) {
      double& most = partner == pass::forward           ? at.with_F
                     : partner == pass::backward_weight ? at.with_W
                                                        : at.with_gradient;
      most = std::max(most, saving);
      if (partner == pass::backward_weight) at.beside_W = std::max(at.beside_W, at.alone - duration);
    };
    look_at_cell(a, c, 0, duration), save(a, c[1].pass);
    look_at_cell(b, c, 1, duration), save(b, c[0].pass);
  }

  // A frozen stage has an I in place of its backward, or nothing.
  constexpr void set_frozen(bound_unit& u) const {
    if (class_.backward.empty() || class_.backward[u.stage] == stage_backward::full) return;
    const bound_unit::least input =
        class_.backward[u.stage] == stage_backward::none ? bound_unit::least{} : u.of(pass::backward_input);
    u.of(pass::backward) = u.of(pass::backward_input) = input;
    u.of(pass::backward_weight) = {};
  }

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
  constexpr void bound_chain(bound_unit* stage) {
    const std::size_t last = p_.stages() - 1;
    for (std::size_t s = 0; s < last; ++s)
      stage[s + 1].head = stage[s].head + stage[s].of(pass::forward).step + stage[s].after_forward;
    const double turn = stage[last].head + stage[last].of(pass::forward).busy;
    if (class_.forward_only) {
      offer(turn, 0, "one micro-batch from end to end");
      for (std::size_t s = last; s-- > 0;)
        stage[s].tail =
            stage[s].after_forward + (s + 1 == last ? stage[last].of(pass::forward).busy
                                                    : stage[s + 1].of(pass::forward).step + stage[s + 1].tail);
      return;
    }
    stage[last].back = turn;
    for (std::size_t s = last; s > 0; --s)
      stage[s - 1].back = stage[s].back + gradient_step(stage[s]) + stage[s].after_gradient;
    for (std::size_t s = 1; s <= last; ++s)
      stage[s].tail =
          stage[s].after_gradient + std::max(stage[s - 1].whole, gradient_step(stage[s - 1]) + stage[s - 1].tail);
    double end = 0;
    for (std::size_t s = 0; s <= last; ++s) end = std::max(end, stage[s].back + stage[s].whole);
    offer(end, 0, "one micro-batch from end to end");
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
    double head = std::numeric_limits<double>::max();
    for (std::size_t u : hosted_[rank]) head = std::min(head, units_[u].head);
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
    const auto tail = [&](pass p) { return std::max(0.0, u.tail - u.of(p).slack); };
    if (class_.forward_only) return tail(pass::forward);
    const double whole = net(u, pass::backward, who, false) + tail(pass::backward);
    if (!class_.split_backward) return tail(pass::backward);
    const double split = net(u, pass::backward_input, who, false) +
                         std::max(u.of(pass::backward_weight).busy, tail(pass::backward_input));
    return std::min(whole, split) -
           std::min(net(u, pass::backward, who, false), net(u, pass::backward_input, who, false));
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

  // Lowers a bound by the rounding of its sums and of the simulation, unless they are exact.
  constexpr void offer(double makespan, std::uint32_t rank, std::string_view reason) {
    const double ops = static_cast<double>(p_.stages()) * micro_ * 4;
    if (!exact_.holds_for(2 * ops)) {
      const double path =
          4 * static_cast<double>(micro_) * static_cast<double>(p_.stages()) / p_.ranks() + 4.0 * p_.stages();
      makespan *= 1 - 8 * path * std::numeric_limits<double>::epsilon();
    }
    if (makespan > best_.makespan && makespan <= std::numeric_limits<double>::max()) best_ = {makespan, rank, reason};
  }

  const placement& p_;
  std::uint32_t micro_;
  const Costs& costs_;
  schedule_class class_;
  stage_chain chain_ = chain_of(p_.stages(), class_.backward);
  std::vector<pass> passes_;                      // of the class
  std::vector<bound_unit> units_;                 // chain by chain, each stage by stage
  std::vector<std::vector<std::size_t>> hosted_;  // [rank]: units
  std::vector<double> again_;                     // [rank]: time of what is recomputed; empty: not counted
  mutable exactness exact_;
  lower_bound_result best_;
};

}  // namespace pipesched::detail
