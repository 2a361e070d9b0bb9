// SPDX-License-Identifier: MIT
#pragma once

// Words to start from: repaired to fit a limit of memory, and made longer by repeating their middle.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "pipesched/plan/detail/word_simulator.hpp"
#include "pipesched/plan/detail/word_table.hpp"
#include "pipesched/plan/detail/words.hpp"

namespace pipesched::detail {

/// Words that run within the memory: where an F does not fit, the next backward of its rank comes first. Nothing if that ends
/// in a cycle. Counts its simulations in `evaluations`.
inline std::optional<word_rows> repaired(const word_table& t, word_rows w, std::uint64_t& evaluations) {
  word_simulator sim(t);
  for (std::size_t tries = 0; tries < 4 * t.ops(); ++tries) {
    ++evaluations;
    if (sim.run(w).makespan < std::numeric_limits<double>::infinity()) return w;
    const std::size_t rank = sim.full_rank();
    if (rank == t.ranks()) return std::nullopt;  // some rank waits for ever
    auto& row = w[rank];
    const std::size_t at = sim.position(rank);
    std::size_t i = at;
    const auto has_backward = [&](const word_cell& c) {
      return !c.is_weight() && c.passes[c.size() - 1] != pass::forward;
    };
    const auto has_forward = [&](const word_cell& c) { return c.passes[0] == pass::forward; };
    if (at >= row.size() || !has_forward(t.kind(rank, row[at]))) return std::nullopt;
    while (i < row.size() && !has_backward(t.kind(rank, row[i]))) ++i;
    if (i == row.size()) return std::nullopt;
    const word_cell& c = t.kind(rank, row[i]);
    if (c.size() == 2) {
      const std::uint16_t backward = kind_of(t, rank, t.op_of(rank, c, 1)),
                          other = kind_of(t, rank, t.op_of(rank, c, 0));
      row[i] = other;
      row.insert(row.begin() + static_cast<std::ptrdiff_t>(at), backward);
    } else {
      std::rotate(row.begin() + static_cast<std::ptrdiff_t>(at), row.begin() + static_cast<std::ptrdiff_t>(i),
                  row.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    }
  }
  return std::nullopt;
}

// The length of the shortest part of a row, from `begin` on, that has every F and backward of the rank so many times; 0 if none
// has.
inline std::size_t balanced_part(const word_table& t, std::size_t rank, const std::vector<std::uint16_t>& row,
                                 std::size_t begin, std::size_t times) {
  const std::size_t nodes = t.nodes_of(rank).size();
  std::vector<std::size_t> counts(2 * nodes, 0);
  for (std::size_t i = begin; i < row.size(); ++i) {
    const word_cell& c = t.kind(rank, row[i]);
    if (c.is_weight()) continue;
    for (std::size_t k = 0; k < c.size(); ++k) {
      const std::size_t o = t.op_of(rank, c, k);
      if (++counts[2 * (o / 3) + (o % 3 != 0)] > times) return 0;
    }
    bool equal = true;
    for (std::size_t n = 0; n < nodes && equal; ++n)
      equal = counts[2 * n] == times && (t.forward_only() || counts[2 * n + 1] == times);
    if (equal) return i + 1 - begin;
  }
  return 0;
}

/// Words for more micro-batches: a part of every row's middle is repeated, at the place where the result is shortest. Nothing
/// if no place will do. Counts its simulations in `evaluations`.
/// @param t  the longer problem, of which the words have `more` micro-batches per node too few
inline std::optional<word_rows> lengthened(const word_table& t, const word_rows& w, std::uint32_t more,
                                           std::uint64_t& evaluations) {
  word_simulator sim(t);
  std::optional<word_rows> best;
  double shortest = std::numeric_limits<double>::infinity();
  constexpr std::size_t places = 48;
  for (const std::size_t times : {std::size_t{1}, std::size_t{2}}) {
    if (more % times != 0) continue;
    for (std::size_t place = 0; place < places; ++place) {
      word_rows longer(w.size());
      bool complete = true;
      for (std::size_t r = 0; r < w.size() && complete; ++r) {
        std::size_t begin = w[r].size() * (place + 4) / (places + 8), length = 0;
        for (std::size_t tries = 0; tries < w[r].size() && length == 0; ++tries) {
          length = balanced_part(t, r, w[r], begin, times);
          if (length == 0) begin = (begin + 1) % w[r].size();
        }
        complete = length > 0;
        const auto at = [&](std::size_t i) { return w[r].begin() + static_cast<std::ptrdiff_t>(i); };
        longer[r].assign(w[r].begin(), at(begin));
        for (std::uint32_t i = 0; complete && i < more / times; ++i)
          longer[r].insert(longer[r].end(), at(begin), at(begin + length));
        longer[r].insert(longer[r].end(), at(begin), w[r].end());
      }
      if (!complete) continue;
      ++evaluations;
      if (const double end = sim.run(longer).makespan; end < shortest) shortest = end, best = std::move(longer);
    }
  }
  return best;
}

}  // namespace pipesched::detail
