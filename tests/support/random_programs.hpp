// SPDX-License-Identifier: MIT
#pragma once

// Random changes of programs. Some of the results still run, the others must be refused.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>

#include "pipesched/program/program.hpp"

namespace pipesched::tests {

/// Makes up to two random changes in one rank: actions, slots or pools.
inline void change_at_random(program& p, std::mt19937_64& random) {
  const std::size_t rank = random() % p.actions.size();
  auto row = p.actions[rank];
  for (std::uint64_t changes = random() % 3; changes > 0; --changes) {
    const std::size_t i = random() % row.size(), j = std::min(row.size() - 1, i + 1 + random() % 3);
    switch (random() % 6) {
      case 0: std::swap(row[i], row[j]); break;
      case 1: std::swap(row[i].buffer, row[j].buffer); break;
      case 2:
        if (row[i].kind == action_kind::compute || row[j].kind == action_kind::compute) break;  // compute has no tensor
        std::swap(row[i].what, row[j].what);
        break;
      case 3: row[i] = row[j]; break;
      case 4: {
        auto& slots = p.slots[rank][random() % p.slots[rank].size()][0];
        (random() % 2 ? slots.activation : random() % 2 ? slots.input : slots.output) ^= 1u;
        break;
      }
      case 5: {
        auto& sizes = p.pools[rank];
        std::uint32_t& size = sizes[random() % 2 ? pool::tensor : pool::activation];
        size -= size > 0;
      }
    }
  }
}

/// Sets one field of one action, slot or channel to a random number, mostly far out of range.
inline void set_at_random(program& p, std::mt19937_64& random) {
  const auto any = static_cast<std::uint32_t>(random() >> (random() % 64));
  action& a = p.actions.all()[random() % p.actions.all().size()];
  switch (random() % 7) {
    case 0: a.channel = any; break;
    case 1: a.buffer = any; break;
    case 2: a.index = any; break;
    case 3: a.what.stage = static_cast<std::uint16_t>(any); break;
    case 4: a.kind = static_cast<action_kind>(any % 256); break;
    case 5: {
      auto& slots = p.slots.all()[random() % p.slots.all().size()][random() % 2];
      (random() % 3 == 0 ? slots.activation
       : random() % 2    ? slots.input
       : random() % 2    ? slots.output
                         : slots.context) = any;
      break;
    }
    case 6: {
      channel& c = p.channels[random() % p.channels.size()];
      if (random() % 2)
        c.messages = any;
      else
        (random() % 2 ? c.from : c.to) = static_cast<std::uint16_t>(any);
    }
  }
}

}  // namespace pipesched::tests
