// SPDX-License-Identifier: MIT
#pragma once

// Worklist: runs ranks, each until it is blocked, and runs a blocked rank again once another one has woken it.

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

}  // namespace pipesched::detail
