// SPDX-License-Identifier: MIT
#pragma once

// A random op at which a test makes a rank fail.

#include <cstdint>
#include <iterator>
#include <random>

#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"

namespace pipesched::tests {

/// A program of four ranks, one of its ranks, and one of that rank's ops.
struct place_to_fail {
  explicit place_to_fail(std::mt19937_64& random)
      : p(lower(families[random() % std::size(families)].make({.pp = 4, .micro = 8}))),
        rank(static_cast<std::uint32_t>(random() % 4)) {
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
