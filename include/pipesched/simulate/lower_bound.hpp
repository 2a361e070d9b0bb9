// SPDX-License-Identifier: MIT
#pragma once

// What no order can beat: lower bounds of the makespan for a placement, a number of micro-batches and costs. Printed beside
// a makespan they are a certificate: "makespan 66, at least 63, gap 4.5 %".

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/cost_model.hpp"
#include "pipesched/dependencies.hpp"
#include "pipesched/op.hpp"
#include "pipesched/placement.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// The schedules that a bound speaks of.
struct schedule_class {
  bool split_backward = true;  ///< B may be split into I and W
  bool overlap = true;         ///< cells may overlap an F with a B or an I
  bool forward_only = false;
  std::optional<double> memory_cap{};  ///< activations (of one stage and micro-batch) that a rank may keep at a time
};

/// The smallest class that a schedule is of, without a memory cap.
constexpr schedule_class schedule_class_of(const schedule& s) {
  schedule_class c{.split_backward = false, .overlap = false, .forward_only = s.forward_only};
  for (const cell& one : s.cells.all()) {
    c.overlap = c.overlap || one.overlapped();
    for (op o : one) c.split_backward = c.split_backward || o.pass == pass::backward_input;
  }
  return c;
}

struct lower_bound_result {
  double makespan = 0;
  std::uint32_t rank = 0;     ///< where the bound comes from; 0 for the chain
  std::string_view reason{};  ///< which bound it is

  /// How far a makespan is above, as a share of it; differences that are rounding alone are none.
  constexpr double gap(double of) const noexcept { return of - makespan > 1e-12 * of ? (of - makespan) / of : 0; }
};

namespace detail {

// One micro-batch of one stage of one replica, with the least that its passes can take in any schedule of the class: in a
// cell of its own, or overlapped with whatever its rank hosts.
struct stage_floor {
  std::uint32_t replica = 0, stage = 0;
  double forward = 0;        // until F's output is made
  double inner = 0;          // until the gradient for the stage before is made, by I or B
  double whole = 0;          // all of the backward
  double forward_alone = 0;  // in a cell of its own, as are the next two
  double inner_alone = 0, whole_alone = 0;
  double after_forward = 0, after_inner = 0;  // the transfers that follow
  double count = 0;                           // micro-batches
};

template <typename Costs>
class bounds {
 public:
  constexpr bounds(const placement& where, std::uint32_t micro, const Costs& costs, const schedule_class& of)
      : p_(where), micro_(micro), costs_(costs), class_(of), hosted_(where.ranks()) {
    for (std::uint32_t replica = 0; replica < p_.replicas(); ++replica)
      for (std::uint32_t stage = 0; stage < p_.stages(); ++stage)
        if (count(replica) > 0) hosted_[p_.rank_of_stage(replica)[stage]].push_back({replica, stage});
  }

  constexpr lower_bound_result best() {
    for (auto& hosted : hosted_) find_floors(hosted);
    for (std::uint32_t replica = 0; replica < p_.replicas(); ++replica)
      if (count(replica) > 0) sum_chains(replica);
    for (std::uint32_t rank = 0; rank < p_.ranks(); ++rank)
      if (!hosted_[rank].empty()) bound_rank(rank);
    return best_;
  }

 private:
  constexpr void offer(double makespan, std::uint32_t rank, std::string_view reason) {
    if (makespan > best_.makespan) best_ = {makespan, rank, reason};
  }

  constexpr std::uint32_t count(std::uint32_t replica) const {
    return p_.replicas() == 1 ? micro_ : replica == 0 ? micro_ - micro_ / 2 : micro_ / 2;
  }
  constexpr op make(pass p, const stage_floor& f) const {
    const std::uint32_t micro = f.replica == 0 ? 0 : micro_ - micro_ / 2;
    return {p, p_.chunk_of(f.stage, micro), static_cast<std::uint16_t>(f.stage), micro};
  }
  constexpr double alone(pass p, const stage_floor& f) const { return costs_.duration(cell(make(p, f))); }
  constexpr double transfer_after(op o) const {
    const auto out = output_of(o, p_.stages());
    if (!out) return 0;
    const std::uint32_t from = p_.rank_of(o.stage, o.micro), to = p_.rank_of(receiver_of(*out), o.micro);
    return from == to ? 0 : costs_.transfer(from, to, *out);
  }
  constexpr double released(const cell& c, std::size_t i) const {
    if constexpr (requires { costs_.release(c, i); })
      return costs_.release(c, i);
    else
      return costs_.duration(c);
  }

  constexpr void find_floors(std::vector<stage_floor>& hosted) const {
    for (stage_floor& f : hosted) {
      f.count = count(f.replica);
      f.forward = f.forward_alone = alone(pass::forward, f);
      f.after_forward = transfer_after(make(pass::forward, f));
      if (class_.forward_only) continue;
      f.inner = f.whole = alone(pass::backward, f);
      if (class_.split_backward) {
        f.inner = std::min(f.inner, alone(pass::backward_input, f));
        f.whole = std::min(f.whole, alone(pass::backward_input, f) + alone(pass::backward_weight, f));
      }
      f.inner_alone = f.inner, f.whole_alone = f.whole;
      f.after_inner = transfer_after(make(pass::backward, f));
    }
    if (!class_.overlap || class_.forward_only) return;
    for (stage_floor& f : hosted)
      for (stage_floor& b : hosted) {
        const cell with_B(make(pass::forward, f), make(pass::backward, b));
        f.forward = std::min(f.forward, released(with_B, 0));
        b.inner = std::min(b.inner, released(with_B, 1));
        b.whole = std::min(b.whole, costs_.duration(with_B));
        if (!class_.split_backward) continue;
        const cell with_I(make(pass::forward, f), make(pass::backward_input, b));
        f.forward = std::min(f.forward, released(with_I, 0));
        b.inner = std::min(b.inner, released(with_I, 1));
        b.whole = std::min(b.whole, costs_.duration(with_I) + alone(pass::backward_weight, b));
      }
    for (stage_floor& f : hosted) f.inner = std::min(f.inner, f.whole);
  }

