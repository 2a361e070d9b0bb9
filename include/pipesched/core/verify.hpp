// SPDX-License-Identifier: MIT
#pragma once

// Proof that a schedule is valid. The answer is a report: empty, or every violation with its rank, its cell and the
// expected value.
//
//   rule        holds when
//   shape       there are ranks and micro-batches, one row per rank, and each replica has half of the micro-batches; of
//               every stage it is known what backward it has, and only the first ones have none
//   range       every op has a pass that its stage has (F alone if forward_only), a known stage and micro-batch
//   placement   every op is on the rank, and has the chunk, that the placement gives
//   duplicate   no (pass, stage, micro) occurs twice
//   missing     every (stage, micro) has an F and, as its stage has it, a B or an I and a W, an I alone, or nothing
//   backward    no (stage, micro) has both a B and an I or W, or is recomputed twice: by an R and in its backward
//   order       F precedes R, B or I; R precedes B or I; and I precedes W, on their rank
//   overlap     neither op of an overlapped cell needs the other, directly or through other stages
//   cycle       the ranks, each running its cells in order, never wait for each other in a cycle

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/detail/op_states.hpp"
#include "pipesched/core/notation.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/core/report.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/worklist.hpp"

namespace pipesched {

namespace detail {

class verifier {
 public:
  constexpr verifier(const schedule& s, std::size_t max_violations) : s_(s), max_(max_violations) {}

  constexpr report run() {
    check_rules();
    if (report_) find_cycles();
    return std::move(report_);
  }
  /// All rules but that on cycles, for callers who run the cells anyway.
  constexpr report run_without_cycles() {
    check_rules();
    return std::move(report_);
  }

 private:
  constexpr void check_rules();
  constexpr bool all_ops_are_right() const;

  // The cells of the ops of one (stage, micro): 1 + index, 0 if there is no such op.
  struct places {
    std::uint32_t forward = 0, recompute = 0, whole = 0, input = 0, weight = 0;
    bool recomputes_inside = false;

    constexpr std::uint32_t& of(pass p) {
      p = without_recompute(p);
      return p == pass::forward          ? forward
             : p == pass::recompute      ? recompute
             : p == pass::backward       ? whole
             : p == pass::backward_input ? input
                                         : weight;
    }
  };

  template <typename Text>
  constexpr void add(rule r, std::uint32_t rank, std::size_t i, Text&& text) {
    if (report_.violations.size() < max_)
      report_.violations.push_back({r, rank, i, text()});
    else
      ++report_.further;
  }

  template <typename Enter>
  constexpr void check_cells(Enter&& enter) {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      const std::span<const cell> row = s_[rank];
      for (std::size_t i = 0; i < row.size(); ++i) {
        bool whole = true;
        for (op o : row[i])
          if (in_range(rank, i, o) && in_place(rank, i, o))
            enter(rank, i, o);
          else
            whole = false;
        if (row[i].overlapped() && whole && row[i][0].micro == row[i][1].micro) check_overlap(rank, i, row[i]);
      }
    }
  }

  constexpr bool is_in_range(op o) const {
    if (o.pass == pass::none || static_cast<std::size_t>(o.pass) >= std::size(pass_table) || o.stage >= s_.stages() ||
        o.micro >= s_.micro)
      return false;
    const stage_backward has = s_.backward_of(o.stage);
    return o.pass == pass::forward || has == stage_backward::full ||
           (has == stage_backward::input && !yields_weight_gradient(o.pass));
  }
  constexpr const char* expected_passes(op o) const {
    if (s_.forward_only) return "F alone (forward only)";
    const stage_backward has = o.stage < s_.stages() ? s_.backward_of(o.stage) : stage_backward::full;
    return has == stage_backward::none    ? "F alone (the stage has no backward)"
           : has == stage_backward::input ? "F, I, R or RI (the stage has no backward for weights)"
                                          : "F, B, I, W, R, RB or RI";
  }
  constexpr bool in_range(std::uint32_t rank, std::size_t i, op o) {
    if (is_in_range(o)) return true;
    add(rule::range, rank, i, [&] {
      return concat({to_string(o), "; expected ", expected_passes(o), ", a stage below ", s_.stages(),
                     " and a micro-batch below ", s_.micro});
    });
    return false;
  }

