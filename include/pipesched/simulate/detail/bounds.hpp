// SPDX-License-Identifier: MIT
#pragma once

// The engine of lower_bound(): least times of every op in any cell that a class of schedules allows, and the bounds that
// follow from them. Times are looked up once per stage where no cost depends on the micro-batch, else once per stage and
// micro-batch; the bounds are the same.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/simulate/schedule_class.hpp"

namespace pipesched::detail {

// Tells if sums of some numbers are exact in a double in any order: the numbers must be multiples of one power of two.
class exactness {
 public:
  constexpr void note(double value) {
    if (!(value > 0) || value > std::numeric_limits<double>::max()) return;
    const auto bits = std::bit_cast<std::uint64_t>(value);
    const int exponent = static_cast<int>(bits >> 52 & 0x7FF);
    const std::uint64_t mantissa = (bits & 0xF'FFFF'FFFF'FFFF) | (exponent > 0 ? std::uint64_t{1} << 52 : 0);
    const int scale = exponent > 0 ? exponent : 1;
    lowest_ = std::min(lowest_, scale + static_cast<int>(std::countr_zero(mantissa)));
    highest_ = std::max(highest_, scale + static_cast<int>(std::bit_width(mantissa)));
  }
  /// True if sums of up to `terms` of the numbers, and of their halves, are exact.
  constexpr bool holds_for(double terms) const {
    if (highest_ < lowest_) return true;
    return highest_ - lowest_ + 1 + static_cast<int>(std::bit_width(static_cast<std::uint64_t>(terms))) <= 53;
  }

 private:
  int lowest_ = std::numeric_limits<int>::max(), highest_ = std::numeric_limits<int>::min();
};

// The ops of one stage and `count` micro-batches that cost the same.
struct bound_unit {
  std::uint32_t replica = 0, stage = 0, micro = 0;
  double count = 1;

  // By pass, over all cells of the class that hold the op, alone or with any partner on its rank.
  struct least {
    double alone = 0;  // duration in a cell of its own
    double share = 0;  // the same, or half of a pair if that is less
    double busy = 0;   // least duration of a cell
    double step = 0;   // least time from the start of a cell until the next op of the chain can start, without transfer
    double slack = 0;  // most time from the release of the output to the end of a cell

    // Most time that a cell saves against its ops alone, by partner: F; B or I; W. The last: `alone` - duration with a W.
    double with_F = 0, with_gradient = 0, with_W = 0, beside_W = 0;
  };
  std::array<least, 5> by_pass{};
  double whole = 0;  // least time from the start of the backward to its end

  double after_forward = 0, after_gradient = 0;  // transfers of the outputs

  // Earliest start of F, earliest start of the backward, and least time after the release of this unit's output until the
  // micro-batch has passed the stages that follow.
  double head = 0, back = 0, tail = 0;

  constexpr least& of(pass p) { return by_pass[static_cast<std::size_t>(p)]; }
  constexpr const least& of(pass p) const { return by_pass[static_cast<std::size_t>(p)]; }
};

template <typename Costs>
class bounds {
 public:
  constexpr bounds(const placement& where, std::uint32_t micro, const Costs& costs, const schedule_class& of)
      : p_(where), micro_(micro), costs_(costs), class_(of), hosted_(where.ranks()) {
    passes_.push_back(pass::forward);
    if (!class_.forward_only) passes_.push_back(pass::backward);
    if (!class_.forward_only && class_.split_backward)
      passes_.insert(passes_.end(), {pass::backward_input, pass::backward_weight});
    if (micro_batches_alike(costs)) {
      for (std::uint32_t replica = 0; replica < p_.replicas(); ++replica)
        if (micros_of(replica) > 0) add_chain(replica, p_.replica_begin(replica), micros_of(replica));
    } else {
      for (std::uint32_t m = 0; m < micro_; ++m) add_chain(p_.replica_of(m), m, 1);
    }
  }

  constexpr lower_bound_result best() {
    for (const auto& hosted : hosted_) {
      for (std::size_t u : hosted) look_at_plain_cells(units_[u]);
      if (!class_.pairs.empty())
        for (std::size_t a : hosted)
          for (std::size_t b : hosted) look_at_pairs(units_[a], units_[b]);
      for (std::size_t u : hosted) set_whole(units_[u]);
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
    const auto out = output_of(o, p_.stages());
    return out && p_.rank_of(o.stage, o.micro) != p_.rank_of(receiver_of(*out), o.micro);
  }
  constexpr double transfer_after(op o) const {
    if (!leaves(o)) return 0;
    const tensor_id out = *output_of(o, p_.stages());
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
    const double release = output_of(c[i], p_.stages()) ? noted(release_of(costs_, rank_of(c), c, i)) : duration;
    at.busy = std::min(at.busy, duration);
    at.share = std::min(at.share, duration / static_cast<double>(c.size()));
    at.step = std::min(at.step, leaves(c[i]) ? release : std::max(release, duration));
    at.slack = std::max(at.slack, duration - release);
  }

  constexpr void look_at_plain_cells(bound_unit& u) {
    for (pass p : passes_) {
      const op o = make(p, u);
      bound_unit::least& at = u.of(p);
      at.alone = at.share = noted(duration_of(costs_, rank_of(o), o));
      at.busy = at.step = std::numeric_limits<double>::max(), at.slack = 0;
      look_at_cell(at, cell(o), 0, at.alone);
    }
    u.after_forward = transfer_after(make(pass::forward, u));
    if (!class_.forward_only) u.after_gradient = transfer_after(make(pass::backward, u));
  }

  // Takes in the cells with an op of a first and one of b second, and the reverse if the class allows either order.
  constexpr void look_at_pairs(bound_unit& a, bound_unit& b) {
    for (pass first : passes_)
      for (pass second : passes_) {
        if (!class_.pairs.contains({first, second})) continue;
        if (!class_.either_order && first > second) continue;
        const op one = make(first, a), other = make(second, b);
        if (a.count == 1 && b.count == 1 &&
            (one == other || depends(one, other, p_.stages()) || depends(other, one, p_.stages())))
          continue;
        look_at_pair(a.of(first), b.of(second), cell(one, other));
      }
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
    double forwards = 0, gradients = 0, whole = 0;
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
    std::array<double, 2> lifetimes{}, stages{};
    for (std::size_t i : hosted_[rank]) {
      const bound_unit& u = units_[i];
      const double lifetime = class_.forward_only ? u.of(pass::forward).busy : u.back - u.head + u.whole;
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
    const double ops = static_cast<double>(p_.stages()) * micro_ * 3;
    if (!exact_.holds_for(2 * ops)) {
      const double path =
          3 * static_cast<double>(micro_) * static_cast<double>(p_.stages()) / p_.ranks() + 4.0 * p_.stages();
      makespan *= 1 - 8 * path * std::numeric_limits<double>::epsilon();
    }
    if (makespan > best_.makespan && makespan <= std::numeric_limits<double>::max()) best_ = {makespan, rank, reason};
  }

  const placement& p_;
  std::uint32_t micro_;
  const Costs& costs_;
  schedule_class class_;
  std::vector<pass> passes_;                      // of the class
  std::vector<bound_unit> units_;                 // chain by chain, each stage by stage
  std::vector<std::vector<std::size_t>> hosted_;  // [rank]: units
  mutable exactness exact_;
  lower_bound_result best_;
};

}  // namespace pipesched::detail
