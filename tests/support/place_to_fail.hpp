// SPDX-License-Identifier: MIT
#pragma once

// A random op at which a test makes a rank fail.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <random>
#include <utility>

#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"

namespace pipesched::tests {

/// Failures of each sort in a test, a hundred unless PIPESCHED_FAILURES is a number.
inline int failures_of_a_sort() {
  const char* const number = std::getenv("PIPESCHED_FAILURES");
  return number == nullptr ? 100 : std::max(1, std::atoi(number));
}

/// A program of two to four ranks and one to eight micro-batches.
inline program any_program(std::mt19937_64& random, std::int64_t pp = 0) {
  const family& of = families[random() % std::size(families)];
  if (pp == 0) pp = 2 + static_cast<std::int64_t>(random() % 3);
  if (pp % 2 != 0 && of.limits.even_pp) ++pp;
  const std::int64_t micro = 1 + static_cast<std::int64_t>(random() % 8);
  return lower(of.make({.pp = pp, .micro = micro}), {.depth = 1 + static_cast<std::uint32_t>(random() % 4)});
}

/// A program, one of its ranks, and one of that rank's ops.
struct place_to_fail {
  /// Of four ranks and eight micro-batches.
  explicit place_to_fail(std::mt19937_64& random)
      : place_to_fail(lower(families[random() % std::size(families)].make({.pp = 4, .micro = 8})), random) {}
  place_to_fail(program of, std::mt19937_64& random)
      : p(std::move(of)), rank(static_cast<std::uint32_t>(random() % p.schedule.pp())) {
    in = p.schedule[rank][random() % p.schedule[rank].size()];
    at = in[random() % in.size()];
  }
  program p;
  std::uint32_t rank;
  cell in;
  op at;  // of that cell
};

/// True if the buffer holds messages to or from another rank; false if it connects two stages of one rank.
inline bool travels(const program& p, std::uint32_t rank, std::size_t buffer) {
  for (const action& a : p.actions[rank])
    if (a.channel != no_slot && a.what.kind != tensor_kind::weight_gradient && a.buffer == buffer) return true;
  return false;
}

}  // namespace pipesched::tests
