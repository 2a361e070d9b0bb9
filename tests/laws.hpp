// SPDX-License-Identifier: MIT
#pragma once

// The laws of doc comments as functions. Each returns a sentence about the first violation, or an empty text; the tests
// run them over grids of sizes.

#include <algorithm>
#include <cstdint>
#include <pipesched/pipesched.hpp>
#include <string>

namespace pipesched::tests {

/// The peak of a rank according to the papers, in activations of one stage: exact, or an upper limit.
struct peak_law {
  std::uint32_t peak = 0;
  bool exact = true;
};

inline peak_law peak_of(std::string_view family, const pipeline_params& p, std::int64_t rank) {
  const auto of = [](std::int64_t n, bool exact = true) { return peak_law{static_cast<std::uint32_t>(n), exact}; };
  if (p.forward_only) return of(2, false);
  if (family == "gpipe") return of(p.micro);
  if (family == "1f1b") return of(std::min(p.micro, p.pp - rank));
  if (family == "zb1p") return of(std::min(p.micro, p.pp));
  if (family == "zb_greedy" || family == "zb_greedy_1p" || family == "zb_h1") return of(p.pp, false);
  if (family == "zb_h2") return of(2 * p.pp - 1, false);
  if (family == "zb_greedy_2p") return of(2 * p.pp, false);
  if (family == "looped_bfs") return of(2 * p.micro);
  if (family == "interleaved_1f1b" && p.micro % p.pp == 0)
    return of(std::min(2 * p.micro, p.pp + 2 * (p.pp - 1 - rank) + 1));
  if (family == "group_interleaved") return of(std::min(2 * p.micro, 2 * p.pp - rank), p.micro % p.pp == 0);
  if (family == "interleaved_1f1b" || family == "interleaved_zb") return of(2 * p.micro, false);
  if (family == "zbv_greedy") return of(2 * p.pp, false);
  if (family == "v_half") return of((p.pp + 2) / 2 * 2, false);
  if (family == "v_min") return of((p.pp + 4) / 3 * 2, false);
  if (family == "v_1f1b") return of((2 * p.pp + 3) / 3 * 2, false);
  if (family == "chimera") return of(p.pp / 2 + 1 + std::min(rank, p.pp - 1 - rank), p.micro >= p.pp);
  if (family == "hanayo") return of(p.pp + 1 + rank, p.micro >= p.pp);
  if (family == "zbv") return of(2 * p.pp, p.micro >= 2 * p.pp);
  if (family == "dualpipe") return of(p.pp + 1, p.micro % 2 == 0 && p.micro >= 2 * p.pp);
  if (family == "dualpipev") return of(2 * p.pp + 1, p.micro >= 2 * p.pp);
  return of(0);
}

inline std::string broken_peak(const schedule& s, const pipeline_params& p) {
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    const std::uint32_t got = peak_activations(s[rank], s.forward_only);
    const peak_law law = peak_of(s.name, p, rank);
    if (got > law.peak || (law.exact && got != law.peak))
      return "rank " + std::to_string(rank) + " keeps " + std::to_string(got) + " activations; expected " +
             (law.exact ? "" : "at most ") + std::to_string(law.peak);
  }
  return {};
}

/// The bubble of every rank for F = I = W = 1, B = 2, F&B = 3; negative if no paper gives one.
inline std::int64_t bubble_of(std::string_view family, const pipeline_params& p) {
  const std::int64_t F = 1, I = 1, W = 1, B = I + W, FB = F + B;
  if (p.forward_only) return family == "gpipe" || family == "1f1b" || family == "zb1p" ? (p.pp - 1) * F : -1;
  if (family == "gpipe" || family == "1f1b") return (p.pp - 1) * (F + B);
  if ((family == "zb1p" || family == "zb_h1" || family == "zb_h2") &&
      p.micro >= (family == "zb_h2" ? 2 * p.pp - 1 : p.pp))
    return (p.pp - 1) * (F + B - 2 * W);
  if (family == "interleaved_1f1b" && p.micro % p.pp == 0) return (p.pp - 1) * (F + B);
  if (family == "group_interleaved" && p.micro % p.pp == 0) return (p.pp - 1) * (F + B - W);
  if (family == "chimera" && p.micro == p.pp) return (p.pp - 2) * B;
  if (family == "hanayo" && p.micro == p.pp) return 2 * (p.pp - 1) * B;
  if (family == "zbv" && p.micro >= 2 * p.pp) return p.pp - 1;
  if (family == "dualpipe" && p.micro % 2 == 0 && p.micro >= 2 * p.pp) return (p.pp / 2 - 1) * (FB + B - 3 * W);
  if (family == "dualpipev" && p.micro >= 2 * p.pp) return (p.pp - 1) * (FB + B - 3 * W);
  return -1;
}

inline std::string broken_bubble(const timeline& t, const pipeline_params& p) {
  const std::int64_t expected = bubble_of(t.schedule.name, p);
  const metrics m = measure(t);
  for (std::size_t rank = 0; rank < m.ranks.size(); ++rank)
    if (expected >= 0 && m.ranks[rank].bubble != static_cast<double>(expected))
      return "rank " + std::to_string(rank) + " has a bubble of " + std::to_string(m.ranks[rank].bubble) +
             "; expected " + std::to_string(expected);
  return {};
}

}  // namespace pipesched::tests
