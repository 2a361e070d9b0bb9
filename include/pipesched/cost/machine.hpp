// SPDX-License-Identifier: MIT
#pragma once

// Prices of overlapped cells and links between ranks, as stage_costs has them, and the checks of both.

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Duration of an overlapped cell of two passes, for all stages or for two given ones.
struct pair_time {
  pass_pair passes{};
  std::optional<std::array<std::uint16_t, 2>> stages{};  ///< of `passes.first` and `passes.second`; default: any
  double time = 0;

  /// True if it prices this cell. The order of the cell's ops does not matter.
  constexpr bool prices(const cell& c) const noexcept {
    const auto is = [&](std::size_t first, std::size_t second) {
      return c[first].pass == passes.first && c[second].pass == passes.second &&
             (!stages || ((*stages)[0] == c[first].stage && (*stages)[1] == c[second].stage));
    };
    return is(0, 1) || is(1, 0);
  }

  friend constexpr bool operator==(const pair_time&, const pair_time&) = default;
};

/// A link between two ranks, in one direction.
struct rank_link {
  std::uint32_t from = 0, to = 0;
  double latency = 0;
  std::optional<double> bandwidth{};  ///< bytes per unit of time; default: infinite
  link_busy busy = link_busy::none;

  friend constexpr bool operator==(const rank_link&, const rank_link&) = default;
};

namespace detail {

// The stages of a pair of equal passes are unordered, as the ops of a cell are.
constexpr bool same_cells(const pair_time& a, const pair_time& b) noexcept {
  if (!(a.passes == b.passes) || a.stages.has_value() != b.stages.has_value()) return false;
  if (!a.stages) return true;
  const std::array swapped{(*b.stages)[1], (*b.stages)[0]};
  const bool same_order = a.passes.first == b.passes.first, equal_passes = a.passes.first == a.passes.second;
  return (same_order && *a.stages == *b.stages) || ((!same_order || equal_passes) && *a.stages == swapped);
}

constexpr void check_positive(double value, const std::string& name) {
  require_cost(value, name);
  if (value == 0) throw schedule_error(concat({"costs: ", name, " is 0; expected more than 0"}));
}

constexpr void check_factors(const std::vector<double>& factors, std::string_view name, std::uint32_t expected,
                             std::string_view what) {
  if (!factors.empty() && factors.size() != expected)
    throw schedule_error(concat({"costs: ", name, " has ", factors.size(), factors.size() == 1 ? " number" : " numbers",
                                 "; expected ", expected, ", one per ", what}));
  for (std::size_t i = 0; i < factors.size(); ++i) check_positive(factors[i], concat({name, "[", i, "]"}));
}
constexpr void check_links(const std::vector<rank_link>& links, std::uint32_t ranks) {
  for (std::size_t i = 0; i < links.size(); ++i) {
    const rank_link& link = links[i];
    const std::string name = concat({"links[", i, "]"});
    for (const std::uint32_t rank : {link.from, link.to})
      if (rank >= ranks)
        throw schedule_error(
            concat({"costs: ", name, " names rank ", rank, "; expected 0 to ", ranks - 1, ", nearest ", ranks - 1}));
    if (link.from == link.to)
      throw schedule_error(concat({"costs: ", name, " is from rank ", link.from, " to itself; expected two ranks"}));
    require_cost(link.latency, name + ".latency");
    if (link.bandwidth) check_positive(*link.bandwidth, name + ".bandwidth");
    for (std::size_t before = 0; before < i; ++before)
      if (links[before].from == link.from && links[before].to == link.to)
        throw schedule_error(
            concat({"costs: ", name, " is for the ranks of links[", before, "]; expected one link for a pair"}));
  }
}

constexpr void check_pairs(const std::vector<pair_time>& pairs, std::uint32_t stages) {
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const pair_time& p = pairs[i];
    if (p.passes.first == pass::none || p.passes.second == pass::none)
      throw schedule_error(concat({"costs: pairs[", i, "] has no two passes; expected ", pass_pair_expected}));
    if (!(p.time >= 0 && p.time <= std::numeric_limits<double>::max()))
      require_cost(p.time, concat({"pairs[", i, "].time"}));
    if (p.stages)
      for (std::uint16_t s : *p.stages)
        if (s >= stages)
          throw schedule_error(concat(
              {"costs: pairs[", i, "] names stage ", s, "; expected 0 to ", stages - 1, ", nearest ", stages - 1}));
    for (std::size_t before = 0; before < i; ++before)
      if (same_cells(pairs[before], p))
        throw schedule_error(
            concat({"costs: pairs[", i, "] prices the cells of pairs[", before, "] again; expected one price"}));
  }
}

}  // namespace detail

}  // namespace pipesched
