// SPDX-License-Identifier: MIT
#pragma once

// All cost models: the concept, the two ready models, the convention for shares, and published measurements.

#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/presets.hpp"
#include "pipesched/cost/split_costs.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/cost/uniform_costs.hpp"
