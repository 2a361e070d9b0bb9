// SPDX-License-Identifier: MIT
#pragma once

// Grids of families and sizes.

#include <algorithm>
#include <cstdint>
#include <pipesched/generate/families.hpp>
#include <string>

namespace pipesched::tests {

inline bool needs_even_pp(const family& f) { return f.limits.even_pp; }

/// Calls `f(family, params)` for every family and all legal sizes up to these, training and forward only.
/// Sanitizers are ten to fifty times slower, so their build uses smaller grids.
template <typename F>
void for_all_families(std::int64_t max_pp, std::int64_t max_micro, F&& f) {
#ifdef PIPESCHED_SMALL_GRIDS
  max_pp = std::min<std::int64_t>(max_pp, 4), max_micro = std::min<std::int64_t>(max_micro, 8);
#endif
  for (const family& which : families)
    for (std::int64_t pp = 1; pp <= max_pp; ++pp) {
      if (needs_even_pp(which) && pp % 2 != 0) continue;
      for (std::int64_t micro = 1; micro <= max_micro; ++micro)
        for (bool forward_only : {false, true})
          f(which, schedule_params{.pp = pp, .micro = micro, .forward_only = forward_only});
    }
}

/// Activations of one stage in the unit of the metrics: activations of a rank's whole share, of `stages` stages.
constexpr double shares(std::int64_t activations, std::int64_t stages) {
  return static_cast<double>(activations) / static_cast<double>(stages);
}

/// The error text of `make()`, or an empty text if it succeeds.
template <typename Make>
std::string refusal_of(Make&& make) {
  try {
    make();
  } catch (const schedule_error& e) {
    return e.what();
  }
  return {};
}

}  // namespace pipesched::tests
