// SPDX-License-Identifier: MIT
#pragma once

// The command plan with --pareto: the front of step time against memory.

#include "command_line.hpp"
#include "inputs.hpp"
#include "plan_inputs.hpp"

namespace tool {

/// Plans for several limits of memory over the placements of a step, and writes them.
/// @throws schedule_error for options that do not go with a front, and as pareto() does
int plan_front(const arguments& args, const output& to, const plan_inputs& step);

}  // namespace tool
