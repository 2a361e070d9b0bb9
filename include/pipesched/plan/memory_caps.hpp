// SPDX-License-Identifier: MIT
#pragma once

// Limits of memory for plans.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/memory_unit.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The memory that a plan may use: one of the two, or none.
struct memory_caps {
  std::optional<double> activations{};  ///< live activations per rank at a time, in shares as in rank_metrics
  /// By rank: bytes for what ops keep and what they need while they run, weights and buffers not counted; empty: no limit.
  std::vector<double> bytes{};

  bool empty() const noexcept { return !activations && bytes.empty(); }
};

/// @throws schedule_error if both are given, for a limit that is not more than 0, and for another number of limits than ranks
inline void check(const memory_caps& caps, std::uint32_t ranks) {
  using detail::concat;
  if (caps.activations && !caps.bytes.empty())
    throw schedule_error("a plan takes a limit in activations or limits in bytes; got both");
  if (caps.activations && !(*caps.activations > 0))
    throw schedule_error(
        concat({"a limit of live activations is more than 0; got ", *caps.activations, ", nearest 1"}));
  if (!caps.bytes.empty() && caps.bytes.size() != ranks)
    throw schedule_error(
        concat({detail::count_text(caps.bytes.size(), "limit"), " in bytes; expected ", ranks, ", one per rank"}));
  for (const double bytes : caps.bytes)
    if (!(bytes > 0)) throw schedule_error(concat({"a limit in bytes is more than 0; got ", bytes}));
}

namespace detail {

/// The memory of the ranks beside the weights of their stages, of both replicas. @pre one per rank
template <typename Costs>
std::vector<double> beside_weights(const placement& where, const Costs& costs, std::vector<double> memory) {
  if constexpr (requires { costs.weights(0u); })
    for (std::uint32_t replica = 0; replica < where.replicas(); ++replica)
      for (std::uint32_t s = 0; s < where.stages(); ++s) memory[where.rank_of_stage(replica)[s]] -= costs.weights(s);
  return memory;
}

/// The same as limits; nothing if the weights of some rank leave no room.
template <typename Costs>
std::optional<memory_caps> room_beside_weights(const placement& where, const Costs& costs,
                                               const std::vector<double>& memory) {
  memory_caps room;
  room.bytes = beside_weights(where, costs, memory);
  for (const double bytes : room.bytes)
    if (!(bytes > 0)) return std::nullopt;
  return room;
}

}  // namespace detail

/// True if no rank has more. @pre check(caps, m.ranks.size())
inline bool fits(const memory_caps& caps, const metrics& m) {
  for (std::size_t r = 0; r < m.ranks.size(); ++r) {
    if (caps.activations && m.ranks[r].peak_activations > detail::with_rounding(*caps.activations)) return false;
    if (!caps.bytes.empty() && m.ranks[r].peak_bytes > detail::with_rounding(caps.bytes[r])) return false;
  }
  return true;
}

}  // namespace pipesched
