// SPDX-License-Identifier: MIT
#pragma once

// The step of a model to plan, and its plan.

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/program/fits.hpp"

namespace pipesched {

/// A step of a model to plan.
struct model_problem {
  pipesched::placement placement{};
  std::uint32_t micro = 0;
  bool forward_only = false;
  bool may_recompute = false;  ///< stages may recompute inside their backwards; the plan says which do
};

/// A family with a partition.
struct divided_family {
  std::string name{};  ///< empty: none fits
  double makespan = std::numeric_limits<double>::infinity();
};

/// The result of plan() for a model.
struct model_plan {
  pipesched::partition partition{};
  std::vector<bool> recomputed{};  ///< by stage: its backwards recompute inside; empty: none
  stage_costs costs{};             ///< of this partition
  plan_result plan{};              ///< its bound is for all orders with this partition
  double lower_bound = 0;          ///< for all partitions
  divided_family uniform{};        ///< the shortest family with uniform_partition() that fits
  divided_family divided{};        ///< the shortest family with its own best partition that fits
  memory_report memory{};
  double evaluations = 0;
  std::uint64_t ops_simulated = 0;
};

}  // namespace pipesched