  // What a stage needs of the others in its replica: the least time before its F can start, from the end of its F to the
  // start of its backward, and from the end of its I or B to the end of stage 0's backward; forward only: to the last F.
  struct chain {
    double head = 0, turn = 0, tail = 0;
  };

  constexpr void sum_chains(std::uint32_t replica) {
    std::vector<stage_floor> floors(p_.stages());
    for (const auto& hosted : hosted_)
      for (const stage_floor& f : hosted)
        if (f.replica == replica) floors[f.stage] = f;
    std::vector<chain>& chains = chains_[replica];
    chains.assign(p_.stages(), {});
    for (std::size_t s = 1; s < chains.size(); ++s)
      chains[s].head = chains[s - 1].head + floors[s - 1].forward + floors[s - 1].after_forward;
    const double last_stage_end = chains.back().head + floors.back().forward;
    if (class_.forward_only) {
      offer(last_stage_end, 0, "one micro-batch from end to end");
      for (std::size_t s = 0; s < chains.size(); ++s)
        chains[s].tail = s + 1 == chains.size() ? 0 : last_stage_end - chains[s + 1].head + floors[s].after_forward;
      return;
    }
    for (std::size_t s = chains.size() - 1; s-- > 0;)
      chains[s].turn = floors[s].after_forward + floors[s + 1].forward + chains[s + 1].turn + floors[s + 1].inner +
                       floors[s + 1].after_inner;
    chains[0].tail = floors[0].whole - floors[0].inner;  // the W that follows stage 0's last I
    for (std::size_t s = 1; s < chains.size(); ++s)
      chains[s].tail = floors[s].after_inner + floors[s - 1].inner + chains[s - 1].tail;
    offer(floors[0].forward + chains[0].turn + floors[0].whole, 0, "one micro-batch from end to end");
  }

  constexpr void bound_rank(std::uint32_t rank) {
    const auto& hosted = hosted_[rank];
    double head = chain_of(hosted[0]).head, tail = chain_of(hosted[0]).tail;
    double forwards = 0, inner = 0, whole = 0, ops = 0, saving = 0, early = 0, lifetimes = 0;
    for (const stage_floor& f : hosted) {
      const chain& c = chain_of(f);
      head = std::min(head, c.head), tail = std::min(tail, c.tail);
      forwards += f.count * f.forward_alone, inner += f.count * f.inner_alone, whole += f.count * f.whole_alone;
      ops += f.count;
      lifetimes += f.count * (f.forward + c.turn + f.whole);
      if (!class_.overlap || class_.forward_only) continue;
      for (const stage_floor& b : hosted)
        for (pass p : {pass::backward, pass::backward_input}) {
          if (p == pass::backward_input && !class_.split_backward) continue;
          const cell pair(make(pass::forward, f), make(p, b));
          saving = std::max(saving, alone(pass::forward, f) + alone(p, b) - costs_.duration(pair));
          early = std::max(early, costs_.duration(pair) - released(pair, 1));
        }
    }
    const double saved = ops * saving;  // every forward overlapped as well as any can be
    if (class_.forward_only) return offer(head + forwards + tail, rank, "head, work and tail of the rank");
    if (class_.split_backward) {
      offer(head + forwards + whole - saved, rank, "head and work of the rank");
      offer(head + forwards + inner - saved + tail - early, rank,
            "head, forwards and gradients of the rank, and their tail");
    } else {
      offer(head + forwards + whole - saved + std::max(0.0, tail - early), rank, "head, work and tail of the rank");
    }
    if (class_.memory_cap && *class_.memory_cap > 0)
      offer(head + lifetimes / *class_.memory_cap, rank, "lifetimes of activations under the memory cap");
  }

  constexpr const chain& chain_of(const stage_floor& f) const { return chains_[f.replica][f.stage]; }

  const placement& p_;
  std::uint32_t micro_;
  const Costs& costs_;
  schedule_class class_;
  std::vector<std::vector<stage_floor>> hosted_;  // [rank]
  std::array<std::vector<chain>, 2> chains_;      // [replica][stage]
  lower_bound_result best_;
};

}  // namespace detail

/// The best of four bounds, each over all ranks: head, work and tail (the least time before the rank's first forward can
/// start, all of its work, the least time after its last backward); head, forwards and gradients and the chain of gradients
/// that must follow; one micro-batch from end to end; and, under a memory cap, the lifetimes of all activations divided by
/// how many may live (Little's law). Holds for every valid schedule of the class. Linear in stages x chunks.
/// Elementary; the first for 1F1B is folklore (GPipe), the last for V shapes is in arXiv 2405.15362.
template <cost_model Costs>
constexpr lower_bound_result lower_bound(const placement& where, std::uint32_t micro, const Costs& costs,
                                         const schedule_class& of = {}) {
  if constexpr (requires { costs.check(where.stages()); }) costs.check(where.stages());
  return detail::bounds(where, micro, costs, of).best();
}

/// "makespan 66, at least 63, gap 4.5 %".
inline std::string format_optimality_gap(double makespan, const lower_bound_result& bound) {
  const auto number = [](double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%.10g", value);
    return std::string(text.data());
  };
  std::array<char, 32> gap{};
  std::snprintf(gap.data(), gap.size(), "%.1f %%", 100 * bound.gap(makespan));
  return "makespan " + number(makespan) + ", at least " + number(bound.makespan) + ", gap " + gap.data();
}

}  // namespace pipesched
