// SPDX-License-Identifier: MIT
#pragma once

// Is a schedule valid? The answer is a report: empty, or every violation with its rank, its cell and what was expected.
//
//   rule        holds when
//   shape       there are ranks and micro-batches, one row a rank, and replicas of half the micro-batches each
//   range       every op has a pass (F alone if forward_only), a stage and a micro-batch that exist
//   placement   every op is on the rank, and has the chunk, that the placement gives
//   duplicate   no (pass, stage, micro) occurs twice
//   missing     every (stage, micro) has an F and, unless forward_only, a B or an I and a W
//   backward    no (stage, micro) has a B beside an I or a W
//   order       F before B or I, and I before W, on their rank
//   overlap     neither op of an overlapped cell needs the other, directly or through other stages
//   cycle       the ranks, each running its cells in order, do not wait for each other in a circle

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/dependencies.hpp"
#include "pipesched/error.hpp"
#include "pipesched/notation.hpp"
#include "pipesched/op.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

enum class rule : std::uint8_t {
  shape,
  range,
  placement,
  duplicate,
  missing,
  backward,
  order,
  overlap,
  cycle,  // of schedules
  program,
  slot,
  message,
  reduction,
  deadlock  // of programs: program/check.hpp
};

inline constexpr std::string_view rule_names[] = {"shape",    "range",   "placement", "duplicate", "missing",
                                                  "backward", "order",   "overlap",   "cycle",     "program",
                                                  "slot",     "message", "reduction", "deadlock"};

constexpr std::string_view to_string(rule r) { return rule_names[static_cast<std::size_t>(r)]; }

struct violation {
  static constexpr std::size_t no_cell = ~std::size_t{0};

  pipesched::rule rule;
  std::uint32_t rank;          ///< where the fault is, or where the missing op should be
  std::size_t cell = no_cell;  ///< index in the rank's row
  std::string text;            ///< what is wrong and what was expected, in the notation of ops

  friend constexpr bool operator==(const violation&, const violation&) = default;
};

/// True when there is nothing to report.
struct report {
  std::vector<violation> violations;  ///< the first ones
  std::size_t further = 0;            ///< how many more there were

  constexpr explicit operator bool() const noexcept { return violations.empty() && further == 0; }
  constexpr bool names(rule r) const noexcept {
    for (const violation& v : violations)
      if (v.rule == r) return true;
    return false;
  }

  friend constexpr bool operator==(const report&, const report&) = default;
};

/// "rank 3, cell 17: duplicate: 3F5 again, first in cell 2; expected once".
inline std::string to_string(const violation& v) {
  const std::string place = v.cell == violation::no_cell ? std::string() : detail::concat({", cell ", v.cell});
  return detail::concat({"rank ", v.rank, place, ": ", to_string(v.rule), ": ", v.text});
}

/// One line per violation, at most `max_lines` of them, then "and 17 more".
inline std::string to_string(const report& r, std::size_t max_lines = 20) {
  std::string text;
  const std::size_t lines = std::min(r.violations.size(), max_lines);
  for (std::size_t i = 0; i < lines; ++i) text += to_string(r.violations[i]) + "\n";
  if (const std::size_t more = r.violations.size() - lines + r.further; more > 0)
    text += detail::concat({"and ", more, " more\n"});
  return text;
}

namespace detail {

// The first violation and how many there are besides, on one line.
inline std::string first_violation(const report& r) {
  if (r.violations.empty()) return concat({r.further, " violations"});
  const std::size_t more = r.violations.size() - 1 + r.further;
  const std::string text = to_string(r.violations[0]);
  return more == 0 ? text : concat({text, " (and ", more, more == 1 ? " more violation)" : " more violations)"});
}

class verifier {
 public:
  constexpr verifier(const schedule& s, std::size_t max_violations) : s_(s), max_(max_violations) {}

  constexpr report run();

 private:
  // Where the ops of one (stage, micro) are: 1 + index of the cell, 0 for nowhere.
  struct places {
    std::size_t forward = 0, whole = 0, input = 0, weight = 0;

    constexpr std::size_t& of(pass p) {
      return p == pass::forward ? forward : p == pass::backward ? whole : p == pass::backward_input ? input : weight;
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
  constexpr void look_at_each_cell(Enter&& enter_op) {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      const std::span<const cell> row = s_[rank];
      for (std::size_t i = 0; i < row.size(); ++i) {
        bool whole = true;
        for (op o : row[i])
          if (in_range(rank, i, o) && in_place(rank, i, o))
            enter_op(rank, i, o);
          else
            whole = false;
        if (row[i].overlapped() && whole) look_at_overlap(rank, i, row[i]);
      }
    }
  }

