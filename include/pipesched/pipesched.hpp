// SPDX-License-Identifier: MIT
#pragma once

// Making, proving and costing schedules, and the grid as text: what most programs want, and quick to compile. The rest
// comes in with the header that names it: the families from engines (generate/v_shape.hpp, generate/zb_greedy.hpp),
// families by name for tools (generate/families.hpp), from one schedule to another (transform.hpp), programs and running
// them (program/, execute/), costs from a measured timeline (simulate/fit_costs.hpp), pictures (render/svg.hpp,
// render/html.hpp, render/chrome_trace.hpp), JSON, CSV and fmt (io/).

#include "pipesched/concat.hpp"
#include "pipesched/cost_model.hpp"
#include "pipesched/dependencies.hpp"
#include "pipesched/error.hpp"
#include "pipesched/fixed_string.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "pipesched/generate/gpipe.hpp"
#include "pipesched/generate/interleaved.hpp"
#include "pipesched/generate/one_f_one_b.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/wave.hpp"
#include "pipesched/generate/zbv.hpp"
#include "pipesched/generate/zero_bubble.hpp"
#include "pipesched/notation.hpp"
#include "pipesched/op.hpp"
#include "pipesched/placement.hpp"
#include "pipesched/render/text.hpp"
#include "pipesched/report.hpp"
#include "pipesched/rows.hpp"
#include "pipesched/schedule.hpp"
#include "pipesched/simulate/closed_form.hpp"
#include "pipesched/simulate/explain.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/verify.hpp"
#include "pipesched/version.hpp"
