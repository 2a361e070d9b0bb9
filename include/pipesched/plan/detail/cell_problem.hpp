// SPDX-License-Identifier: MIT
#pragma once

// The inside of a cell as cell_plan() works on it: tasks of positive length, sums, and the exact length of the two chains.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/plan/cell_tasks.hpp"

namespace pipesched::detail {

inline constexpr std::size_t no_task = static_cast<std::size_t>(-1);

/// A task of positive length.
struct solid_task {
  double duration = 0;
  std::uint8_t resource = 0;
  std::uint32_t index = 0;  // among the tasks given
};
/// A movable one, which follows task `after` of `chain`, a position among the solid tasks, or no_task.
struct solid_movable : solid_task {
  std::uint8_t chain = 0;
  std::size_t after = no_task;
};

/// A task that has been placed: of chain 0 or 1, or movable number `op - 2`.
struct placed_op {
  std::uint32_t op = 0;
  double start = 0;
};

/// A task of a chain or a movable one that has a resource to itself; `offset` is the time from the start of the chain after
/// which it may start, if the chain is never delayed.
struct resource_work {
  double offset = 0, duration = 0;
  double tail = 0;           // from its end to the end of its chain
  std::size_t position = 0;  // in the chain, its own or that of the task before it
  bool movable = false;
};

/// Two ops without tasks of length 0, which take no resource.
struct cell_problem {
  std::array<std::vector<solid_task>, 2> chain;
  std::vector<solid_movable> movable;

  // By chain: the time of the first k tasks, and of the others.
  std::array<std::vector<double>, 2> before, rest;
  // By chain and resource, in the order of offsets; and the number of those with a position below k.
  std::array<std::array<std::vector<resource_work>, 2>, 2> work;
  std::array<std::array<std::vector<std::size_t>, 2>, 2> first_work;

  constexpr explicit cell_problem(const std::array<const op_tasks*, 2>& ops) {
    for (std::uint8_t c = 0; c < 2; ++c) {
      std::vector<std::size_t> position;  // of the last solid task up to each of the chain
      for (std::size_t i = 0; i < ops[c]->chain.size(); ++i) {
        const cell_task& t = ops[c]->chain[i];
        if (t.duration > 0)
          chain[c].push_back({t.duration, static_cast<std::uint8_t>(t.resource), static_cast<std::uint32_t>(i)});
        position.push_back(chain[c].size() - 1);  // no_task before the first
      }
      for (std::size_t i = 0; i < ops[c]->movable.size(); ++i) {
        const movable_task& t = ops[c]->movable[i];
        if (!(t.duration > 0)) continue;
        movable.push_back({{t.duration, static_cast<std::uint8_t>(t.resource), static_cast<std::uint32_t>(i)},
                           c,
                           t.after ? position[*t.after] : no_task});
      }
      add_sums(c);
    }
  }

  constexpr std::size_t tasks() const noexcept { return chain[0].size() + chain[1].size() + movable.size(); }

 private:
  constexpr void add_sums(std::uint8_t c) {
    const std::size_t n = chain[c].size();
    before[c].assign(n + 1, 0), rest[c].assign(n + 1, 0);
    for (std::size_t k = 0; k < n; ++k) before[c][k + 1] = before[c][k] + chain[c][k].duration;
    for (std::size_t k = n; k-- > 0;) rest[c][k] = rest[c][k + 1] + chain[c][k].duration;
    for (std::uint8_t r = 0; r < 2; ++r) {
      std::vector<resource_work>& all = work[c][r];
      for (std::size_t k = 0; k < n; ++k) {
        first_work[c][r].push_back(all.size());
        if (chain[c][k].resource == r) all.push_back({before[c][k], chain[c][k].duration, rest[c][k + 1], k, false});
        for (const solid_movable& m : movable)
          if (m.chain == c && m.after == k && m.resource == r)
            all.push_back({before[c][k + 1], m.duration, 0, k, true});
      }
      first_work[c][r].push_back(all.size());
    }
  }
};

/// Exact lengths of the rest of two chains: a table over the tasks that are next, each filled by following both chains until
/// they need the same resource and trying both orders there. Source: two jobs as a shortest path among obstacles in the plane,
/// Akers, Operations Research 4 (1956); Hardgrave and Nemhauser, Operations Research 11 (1963).
class chain_table {
 public:
  /// Quadratic in tasks, times the distance between conflicts.
  constexpr explicit chain_table(const cell_problem& p) : p_(p), width_(p.chain[1].size() + 1) {
    least_.assign((p.chain[0].size() + 1) * width_, 0);
    for (std::size_t i = p.chain[0].size() + 1; i-- > 0;)
      for (std::size_t j = width_; j-- > 0;) least_[i * width_ + j] = end_from(i, j, 0, 0);
  }

  /// Least end of both chains if task i of one and task j of the other are next, and start at these times or later.
  constexpr double end_from(std::size_t i, std::size_t j, double start_i, double start_j) const {
    const conflict at = next_conflict(i, j, start_i, start_j);
    return std::min(at.first_chain_first, at.second_chain_first);
  }

  /// The tasks of both chains in a schedule of that length, those of each chain in order.
  constexpr std::vector<placed_op> schedule() const {
    std::vector<placed_op> all;
    std::array<std::size_t, 2> placed{};
    std::array<double, 2> start{};
    const auto place = [&](std::uint32_t c) {
      all.push_back({c, start[c]});
      start[c] += p_.chain[c][placed[c]++].duration;
    };
    while (true) {
      const conflict at = next_conflict(placed[0], placed[1], start[0], start[1]);
      while (placed[0] < at.i) place(0);
      while (placed[1] < at.j) place(1);
      if (at.i == p_.chain[0].size() || at.j + 1 == width_) break;  // one chain has ended
      const std::uint32_t first = at.first_chain_first <= at.second_chain_first ? 0 : 1;
      place(first);
      start[1 - first] = start[first];
    }
    for (std::uint32_t c = 0; c < 2; ++c)
      while (placed[c] < p_.chain[c].size()) place(c);
    return all;
  }

 private:
  // Two tasks that need one resource at the same time, and the least ends for both orders; or the end of a chain.
  struct conflict {
    std::size_t i = 0, j = 0;
    double first_chain_first = 0, second_chain_first = 0;
  };

  constexpr conflict next_conflict(std::size_t i, std::size_t j, double start_i, double start_j) const {
    const auto &a = p_.chain[0], &b = p_.chain[1];
    while (i < a.size() && j < b.size()) {
      const double end_i = start_i + a[i].duration, end_j = start_j + b[j].duration;
      if (a[i].resource == b[j].resource && start_i < end_j && start_j < end_i)
        return {i, j, end_i + least_[(i + 1) * width_ + j], end_j + least_[i * width_ + j + 1]};
      const bool step_i = end_i <= end_j, step_j = end_j <= end_i;
      if (step_i) start_i = end_i, ++i;
      if (step_j) start_j = end_j, ++j;
    }
    const double end = std::max(start_i + p_.rest[0][i], start_j + p_.rest[1][j]);
    return {i, j, end, end};
  }

  const cell_problem& p_;
  std::size_t width_;
  std::vector<double> least_;
};

}  // namespace pipesched::detail