  constexpr bool in_range(std::uint32_t rank, std::size_t i, op o) {
    const bool known =
        o.pass == pass::forward || (!s_.forward_only && o.pass > pass::forward && o.pass <= pass::backward_weight);
    if (known && o.stage < s_.stages() && o.micro < s_.micro) return true;
    add(rule::range, rank, i, [&] {
      return concat({to_string(o), "; expected ", s_.forward_only ? "F alone (forward only)" : "F, B, I or W",
                     ", a stage below ", s_.stages(), " and a micro-batch below ", s_.micro});
    });
    return false;
  }

  constexpr bool in_place(std::uint32_t rank, std::size_t i, op o) {
    const std::uint32_t home = s_.placement.rank_of(o.stage, o.micro);
    const std::uint32_t chunk = s_.placement.chunk_of(o.stage, o.micro);
    if (home == rank && chunk == o.chunk) return true;
    add(rule::placement, rank, i, [&] {
      return concat({to_string(o), " is chunk ", o.chunk, " here; expected on rank ", home, " as chunk ", chunk});
    });
    return false;
  }

  constexpr void look_at_overlap(std::uint32_t rank, std::size_t i, const cell& c) {
    for (std::size_t first : {0u, 1u})
      if (depends(c[1 - first], c[first], s_.stages()))
        add(rule::overlap, rank, i, [&] {
          return concat({to_string(c[1 - first]), " needs ", to_string(c[first]),
                         "; expected two ops that do not need each other"});
        });
  }

  constexpr places& places_of(std::uint32_t stage, std::uint32_t micro) {
    return places_[std::size_t{stage} * s_.micro + micro];
  }

  constexpr void enter(std::uint32_t rank, std::size_t i, op o) {
    std::size_t& place = places_of(o.stage, o.micro).of(o.pass);
    if (place == 0) {
      place = i + 1;
      return;
    }
    add(rule::duplicate, rank, i, [&] {
      return concat({to_string(o), " again, first in cell ", place - 1, "; expected once"});
    });
  }

  constexpr void look_at_each_pair() {
    for (std::uint32_t stage = 0; stage < s_.stages(); ++stage)
      for (std::uint32_t micro = 0; micro < s_.micro; ++micro) {
        const places& at = places_of(stage, micro);
        const std::size_t backward = at.whole != 0 ? at.whole : at.input;
        const bool complete =
            at.forward != 0 && (s_.forward_only || (at.whole != 0 && at.input == 0 && at.weight == 0) ||
                                (at.whole == 0 && at.input != 0 && at.weight != 0));
        if (complete && (s_.forward_only || (at.forward < backward && (at.whole != 0 || at.input < at.weight))))
          continue;
        judge(stage, micro, at);
      }
  }

  constexpr void judge(std::uint32_t stage, std::uint32_t micro, const places& at) {
    const std::uint32_t rank = s_.placement.rank_of(stage, micro);
    const auto name = [&](pass p) { return to_string(op{p, 0, static_cast<std::uint16_t>(stage), micro}); };
    const auto missing = [&](pass p, const char* expected) {
      add(rule::missing, rank, violation::no_cell, [&] {
        return concat({name(p), " is nowhere; expected ", expected});
      });
    };
    const auto misordered = [&](pass first, std::size_t first_at, pass then, std::size_t then_at) {
      if (first_at == 0 || then_at == 0 || first_at < then_at) return;
      if (first_at == then_at) return;  // in one overlapped cell, which has been reported
      add(rule::order, rank, then_at - 1, [&] {
        return concat({name(then), " before ", name(first), " in cell ", first_at - 1, "; expected after it"});
      });
    };
    if (at.forward == 0) missing(pass::forward, "one F");
    if (s_.forward_only) return;
    if (at.whole != 0 && (at.input != 0 || at.weight != 0)) {
      const pass other = at.input != 0 ? pass::backward_input : pass::backward_weight;
      add(rule::backward, rank, at.whole - 1, [&] {
        return concat({name(pass::backward), " beside ", name(other), " in cell ",
                       (at.input != 0 ? at.input : at.weight) - 1, "; expected either one B or one I and one W"});
      });
    } else if (at.whole == 0) {
      if (at.input == 0 && at.weight == 0) missing(pass::backward, "one B, or one I and one W");
      if (at.input == 0 && at.weight != 0) missing(pass::backward_input, "one I beside the W");
      if (at.input != 0 && at.weight == 0) missing(pass::backward_weight, "one W beside the I");
    }
    misordered(pass::forward, at.forward, pass::backward, at.whole);
    misordered(pass::forward, at.forward, pass::backward_input, at.input);
    misordered(pass::backward_input, at.input, pass::backward_weight, at.weight);
  }

  // Of the first ops + 1 pairs, one has no F.
  constexpr void name_a_missing_forward(std::size_t ops) {
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
      return concat({to_string(op{pass::forward, 0, stage, micro}), " is nowhere, nor is most of the rest; expected ",
                     s_.stages(), " stages x ", s_.micro, " micro-batches, got ", ops, " ops"});
    });
  }

