// SPDX-License-Identifier: MIT
#pragma once

// All families by name, for programs that choose one at run time.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/1f1b.hpp"
#include "pipesched/generate/chimera.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "pipesched/generate/dualpipev.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/gpipe.hpp"
#include "pipesched/generate/group_interleaved.hpp"
#include "pipesched/generate/hanayo.hpp"
#include "pipesched/generate/interleaved_1f1b.hpp"
#include "pipesched/generate/interleaved_zb.hpp"
#include "pipesched/generate/looped_bfs.hpp"
#include "pipesched/generate/schedule_params.hpp"
#include "pipesched/generate/v_1f1b.hpp"
#include "pipesched/generate/v_half.hpp"
#include "pipesched/generate/v_min.hpp"
#include "pipesched/generate/zb1p.hpp"
#include "pipesched/generate/zb_greedy.hpp"
#include "pipesched/generate/zb_greedy_1p.hpp"
#include "pipesched/generate/zb_greedy_2p.hpp"
#include "pipesched/generate/zb_h1.hpp"
#include "pipesched/generate/zb_h2.hpp"
#include "pipesched/generate/zbv.hpp"
#include "pipesched/generate/zbv_greedy.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/nearest_name.hpp"

namespace pipesched {

inline constexpr family families[] = {
    gpipe_family,
    one_f_one_b_family,
    interleaved_1f1b_family,
    group_interleaved_family,
    looped_bfs_family,
    zb1p_family,
    zb_greedy_family,
    zb_greedy_1p_family,
    zb_greedy_2p_family,
    zb_h1_family,
    zb_h2_family,
    interleaved_zb_family,
    zbv_family,
    zbv_greedy_family,
    v_half_family,
    v_min_family,
    v_1f1b_family,
    dualpipe_family,
    dualpipev_family,
    chimera_family,
    hanayo_family,
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

// " (zb_greedy and zbv_greedy take it)"
inline std::string takers_of(parameter which) {
  std::vector<std::string_view> takers;
  for (const family& f : families)
    if (f.limits.takes.contains(which)) takers.push_back(f.name);
  std::string text = " (";
  for (std::size_t i = 0; i < takers.size(); ++i)
    text.append(i == 0 ? "" : i + 1 == takers.size() ? " and " : ", ").append(takers[i]);
  return text + (takers.size() == 1 ? " takes it)" : " take it)");
}

}  // namespace detail

/// `f.make(p)` with an error that names the families that take a parameter, if this one does not.
/// @throws schedule_error as family::make() does
constexpr schedule make_schedule(const family& f, const schedule_params& p) {
  for (parameter which : all_parameters)
    if (is_given(p, which) && !f.limits.takes.contains(which))
      throw schedule_error(detail::refusal_of_parameter(f.name, which, p) + detail::takers_of(which));
  return f.make(p);
}

/// `make_schedule("dualpipe", {.pp = 8, .micro = 20})`. @throws schedule_error on an unknown name, bad parameters, or a
/// parameter that the family does not take.
constexpr schedule make_schedule(std::string_view name, const schedule_params& p) {
  return make_schedule(find_family(name), p);
}

}  // namespace pipesched
