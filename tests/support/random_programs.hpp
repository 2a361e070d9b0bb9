// SPDX-License-Identifier: MIT
#pragma once

// Programs with up to two random changes: many still run, many do not.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>

#include "pipesched/program/program.hpp"

namespace pipesched::tests {

inline void change_at_random(program& p, std::mt19937_64& random) {
  const std::size_t rank = random() % p.actions.count();
  auto row = p.actions[rank];
  for (std::uint64_t changes = random() % 3; changes > 0; --changes) {
    const std::size_t i = random() % row.size(), j = std::min(row.size() - 1, i + 1 + random() % 3);
    switch (random() % 6) {
      case 0: std::swap(row[i], row[j]); break;
      case 1: std::swap(row[i].buffer, row[j].buffer); break;
      case 2:
        if (row[i].kind == action_kind::compute || row[j].kind == action_kind::compute) break;  // theirs says nothing
        std::swap(row[i].what, row[j].what);
        break;
      case 3: row[i] = row[j]; break;
      case 4: {
        auto& slots = p.slots[rank][random() % p.slots[rank].size()][0];
        (random() % 2 ? slots.activation : random() % 2 ? slots.input : slots.output) ^= 1u;
        break;
      }
      case 5: {
        auto& pool = p.pools[rank];
        std::uint32_t& size = random() % 2 ? pool.buffers : pool.activations;
        size -= size > 0;
      }
    }
  }
}

}  // namespace pipesched::tests
