// SPDX-License-Identifier: MIT
#pragma once

// Transforms from one schedule to another: split or merge backwards, overlap neighbours, keep only forwards or fewer
// micro-batches, delay weight gradients, concatenate steps; recompute.hpp and freeze.hpp have more. The result of each is
// valid and has the same name. They combine: `overlap_neighbours(split_backward(make_1f1b_schedule(p)))`. All throw
// schedule_error if the schedule is not valid, and take time linear in the number of ops unless they say otherwise.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

// Replaces every row: `edit(row, put)` passes the cells of the new row to `put`.
template <typename Edit>
constexpr schedule map_rows(const schedule& s, Edit&& edit) {
  schedule result{.name = s.name,
                  .placement = s.placement,
                  .micro = s.micro,
                  .forward_only = s.forward_only,
                  .cells = {},
                  .backward = s.backward};
  std::vector<cell> row;
  for (std::size_t rank = 0; rank < s.cells.size(); ++rank) {
    row.clear();
    edit(s[rank], [&](cell c) { row.push_back(c); });
    result.cells.append(row);
  }
  return result;
}

}  // namespace detail

/// Splits every B into an I and, in the next cell, its W: (0F7;7B13) becomes (0F7;7I13) 7W13. An RB becomes an RI and its W.
constexpr schedule split_backward(const schedule& s) {
  require_valid(s);
  return detail::map_rows(s, [](auto row, auto&& put) {
    for (cell c : row) {
      const cell before = c;
      for (op& o : c) o.pass = detail::for_inputs(o.pass);
      put(c);
      for (op o : before)
        if (without_recompute(o.pass) == pass::backward) put(detail::with_pass(o, pass::backward_weight));
    }
  });
}

/// Replaces every I that has a W by a B and removes every W. It is the inverse of split_backward() for schedules without I and
/// W.
constexpr schedule merge_backward(const schedule& s) {
  require_valid(s);
  return detail::map_rows(s, [&](auto row, auto&& put) {
    for (cell c : row)
      detail::filter_cell(
          c,
          [&](op& o) {
            const bool full = s.backward_of(o.stage) == stage_backward::full;
            if (full && o.pass == pass::backward_input) o.pass = pass::backward;
            if (full && o.pass == pass::recompute_backward_input) o.pass = pass::recompute_backward;
            return o.pass != pass::backward_weight;
          },
          put);
  });
}

/// Keeps only the forwards, for evaluation.
constexpr schedule keep_forwards(const schedule& s) {
  require_valid(s);
  schedule result = detail::map_rows(s, [](auto row, auto&& put) {
    for (cell c : row)
      detail::filter_cell(
          c, [](op& o) { return o.pass == pass::forward; }, put);
  });
  result.forward_only = true;
  result.backward.clear();
  return result;
}

/// Keeps the first `micro` micro-batches; with two replicas, half of them from the front of each.
/// @throws schedule_error also unless 1 <= micro <= s.micro
constexpr schedule keep_micro_batches(const schedule& s, std::int64_t micro) {
  require_valid(s);
  if (micro < 1 || micro > s.micro)
    throw schedule_error(
        detail::concat({"keep_micro_batches() takes 1 to ", s.micro, " of this schedule's micro-batches; got ", micro,
                        ", nearest ", micro < 1 ? 1 : s.micro}));
  const std::uint32_t up = std::min(s.micro, s.placement.replica_begin(1));
  schedule result = s;
  result.micro = static_cast<std::uint32_t>(micro);
  result.placement = s.placement.for_micro(micro);
  const std::uint32_t new_up = std::min(result.micro, result.placement.replica_begin(1));
  result.cells = detail::map_rows(s, [&](auto row, auto&& put) {
                   for (cell c : row)
                     detail::filter_cell(
                         c,
                         [&](op& o) {
                           if (o.micro < up) return o.micro < new_up;
                           o.micro = o.micro - up + new_up;
                           return o.micro < result.micro;
                         },
                         put);
                 }).cells;
  return result;
}

/// Delays every W by `by` W's of its rank: the k-th runs in the place of the (k + by)-th, the last ones at the end. In the
/// cool-down gradients are sent earlier; up to `by` more activations are kept.
/// @throws schedule_error also if `by` is negative
constexpr schedule delay_weights(const schedule& s, std::int64_t by) {
  require_valid(s);
  if (by < 0) throw schedule_error(detail::concat({"delay_weights() delays by 0 or more; got ", by, ", nearest 0"}));
  return detail::map_rows(s, [&](auto row, auto&& put) {
    std::vector<op> weights;  // the rank's W's so far, of which the first `placed` have their new place
    std::size_t placed = 0;
    for (cell c : row)
      detail::filter_cell(
          c,
          [&](op& o) {
            if (o.pass != pass::backward_weight) return true;
            weights.push_back(o);
            if (std::ssize(weights) <= by) return false;
            o = weights[placed++];
            return true;
          },
          put);
    for (; placed < weights.size(); ++placed) put(weights[placed]);
  });
}

