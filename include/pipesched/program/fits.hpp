// SPDX-License-Identifier: MIT
#pragma once

// The memory that a step needs on each rank, against a limit: weights, activations with what running ops need, and buffers of
// messages.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pipesched/core/ops.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/memory_unit.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/detail/memory_limits.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Bytes of a rank. Weights and buffers are there all the time.
struct rank_memory {
  double weights = 0;      ///< parameters, gradients and optimizer state of its stages, of both replicas
  double activations = 0;  ///< peak of activations, contexts and running ops together
  double buffers = 0;      ///< of messages: each as large as the largest that it ever holds
  double limit = std::numeric_limits<double>::infinity();
  std::optional<std::size_t> first_too_large{};  ///< the first cell that does not fit
  double excess = 0;                             ///< bytes by which that cell exceeds the limit

  constexpr double total() const noexcept { return weights + activations + buffers; }
};

/// The memory of all ranks; true if every rank fits.
struct memory_report {
  std::vector<rank_memory> ranks;

  constexpr explicit operator bool() const noexcept {
    for (const rank_memory& r : ranks)
      if (r.first_too_large) return false;
    return true;
  }
};

namespace detail {

// Bytes of a program's buffers on a rank.
template <typename Costs>
double buffer_bytes_of(const program& p, std::uint32_t rank, const Costs& costs) {
  if constexpr (requires(tensor_id t) { costs.message(t); }) {
    // Whole bytes would lose those of models in other units: sizes are kept here as they are.
    std::vector<double> bytes(p.pools[rank].buffers(), 0);
    const auto holds = [&](std::uint32_t buffer, tensor_id t) {
      if (t.kind != tensor_kind::weight_gradient) bytes[buffer] = std::max<double>(bytes[buffer], costs.message(t));
    };
    for_each_held(p, rank, holds);
    double sum = 0;
    for (const double b : bytes) sum += b;
    return sum;
  } else {
    return 0;
  }
}

}  // namespace detail

/// The memory that a program needs on every rank, against a limit for all ranks, one per rank, or none. The bytes are those of
/// the costs: of weights(), bytes(), transient() and message(), as far as they have them. A rank may exceed its limit by the
/// rounding of sums, 1e-12 of it. Linear in the number of ops.
/// @throws schedule_error for another number of limits, or a negative one
template <cost_model Costs>
memory_report fits(const program& p, const Costs& costs, std::span<const double> memory = {}) {
  const schedule& s = p.schedule;
  detail::check_costs(costs, s.stages(), s.pp(), s.micro);
  detail::require_memory(memory, s.pp());
  const detail::recomputed_ops recomputed(s);
  const std::vector<detail::activation_unit> units = detail::activation_units(s.placement);
  memory_report report{std::vector<rank_memory>(s.pp())};
  for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica)
    for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
      if constexpr (requires { costs.weights(stage); })
        report.ranks[s.placement.rank_of_stage(replica)[stage]].weights += costs.weights(stage);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    rank_memory& of = report.ranks[rank];
    of.buffers = detail::buffer_bytes_of(p, rank, costs);
    of.limit = detail::limit_of(memory, rank);
    detail::memory_levels levels(s, recomputed, units[rank], costs);
    for (std::size_t i = 0; i < s[rank].size(); ++i) {
      const auto at = static_cast<double>(i);
      levels.start(s[rank][i], at);
      double needs = of.weights + of.buffers + levels.bytes_in_use();
      levels.finish(s[rank][i], at);
      needs = std::max(needs, of.weights + of.buffers + levels.bytes_in_use());
      if (!of.first_too_large && needs > detail::with_rounding(of.limit))
        of.first_too_large = i, of.excess = needs - of.limit;
    }
    of.activations = levels.bytes.peak;
  }
  return report;
}

/// The same for a schedule, with the buffers of lower(s, options).
template <cost_model Costs>
memory_report fits(const schedule& s, const Costs& costs, std::span<const double> memory = {},
                   const lower_options& options = {}) {
  return fits(lower(s, options), costs, memory);
}

/// Bytes that each rank has for activations and running ops beside its weights and buffers; empty if no rank has a limit.
inline std::vector<double> room_of(const memory_report& r) {
  std::vector<double> room;
  for (const rank_memory& of : r.ranks) room.push_back(std::max(0.0, of.limit - of.weights - of.buffers));
  const double all = std::numeric_limits<double>::infinity();
  if (std::all_of(room.begin(), room.end(), [&](double bytes) { return bytes == all; })) room.clear();
  return room;
}

/// One line: "rank 2 has 80 bytes: 3F4, its cell 7, needs 12 more (weights 60, activations 25, buffers 7)", for the first rank
/// that does not fit; empty if all do.
inline std::string to_string(const memory_report& r, const schedule& s) {
  for (std::size_t rank = 0; rank < r.ranks.size(); ++rank) {
    const rank_memory& of = r.ranks[rank];
    if (!of.first_too_large) continue;
    const std::size_t i = *of.first_too_large;
    return detail::concat({"rank ", rank, " has ", of.limit, " bytes: ", to_string(s[rank][i]), ", its cell ", i,
                           ", needs ", of.excess, " more (weights ", of.weights, ", activations ",
                           of.limit + of.excess - of.weights - of.buffers, ", buffers ", of.buffers, ")"});
  }
  return {};
}

}  // namespace pipesched