  constexpr bool is_at_home(std::uint32_t rank, op o) const {
    return s_.placement.has(rank, o.chunk, o.stage, o.micro);
  }
  constexpr bool in_place(std::uint32_t rank, std::size_t i, op o) {
    if (is_at_home(rank, o)) return true;
    const std::uint32_t home = s_.placement.rank_of(o.stage, o.micro);
    const std::uint32_t chunk = s_.placement.chunk_of(o.stage, o.micro);
    add(rule::placement, rank, i, [&] {
      return concat({to_string(o), " is chunk ", o.chunk, " here; expected on rank ", home, " as chunk ", chunk});
    });
    return false;
  }

  constexpr void check_overlap(std::uint32_t rank, std::size_t i, const cell& c) {
    for (std::size_t first : {0u, 1u})
      if (depends(c[1 - first], c[first], s_.chain()))
        add(rule::overlap, rank, i, [&] {
          return concat({to_string(c[1 - first]), " needs ", to_string(c[first]),
                         "; expected two ops that do not need each other"});
        });
  }

  constexpr places& places_of(std::uint32_t stage, std::uint32_t micro) {
    return places_[std::size_t{stage} * s_.micro + micro];
  }

  // The op of a cell that is this one, but for recomputing.
  constexpr op op_in(std::uint32_t rank, std::size_t i, op like) const {
    for (op o : s_[rank][i])
      if (without_recompute(o.pass) == without_recompute(like.pass) && o.stage == like.stage && o.micro == like.micro)
        return o;
    return like;
  }

  constexpr void enter(std::uint32_t rank, std::size_t i, op o) {
    places& at = places_of(o.stage, o.micro);
    std::uint32_t& place = at.of(o.pass);
    if (place == 0) {
      place = static_cast<std::uint32_t>(i + 1);
      at.recomputes_inside = at.recomputes_inside || o.pass != without_recompute(o.pass);
      return;
    }
    add(rule::duplicate, rank, i, [&] {
      const op first = op_in(rank, place - 1, o);
      const std::string as = first.pass == o.pass ? "" : concat({"as ", to_string(first), " "});
      return concat({to_string(o), " again, first ", as, "in cell ", place - 1, "; expected once"});
    });
  }

  static constexpr bool is_right(const places& at, stage_backward has) {
    if (at.forward == 0) return false;
    if (has == stage_backward::none) return true;  // any other pass is out of range
    const bool whole = at.whole != 0;
    const std::uint32_t first = whole ? at.whole : at.input;
    if (first == 0 || at.forward >= first || (whole && (at.input != 0 || at.weight != 0))) return false;
    if (!whole && (has == stage_backward::full ? at.weight <= at.input : at.weight != 0)) return false;
    return at.recompute == 0 || (!at.recomputes_inside && at.forward < at.recompute && at.recompute < first);
  }
  constexpr void check_pairs() {
    for (std::uint32_t stage = 0; stage < s_.stages(); ++stage)
      for (std::uint32_t micro = 0; micro < s_.micro; ++micro) {
        const places& at = places_of(stage, micro);
        if (is_right(at, s_.backward_of(stage))) continue;
        report_pair(stage, micro, at);
      }
  }

