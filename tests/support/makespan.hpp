// SPDX-License-Identifier: MIT
#pragma once

#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"

namespace pipesched::tests {

inline double makespan(const schedule& s, const stage_costs& costs) { return measure(simulate(s, costs)).makespan; }

}  // namespace pipesched::tests
