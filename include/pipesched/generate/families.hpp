// SPDX-License-Identifier: MIT
#pragma once

// All families by name, for programs that choose one at run time.

#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/1f1b.hpp"
#include "pipesched/generate/chimera.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "pipesched/generate/dualpipev.hpp"
#include "pipesched/generate/gpipe.hpp"
#include "pipesched/generate/group_interleaved.hpp"
#include "pipesched/generate/hanayo.hpp"
#include "pipesched/generate/interleaved_1f1b.hpp"
#include "pipesched/generate/interleaved_zb.hpp"
#include "pipesched/generate/looped_bfs.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/schedule_params.hpp"
#include "pipesched/generate/v_1f1b.hpp"
#include "pipesched/generate/v_half.hpp"
#include "pipesched/generate/v_min.hpp"
#include "pipesched/generate/zb1p.hpp"
#include "pipesched/generate/zb_greedy.hpp"
#include "pipesched/generate/zbv.hpp"
#include "pipesched/generate/zbv_greedy.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/nearest_name.hpp"

namespace pipesched {

/// A family of schedules.
struct family {
  std::string_view name;
  std::string_view summary;  ///< one line
  family_limits limits;      ///< `limits.takes`: the optional parameters that the family takes
  schedule (*generate)(const schedule_params&);

