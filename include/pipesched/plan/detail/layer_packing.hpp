// SPDX-License-Identifier: MIT
#pragma once

// Whole layers among ranks: how even can the work be?

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace pipesched::detail {

/// Layers whose work is the same.
struct layer_group {
  double work = 0;
  std::size_t count = 0;
};

inline std::vector<layer_group> grouped(std::vector<double> work) {
  std::sort(work.begin(), work.end());
  std::vector<layer_group> groups;
  for (const double w : work) {
    if (groups.empty() || groups.back().work != w) groups.push_back({w, 0});
    ++groups.back().count;
  }
  return groups;
}

/// A rank of a packing: its work takes work / speed, after `wait`.
struct packed_rank {
  double speed = 1, wait = 0;
};

/// The least, over all ways to put every layer on a rank, of the largest wait + work / speed of a rank that has layers.
/// Exact, by dynamic programming over the numbers of layers of each group on the ranks so far; 0 if that would take more than
/// some ten million steps. Work may be negative.
inline double least_largest_load(const std::vector<layer_group>& groups, const std::vector<packed_rank>& ranks) {
  constexpr double most_steps = 3e7;
  std::size_t states = 1;
  for (const layer_group& g : groups) {
    states *= g.count + 1;
    if (static_cast<double>(states) * static_cast<double>(states) * static_cast<double>(ranks.size()) > most_steps)
      return 0;
  }
  // State i has digits: the number of layers of each group.
  std::vector<std::vector<std::size_t>> digits(states);
  std::vector<double> work(states, 0);
  for (std::size_t i = 0; i < states; ++i) {
    std::size_t rest = i;
    for (const layer_group& g : groups) {
      digits[i].push_back(rest % (g.count + 1));
      work[i] += static_cast<double>(digits[i].back()) * g.work;
      rest /= g.count + 1;
    }
  }
  const auto within = [&](std::size_t part, std::size_t whole) {
    for (std::size_t g = 0; g < groups.size(); ++g)
      if (digits[part][g] > digits[whole][g]) return false;
    return true;
  };
  constexpr double never = std::numeric_limits<double>::infinity();
  std::vector<double> least(states, never);
  least[0] = 0;
  for (const packed_rank& rank : ranks) {
    std::vector<double> next = least;  // the rank has no layers
    for (std::size_t part = 1; part < states; ++part) {
      const double load = rank.wait + work[part] / rank.speed;
      for (std::size_t whole = part; whole < states; ++whole)
        if (within(part, whole)) next[whole] = std::min(next[whole], std::max(least[whole - part], load));
    }
    least = std::move(next);
  }
  return least.back();
}

/// The least, over all ways to give every rank in turn some of the first and some of the last layers that are left, of the largest
/// bound of a rank. Layers to the fourth power, times ranks.
/// @param bound_of  (rank, a, b, c, d): a bound of the rank with the layers from a to b and from c to d
template <typename BoundOf>
double least_over_nested_cuts(std::size_t layers, std::size_t ranks, BoundOf&& bound_of) {
  using table = std::vector<std::vector<double>>;
  const table none(layers + 1, std::vector<double>(layers + 1, std::numeric_limits<double>::infinity()));
  table least = none;  // [a][d]: the ranks so far have the layers before a and from d on
  least[0][layers] = 0;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    table next = none;
    for (std::size_t a = 0; a <= layers; ++a)
      for (std::size_t d = a; d <= layers; ++d) {
        if (!(least[a][d] < std::numeric_limits<double>::max())) continue;
        for (std::size_t b = a; b <= d; ++b)
          for (std::size_t c = b; c <= d; ++c)
            next[b][c] = std::min(next[b][c], std::max(least[a][d], bound_of(rank, a, b, c, d)));
      }
    least = std::move(next);
  }
  double bound = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i <= layers; ++i) bound = std::min(bound, least[i][i]);
  return bound;
}

/// The same for ranks in a loop with two stages each: every rank in turn gets some of the first layers up to a middle, and some of
/// those after it. Layers to the fifth power, times ranks, less what cannot become the least any more.
template <typename BoundOf>
double least_over_looped_cuts(std::size_t layers, std::size_t ranks, BoundOf&& bound_of) {
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t middle = 0; middle <= layers; ++middle) {
    // [a][c]: the ranks so far have the layers before a, and those from the middle to c
    const std::vector<std::vector<double>> none(
        middle + 1, std::vector<double>(layers + 1, std::numeric_limits<double>::infinity()));
    std::vector<std::vector<double>> least = none;
    least[0][middle] = 0;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      std::vector<std::vector<double>> next = none;
      for (std::size_t a = 0; a <= middle; ++a)
        for (std::size_t c = middle; c <= layers; ++c) {
          if (!(least[a][c] < best)) continue;
          for (std::size_t b = a; b <= middle; ++b)
            for (std::size_t d = c; d <= layers; ++d)
              next[b][d] = std::min(next[b][d], std::max(least[a][c], bound_of(rank, a, b, c, d)));
        }
      least = std::move(next);
    }
    best = std::min(best, least[middle][layers]);
  }
  return best;
}

}  // namespace pipesched::detail
