// SPDX-License-Identifier: MIT
#pragma once

// Laws: the statements of families against measured values. Each function returns a sentence about the first violation, or an empty
// text; the tests run them over grids of sizes.

#include <cstdint>
#include <optional>
#include <pipesched/generate/families.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/simulate/closed_form_of.hpp>
#include <string>

namespace pipesched::tests {

/// The peak that a family states for a rank, in activations of one stage. An evaluation keeps one at a time.
inline activation_peak peak_of(const family& f, const family_params& p, std::int64_t rank) {
  return p.forward_only ? activation_peak{1} : f.peak(p, rank);
}

inline std::string broken_peak(const family& f, const schedule& s, const family_params& p) {
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    const std::uint32_t got = peak_activations(s[rank], s.forward_only);
    const activation_peak law = peak_of(f, p, rank);
    if (got > law.activations || (law.exact && got != law.activations))
      return "rank " + std::to_string(rank) + " keeps " + std::to_string(got) + " activations; expected " +
             (law.exact ? "" : "at most ") + std::to_string(law.activations);
  }
  return {};
}

/// The bubble of every rank that a family states for F = I = W = 1, B = 2, F&B = 3, if it states one.
inline std::optional<double> bubble_of(const family& f, const family_params& p) {
  if (f.unit_bubble && !p.forward_only)
    if (const auto bubble = f.unit_bubble(p)) return static_cast<double>(*bubble);
  const std::optional<closed_form> form = closed_form_of(f, p, {});
  return form && form->holds() ? std::optional(form->bubble) : std::nullopt;
}

inline std::string broken_bubble(const family& f, const timeline& t, const family_params& p) {
  const std::optional<double> expected = bubble_of(f, p);
  const metrics m = measure(t);
  for (std::size_t rank = 0; rank < m.ranks.size(); ++rank)
    if (expected && m.ranks[rank].bubble != *expected)
      return "rank " + std::to_string(rank) + " has a bubble of " + std::to_string(m.ranks[rank].bubble) +
             "; expected " + std::to_string(*expected);
  return {};
}

}  // namespace pipesched::tests