  /// @throws schedule_error on bad parameters, and on a parameter that was given and that the family does not take.
  constexpr schedule make(const schedule_params& p) const;
};

namespace detail {

template <schedule (*Make)(const pipeline_params&)>
constexpr schedule make_plain(const schedule_params& p) {
  return Make(p);
}
template <schedule (*Make)(const interleaved_params&)>
constexpr schedule make_interleaved(const schedule_params& p) {
  return Make({.pp = p.pp,
               .micro = p.micro,
               .chunks = p.chunks.value_or(2),
               .forward_only = p.forward_only,
               .group_size = p.group_size,
               .extra_warm_up = p.extra_warm_up,
               .overlap = p.overlap});
}

constexpr schedule make_waves(const schedule_params& p) {
  return make_hanayo_schedule(
      {.pp = p.pp, .micro = p.micro, .waves = p.waves.value_or(1), .forward_only = p.forward_only});
}

template <schedule (*Make)(const zb_params&)>
inline schedule make_greedy(const schedule_params& p) {
  return Make({.pp = p.pp,
               .micro = p.micro,
               .costs = p.costs.value_or(stage_costs{}),
               .memory_limit = p.memory_limit,
               .forward_only = p.forward_only});
}

}  // namespace detail

inline constexpr family families[] = {
    {"gpipe", "all forwards, then all backwards", gpipe_limits, detail::make_plain<make_gpipe_schedule>},
    {"1f1b", "one forward, one backward in turn: at most pp activations per rank", one_f_one_b_limits,
     detail::make_plain<make_1f1b_schedule>},
    {"interleaved_1f1b", "1F1B with several stages per rank, which divides the bubble by their number",
     interleaved_1f1b_limits, detail::make_interleaved<make_interleaved_1f1b_schedule>},
    {"group_interleaved",
     "interleaved 1F1B with half the warm-up and a split backward: less memory (PipeOffload's GIS)",
     group_interleaved_limits, detail::make_interleaved<make_group_interleaved_schedule>},
    {"looped_bfs", "several stages per rank; all micro-batches pass one before the next starts", looped_bfs_limits,
     detail::make_interleaved<make_looped_bfs_schedule>},
    {"zb1p", "1F1B with a split backward (ZB-H1): a third of the bubble, the same memory", zb1p_limits,
     detail::make_plain<make_zb1p_schedule>},
    {"zb_greedy", "zero bubble by greedy search on your costs, under your memory limit", zb_greedy_limits,
     detail::make_greedy<make_zb_greedy_schedule>},
    {"zb_greedy_1p", "zero bubble by greedy search with the memory of 1F1B (ZB-1p)", zb_greedy_1p_limits,
     detail::make_greedy<make_zb_greedy_1p_schedule>},
    {"zb_greedy_2p", "zero bubble by greedy search with twice the memory of 1F1B (ZB-2p): hardly any bubble",
     zb_greedy_2p_limits, detail::make_greedy<make_zb_greedy_2p_schedule>},
    {"zb_h1", "ZB-H1: the greedy order for F = I = W with the memory of 1F1B", zb_h1_limits,
     detail::make_plain<make_zb_h1_schedule>},
    {"zb_h2", "ZB-H2: the greedy order for F = I = W with nearly twice the memory of 1F1B; no bubble in the span",
     zb_h2_limits, detail::make_plain<make_zb_h2_schedule>},
    {"interleaved_zb", "interleaved 1F1B with a split backward", interleaved_zb_limits,
     detail::make_interleaved<make_interleaved_zb_schedule>},
    {"zbv", "zero bubble on a V: two stages per rank, the memory of 1F1B", zbv_limits,
     detail::make_plain<make_zbv_schedule>},
    {"zbv_greedy", "zero bubble on a V by greedy search on your costs, under your memory limit", zbv_greedy_limits,
     detail::make_greedy<make_zbv_greedy_schedule>},
    {"v_half", "a V with half the memory of 1F1B and half its bubble", v_half_limits,
     detail::make_plain<make_v_half_schedule>},
    {"v_min", "a V with a third of the memory of 1F1B, for F = I = W", v_min_limits,
     detail::make_plain<make_v_min_schedule>},
    {"v_1f1b", "a V with two thirds of the memory of 1F1B and whole backwards", v_1f1b_limits,
     detail::make_plain<make_v_1f1b_schedule>},
    {"dualpipe", "DeepSeek-V3: micro-batches from both ends, forwards overlapped with backwards; even pp",
     dualpipe_limits, detail::make_plain<make_dualpipe_schedule>},
    {"dualpipev", "DualPipe folded into a V: two stages per rank, one copy of the parameters", dualpipev_limits,
     detail::make_plain<make_dualpipev_schedule>},
    {"chimera", "micro-batches from both ends, in units of pp micro-batches; even pp", chimera_limits,
     detail::make_plain<make_chimera_schedule>},
    {"hanayo", "Chimera folded into waves: two stages per rank and wave, one copy of the parameters", hanayo_limits,
     detail::make_waves},
};

/// The family of that name.
/// @throws schedule_error if no family has it, with the nearest name or, if no name is near, all names.
constexpr const family& find_family(std::string_view name) {
  for (const family& f : families)
    if (f.name == name) return f;
  const std::string_view nearest = nearest_name(name, families, &family::name);
  if (!nearest.empty())
    throw schedule_error(detail::concat({"no schedule is called \"", name, "\"; did you mean ", nearest, "?"}));
  std::string known;
  for (const family& f : families) known.append(known.empty() ? "" : ", ").append(f.name);
  throw schedule_error(detail::concat({"no schedule is called \"", name, "\"; known: ", known}));
}

namespace detail {

[[noreturn]] inline void refuse_parameter_of(const family& f, parameter which, const schedule_params& p) {
  std::vector<std::string_view> takers;
  for (const family& other : families)
    if (other.limits.takes.contains(which)) takers.push_back(other.name);
  std::string text(concat({f.name, " takes no ", to_string(which), "; got "}));
  switch (which) {
    case parameter::chunks: text += concat({"chunks = ", *p.chunks}); break;
    case parameter::group_size: text += concat({"group_size = ", *p.group_size}); break;
    case parameter::waves: text += concat({"waves = ", *p.waves}); break;
    case parameter::memory_limit: text += concat({"memory_limit = ", *p.memory_limit}); break;
    case parameter::extra_warm_up:
    case parameter::overlap: text += concat({to_string(which), " = true"}); break;
    case parameter::costs: text += "costs"; break;
  }
  text += " (";
  for (std::size_t i = 0; i < takers.size(); ++i)
    text.append(i == 0 ? "" : i + 1 == takers.size() ? " and " : ", ").append(takers[i]);
  throw schedule_error(text + (takers.size() == 1 ? " takes it)" : " take it)"));
}

}  // namespace detail

constexpr schedule family::make(const schedule_params& p) const {
  for (parameter which : all_parameters)
    if (is_given(p, which) && !limits.takes.contains(which)) detail::refuse_parameter_of(*this, which, p);
  return generate(p);
}

/// `make_schedule("dualpipe", {.pp = 8, .micro = 20})`. @throws schedule_error on an unknown name, bad parameters, or a
/// parameter that the family does not take.
constexpr schedule make_schedule(std::string_view name, const schedule_params& p) { return find_family(name).make(p); }

}  // namespace pipesched
