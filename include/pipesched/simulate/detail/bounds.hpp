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
#include "pipesched/simulate/detail/rank_pair_bounds.hpp"
#include "pipesched/simulate/schedule_class.hpp"

namespace pipesched::detail {

template <typename Costs>
class bounds : private rank_pair_bounds {
 public:
  constexpr bounds(const placement& where, std::uint32_t micro, const Costs& costs, const schedule_class& of)
      : rank_pair_bounds(where, micro, of), costs_(costs) {
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

  /// By head, work and tail, and by one micro-batch: quicker than best().
  constexpr lower_bound_result best_of_work() {
    for (const auto& hosted : hosted_) {
      for (std::size_t u : hosted) look_at_plain_cells(units_[u]);
      if (class_.recompute && !class_.pairs.empty())
        for (std::size_t a : hosted)
          for (std::size_t b : hosted) look_at_recompute(units_[a], units_[b]);
      for_each_pair(hosted, [&](bound_unit& a, std::size_t, pass first, bound_unit& b, std::size_t, pass second,
                                const cell& c) { look_at_pair(a.of(first), b.of(second), c); });
      for (std::size_t u : hosted) set_frozen(units_[u]), set_whole(units_[u]), set_bytes(units_[u]);
    }
    for (std::size_t chain = 0; chain < units_.size(); chain += p_.stages()) set_heads(&units_[chain]);
    set_first_starts();
    for (const auto& hosted : hosted_) set_rests(hosted);
    for (std::size_t chain = 0; chain < units_.size(); chain += p_.stages()) set_tails(&units_[chain]);
    for (std::uint32_t rank = 0; rank < p_.ranks(); ++rank)
      if (!hosted_[rank].empty()) bound_rank(rank);
    return best_;
  }
  constexpr lower_bound_result best() {
    best_of_work();
    if (class_.forward_only) return best_;
    for (std::uint32_t rank = 0; rank < p_.ranks(); ++rank)
      if (!hosted_[rank].empty() && may_hold_pairs(hosted_[rank].size())) bound_pairs(rank, pairs_of(hosted_[rank]));
    bound_lifetimes();
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

  static constexpr bool is_forward_backward(const cell& c) {
    if (!c.overlapped()) return false;
    const std::size_t F = c[0].pass == pass::forward ? 0 : 1;
    return c[F].pass == pass::forward && yields_input_gradient(c[1 - F].pass);
  }

  // Updates the least times of the cell's i-th op. If the op has no output, or the next op of the chain is on the same rank,
  // the next op starts after the cell, however early the output is released.
  constexpr void look_at_cell(bound_unit::least& at, const cell& c, std::size_t i, double duration) {
    const double release = output_of(c[i], chain_) ? noted(release_of(costs_, rank_of(c), c, i)) : duration;
    at.busy = std::min(at.busy, duration);
    at.share = std::min(at.share, duration / static_cast<double>(c.size()));
    const double step = leaves(c[i]) ? release : std::max(release, duration);
    at.step = std::min(at.step, step);
    if (std::all_of(c.begin(), c.end(), [](op o) { return o.pass == pass::forward || o.pass == pass::recompute; }))
      at.forward_busy = std::min(at.forward_busy, duration), at.forward_step = std::min(at.forward_step, step);
    const bool paired = is_forward_backward(c);
    double &busy_so = paired ? at.paired_busy : at.apart_busy, &step_so = paired ? at.paired_step : at.apart_step;
    busy_so = std::min(busy_so, duration), step_so = std::min(step_so, step);
    if (leaves(c[i])) at.slack = std::max(at.slack, duration - release);
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
      at = {.alone = never,
            .share = never,
            .busy = never,
            .step = never,
            .forward_busy = never,
            .forward_step = never,
            .paired_busy = never,
            .paired_step = never,
            .apart_busy = never,
            .apart_step = never};
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

  // Calls `f` with the overlapped cells of the units of a rank: an op of a first and one of b second, and the reverse if the
  // class allows either order.
  template <typename F>
  constexpr void for_each_pair(const std::vector<std::size_t>& hosted, F&& f) {
    if (class_.pairs.empty()) return;
    for (std::size_t i = 0; i < hosted.size(); ++i)
      for (std::size_t j = 0; j < hosted.size(); ++j)
        for (pass first : passes_)
          for (pass second : passes_)
            for_each_form(first, [&](pass x) {
              for_each_form(second, [&](pass y) {
                if (!class_.pairs.contains({x, y}) || (!class_.either_order && x > y)) return;
                bound_unit &a = units_[hosted[i]], &b = units_[hosted[j]];
                const op one = make(x, a), other = make(y, b);
                if (a.count == 1 && b.count == 1 &&
                    (one == other || depends(one, other, chain_) || depends(other, one, chain_)))
                  return;
                f(a, i, first, b, j, second, cell(one, other));
              });
            });
  }

  // The durations of a rank's overlapped cells, if they are not too many to hold.
  constexpr pair_times pairs_of(const std::vector<std::size_t>& hosted) {
    pair_times pairs(hosted.size());
    for_each_pair(hosted, [&](bound_unit&, std::size_t i, pass first, bound_unit&, std::size_t j, pass second,
                              const cell& c) { pairs.note(first, i, second, j, duration_of(costs_, rank_of(c), c)); });
    return pairs;
  }
  constexpr bool may_hold_pairs(std::size_t units) const {
    return static_cast<double>(units) * static_cast<double>(units) * static_cast<double>(class_.pairs.pairs().size()) <
           2e7;
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
    const stage_backward has = class_.forward_only       ? stage_backward::none
                               : class_.backward.empty() ? stage_backward::full
                                                         : class_.backward[u.stage];
    u.trained = has != stage_backward::none, u.whole_backward = has == stage_backward::full;
    u.split_backward = u.whole_backward && class_.split_backward;
    u.input_backward = u.split_backward || has == stage_backward::input;
    if (class_.forward_only || has == stage_backward::full) return;
    const bound_unit::least input =
        class_.backward[u.stage] == stage_backward::none ? bound_unit::least{} : u.of(pass::backward_input);
    u.of(pass::backward) = u.of(pass::backward_input) = input;
    u.of(pass::backward_weight) = {};
  }

  constexpr void set_bytes(bound_unit& u) const {
    if (!u.trained || class_.memory_limits.empty()) return;
    const auto bytes = [&](pass p) { return bytes_of(costs_, make(p, u), p); };
    const auto transient = [&](pass p) { return transient_of(costs_, make(p, u)); };
    const double kept = bytes(pass::forward), left = u.split_backward ? kept + bytes(pass::backward_input) : 0;
    u.kept = std::max(0.0, kept - (class_.recompute ? std::max(0.0, bytes(pass::recompute)) : 0));
    u.context = std::max(0.0, left);
    u.forward_bytes = std::max(0.0, transient(pass::forward));
    u.gradient_bytes = std::numeric_limits<double>::max();
    for (const pass p : {pass::backward, pass::backward_input})
      if (p == pass::backward ? u.whole_backward : u.input_backward)
        for_each_form(
            p, [&](pass form) { u.gradient_bytes = std::min(u.gradient_bytes, std::max(0.0, transient(form))); });
    u.frees_all = (!u.whole_backward || kept + bytes(pass::backward) >= -1e-9 * kept) &&
                  (!u.split_backward || (left >= 0 && left + bytes(pass::backward_weight) >= -1e-9 * kept));
    u.input_frees = left <= kept && (!u.whole_backward || bytes(pass::backward) <= 0);
  }

  const Costs& costs_;
  std::vector<pass> passes_;  // of the class
};

}  // namespace pipesched::detail
