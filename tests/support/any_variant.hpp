// SPDX-License-Identifier: MIT
#pragma once

// Random variants of a schedule: stages frozen, activations recomputed, some R's earlier or in a cell with another op.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <pipesched/core/freeze.hpp>
#include <pipesched/core/recompute.hpp>
#include <pipesched/core/transform.hpp>
#include <pipesched/core/verify.hpp>
#include <random>
#include <vector>

namespace pipesched::tests {

/// A valid variant of a valid schedule; of one that is forward only, the schedule itself.
inline schedule any_variant(schedule s, std::mt19937_64& random) {
  if (s.forward_only) return s;
  const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  std::vector<std::int64_t> frozen;
  for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
    if (below(3) == 0) frozen.push_back(stage);
  if (below(2) == 0 && frozen.size() < s.stages()) s = freeze(s, frozen);
  for (std::size_t rounds = below(3); rounds > 0; --rounds) {
    recompute_choice which{.inside_backward = below(2) == 0};
    which.of_every = static_cast<std::int64_t>(1 + below(4));
    which.count = static_cast<std::int64_t>(below(static_cast<std::size_t>(which.of_every) + 1));
    which.first_whole = static_cast<std::int64_t>(below(3));
    for (std::uint32_t stage = 0; stage < s.stages() && below(2) == 0; ++stage) which.stages.push_back(stage);
    s = recompute(s, which);
  }
  for (std::size_t changes = below(12); changes > 0; --changes) {
    const std::size_t rank = below(s.pp());
    schedule other = s;
    other.edit(rank, [&](std::vector<cell>& row) {
      const auto is_recompute = [](const cell& c) { return !c.overlapped() && c[0].pass == pass::recompute; };
      const auto found =
          std::find_if(row.begin() + static_cast<std::ptrdiff_t>(below(row.size())), row.end(), is_recompute);
      if (found == row.begin() || found == row.end()) return;
      if (below(2) == 0 || (found - 1)->overlapped()) {
        std::iter_swap(found, found - 1);
      } else {
        *(found - 1) = below(2) == 0 ? cell((*(found - 1))[0], (*found)[0]) : cell((*found)[0], (*(found - 1))[0]);
        row.erase(found);
      }
    });
    if (verify(other)) s = std::move(other);
  }
  return s;
}

}  // namespace pipesched::tests
