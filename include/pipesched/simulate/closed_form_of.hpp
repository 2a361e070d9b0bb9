// SPDX-License-Identifier: MIT
#pragma once

// The published formula of a family or of a schedule at given costs, with every assumption checked.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/generate/closed_form.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/generate/recognize.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The published bubble of a family's makespan, for stages that all take these times; nothing if no paper gives one for
/// these parameters. @pre legal parameters
constexpr std::optional<closed_form> closed_form_of(const family& f, const family_params& p, const pass_times& t) {
  if (!f.formula) return std::nullopt;
  std::optional<closed_form> form = f.formula(p, t);
  if (form && form->of_span) form.reset();
  return form;
}

/// The same for the family of that name; nothing for other names.
constexpr std::optional<closed_form> closed_form_of(std::string_view name, const schedule_params& p,
                                                    const pass_times& t) {
  for (const family& f : families)
    if (f.name == name) return closed_form_of(f, p, t);
  return std::nullopt;
}

namespace detail {

// Durations of the ops and cells of a schedule: their means, and whether each is the same everywhere.
template <typename Costs>
class duration_survey {
 public:
  constexpr duration_survey(const schedule& s, const Costs& costs) : s_(s), costs_(costs) {
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
      for (const cell& c : s[rank]) {
        for (std::size_t k = 0; k < c.size(); ++k) look_at_op(rank, c, k);
        if (c.overlapped()) take(pairs_, duration_of(costs, rank, c), "every overlapped pair takes the same time");
      }
  }

  constexpr std::string_view fails() const { return fails_; }

  /// Times of the passes that the schedule does not have follow from the others.
  constexpr pass_times times() const {
    const auto mean = [&](pass p) { return of_[static_cast<std::size_t>(p)].mean(); };
    const auto has = [&](pass p) { return of_[static_cast<std::size_t>(p)].count > 0; };
    pass_times t{.F = mean(pass::forward)};
    const op first{pass::backward, 0, 0, 0};
    const auto at_stage_0 = [&](pass p) {
      return duration_of(costs_, s_.placement.rank_of(0, 0), op{p, first.chunk, first.stage, first.micro});
    };
    t.I = has(pass::backward_input) ? mean(pass::backward_input) : at_stage_0(pass::backward_input);
    t.W = has(pass::backward_weight) ? mean(pass::backward_weight) : at_stage_0(pass::backward_weight);
    t.B = has(pass::backward) ? mean(pass::backward) : t.I + t.W;
    t.FB = pairs_.count > 0 ? pairs_.mean() : t.F + t.B;
    return t;
  }

 private:
  struct samples {
    double sum = 0, first = 0, count = 0;
    bool equal = true;
    // Exact where all are equal.
    constexpr double mean() const { return equal ? first : sum / count; }
  };

  constexpr void take(samples& of, double value, std::string_view what) {
    if (of.count == 0) of.first = value;
    of.sum += value, ++of.count;
    if (value != of.first) of.equal = false, fail(what);
  }
  constexpr void fail(std::string_view what) {
    if (fails_.empty()) fails_ = what;
  }

  constexpr void look_at_op(std::uint32_t rank, const cell& c, std::size_t k) {
    const op o = c[k];
    take(of_[static_cast<std::size_t>(o.pass)], duration_of(costs_, rank, o),
         "every stage and micro-batch takes the same time");
    const auto out = output_of(o, s_.chain());
    if (!out) return;
    if (release_of(costs_, rank, c, k) != duration_of(costs_, rank, c)) fail("outputs leave at the end of their cell");
    const std::uint32_t to = s_.placement.rank_of(receiver_of(*out), out->micro);
    if (to != rank && costs_.transfer(rank, to, *out) != 0) fail("transfers take no time");
  }

  const schedule& s_;
  const Costs& costs_;
  std::array<samples, std::size(pass_table)> of_{};
  samples pairs_{};
  std::string_view fails_{};
};

}  // namespace detail

/// The published formula of a family, the library's or your own, for a schedule at these costs; nothing if it has none.
/// Besides the formula's own assumptions, all of these must hold: the order is the family's own, every pass and every
/// overlapped pair takes the same time for all stages and micro-batches, outputs leave at the end of their cell, and
/// transfers take no time. If times differ, the formula is evaluated at their means, and `fails` says so. Linear in the
/// number of ops, plus the time to make the family's schedule once.
/// @param own_order  true if the schedule comes from the family's function with default parameters: it is not made again
/// @throws schedule_error as simulate(): if the schedule is not valid, or for costs
template <cost_model Costs>
std::optional<closed_form> closed_form_of(const family& f, const schedule& s, const Costs& costs,
                                          bool own_order = false) {
  require_valid(s);
  detail::check_costs(costs, s.stages(), s.pp(), s.micro);
  const schedule_params p = detail::params_of_size(f, s);
  if (!detail::takes(f, p)) return std::nullopt;
  const detail::duration_survey survey(s, costs);
  std::optional<closed_form> form = closed_form_of(f, p, survey.times());
  if (!form) return form;
  if (!survey.fails().empty()) form->fails = survey.fails();
  if (!own_order && !detail::makes_order_of(f, p, s)) form->fails = "the order is the family's own";
  return form;
}

/// The same for the family of the library that the schedule is named after; nothing for other names.
template <cost_model Costs>
std::optional<closed_form> closed_form_of(const schedule& s, const Costs& costs, bool own_order = false) {
  for (const family& f : families)
    if (f.name == s.name.view()) return closed_form_of(f, s, costs, own_order);
  return std::nullopt;
}

}  // namespace pipesched
