// SPDX-License-Identifier: MIT
#pragma once

// Orders of the inside of a cell with movable tasks: the chains' best order with the movable tasks in its gaps, and a search
// over partial orders, level by level, which drops those that another one dominates, those whose bound is no better than the
// best order, and, of too many, those with the highest bounds; the least of these bounds is proved.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "pipesched/plan/detail/cell_problem.hpp"

namespace pipesched::detail {

constexpr void sort_by_start(std::vector<placed_op>& ops) {
  std::sort(ops.begin(), ops.end(),
            [](placed_op a, placed_op b) { return std::pair(a.start, a.op) < std::pair(b.start, b.op); });
}

/// Adds the movable tasks to a schedule of the chains, each in the first gap that holds it. @return ops by start
constexpr std::vector<placed_op> fill_gaps(const cell_problem& p, std::vector<placed_op> all) {
  struct busy {
    double start, end;
  };
  std::array<std::vector<busy>, 2> taken, tasks;  // by resource, and by chain
  for (const placed_op& o : all) {
    const solid_task& t = p.chain[o.op][tasks[o.op].size()];
    tasks[o.op].push_back({o.start, o.start + t.duration});
    taken[t.resource].push_back(tasks[o.op].back());
  }
  for (auto& row : taken) std::sort(row.begin(), row.end(), [](busy a, busy b) { return a.start < b.start; });
  std::vector<std::pair<double, std::uint32_t>> released;
  for (std::uint32_t m = 0; m < p.movable.size(); ++m) {
    const solid_movable& t = p.movable[m];
    released.push_back({t.after == no_task ? 0 : tasks[t.chain][t.after].end, m});
  }
  std::sort(released.begin(), released.end());
  for (const auto& [release, m] : released) {
    auto& row = taken[p.movable[m].resource];
    const double takes = p.movable[m].duration;
    double start = release;
    std::size_t at = 0;
    for (; at < row.size() && start + takes > row[at].start; ++at) start = std::max(start, row[at].end);
    row.push_back({start, start + takes});
    std::rotate(row.begin() + static_cast<std::ptrdiff_t>(at), row.end() - 1, row.end());
    all.push_back({m + 2, start});
  }
  sort_by_start(all);
  return all;
}

class cell_search {
 public:
  static constexpr std::size_t max_movable = 128;

  /// @param best  an order of all ops  @pre at most max_movable movable tasks
  constexpr cell_search(const cell_problem& p, const chain_table& chains, std::vector<placed_op> best)
      : p_(p), chains_(chains), best_(std::move(best)) {
    for (const placed_op& o : best_) {
      length_ = std::max(length_, o.start + (o.op < 2 ? 0 : p.movable[o.op - 2].duration));
    }
    for (std::size_t c = 0; c < 2; ++c) {
      std::size_t k = 0;
      for (const placed_op& o : best_)
        if (o.op == c) length_ = std::max(length_, o.start + p.chain[c][k++].duration);
    }
    lower_bound_ = bound_of({});
  }

  /// Wider passes, until the best order is proved or so many states have been looked at.
  constexpr void run(std::size_t max_states) {
    const std::size_t levels = p_.tasks();
    for (std::size_t width = 8; lower_bound_ < worth() && states_ < max_states; width *= 8) {
      width = std::min(width, (max_states - states_) / (2 * levels) + 1);
      lower_bound_ = std::max(lower_bound_, std::min(pass(width), length_));
    }
  }

  constexpr const std::vector<placed_op>& best() const noexcept { return best_; }
  constexpr double length() const noexcept { return length_; }
  constexpr double lower_bound() const noexcept { return lower_bound_ < worth() ? lower_bound_ : length_; }
  constexpr std::size_t states() const noexcept { return states_; }

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity();

  // A partial order: for each resource the end of its last op, for each chain the end of its last task.
  struct state {
    std::array<double, 2> free{}, ready{};
    double bound = 0;
    std::array<std::uint64_t, 2> done{};  // movable tasks, one bit each
    std::array<std::uint32_t, 2> next{};
    std::uint32_t parent = 0;
    placed_op last{};
  };

  // Orders that are longer than this one are of no use; a rounding error is no gain.
  constexpr double worth() const noexcept { return length_ * (1 - 1e-12); }

  // Time at which the next task of a chain may start.
  constexpr double start_of_chain(const state& s, std::size_t c) const {
    const std::size_t k = s.next[c];
    return k < p_.chain[c].size() ? std::max(s.ready[c], s.free[p_.chain[c][k].resource]) : s.ready[c];
  }

  constexpr bool available(const state& s, std::size_t m) const {
    const solid_movable& t = p_.movable[m];
    return (s.done[m / 64] >> m % 64 & 1) == 0 && (t.after == no_task || t.after < s.next[t.chain]);
  }
  // Time at which its task of the chain ended. @pre available
  constexpr double release_of(const state& s, std::size_t m) const {
    const solid_movable& t = p_.movable[m];
    if (t.after == no_task) return 0;
    if (p_.chain[t.chain][t.after].resource == t.resource) return s.free[t.resource];
    const state* at = &s;
    while (at->last.op != t.chain || at->next[t.chain] != t.after + 1) at = &pool_[at->parent];
    return at->ready[t.chain];
  }

