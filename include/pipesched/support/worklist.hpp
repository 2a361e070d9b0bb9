// SPDX-License-Identifier: MIT
#pragma once

// Worklist: runs ranks, each until it is blocked, and runs a blocked rank again once another one has woken it; and the cycles
// of those that are blocked in the end.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pipesched::detail {

/// Starts to load a value of a rank's row, if there is one, some steps before the rank needs it. Ranks take turns after few
/// steps, so the processor does not see by itself that each of them reads its row in order.
template <typename T>
inline void prefetch(std::span<const T> row, std::size_t at) noexcept {
  if (at < row.size()) __builtin_prefetch(&row[at]);
}

/// The ranks that can run. All of them at first, rank 0 next; then the one that was woken last.
class worklist {
 public:
  constexpr explicit worklist(std::uint32_t ranks) {
    while (ranks > 0) runnable_.push_back(--ranks);
  }

  /// Lets a rank run again. A running rank may wake others, and itself.
  constexpr void wake(std::uint32_t rank) { runnable_.push_back(rank); }

  /// Calls `step(rank)`, which runs the rank until it is blocked, for one runnable rank after another until all are blocked.
  template <typename Step>
  constexpr void run(Step&& step) {
    while (!runnable_.empty()) {
      const std::uint32_t rank = runnable_.back();
      runnable_.pop_back();
      step(rank);
    }
  }

 private:
  std::vector<std::uint32_t> runnable_;
};

/// Calls `f(rank)` for one rank of every cycle of blocked ranks that wait for each other. Linear in the number of ranks.
/// @param next  the rank that a blocked one waits for, which is blocked, too
template <typename IsBlocked, typename Next, typename F>
constexpr void for_each_cycle(std::uint32_t ranks, IsBlocked&& is_blocked, Next&& next, F&& f) {
  std::vector<std::uint32_t> seen_from(ranks, 0);  // the start, counted from 1, whose search reached the rank
  for (std::uint32_t start = 0; start < ranks; ++start) {
    if (!is_blocked(start)) continue;
    std::uint32_t rank = start;
    for (; seen_from[rank] == 0; rank = next(rank)) seen_from[rank] = start + 1;
    if (seen_from[rank] == start + 1) f(rank);
  }
}

}  // namespace pipesched::detail