/// The neighbours that overlap_neighbours() pairs.
enum class overlap_policy : std::uint8_t {
  everywhere,  ///< all, except where that would deadlock
  where_ready  ///< those whose gradient has arrived when the forward starts (F = I = W = R = 1, free transfers)
};

namespace detail {

// True for an F followed by a B or I of another micro-batch, both in cells of their own.
constexpr bool can_overlap_next(std::span<const cell> row, std::size_t i) noexcept {
  return i + 1 < row.size() && !row[i].overlapped() && !row[i + 1].overlapped() && row[i][0].pass == pass::forward &&
         yields_input_gradient(row[i + 1][0].pass) && row[i][0].micro != row[i + 1][0].micro;
}

// By rank and cell: 1 where a pair begins.
using pair_marks = std::vector<std::vector<std::uint8_t>>;

constexpr pair_marks no_pairs(const schedule& s) {
  pair_marks marks;
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) marks.emplace_back(s[rank].size(), std::uint8_t{0});
  return marks;
}

// Finds pairs in any order of time. Runs all ranks, each of which waits for the inputs of both ops of a pair. When all ranks
// are blocked, the first one that can run its F without the backward does so.
class pair_search {
 public:
  constexpr explicit pair_search(const schedule& s) : s_(s), marks_(no_pairs(s)), done_(s.pp(), 0), runner_(s) {}

  constexpr pair_marks run() {
    do runner_.run([&](std::uint32_t rank) { advance(rank); });
    while (run_one_without_pair());
    return std::move(marks_);
  }

 private:
  constexpr void run(std::uint32_t rank, std::size_t cells) {
    for (std::size_t end = done_[rank] + cells; done_[rank] < end; ++done_[rank]) runner_.finish(s_[rank][done_[rank]]);
  }
  constexpr void advance(std::uint32_t rank) {
    const auto row = s_[rank];
    for (std::size_t i; (i = done_[rank]) < row.size();) {
      const bool pair = can_overlap_next(row, i);
      if (!runner_.ready(row[i]) || (pair && !runner_.ready(row[i + 1]))) break;
      if (pair) marks_[rank][i] = 1;
      run(rank, pair ? 2 : 1);
    }
  }
  constexpr bool run_one_without_pair() {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      if (done_[rank] < s_[rank].size() && runner_.ready(s_[rank][done_[rank]])) {
        run(rank, 1);
        runner_.wake(rank);
        return true;
      }
    return false;
  }

  const schedule& s_;
  pair_marks marks_;
  std::vector<std::size_t> done_;  // cells, by rank
  cell_runner runner_;
};

// Finds pairs in order of time: both inputs must have arrived when the F can start.
class timed_pair_search {
 public:
  constexpr explicit timed_pair_search(const schedule& s)
      : s_(s), marks_(no_pairs(s)), done_(s.pp(), 0), clock_(s.pp(), 0), produced_(s, never) {}

  constexpr pair_marks run() {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) expect(rank);
    while (!events_.empty()) {
      const auto [now, rank] = events_.front();
      std::pop_heap(events_.begin(), events_.end(), std::greater<>());
      events_.pop_back();
      const std::size_t i = done_[rank];
      if (i < s_[rank].size() && start_of(rank, s_[rank][i]) == now) run(rank, now);
    }
    return std::move(marks_);
  }

 private:
  static constexpr std::uint64_t never = ~std::uint64_t{0};

  constexpr std::uint64_t start_of(std::uint32_t rank, const cell& c) {
    std::uint64_t start = clock_[rank];
    for (op o : c)
      if (const auto in = input_of(o, s_.chain())) start = std::max(start, produced_[*in]);
    return start;
  }
  constexpr void expect(std::uint32_t rank) {
    if (done_[rank] == s_[rank].size()) return;
    const std::uint64_t start = start_of(rank, s_[rank][done_[rank]]);
    if (start == never) return;
    events_.push_back({start, rank});
    std::push_heap(events_.begin(), events_.end(), std::greater<>());
  }
  // Runs the next cell of a rank, or the pair that begins there.
  constexpr void run(std::uint32_t rank, std::uint64_t now) {
    const auto row = s_[rank];
    const std::size_t i = done_[rank];
    const bool pair = can_overlap_next(row, i) && start_of(rank, row[i + 1]) <= now;
    if (pair) marks_[rank][i] = 1;
    const auto cells = row.subspan(i, pair ? 2 : 1);
    done_[rank] += cells.size();
    clock_[rank] = now;
    for (const cell& c : cells)
      for (op o : c) clock_[rank] += unit_duration(o.pass);
    for (const cell& c : cells)
      for (op o : c)
        if (const auto out = output_of(o, s_.chain())) {
          produced_[*out] = clock_[rank];
          expect(s_.placement.rank_of(receiver_of(*out), out->micro));
        }
    expect(rank);
  }

  using event = std::pair<std::uint64_t, std::uint32_t>;  // when a rank can start its next cell; may be out of date

  const schedule& s_;
  pair_marks marks_;
  std::vector<std::size_t> done_;     // cells, by rank
  std::vector<std::uint64_t> clock_;  // by rank
  tensor_table<std::uint64_t> produced_;
  std::vector<event> events_;
};

}  // namespace detail