  // Least end of all work on a resource with its earliest starts, and of the chains after their tasks there, whose order
  // may be preempted. Source: one machine with heads and tails, Jackson; Carlier, European J. of Oper. Research 11 (1982).
  constexpr double resource_bound(const state& s, const std::array<double, 2>& start, std::size_t r) const {
    std::array<const resource_work*, 2> at{}, end{};
    std::array<double, 2> shift{};
    for (std::size_t c = 0; c < 2; ++c) {
      const auto& all = p_.work[c][r];
      at[c] = all.data() + p_.first_work[c][r][s.next[c]], end[c] = all.data() + all.size();
      shift[c] = start[c] - p_.before[c][s.next[c]];
    }
    double time = s.free[r];
    for (std::size_t m = 0; m < p_.movable.size(); ++m)
      if (p_.movable[m].resource == r && available(s, m)) time += p_.movable[m].duration;
    const bool any_movable = time > s.free[r];
    auto i = at;
    while (i[0] != end[0] || i[1] != end[1]) {
      const double a = i[0] != end[0] ? shift[0] + i[0]->offset : infinity;
      const double b = i[1] != end[1] ? shift[1] + i[1]->offset : infinity;
      const std::size_t c = a <= b ? 0 : 1;
      time = std::max(time, c == 0 ? a : b) + i[c]->duration;
      ++i[c];
    }
    if (!any_movable && at == end) return 0;
    return std::max(time, preemptive_end(s.free[r], at, end, shift));
  }

  // Of the chains' tasks alone, the one with the longer tail first.
  static constexpr double preemptive_end(double time, std::array<const resource_work*, 2> at,
                                         const std::array<const resource_work*, 2>& end,
                                         const std::array<double, 2>& shift) {
    std::array<double, 2> left{}, head{};
    const auto next_task = [&](std::size_t c) {
      while (at[c] != end[c] && at[c]->movable) ++at[c];
      left[c] = at[c] != end[c] ? at[c]->duration : 0;
      head[c] = at[c] != end[c] ? shift[c] + at[c]->offset : infinity;
    };
    next_task(0), next_task(1);
    double last = 0;
    while (at[0] != end[0] || at[1] != end[1]) {
      time = std::max(time, std::min(head[0], head[1]));
      const std::size_t c = head[0] > time   ? 1
                            : head[1] > time ? 0
                                             : static_cast<std::size_t>(at[1]->tail > at[0]->tail);
      const double until = head[1 - c] > time ? head[1 - c] : infinity;
      if (time + left[c] > until) {
        left[c] -= until - time, time = until;
        continue;
      }
      time += left[c];
      last = std::max(last, time + at[c]->tail);
      ++at[c], next_task(c);
    }
    return last;
  }

  // No order that begins like this one is shorter.
  constexpr double bound_of(const state& s) const {
    const std::array start{start_of_chain(s, 0), start_of_chain(s, 1)};
    double bound = std::max({s.bound, s.free[0], s.free[1]});
    for (std::size_t r = 0; r < 2 && bound < worth(); ++r) bound = std::max(bound, resource_bound(s, start, r));
    if (bound < worth()) bound = std::max(bound, chains_.end_from(s.next[0], s.next[1], start[0], start[1]));
    return bound;
  }

  // The ops that may come next on their resource without leaving a gap that holds another op. Source: active schedules,
  // Giffler and Thompson, Operations Research 8 (1960).
  struct candidate {
    placed_op op{};
    std::size_t resource = 0;
    double end = 0;
  };
  constexpr void find_candidates(const state& s) {
    candidates_.clear();
    for (std::uint32_t c = 0; c < 2; ++c)
      if (s.next[c] < p_.chain[c].size()) {
        const solid_task& t = p_.chain[c][s.next[c]];
        const double start = start_of_chain(s, c);
        candidates_.push_back({{c, start}, t.resource, start + t.duration});
      }
    for (std::uint32_t m = 0; m < p_.movable.size(); ++m)
      if (available(s, m)) {
        const solid_movable& t = p_.movable[m];
        const double start = std::max(s.free[t.resource], release_of(s, m));
        candidates_.push_back({{m + 2, start}, t.resource, start + t.duration});
      }
    const candidate first = *std::min_element(candidates_.begin(), candidates_.end(),
                                              [](const candidate& a, const candidate& b) { return a.end < b.end; });
    std::erase_if(candidates_, [&](const candidate& c) {
      return c.resource != first.resource || (c.op.start >= first.end && c.op.op != first.op.op);
    });
  }

  constexpr state after(std::uint32_t parent, const candidate& c) const {
    state s = pool_[parent];
    s.parent = parent, s.last = c.op, s.free[c.resource] = c.end;
    if (c.op.op < 2)
      ++s.next[c.op.op], s.ready[c.op.op] = c.end;
    else
      s.done[(c.op.op - 2) / 64] |= std::uint64_t{1} << (c.op.op - 2) % 64;
    return s;
  }

