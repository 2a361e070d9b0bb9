// SPDX-License-Identifier: MIT
#pragma once

// From one schedule to another: split the backward or merge it again, overlap neighbours, keep forwards alone or fewer
// micro-batches, run weight gradients later, join steps. Each makes a valid schedule of a valid one, in time linear in the
// number of ops unless it says otherwise, and keeps the name; they combine, as in
// `overlap_neighbours(split_backward(make_1f1b_schedule(p)))`.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/dependencies.hpp"
#include "pipesched/error.hpp"
#include "pipesched/op.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

namespace detail {

// The schedule with the rows that `edit(row, put)` makes of its rows, cell by cell through `put`.
template <typename Edit>
constexpr schedule map_rows(const schedule& s, Edit&& edit) {
  schedule result{
      .name = s.name, .placement = s.placement, .micro = s.micro, .forward_only = s.forward_only, .cells = {}};
  std::vector<cell> row;
  for (std::size_t rank = 0; rank < s.cells.count(); ++rank) {
    row.clear();
    edit(s[rank], [&](cell c) { row.push_back(c); });
    result.cells.append(row);
  }
  return result;
}

constexpr op with_pass(op o, pass p) noexcept {
  o.pass = p;
  return o;
}

}  // namespace detail

/// Every B as an I with its W in the next cell: (0F7;7B13) becomes (0F7;7I13) 7W13.
constexpr schedule split_backward(const schedule& s) {
  return detail::map_rows(s, [](auto row, auto&& put) {
    for (cell c : row) {
      const cell before = c;
      for (op& o : c)
        if (o.pass == pass::backward) o.pass = pass::backward_input;
      put(c);
      for (op o : before)
        if (o.pass == pass::backward) put(detail::with_pass(o, pass::backward_weight));
    }
  });
}

/// Every I as the B in its place, and no W. What split_backward() made of a schedule without W's becomes that schedule
/// again.
constexpr schedule merge_backward(const schedule& s) {
  return detail::map_rows(s, [](auto row, auto&& put) {
    for (cell c : row)
      detail::filter_cell(
          c,
          [](op& o) {
            if (o.pass == pass::backward_input) o.pass = pass::backward;
            return o.pass != pass::backward_weight;
          },
          put);
  });
}

/// The forwards alone, for evaluation.
constexpr schedule keep_forwards(const schedule& s) {
  schedule result = detail::map_rows(s, [](auto row, auto&& put) {
    for (cell c : row)
      detail::filter_cell(
          c, [](op& o) { return o.pass == pass::forward; }, put);
  });
  result.forward_only = true;
  return result;
}