/// Puts every F and the B or I of another micro-batch right after it into one overlapped cell, as `policy` says.
/// `everywhere` turns interleaved 1F1B with `extra_warm_up` into the one with `overlap`. Without such a warm-up, as in 1F1B,
/// its pairs make ranks wait; `where_ready` makes only pairs for which the rank itself does not wait. Both deliver the F's
/// output at the end of the pair, which may cost time elsewhere: simulate the schedule with and without them.
/// n log n in the number of ops n, plus pp for each pair that would deadlock.
constexpr schedule overlap_neighbours(const schedule& s, overlap_policy policy = overlap_policy::everywhere) {
  require_valid(s);
  detail::pair_marks pair_at;  // assigned, as GCC 12 rejects a conditional expression here in constant expressions
  if (policy == overlap_policy::everywhere)
    pair_at = detail::pair_search(s).run();
  else
    pair_at = detail::timed_pair_search(s).run();
  std::size_t rank = 0;
  return detail::map_rows(s, [&](auto row, auto&& put) {
    const auto& pairs = pair_at[rank++];
    for (std::size_t i = 0; i < row.size(); ++i)
      if (pairs[i] != 0)
        put(cell(row[i][0], row[i + 1][0])), ++i;
      else
        put(row[i]);
  });
}

namespace detail {

constexpr void require_concatenable(const schedule& first, const schedule& then) {
  constexpr std::int64_t max_micro = std::numeric_limits<std::uint32_t>::max() - 1;
  if (std::int64_t{first.micro} + then.micro > max_micro)
    throw schedule_error(
        concat({"concatenate() takes at most ", max_micro, " micro-batches in all; got ", first.micro, " and ",
                then.micro, ", nearest ", std::max<std::int64_t>(0, max_micro - first.micro), " in the second step"}));
  require_valid(first);
  require_valid(then);
  if (!same_stages_on_ranks(first.placement, then.placement))
    throw schedule_error(concat({"concatenate() takes two steps with the same stages on the same ranks; got ",
                                 count_text(first.stages(), "stage"), " on ", count_text(first.pp(), "rank"), " (",
                                 to_string(first.placement.kind()), ") and ", then.stages(), " on ", then.pp(), " (",
                                 to_string(then.placement.kind()), ")"}));
  if (first.backward != then.backward)
    throw schedule_error("concatenate() takes two steps in which the same stages are frozen; got others");
  if (first.forward_only != then.forward_only)
    throw schedule_error("concatenate() takes two forward-only steps or two training steps; got one of each");
  if (first.placement.replicas() == 2 && first.micro % 2 != 0 && then.micro % 2 != 0)
    throw schedule_error(
        concat({"with two replicas concatenate() takes at most one step with an odd number of micro-batches; got ",
                first.micro, " and ", then.micro, ", nearest ", then.micro == 1 ? "" : concat({then.micro - 1, " or "}),
                then.micro + 1, " in the second step"}));
}

}  // namespace detail

/// Concatenates two steps without a flush: every rank runs its row of `first`, then its row of `then`, whose micro-batches
/// get the next numbers.
/// @throws schedule_error also unless both have the same placement and the same frozen stages, both are forward only or
/// neither is, and, with two replicas, one of them has an even number of micro-batches
constexpr schedule concatenate(const schedule& first, const schedule& then) {
  detail::require_concatenable(first, then);
  schedule result = first;
  result.micro = first.micro + then.micro;
  result.placement = first.placement.for_micro(result.micro);
  // Each replica gets its micro-batches of the first step, then those of the second.
  const std::uint32_t first_up = std::min(first.micro, first.placement.replica_begin(1));
  const std::uint32_t then_up = std::min(then.micro, then.placement.replica_begin(1));
  const auto numbered = [&](cell c, bool second) {
    for (op& o : c)
      if (second)
        o.micro += o.micro < then_up ? first_up : first.micro;
      else if (o.micro >= first_up)
        o.micro += then_up;
    return c;
  };
  std::size_t rank = 0;
  result.cells = detail::map_rows(first, [&](auto row, auto&& put) {
                   for (cell c : row) put(numbered(c, false));
                   for (cell c : then[rank++]) put(numbered(c, true));
                 }).cells;
  return result;
}

}  // namespace pipesched