  // One pass over all levels with at most `width` states each. Returns the least bound of those dropped for the width.
  constexpr double pass(std::size_t width) {
    pool_.assign(1, state{.last = {.op = no_op}});
    std::vector<std::uint32_t> level{0}, next;
    double dropped = infinity;
    for (std::size_t depth = 1; depth <= p_.tasks(); ++depth) {
      next.clear();
      for (const std::uint32_t parent : level) {
        if (pool_[parent].bound >= worth()) continue;
        find_candidates(pool_[parent]);
        for (const candidate& c : candidates_) add(parent, c, depth, next);
      }
      drop_dominated(next);
      if (next.size() > width) dropped = std::min(dropped, keep_best(next, width));
      std::swap(level, next);
    }
    return dropped;
  }

  constexpr void add(std::uint32_t parent, const candidate& c, std::size_t depth, std::vector<std::uint32_t>& to) {
    state s = after(parent, c);
    s.bound = bound_of(s);
    ++states_;
    if (s.bound >= worth()) return;
    pool_.push_back(s);
    if (depth == p_.tasks())
      take(static_cast<std::uint32_t>(pool_.size() - 1));
    else
      to.push_back(static_cast<std::uint32_t>(pool_.size() - 1));
  }

  // A complete order that is shorter than the best.
  constexpr void take(std::uint32_t at) {
    length_ = std::max(pool_[at].free[0], pool_[at].free[1]);
    best_.clear();
    for (; pool_[at].last.op != no_op; at = pool_[at].parent) best_.push_back(pool_[at].last);
    std::reverse(best_.begin(), best_.end());
    sort_by_start(best_);
  }

  // The times that matter for the rest of an order.
  constexpr std::array<double, 4> times_of(const state& s) const {
    std::array<double, 4> times{s.free[0], s.free[1], 0, 0};
    for (std::size_t c = 0; c < 2; ++c)
      if (s.next[c] < p_.chain[c].size()) times[2 + c] = start_of_chain(s, c);
    return times;
  }
  // True if no later time than these matters: no movable task waits for a later release.
  constexpr bool released(const state& s) const {
    for (std::size_t m = 0; m < p_.movable.size(); ++m)
      if (available(s, m) && release_of(s, m) > s.free[p_.movable[m].resource]) return false;
    return true;
  }
  constexpr bool dominates(const state& a, const state& b) const {
    const auto x = times_of(a), y = times_of(b);
    for (std::size_t i = 0; i < x.size(); ++i)
      if (x[i] > y[i]) return false;
    return released(a);
  }

  // Of states with the same tasks placed, keeps those of which no other one is as early in all its times.
  constexpr void drop_dominated(std::vector<std::uint32_t>& level) const {
    const auto tasks = [&](std::uint32_t id) { return std::tie(pool_[id].done, pool_[id].next[0], pool_[id].next[1]); };
    std::sort(level.begin(), level.end(), [&](std::uint32_t a, std::uint32_t b) {
      if (tasks(a) != tasks(b)) return tasks(a) < tasks(b);
      return std::tie(pool_[a].free, a) < std::tie(pool_[b].free, b);
    });
    std::size_t kept = 0;
    for (std::size_t i = 0, first = 0; i < level.size(); ++i) {
      if (kept > 0 && tasks(level[kept - 1]) != tasks(level[i])) first = kept;
      bool drop = false;
      for (std::size_t k = first; k < kept && !drop; ++k) drop = dominates(pool_[level[k]], pool_[level[i]]);
      if (!drop) level[kept++] = level[i];
    }
    level.resize(kept);
  }

  // Keeps the states with the lowest bounds, and of equal ones those with the earliest times. Returns the least bound of the
  // others.
  constexpr double keep_best(std::vector<std::uint32_t>& level, std::size_t width) const {
    const auto rank = [&](std::uint32_t id) {
      const state& s = pool_[id];
      return s.bound + 1e-3 * (s.free[0] + s.free[1]);
    };
    const auto middle = level.begin() + static_cast<std::ptrdiff_t>(width);
    std::partial_sort(level.begin(), middle, level.end(),
                      [&](std::uint32_t a, std::uint32_t b) { return std::pair(rank(a), a) < std::pair(rank(b), b); });
    double dropped = infinity;
    for (auto i = middle; i != level.end(); ++i) dropped = std::min(dropped, pool_[*i].bound);
    level.resize(width);
    return dropped;
  }

  static constexpr std::uint32_t no_op = static_cast<std::uint32_t>(-1);

  const cell_problem& p_;
  const chain_table& chains_;
  std::vector<placed_op> best_;
  double length_ = 0, lower_bound_ = 0;
  std::size_t states_ = 0;
  std::vector<state> pool_;
  std::vector<candidate> candidates_;
};

}  // namespace pipesched::detail