  // Every rank that cannot go on waits for a tensor whose maker stands behind another such rank's next cell. Following
  // these waits from rank to rank must come back to where it was: that circle is the deadlock.
  constexpr void look_for_cycles() {
    const std::vector<std::size_t> done = walk(s_, [](auto&&...) {});
    std::vector<std::uint32_t> passed_by(s_.pp(), 0);  // the walk that came by this rank, counted from 1
    for (std::uint32_t start = 0; start < s_.pp(); ++start) {
      if (done[start] == s_[start].size()) continue;
      std::uint32_t rank = start;
      for (; passed_by[rank] == 0; rank = wait_of(rank, done).maker_rank) passed_by[rank] = start + 1;
      if (passed_by[rank] == start + 1) add_cycle(rank, done);
    }
  }

  struct wait {
    op waiting, maker;
    std::uint32_t maker_rank;
    std::size_t maker_cell;
  };

  // What the next cell of a stuck rank waits for. @pre `done` came from a walk over a schedule without other faults
  constexpr wait wait_of(std::uint32_t rank, const std::vector<std::size_t>& done) const {
    for (op o : s_[rank][done[rank]])
      if (const auto in = input_of(o, s_.stages())) {
        const std::uint32_t home = s_.placement.rank_of(in->stage, in->micro);
        for (std::size_t i = done[home]; i < s_[home].size(); ++i)
          for (op maker : s_[home][i])
            if (output_of(maker, s_.stages()) == in) return {o, maker, home, i};
      }
    return {};  // unreachable: a stuck rank waits for something that has not been made
  }

  constexpr void add_cycle(std::uint32_t start, const std::vector<std::size_t>& done) {
    add(rule::cycle, start, done[start], [&] {
      std::string text;
      std::uint32_t rank = start;
      do {
        const wait w = wait_of(rank, done);
        text += concat({to_string(w.waiting), " (rank ", rank, ", cell ", done[rank], ") needs ", to_string(w.maker),
                        " (rank ", w.maker_rank, ", cell ", w.maker_cell, ")"});
        if (w.maker_cell != done[w.maker_rank])
          text += concat({", which stands behind ", to_string(s_[w.maker_rank][done[w.maker_rank]])});
        text += "; ";
        rank = w.maker_rank;
      } while (rank != start);
      return text + "expected an order in which every op comes after what it needs";
    });
  }

  const schedule& s_;
  std::size_t max_;
  std::vector<places> places_;
  report report_;
};

constexpr report verifier::run() {
  if (s_.cells.count() != s_.pp() || s_.pp() == 0 || s_.micro == 0) {
    add(rule::shape, 0, violation::no_cell, [&] {
      return concat({s_.cells.count(), " rows of cells and ", s_.micro, " micro-batches for ", s_.pp(),
                     " ranks; expected one row a rank, and at least one of each"});
    });
    return std::move(report_);
  }
  if (const std::uint32_t second = s_.placement.replica_begin(1);
      s_.placement.replicas() == 2 && second != s_.micro - s_.micro / 2) {
    add(rule::shape, 0, violation::no_cell, [&] {
      return concat({"the placement's replica 1 starts with micro-batch ", second, "; expected ",
                     s_.micro - s_.micro / 2, " for ", s_.micro, " micro-batches"});
    });
    return std::move(report_);
  }
  std::size_t ops = 0;
  for (const cell& c : s_.cells.all()) ops += c.size();
  // Every pair needs an op. Where there are far fewer, no table is made for pairs that a file merely claims.
  if (std::uint64_t{s_.stages()} * s_.micro > 4 * std::uint64_t{ops} + 4096) {
    look_at_each_cell([](auto&&...) {});
    name_a_missing_forward(ops);
    return std::move(report_);
  }
  places_.resize(std::size_t{s_.stages()} * s_.micro);
  look_at_each_cell([&](std::uint32_t rank, std::size_t i, op o) { enter(rank, i, o); });
  look_at_each_pair();
  if (report_) look_for_cycles();
  return std::move(report_);
}

}  // namespace detail

/// Reports all violations of the rules above and spells out the first `max_violations`. Cycles are looked for only when
/// the other rules hold: an op that is missing or misplaced has no order. For a schedule with more than four times as many
/// (stage, micro) pairs as ops it reports the first pair without an F, ops out of range and misplaced ops, nothing else.
/// Time and memory are linear in the number of ops.
constexpr report verify(const schedule& s, std::size_t max_violations = 100) {
  return detail::verifier(s, max_violations).run();
}

/// Throws unless the schedule is valid. Every function that needs a valid schedule calls it.
/// @throws schedule_error with the first violation and the number of others; verify() lists them all.
constexpr void require_valid(const schedule& s) {
  if (const report r = verify(s, 1); !r)
    throw schedule_error(detail::concat({"the schedule is not valid: ", detail::first_violation(r)}));
}

/// Type of `verified`.
struct verified_t {};
/// Tag for callers who have verified a schedule: `simulate(s, costs, verified)` does not verify it again.
/// @pre verify(s) is true
inline constexpr verified_t verified{};

}  // namespace pipesched
