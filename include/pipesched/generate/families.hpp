// SPDX-License-Identifier: MIT
#pragma once

// The run-time door for tools: every family by its name.

#include <string>
#include <string_view>

#include "pipesched/error.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "pipesched/generate/gpipe.hpp"
#include "pipesched/generate/interleaved.hpp"
#include "pipesched/generate/one_f_one_b.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/v_shape.hpp"
#include "pipesched/generate/wave.hpp"
#include "pipesched/generate/zb_greedy.hpp"
#include "pipesched/generate/zbv.hpp"
#include "pipesched/generate/zero_bubble.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// A family of schedules, as tools list it.
struct family {
  std::string_view name;
  std::string_view summary;  ///< one line
  schedule (*make)(const schedule_params&);
};

namespace detail {

template <schedule (*Make)(const pipeline_params&)>
constexpr schedule make_plain(const schedule_params& p) {
  return Make(p);
}
template <schedule (*Make)(const interleaved_params&)>
constexpr schedule make_interleaved(const schedule_params& p) {
  return Make(interleaved_of(p));
}

constexpr schedule make_waves(const schedule_params& p) {
  return make_hanayo_schedule({.pp = p.pp, .micro = p.micro, .waves = p.waves, .forward_only = p.forward_only});
}

template <typename Params, schedule (*Make)(Params)>
inline schedule make_greedy(const schedule_params& p) {
  return Make(
      {.pp = p.pp, .micro = p.micro, .costs = p.costs, .memory_limit = p.memory_limit, .forward_only = p.forward_only});
}

}  // namespace detail

inline constexpr family families[] = {
    {"gpipe", "all forwards, then all backwards", detail::make_plain<make_gpipe_schedule>},
    {"1f1b", "one forward, one backward: at most pp activations live", detail::make_plain<make_1f1b_schedule>},
    {"interleaved_1f1b", "1F1B with several stages a rank: the bubble divided by their number",
     detail::make_interleaved<make_interleaved_1f1b_schedule>},
    {"group_interleaved", "the same with half the warm-up and the backward split: less memory (PipeOffload's GIS)",
     detail::make_interleaved<make_group_interleaved_schedule>},
    {"looped_bfs", "several stages a rank, all micro-batches through one before the next",
     detail::make_interleaved<make_looped_bfs_schedule>},
    {"zb1p", "1F1B with the backward split (ZB-H1): a third of the bubble, the same memory",
     detail::make_plain<make_zb1p_schedule>},
    {"zb_greedy", "zero bubble by greedy search on your costs under your memory limit",
     detail::make_greedy<const zb_params&, make_zb_greedy_schedule>},
    {"zb_greedy_1p", "the same with the memory of 1F1B (ZB-1p)",
     detail::make_greedy<zb_params, make_zb_greedy_1p_schedule>},
    {"zb_greedy_2p", "the same with twice that (ZB-2p): hardly any bubble",
     detail::make_greedy<zb_params, make_zb_greedy_2p_schedule>},
    {"zb_h1", "ZB-H1: the greedy order for F = I = W, with the memory of 1F1B",
     detail::make_plain<make_zb_h1_schedule>},
    {"zb_h2", "ZB-H2: the same with nearly twice that, no bubble in the span", detail::make_plain<make_zb_h2_schedule>},
    {"interleaved_zb", "interleaved 1F1B with the backward split",
     detail::make_interleaved<make_interleaved_zb_schedule>},
    {"zbv", "zero bubble on a V: two stages a rank, the memory of 1F1B", detail::make_plain<make_zbv_schedule>},
    {"zbv_greedy", "the same by greedy search on your costs under your memory limit",
     detail::make_greedy<zb_params, make_zbv_greedy_schedule>},
    {"v_half", "on a V with half the memory of 1F1B, at half its bubble", detail::make_plain<make_v_half_schedule>},
    {"v_min", "on a V with a third of the memory of 1F1B; wants F = I = W", detail::make_plain<make_v_min_schedule>},
    {"v_1f1b", "on a V with two thirds of the memory of 1F1B, the backward whole",
     detail::make_plain<make_v_1f1b_schedule>},
    {"dualpipe", "DeepSeek-V3: both directions at once, forward overlapped with backward; even pp",
     detail::make_plain<make_dualpipe_schedule>},
    {"dualpipev", "DualPipe folded into a V: two stages a rank, parameters held once",
     detail::make_plain<make_dualpipev_schedule>},
    {"chimera", "both directions at once, in units of pp micro-batches; even pp",
     detail::make_plain<make_chimera_schedule>},
    {"hanayo", "Chimera folded into waves: two stages a rank for each, parameters held once", detail::make_waves},
};

/// The family of that name. @throws schedule_error when there is none.
constexpr const family& find_family(std::string_view name) {
  for (const family& f : families)
    if (f.name == name) return f;
  std::string known;
  for (const family& f : families) known.append(known.empty() ? "" : ", ").append(f.name);
  throw schedule_error(detail::concat({"no schedule is called \"", name, "\"; known: ", known}));
}

/// `make_schedule("dualpipe", {.pp = 8, .micro = 20})`. @throws schedule_error on an unknown name or bad parameters.
constexpr schedule make_schedule(std::string_view name, const schedule_params& p) { return find_family(name).make(p); }

}  // namespace pipesched
