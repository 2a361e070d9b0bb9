// SPDX-License-Identifier: MIT

#include "plan_page.hpp"

#include <fmt/format.h>

#include <pipesched/generate/families.hpp>
#include <pipesched/render/plan_page.hpp>
#include <utility>

#include "inputs.hpp"
#include "models.hpp"
#include "plan_report.hpp"
#include "study.hpp"

namespace tool {

using namespace pipesched;

namespace {

// Calls `add(family, sizes)` for all families; a note on each that does not take the sizes.
template <typename Add>
void for_each_family(const schedule_params& sizes, std::vector<std::string>& lines, Add&& add) {
  for (const family& f : families) {
    try {
      add(f, sizes);
    } catch (const schedule_error& e) {
      lines.push_back(fmt::format("left out: {}: {}", f.name, e.what()));
    }
  }
}

schedule_params sizes_of(std::int64_t pp, std::int64_t micro, bool forward_only) {
  schedule_params p{.pp = pp, .micro = micro};
  p.forward_only = forward_only;
  return p;
}

// The panels of families, each with the best partition found of a model, as compare has them; a note on each that does not fit.
void add_divided_families(const arguments& args, const model& m, const schedule& planned,
                          std::vector<html_panel>& panels, std::vector<std::string>& lines) {
  const auto add = [&](const family& f, const schedule_params& p) {
    divided_schedule best = divided_by(args, "best", m, source_of(f, p));
    const std::string layers = "layers per stage: " + to_string(best.partition);
    study of = study_of(std::move(best.schedule), std::move(best.costs), layers, true);
    of.memory = memory_of(of, memory_limits(m, planned.pp()));
    if (of.memory && !*of.memory)
      throw schedule_error("no partition was found that fits: " + to_string(*of.memory, of.times.schedule));
    panels.push_back(panel_of(of));
  };
  for_each_family(sizes_of(planned.pp(), planned.micro, planned.forward_only), lines, add);
}

// The panels of families; a note on each that exceeds the limit.
void add_families(const plan_page& page, std::vector<html_panel>& panels, std::vector<std::string>& lines) {
  const auto add = [&](const family& f, schedule_params p) {
    if (page.memory_limit && f.limits.takes.contains(parameter::memory_limit)) p.memory_limit = page.memory_limit;
    study of = study_of(make_family(f, p, page.given), page.given, true);
    of.memory = memory_of(of, page.memory);
    if (of.memory && !*of.memory) throw schedule_error("it does not fit: " + to_string(*of.memory, of.times.schedule));
    if (page.memory_limit && of.measured.peak_activations > *page.memory_limit)
      lines.push_back(fmt::format("left out: {} keeps {:.6g} activations, more than the limit of {:.6g}", f.name,
                                  of.measured.peak_activations, *page.memory_limit));
    else
      panels.push_back(panel_of(of));
  };
  const plan_problem& problem = page.problem;
  for_each_family(sizes_of(problem.placement.ranks(), problem.micro, problem.forward_only), lines, add);
}

}  // namespace

std::string page_of_plan(const plan_page& page, const plan_result& plan, const stage_costs& costs) {
  html_style style = page.style;
  std::vector<html_panel> beside;
  add_families(page, beside, style.notes);
  return pipesched::page_of_plan(plan, costs, std::move(beside), style);
}

std::string page_of_plan(const arguments& args, const model& m, const model_plan& found, const std::string& note) {
  html_style style = page_style_of(args, m.time_unit);
  std::vector<html_panel> beside;
  style.notes = {fmt::format("{}, planned {} per stage; each family with the best partition found",
                             pipesched::detail::count_text(layer_count(m), "layer"), to_string(found.partition))};
  if (!note.empty()) style.notes.push_back(note);
  for (std::string& line : lines_of(text_of(m, found)))
    if (!line.empty()) style.notes.push_back(std::move(line));
  add_divided_families(args, m, found.plan.schedule, beside, style.notes);
  return pipesched::page_of_plan(found, std::move(beside), style);
}

}  // namespace tool
