// SPDX-License-Identifier: MIT
#pragma once

// Meaning of the options of the command plan.

#include <cstdint>
#include <pipesched/core/placement.hpp>
#include <pipesched/cost/stage_costs.hpp>
#include <pipesched/plan/plan.hpp>
#include <string>
#include <vector>

#include "command_line.hpp"
#include "plan_report.hpp"

namespace tool {

/// A step to plan.
struct plan_inputs {
  std::int64_t pp = 0, micro = 0;
  bool forward_only = false;
  std::vector<pipesched::placement> placements;  ///< one, or several with --pareto
  bool are_named = true;                         ///< by options
};

/// @throws schedule_error if a number is missing, and for placements that make no sense
plan_inputs plan_inputs_of(const arguments& args);

/// The pairs of --pairs, or else those that the costs allow. @throws schedule_error for other texts
pipesched::pass_pair_set pairs_that_may_run(const arguments& args, const pipesched::stage_costs& costs);

/// A number of --memory-limit. @throws schedule_error unless it is finite and more than 0
double limit_of_activations(const std::string& text);

/// The begin of a text: "vee placement, 8 ranks, 16 stages, 20 micro-batches; more".
std::string plan_headline(const pipesched::plan_problem& problem, const std::string& more);

/// The limits of the options, without memory; the line shows the progress, and must outlive them.
pipesched::plan_limits limits_of(const arguments& args, const pipesched::pass_pair_set& pairs, progress_line& line);

}  // namespace tool
