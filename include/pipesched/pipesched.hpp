// SPDX-License-Identifier: MIT
#pragma once

// The core: making, verifying and simulating schedules, and drawing them as text. Quick to compile. Other headers are
// included by name:
//
//   families from engines    generate/v_half.hpp, generate/v_min.hpp, generate/v_1f1b.hpp, generate/zb_greedy.hpp,
//                            generate/zb_greedy_1p.hpp, generate/zb_greedy_2p.hpp, generate/zb_h1.hpp,
//                            generate/zb_h2.hpp, generate/zbv_greedy.hpp, and their parameters: generate/zb_params.hpp
//   families by name         generate/families.hpp, generate/recognize.hpp, support/nearest_name.hpp
//   formulas of schedules    simulate/closed_form_of.hpp
//   costs from a timeline    simulate/fit_costs.hpp, simulate/fit_model.hpp
//   makespans under noise    simulate/noise.hpp
//   transforms of schedules  core/transform.hpp, core/recompute.hpp, core/freeze.hpp
//   models of layers         model/
//   plans                    plan/
//   programs, running them   program/, execute/, device/, mpi/, launch/
//   pictures                 render/svg.hpp, render/front.hpp, render/html.hpp, render/html_panel.hpp,
//                            render/html_style.hpp, render/chrome_trace.hpp, render/plan_page.hpp
//   JSON, CSV and fmt        io/

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/notation.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/report.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/machine.hpp"
#include "pipesched/cost/memory_unit.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/cost/per_stage.hpp"
#include "pipesched/cost/presets.hpp"
#include "pipesched/cost/split_costs.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/cost/time_unit.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/generate/1f1b.hpp"
#include "pipesched/generate/chimera.hpp"
#include "pipesched/generate/closed_form.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "pipesched/generate/dualpipev.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/gpipe.hpp"
#include "pipesched/generate/group_interleaved.hpp"
#include "pipesched/generate/hanayo.hpp"
#include "pipesched/generate/interleaved_1f1b.hpp"
#include "pipesched/generate/interleaved_params.hpp"
#include "pipesched/generate/interleaved_zb.hpp"
#include "pipesched/generate/looped_bfs.hpp"
#include "pipesched/generate/parameters.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/row_rule.hpp"
#include "pipesched/generate/schedule_params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"
#include "pipesched/generate/zb1p.hpp"
#include "pipesched/generate/zbv.hpp"
#include "pipesched/render/text.hpp"
#include "pipesched/simulate/explain.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/schedule_class.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/concat.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/fixed_string.hpp"
#include "pipesched/support/rows.hpp"
#include "pipesched/version.hpp"
