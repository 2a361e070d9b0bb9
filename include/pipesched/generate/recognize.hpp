// SPDX-License-Identifier: MIT
#pragma once

// The family of a schedule whose name is lost, as in PyTorch's CSV: found by comparing the order with those of the
// families.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

// The parameters with which a family may make a schedule of this size; all else is at its default.
inline schedule_params params_of_size(const family& f, const schedule& s) {
  schedule_params p{.pp = s.pp(), .micro = s.micro, .forward_only = s.forward_only};
  const std::int64_t per_rank = s.stages() / std::max<std::uint32_t>(s.pp(), 1);
  if (f.limits.takes.contains(parameter::chunks)) p.chunks = per_rank;
  if (f.limits.takes.contains(parameter::waves)) p.waves = std::max<std::int64_t>(per_rank / 2, 1);
  return p;
}

inline bool takes(const family& f, const schedule_params& p) {
  try {
    require(f, p);
    return true;
  } catch (const schedule_error&) {
    return false;
  }
}

// True if the family makes this order with these parameters.
inline bool makes_order_of(const family& f, const schedule_params& p, const schedule& s) {
  try {
    return takes(f, p) && same_stages_on_ranks(f.place(p), s.placement) && f.make(p).cells == s.cells;
  } catch (const schedule_error&) {  // not of these sizes
    return false;
  }
}

}  // namespace detail

/// The name of a family that makes exactly this order with its default parameters; empty if no family does. If several
/// do, as gpipe and 1f1b with one micro-batch, the one called `first` wins, then the earlier one in `among`, then
/// one of several chunks per rank that is asked for a single one. A family that searches on costs is considered only as
/// `first`, as its order depends on those costs. Linear in the number of ops per family with the same placement, and in
/// the number of stages for the others.
/// @param may_make  called with a family and its parameters: whether its schedule may be made, for memory's sake
/// @param among     the families to compare with: those of the library, or your own
template <std::predicate<const family&, const schedule_params&> MayMake>
std::string_view recognize_family(const schedule& s, std::string_view first, MayMake may_make,
                                  std::span<const family> among = families) {
  if (s.pp() == 0 || s.cells.size() != s.pp()) return {};
  const auto makes = [&](const family& f) {
    const schedule_params p = detail::params_of_size(f, s);
    return may_make(f, p) && detail::makes_order_of(f, p, s);
  };
  for (const family& f : among)
    if (f.name == first && makes(f)) return f.name;
  for (const bool single_chunk : {false, true})
    for (const family& f : among) {
      if (f.name == first || f.limits.takes.contains(parameter::costs)) continue;
      if (single_chunk != (f.limits.takes.contains(parameter::chunks) && s.stages() == s.pp())) continue;
      if (makes(f)) return f.name;
    }
  return {};
}

/// The same, whatever memory it takes: `recognize_family(s)`, or `recognize_family(s, {}, std::array{mine, other})` among
/// families of your own.
inline std::string_view recognize_family(const schedule& s, std::string_view first = {},
                                         std::span<const family> among = families) {
  return recognize_family(
      s, first, [](const family&, const schedule_params&) { return true; }, among);
}

}  // namespace pipesched
