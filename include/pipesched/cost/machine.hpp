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
#include "pipesched/support/keyed_list.hpp"

namespace pipesched {

namespace detail {

// The two passes and stages of an overlapped cell in either order; stage -1 for any.
constexpr std::uint64_t key_of_pair(pass a, std::int32_t stage_a, pass b, std::int32_t stage_b) noexcept {
  const auto one = [](pass p, std::int32_t stage) {
    return static_cast<std::uint64_t>(p) << 24 | static_cast<std::uint64_t>(stage + 1);
  };
  const std::uint64_t x = one(a, stage_a), y = one(b, stage_b);
  return x < y ? x << 32 | y : y << 32 | x;
}
constexpr std::uint64_t key_of_link(std::uint32_t from, std::uint32_t to) noexcept {
  return std::uint64_t{from} << 32 | to;
}

}  // namespace detail

/// Duration of an overlapped cell of two passes, for all stages or for two given ones.
struct pair_time {
  pass_pair passes{};
  std::optional<std::array<std::uint16_t, 2>> stages{};  ///< of `passes.first` and `passes.second`; default: any
  double time = 0;

  /// The same for entries that price the same cells; the order of a cell's ops does not matter.
  friend constexpr std::uint64_t key_of(const pair_time& p) noexcept {
    return detail::key_of_pair(p.passes.first, p.stages ? (*p.stages)[0] : -1, p.passes.second,
                               p.stages ? (*p.stages)[1] : -1);
  }
  friend constexpr bool operator==(const pair_time&, const pair_time&) = default;
};

/// A link between two ranks, in one direction.
struct rank_link {
  std::uint32_t from = 0, to = 0;
  double latency = 0;
  std::optional<double> bandwidth{};  ///< bytes per unit of time; default: infinite
  link_busy busy = link_busy::none;

  friend constexpr std::uint64_t key_of(const rank_link& l) noexcept { return detail::key_of_link(l.from, l.to); }
  friend constexpr bool operator==(const rank_link&, const rank_link&) = default;
};

namespace detail {

constexpr void check_positive(double value, const std::string& name) {
  require_cost(value, name);
  if (value == 0) throw schedule_error(concat({"costs: ", name, " is 0; expected more than 0"}));
}

constexpr void check_factors(const std::vector<double>& factors, std::string_view name, std::uint32_t expected,
                             std::string_view what) {
  if (!factors.empty() && factors.size() != expected)
    throw schedule_error(concat(
        {"costs: ", name, " has ", count_text(factors.size(), "number"), "; expected ", expected, ", one per ", what}));
  for (std::size_t i = 0; i < factors.size(); ++i) check_positive(factors[i], concat({name, "[", i, "]"}));
}
// The fault of a link whose ends are the same or those of an earlier one; empty without one.
constexpr std::string fault_among(const keyed_list<rank_link>& links, std::size_t i) {
  const rank_link& link = links[i];
  if (link.from == link.to) return concat({"is from rank ", link.from, " to itself; expected two ranks"});
  const std::size_t first = links.place_of(key_of(link));
  if (first == i) return {};
  return concat({"is for the ranks of links[", first, "]; expected one link for a pair"});
}
// The fault of a price that an earlier one has given.
constexpr std::string fault_among(const keyed_list<pair_time>& pairs, std::size_t i) {
  const std::size_t first = pairs.place_of(key_of(pairs[i]));
  if (first == i) return {};
  return concat({"prices the cells of pairs[", first, "] again; expected one price"});
}

constexpr void check_links(const keyed_list<rank_link>& links, std::uint32_t ranks) {
  for (std::size_t i = 0; i < links.size(); ++i) {
    const rank_link& link = links[i];
    const std::string name = concat({"links[", i, "]"});
    for (const std::uint32_t rank : {link.from, link.to})
      if (rank >= ranks)
        throw schedule_error(
            concat({"costs: ", name, " names rank ", rank, "; expected 0 to ", ranks - 1, ", nearest ", ranks - 1}));
    require_cost(link.latency, name + ".latency");
    if (link.bandwidth) check_positive(*link.bandwidth, name + ".bandwidth");
    if (const std::string fault = fault_among(links, i); !fault.empty())
      throw schedule_error(concat({"costs: ", name, " ", fault}));
  }
}

constexpr void check_pairs(const keyed_list<pair_time>& pairs, std::uint32_t stages) {
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
    if (const std::string fault = fault_among(pairs, i); !fault.empty())
      throw schedule_error(concat({"costs: pairs[", i, "] ", fault}));
  }
}

}  // namespace detail

}  // namespace pipesched