/// The first `micro` micro-batches; of a schedule with two replicas the first half of them from each.
/// @throws schedule_error unless 1 <= micro <= s.micro.
constexpr schedule keep_micro_batches(const schedule& s, std::int64_t micro) {
  if (s.micro == 0) throw schedule_error("a schedule without micro-batches cannot be cut");
  if (micro < 1 || micro > s.micro)
    throw schedule_error(detail::concat({"a schedule of ", s.micro, " micro-batches can be cut to 1 to ", s.micro,
                                         " of them; got ", micro, ", nearest ", micro < 1 ? 1 : s.micro}));
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

/// Every W `by` W's of its rank later: the k-th runs where the (k + by)-th ran, the last ones at the end. Gradients go out
/// earlier in the cool-down, up to `by` more activations are kept. Negative: as 0.
constexpr schedule delay_weights(const schedule& s, std::int64_t by) {
  return detail::map_rows(s, [&](auto row, auto&& put) {
    std::vector<op> weights;  // of the rank so far; the first `placed` have their new place
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

/// Which neighbours overlap_neighbours() pairs: all but those of which a rank in a circle of waiting ranks must give one
/// up; or those only where the backward's gradient is there when the forward starts, with F = I = W = 1 and transfers that
/// cost nothing.
enum class overlap_policy : std::uint8_t { everywhere, where_ready };

namespace detail {

// Is this an F with a B or I of another micro-batch behind it, both in cells of their own?
constexpr bool can_overlap_next(std::span<const cell> row, std::size_t i) noexcept {
  return i + 1 < row.size() && !row[i].overlapped() && !row[i + 1].overlapped() && row[i][0].pass == pass::forward &&
         yields_input_gradient(row[i + 1][0].pass) && row[i][0].micro != row[i + 1][0].micro;
}

// Where a pair begins. Runs all ranks and lets each wait for the inputs of both ops of a pair; where nobody can go on, the
// first rank that could run its F alone does.
constexpr std::vector<std::vector<char>> pairs_everywhere(const schedule& s) {
  std::vector<std::vector<char>> pair_at(s.pp());
  std::vector<std::size_t> done(s.pp(), 0);
  tensor_table<std::uint8_t> made(s, 0);
  const auto ready = [&](const cell& c) {
    const auto in = input_of(c[0], s.stages());
    const auto in_1 = c.overlapped() ? input_of(c[1], s.stages()) : in;
    return (!in || made[*in] != 0) && (!in_1 || made[*in_1] != 0);
  };
  std::vector<std::uint32_t> runnable;
  const auto run = [&](std::uint32_t rank, std::size_t cells) {
    for (std::size_t end = done[rank] + cells; done[rank] < end; ++done[rank])
      for (op o : s[rank][done[rank]])
        if (const auto out = output_of(o, s.stages())) {
          made[*out] = 1;
          runnable.push_back(s.placement.rank_of(receiver_of(*out), out->micro));
        }
  };
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    pair_at[rank].assign(s[rank].size(), 0);
    runnable.push_back(rank);
  }
  for (bool stuck = false; !stuck;) {
    while (!runnable.empty()) {
      const std::uint32_t rank = runnable.back();
      runnable.pop_back();
      const auto row = s[rank];
      for (std::size_t i; (i = done[rank]) < row.size();) {
        const bool pair = can_overlap_next(row, i);
        if (!ready(row[i]) || (pair && !ready(row[i + 1]))) break;
        pair_at[rank][i] = pair;
        run(rank, pair ? 2 : 1);
      }
    }
    stuck = true;
    for (std::uint32_t rank = 0; rank < s.pp() && stuck; ++rank)
      if (done[rank] < s[rank].size() && ready(s[rank][done[rank]])) {
        run(rank, 1);
        runnable.push_back(rank);
        stuck = false;
      }
  }
  return pair_at;
}

// The same in the order of time: a pair is made if both inputs are there when the F can start.
constexpr std::vector<std::vector<char>> pairs_where_ready(const schedule& s) {
  constexpr std::uint64_t never = ~std::uint64_t{0};
  std::vector<std::vector<char>> pair_at(s.pp());
  std::vector<std::size_t> done(s.pp(), 0);
  std::vector<std::uint64_t> clock(s.pp(), 0);
  tensor_table<std::uint64_t> made(s, never);  // when
  const auto start_of = [&](std::uint32_t rank, const cell& c) {
    std::uint64_t start = clock[rank];
    for (op o : c)
      if (const auto in = input_of(o, s.stages())) start = std::max(start, made[*in]);
    return start;
  };
  using event =
      std::pair<std::uint64_t, std::uint32_t>;  // a rank could start its next cell then; perhaps no longer true
  std::vector<event> events;
  const auto expect = [&](std::uint32_t rank) {
    if (done[rank] == s[rank].size()) return;
    const std::uint64_t start = start_of(rank, s[rank][done[rank]]);
    if (start == never) return;
    events.push_back({start, rank});
    std::push_heap(events.begin(), events.end(), std::greater<>());
  };
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    pair_at[rank].assign(s[rank].size(), 0);
    expect(rank);
  }
  while (!events.empty()) {
    const auto [now, rank] = events.front();
    std::pop_heap(events.begin(), events.end(), std::greater<>());
    events.pop_back();
    const auto row = s[rank];
    const std::size_t i = done[rank];
    if (i == row.size() || start_of(rank, row[i]) != now) continue;
    const bool pair = can_overlap_next(row, i) && start_of(rank, row[i + 1]) <= now;
    pair_at[rank][i] = pair;
    done[rank] += pair ? 2 : 1;
    clock[rank] = now;
    for (std::size_t k = i; k < done[rank]; ++k)
      for (op o : row[k]) clock[rank] += o.pass == pass::backward ? 2 : 1;
    for (std::size_t k = i; k < done[rank]; ++k)
      for (op o : row[k])
        if (const auto out = output_of(o, s.stages())) {
          made[*out] = clock[rank];
          expect(s.placement.rank_of(receiver_of(*out), out->micro));
        }
    expect(rank);
  }
  return pair_at;
}

}  // namespace detail

/// Every F with the B or I of another micro-batch right behind it in one overlapped cell, as `rule` says. `everywhere`
/// makes of interleaved 1F1B with `extra_warm_up` the one with `overlap`; where the warm-up has nothing to spare, as in
/// 1F1B, pairs make ranks wait for each other, and `where_ready` makes those alone for which the rank itself does not wait.
/// What waits for the F's output gets it at the end of the pair in either case: simulate both, and the schedule as it was.
/// Linear but for a logarithm, or for pp for each pair given up.
/// @pre the schedule is valid
constexpr schedule overlap_neighbours(const schedule& s, overlap_policy rule = overlap_policy::everywhere) {
  std::vector<std::vector<char>> pair_at;
  if (rule == overlap_policy::everywhere)
    pair_at = detail::pairs_everywhere(s);
  else
    pair_at = detail::pairs_where_ready(s);
  std::size_t rank = 0;
  return detail::map_rows(s, [&](auto row, auto&& put) {
    const auto& pairs = pair_at[rank++];
    for (std::size_t i = 0; i < row.size(); ++i)
      if (pairs[i])
        put(cell(row[i][0], row[i + 1][0])), ++i;
      else
        put(row[i]);
  });
}

/// One step after the other with nothing between: every rank runs its row of `first`, then that of `then`, whose
/// micro-batches are numbered on. @throws schedule_error unless both place their stages alike, both are forward only or
/// neither, and, with two replicas, one of them has an even number of micro-batches.
constexpr schedule concatenate(const schedule& first, const schedule& then) {
  using detail::concat;
  const std::int64_t micro = std::int64_t{first.micro} + then.micro;
  constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max() - 1;
  if (micro > most)
    throw schedule_error(
        concat({"steps of at most ", most, " micro-batches together can be joined; got ", first.micro, " and ",
                then.micro, ", nearest ", std::max<std::int64_t>(0, most - first.micro), " in the second"}));
  const auto alike = [&] {
    if (first.pp() != then.pp() || first.placement.replicas() != then.placement.replicas()) return false;
    for (std::uint32_t replica = 0; replica < first.placement.replicas(); ++replica) {
      const auto a = first.placement.rank_of_stage(replica), b = then.placement.rank_of_stage(replica);
      if (!std::equal(a.begin(), a.end(), b.begin(), b.end())) return false;
    }
    return true;
  };
  if (!alike())
    throw schedule_error(concat({"steps can be joined where the same ranks host the same stages; got ", first.stages(),
                                 " stages on ", first.pp(), " ranks (", to_string(first.placement.kind()), ") and ",
                                 then.stages(), " on ", then.pp(), " (", to_string(then.placement.kind()), ")"}));
  if (first.forward_only != then.forward_only)
    throw schedule_error(
        concat({"steps can be joined where both are forward only or neither; got one that is and one that is not"}));
  if (first.placement.replicas() == 2 && first.micro % 2 != 0 && then.micro % 2 != 0)
    throw schedule_error(
        concat({"steps of two replicas can be joined where one has an even number of micro-batches; got ", first.micro,
                " and ", then.micro, ", nearest ", then.micro - 1, " or ", then.micro + 1}));
  schedule result = first;
  result.micro = static_cast<std::uint32_t>(micro);
  result.placement = first.placement.for_micro(micro);
  // Replica 0 has the first half of all micro-batches: those of the first step, then those of the second; likewise replica
  // 1.
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
