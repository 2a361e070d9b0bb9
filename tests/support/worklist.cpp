// SPDX-License-Identifier: MIT
// worklist: the order of ranks, and ranks that run again.

#include "pipesched/support/worklist.hpp"

#include <doctest/doctest.h>

#include <vector>

using pipesched::detail::worklist;

namespace {

// Rank 2 wakes 0 and 1, rank 1 wakes itself once; run() continues after a wake.
constexpr std::vector<std::uint32_t> order_of_runs() {
  std::vector<std::uint32_t> order;
  worklist ranks(3);
  bool woken = false;
  const auto step = [&](std::uint32_t rank) {
    order.push_back(rank);
    if (rank == 2) ranks.wake(0), ranks.wake(1);
    if (rank == 1 && order.size() > 3 && !woken) woken = true, ranks.wake(1);
  };
  ranks.run(step);
  ranks.wake(0);
  ranks.run(step);
  return order;
}

static_assert(order_of_runs().size() == 7);

}  // namespace

TEST_CASE("worklist: runs every rank, rank 0 first, then the one that was woken last") {
  CHECK(order_of_runs() == std::vector<std::uint32_t>{0, 1, 2, 1, 1, 0, 0});
}

TEST_CASE("worklist: every cycle of waits is found once, and no rank that only waits for one") {
  // 0 -> 1 -> 2 -> 1 is a cycle of two, 3 waits for itself, 4 has ended, 5 -> 3 only waits, and 6 -> 7 -> 6 is a third one.
  const std::vector<std::uint32_t> next = {1, 2, 1, 3, 9, 3, 7, 6};
  std::vector<std::uint32_t> found;
  pipesched::detail::for_each_cycle(
      8, [](std::uint32_t rank) { return rank != 4; }, [&](std::uint32_t rank) { return next[rank]; },
      [&](std::uint32_t rank) { found.push_back(rank); });
  CHECK(found == std::vector<std::uint32_t>{1, 3, 6});
}

TEST_CASE("worklist: without ranks nothing runs") {
  worklist none(0);
  none.run([](std::uint32_t) { FAIL("a rank"); });
}
