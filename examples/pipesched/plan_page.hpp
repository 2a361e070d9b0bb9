// SPDX-License-Identifier: MIT
#pragma once

// Pages of plans beside all families.

#include <optional>
#include <pipesched/cost/stage_costs.hpp>
#include <pipesched/model/model.hpp>
#include <pipesched/plan/model_problem.hpp>
#include <pipesched/plan/plan.hpp>
#include <pipesched/render/html_style.hpp>
#include <string>
#include <vector>

#include "command_line.hpp"

namespace tool {

/// The problem of a plan, and all that its page says besides it.
struct plan_page {
  const pipesched::plan_problem& problem;
  const pipesched::stage_costs& given;  ///< not split among stages, for families with other placements
  std::optional<double> memory_limit{};
  std::vector<double> memory{};  ///< bytes of the ranks
  pipesched::html_style style{};
};

/// The plan beside all families with default parameters that fit the limit.
std::string page_of_plan(const plan_page& page, const pipesched::plan_result& plan,
                         const pipesched::stage_costs& costs);

/// The plan for a model beside all families that fit, each with the best partition found.
/// @param note  on entries of the model that are not used; may be empty
std::string page_of_plan(const arguments& args, const pipesched::model& m, const pipesched::model_plan& found,
                         const std::string& note);

}  // namespace tool
