// SPDX-License-Identifier: MIT
#pragma once

// The convention for numbers that a user gives without a stage: one number, or one per rank, is of a rank's whole share of
// the model and is divided among the stages of that rank; as many numbers as stages are per stage.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

// Stages of one replica on every rank.
inline std::vector<double> stages_per_rank(const placement& where) {
  if (where.ranks() == 0)
    throw schedule_error("costs are divided among the stages of 1 rank or more; got 0, nearest 1");
  std::vector<double> count(where.ranks(), 0);
  for (std::uint32_t replica = 0; replica < where.replicas(); ++replica) {
    std::vector<double> of(where.ranks(), 0);
    for (std::uint16_t rank : where.rank_of_stage(replica)) ++of[rank];
    for (std::size_t rank = 0; rank < of.size(); ++rank) count[rank] = std::max(count[rank], of[rank]);
  }
  return count;
}

// The numbers per stage; `divide` is false for numbers that are not divided among chunks, such as messages.
inline per_stage split_share(const per_stage& given, const placement& where, const std::vector<double>& count,
                             bool divide) {
  const std::size_t n = given.values().size(), stages = where.stages();
  if (n != 1 && (n != where.ranks() || stages <= n)) return given;
  const bool alike = std::all_of(count.begin(), count.end(), [&](double c) { return c == count[0]; });
  if (n == 1 && (!divide || alike)) return divide ? given[0] / count[0] : given[0];
  std::vector<double> values;
  for (std::uint16_t rank : where.rank_of_stage(0)) values.push_back(given[rank] / (divide ? count[rank] : 1));
  return per_stage(std::move(values));
}

// Refuses lengths that are neither per share nor per stage, and what check() finds in the numbers as they were given.
inline void check_shares(const stage_costs& given, const placement& where) {
  const std::size_t ranks = where.ranks(), stages = where.stages();
  bool per_rank = true;
  stage_costs::for_each_field(given, [&](const auto& field, std::string_view name) {
    const auto look_at = [&](const per_stage& numbers) {
      const std::size_t n = numbers.values().size();
      if (n == 1 || (stage_costs::is_per_cut(name) && n + 1 == stages)) return;
      if (n != ranks && n != stages)
        throw schedule_error(
            ranks == 1 || ranks == stages
                ? concat({"costs: ", name, " has ", n, " numbers; expected ", numbers_expected(stages, false)})
                : concat({"costs: ", name, " has ", n, " numbers; expected 1, ", ranks, ", one per rank, or ", stages,
                          ", one per stage"}));
      per_rank = per_rank && n == ranks;
    };
    if constexpr (requires { field.has_value(); }) {
      if (field) look_at(*field);
    } else {
      look_at(field);
    }
  });
  if (!per_rank) return;  // mixed, or per stage: check() sees the numbers that were given
  stage_costs shares = given;
  shares.pairs.clear();
  stage_costs::for_each_field(shares, [&](auto& field, std::string_view name) {
    if (!stage_costs::is_per_cut(name)) return;
    if constexpr (requires { field.has_value(); }) {
      field.reset();
    } else {
      field = 0;
    }
  });
  shares.check(where.ranks());
}

}  // namespace detail

/// Costs per stage from costs of which each field may be per share of a rank: a field with one number, or one per rank
/// where there are more stages than ranks, is divided among the stages of its rank (times, bytes and weights) or repeated
/// for them (transfers, messages, bandwidths, and what an op needs while it runs); a field with one number per stage stays as
/// it is. Pairs without stages are divided; pairs with stages are per stage. A bidirectional placement has as many stages as
/// ranks, so its arrays are per stage. Defaults are of a rank's share.
/// @throws schedule_error if there are other numbers of entries, if the numbers as given make no sense (see check()), or if a
/// pair without stages meets ranks with different numbers of stages. Linear in stages.
inline stage_costs split_stage_costs(const stage_costs& given, const placement& where) {
  if (where.stages() > where.ranks()) detail::check_shares(given, where);
  const std::vector<double> count = detail::stages_per_rank(where);
  stage_costs costs = given;
  if (where.stages() > where.ranks() && !costs.backward) {  // the default of 1 is of a rank's share, too
    if (!costs.backward_input) costs.backward_input = 1;
    if (!costs.backward_weight) costs.backward_weight = 1;
  }
  stage_costs::for_each_field(costs, [&](auto& field, std::string_view name) {
    const bool divide = stage_costs::is_divided(name);
    if constexpr (requires { field.has_value(); }) {
      if (field) field = detail::split_share(*field, where, count, divide);
    } else {
      field = detail::split_share(field, where, count, divide);
    }
  });
  costs.pairs.change_each([&](pair_time& p) {
    if (p.stages) return;
    for (double c : count)
      if (c != count[0])
        throw schedule_error("costs: a pair without stages needs ranks that host equally many stages; give its stages");
    p.time /= count[0];
  });
  return costs;
}

/// The convention that split_stage_costs() takes for these numbers, in words for the first line of an output: "costs are per
/// stage", "costs are of a rank's share, divided among its 2 stages", or which fields are which.
inline std::string describe_split(const stage_costs& given, const placement& where) {
  const std::vector<double> count = detail::stages_per_rank(where);
  const double most = *std::max_element(count.begin(), count.end());
  bool cuts_by_rank = false;
  if (most == 1) return "costs are per stage, one stage per rank";
  std::string shared, staged;
  const auto add = [](std::string& list, std::string_view name) {
    list += list.empty() ? "" : ", ";
    list += name;
  };
  stage_costs::for_each_field(given, [&](const auto& field, std::string_view name) {
    const per_stage* values = nullptr;
    if constexpr (requires { field.has_value(); }) {
      if (field) values = &*field;
    } else {
      values = &field;
    }
    if (stage_costs::is_per_cut(name)) {
      cuts_by_rank =
          cuts_by_rank || (values && values->values().size() > 1 && values->values().size() == where.ranks());
      return;
    }
    if (values && values->values().size() == where.stages())
      add(staged, name);
    else if (values && (*values).values() != std::vector<double>{0})
      add(shared, name);
  });
  const std::string divided =
      detail::concat({"of a rank's share, divided among its ", most,
                      *std::min_element(count.begin(), count.end()) == most ? " stages" : " or fewer stages"});
  const std::string cuts = cuts_by_rank ? "; transfers are by the rank of a cut's earlier stage" : "";
  if (staged.empty()) return "costs are " + divided + cuts;
  if (shared.empty()) return "costs are per stage" + cuts;
  return "costs are per stage (" + staged + ") or " + divided + " (" + shared + ")" + cuts;
}

}  // namespace pipesched