  constexpr void report_pair(std::uint32_t stage, std::uint32_t micro, const places& at) {
    const std::uint32_t rank = s_.placement.rank_of(stage, micro);
    const auto name = [&](pass p) { return to_string(op{p, 0, static_cast<std::uint16_t>(stage), micro}); };
    const auto missing = [&](pass p, const char* expected) {
      add(rule::missing, rank, violation::no_cell, [&] { return concat({name(p), "; expected ", expected}); });
    };
    if (at.forward == 0) missing(pass::forward, "one F");
    const stage_backward has = s_.backward_of(stage);
    if (has == stage_backward::none) return;
    if (at.recompute != 0 && at.recomputes_inside)
      add(rule::backward, rank, at.recompute - 1, [&] {
        return concat({name(pass::recompute), " beside ",
                       name(at.whole != 0 ? pass::recompute_backward : pass::recompute_backward_input), " in cell ",
                       (at.whole != 0 ? at.whole : at.input) - 1, "; expected one recomputation"});
      });
    if (at.whole != 0 && (at.input != 0 || at.weight != 0)) {
      const pass other = at.input != 0 ? pass::backward_input : pass::backward_weight;
      const std::uint32_t beside = (at.input != 0 ? at.input : at.weight) - 1;
      const auto seen = [&](pass p, std::uint32_t i) {
        return to_string(op_in(rank, i, op{p, 0, static_cast<std::uint16_t>(stage), micro}));
      };
      add(rule::backward, rank, at.whole - 1, [&] {
        return concat({seen(pass::backward, at.whole - 1), " beside ", seen(other, beside), " in cell ", beside,
                       "; expected either one B or one I and one W"});
      });
    } else if (at.whole == 0) {
      if (has == stage_backward::input && at.input == 0) missing(pass::backward_input, "one I");
      if (has == stage_backward::input) return check_order(rank, name, at);
      if (at.input == 0 && at.weight == 0) missing(pass::backward, "one B, or one I and one W");
      if (at.input == 0 && at.weight != 0) missing(pass::backward_input, "one I beside the W");
      if (at.input != 0 && at.weight == 0) missing(pass::backward_weight, "one W beside the I");
    }
    check_order(rank, name, at);
  }
  template <typename Name>
  constexpr void check_order(std::uint32_t rank, const Name& name, const places& at) {
    const auto misordered = [&](pass needed, std::size_t needed_at, pass then, std::size_t then_at) {
      if (needed_at == 0 || then_at == 0 || needed_at < then_at) return;
      if (needed_at == then_at) return;  // in one overlapped cell: reported by check_overlap()
      add(rule::order, rank, then_at - 1, [&] {
        return concat({name(then), " before ", name(needed), " in cell ", needed_at - 1, "; expected after it"});
      });
    };
    const auto as_run = [&](pass p) { return at.recomputes_inside ? with_recompute(p) : p; };
    for (const auto& [earlier, earlier_at] :
         {std::pair{pass::forward, at.forward}, std::pair{pass::recompute, at.recompute}}) {
      misordered(earlier, earlier_at, as_run(pass::backward), at.whole);
      misordered(earlier, earlier_at, as_run(pass::backward_input), at.input);
    }
    misordered(pass::forward, at.forward, pass::recompute, at.recompute);
    misordered(as_run(pass::backward_input), at.input, pass::backward_weight, at.weight);
  }

  // Reports the first pair without an F. It is among the first ops + 1 pairs.
  constexpr void report_missing_forward(std::size_t ops) {
    std::vector<std::uint8_t> seen(ops + 1, 0);
    for (const cell& c : s_.cells.all())
      for (op o : c) {
        const std::uint64_t pair = std::uint64_t{o.stage} * s_.micro + o.micro;
        if (o.pass == pass::forward && o.micro < s_.micro && pair <= ops) seen[static_cast<std::size_t>(pair)] = 1;
      }
    std::size_t pair = 0;
    while (seen[pair] != 0) ++pair;
    const auto stage = static_cast<std::uint16_t>(pair / s_.micro);
    const auto micro = static_cast<std::uint32_t>(pair % s_.micro);
    add(rule::missing, s_.placement.rank_of(stage, micro), violation::no_cell, [&] {
      return concat({to_string(op{pass::forward, 0, stage, micro}), " and most other ops; expected ",
                     count_text(s_.stages(), "stage"), " x ", count_text(s_.micro, "micro-batch"), ", got ",
                     count_text(ops, "op")});
    });
  }

  // Every blocked rank waits for a tensor whose producer is in or after the next cell of another blocked rank, or of itself.
  constexpr void find_cycles() {
    const std::vector<std::size_t> done = walk(s_, [](auto&&...) {});
    for_each_cycle(
        s_.pp(), [&](std::uint32_t rank) { return done[rank] < s_[rank].size(); },
        [&](std::uint32_t rank) { return wait_of(rank, done).producer_rank; },
        [&](std::uint32_t rank) { add_cycle(rank, done); });
  }

  struct wait {
    op waiting, producer;
    std::uint32_t producer_rank;
    std::size_t producer_cell;
  };

  // The wait of a blocked rank's next cell. @pre `done` came from a walk over a schedule without other violations
  constexpr wait wait_of(std::uint32_t rank, const std::vector<std::size_t>& done) const {
    for (op o : s_[rank][done[rank]])
      if (const auto in = input_of(o, s_.chain())) {
        const std::uint32_t home = s_.placement.rank_of(in->stage, in->micro);
        for (std::size_t i = done[home]; i < s_[home].size(); ++i)
          for (op producer : s_[home][i])
            if (output_of(producer, s_.chain()) == in) return {o, producer, home, i};
      }
    return {};  // unreachable: a blocked rank waits for a tensor that has not been produced
  }

