// SPDX-License-Identifier: MIT
#pragma once

// Published numbers of a family: the bubble of the rank that idles longest, and peaks of activations. A formula assumes
// that all stages cost the same, that transfers cost nothing, and what its `assumes` says. If an assumption fails,
// believe the simulator: with F != I != W, for example, DualPipe's bubble differs from rank to rank, and from the
// formula.

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "pipesched/generate/params.hpp"

namespace pipesched {

/// Durations of one stage: F, I, W, the full backward B and an overlapped pair F&B.
struct pass_times {
  double F = 1, I = 1, W = 1, B = I + W, FB = F + B;
};

/// A published bubble, and whether its assumptions hold for the sizes and times asked for.
struct closed_form {
  std::string_view formula;     ///< in the letters of this library; PP: ranks (pp), of dualpipev stages (2 pp)
  std::string_view source;      ///< paper and section or table
  std::string_view assumes;     ///< about sizes and times, besides equal stages and free transfers; may be empty
  double bubble = 0;            ///< of the rank that idles longest, in the unit of the times
  double peak_activations = 0;  ///< on the rank that keeps most, in shares as in rank_metrics
  std::string_view fails{};     ///< the first assumption that fails; empty if all hold
  bool of_span = false;         ///< the bubble is that of a rank's span instead of the makespan

  constexpr bool holds() const noexcept { return fails.empty(); }
};

/// The peak of a rank in activations of one stage, by the papers: exact, or an upper limit.
struct activation_peak {
  std::int64_t activations = 0;
  bool exact = true;
};

namespace detail {

struct assumption {
  bool holds;
  std::string_view text;
};

// The first one that fails.
constexpr std::string_view first_failing(std::initializer_list<assumption> all) {
  for (const assumption& a : all)
    if (!a.holds) return a.text;
  return {};
}

// The bubble of an evaluation with one stage per rank.
constexpr closed_form evaluation_on_a_line(const family_params& p, const pass_times& t) {
  return {.formula = "(PP-1)F",
          .source = "GPipe, arXiv 1811.06965, section 2.3",
          .assumes = "",
          .bubble = static_cast<double>(p.pp - 1) * t.F,
          .peak_activations = 1};
}

}  // namespace detail

}  // namespace pipesched