  constexpr void add_cycle(std::uint32_t start, const std::vector<std::size_t>& done) {
    add(rule::cycle, start, done[start], [&] {
      std::string text;
      std::uint32_t rank = start;
      do {
        const wait w = wait_of(rank, done);
        text += concat({to_string(w.waiting), " (rank ", rank, ", cell ", done[rank], ") needs ", to_string(w.producer),
                        " (rank ", w.producer_rank, ", cell ", w.producer_cell, ")"});
        if (w.producer_cell != done[w.producer_rank])
          text += concat({", which comes after ", to_string(s_[w.producer_rank][done[w.producer_rank]])});
        text += "; ";
        rank = w.producer_rank;
      } while (rank != start);
      return text + "expected an order in which every op comes after what it needs";
    });
  }

  const schedule& s_;
  std::size_t max_;
  std::vector<places> places_;
  report report_;
};

constexpr void verifier::check_rules() {
  if (s_.cells.size() != s_.pp() || s_.pp() == 0 || s_.micro == 0) {
    add(rule::shape, 0, violation::no_cell, [&] {
      return concat({count_text(s_.cells.size(), "row"), " of cells and ", count_text(s_.micro, "micro-batch"), " for ",
                     count_text(s_.pp(), "rank"), "; expected one row per rank, and at least one of each"});
    });
    return;
  }
  if (const std::uint32_t second = s_.placement.replica_begin(1);
      s_.placement.replicas() == 2 && second != s_.micro - s_.micro / 2) {
    add(rule::shape, 0, violation::no_cell, [&] {
      return concat({"the placement's replica 1 starts with micro-batch ", second, "; expected ",
                     s_.micro - s_.micro / 2, " for ", count_text(s_.micro, "micro-batch")});
    });
    return;
  }
  if (!s_.backward.empty())
    if (std::string fault = fault_of_backwards(s_); !fault.empty())
      return add(rule::shape, 0, violation::no_cell, [&] { return fault; });
  // Every pair needs an op. With far fewer ops than pairs, as in a malformed file, no table is made for all pairs.
  const auto too_few = [&](std::size_t ops) { return std::uint64_t{s_.stages()} * s_.micro > 4 * ops + 4096; };
  if (too_few(s_.cells.all().size())) {
    std::size_t ops = 0;
    for (const cell& c : s_.cells.all()) ops += c.size();
    if (too_few(ops)) {
      check_cells([](auto&&...) {});
      report_missing_forward(ops);
      return;
    }
  }
  if (all_ops_are_right()) return;
  places_.resize(std::size_t{s_.stages()} * s_.micro);
  check_cells([&](std::uint32_t rank, std::size_t i, op o) { enter(rank, i, o); });
  check_pairs();
}

// Most schedules are right, and one byte a pair proves it. False may also mean that a closer look is needed.
constexpr bool verifier::all_ops_are_right() const {
  if (!s_.backward.empty()) return false;
  using state = op_state;
  const op_transitions to = transitions_of(s_.forward_only);
  std::vector<state> states(std::size_t{s_.stages()} * s_.micro, state::nothing);
  std::size_t pairs = 0;
  for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
    for (const cell& c : s_[rank]) {
      if (c.overlapped() && c[0].micro == c[1].micro) return false;
      for (const op o : c) {
        const auto p = static_cast<std::size_t>(o.pass);
        if (p >= std::size(pass_table) || o.stage >= s_.stages() || o.micro >= s_.micro || !is_at_home(rank, o))
          return false;
        state& now = states[std::size_t{o.stage} * s_.micro + o.micro];
        now = to[static_cast<std::size_t>(now)][p];
        if (now == state::wrong) return false;
        pairs += now == state::complete;
      }
    }
  return pairs == states.size();
}

}  // namespace detail

/// Reports all violations of the rules above and spells out the first `max_violations`. Cycles are looked for only when
/// the other rules hold, because an op that is missing or misplaced has no order. If the schedule declares more than four
/// (stage, micro) pairs per op, only the first missing forward and out-of-range or misplaced ops are reported.
/// Time and memory are linear in the number of ops.
constexpr report verify(const schedule& s, std::size_t max_violations = 100) {
  return detail::verifier(s, max_violations).run();
}

namespace detail {

constexpr void require_empty(const report& r) {
  if (!r) throw schedule_error(concat({"the schedule is not valid: ", first_violation(r)}));
}

}  // namespace detail

/// Throws unless the schedule is valid. Every function that needs a valid schedule calls it.
/// @throws schedule_error with the first violation and the number of others; verify() lists them all.
constexpr void require_valid(const schedule& s) { detail::require_empty(verify(s, 1)); }

/// Type of `verified`.
struct verified_t {};
/// Tag for callers who have verified a schedule: `simulate(s, costs, verified)` does not verify it again.
/// @pre verify(s) is true
inline constexpr verified_t verified{};

}  // namespace pipesched
