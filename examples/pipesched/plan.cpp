// SPDX-License-Identifier: MIT
// The command plan, but for fronts.

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/model/costs_of.hpp>
#include <pipesched/plan/model_plan.hpp>
#include <pipesched/plan/plan.hpp>
#include <pipesched/plan/plan_in_memory.hpp>
#include <pipesched/program/fits.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/render/svg.hpp>
#include <pipesched/render/text.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <string>
#include <vector>

#include "commands.hpp"
#include "files.hpp"
#include "inputs.hpp"
#include "models.hpp"
#include "plan_front.hpp"
#include "plan_inputs.hpp"
#include "plan_page.hpp"
#include "plan_report.hpp"
#include "study.hpp"

namespace tool {

using namespace pipesched;

namespace {

// The bytes of every rank; nothing where the costs know none.
std::optional<memory_report> memory_of(const plan_result& found, const stage_costs& costs,
                                       const std::vector<double>& limits) {
  if (!knows_bytes(costs)) return std::nullopt;
  return fits(lower(found.schedule, {}, verified), costs, limits);
}

int write_plan(const output& to, const plan_result& found, const stage_costs& costs, const plan_page& page,
               const std::string& convention, bool is_interrupted) {
  const plan_problem& problem = page.problem;
  if (to.format == "csv") {
    write_csv(to.file, found.schedule);
  } else if (to.format == "svg") {
    write_output(to.file, render_svg(simulate(found.schedule, costs, verified)));
  } else if (to.format == "html") {
    write_output(to.file, page_of_plan(page, found, costs));
  } else if (to.format == "json") {
    nlohmann::ordered_json j = tool::json_of(found);
    if (const auto memory = memory_of(found, costs, page.memory)) j["ranks"] = tool::json_of(*memory);
    if (is_interrupted) j["interrupted"] = true;
    write_output(to.file, j.dump(2) + "\n");
  } else {
    const auto memory = memory_of(found, costs, page.memory);
    write_output(to.file, plan_headline(problem, convention) + row_titles() + "\n" + row_of(found) +
                              (memory ? "\n\n" + tool::text_of(*memory) : "\n") +
                              fmt::format("\n{}{}; bound: {}\n\n", evaluations_text(found.evaluations),
                                          is_interrupted ? fmt::format(", {}", interrupted_note) : "",
                                          describe_bound(found.bound)) +
                              render_text(simulate(found.schedule, costs, verified), style_of(to)));
  }
  return 0;
}

int plan_with_costs(const arguments& args, const output& to, const plan_problem& problem) {
  if (args.has("--may-recompute")) throw schedule_error("plan takes --may-recompute with --model only");
  if (args.has("--memory") && args.has("--memory-limit"))
    throw schedule_error("plan takes --memory or --memory-limit; got both");
  const stage_costs given = costs_of(args), costs = split_stage_costs(given, problem.placement);
  const std::vector<double> bytes = limits_of_costs(args, given);
  progress_line line;
  plan_limits limits = limits_of(args, pairs_that_may_run(args, costs), line);
  if (args.has("--memory-limit")) limits.memory.activations = limit_of_activations(*args.text("--memory-limit"));
  const plan_result found =
      bytes.empty() ? pipesched::plan(problem, costs, limits) : plan_in_memory(problem, costs, bytes, limits);
  plan_page page{.problem = problem,
                 .given = given,
                 .memory_limit = limits.memory.activations,
                 .memory = bytes,
                 .style = page_style_of(args, given.time_unit)};
  std::string convention = describe_split(given, problem.placement) + unit_after("; times in ", given.time_unit);
  const std::string note = note_on_unused(
      unused_by_plan({.found = found.schedule, .pairs = *limits.pairs, .pairs_are_given = args.has("--pairs")}, given));
  if (!note.empty()) convention += "; " + note;
  if (!note.empty() && (to.format == "csv" || to.format == "svg" || to.format == "json")) add_note("costs " + note);
  page.style.notes = {note_on_costs(given, page.style.unit, convention)};
  if (line.stopped()) page.style.notes.emplace_back(interrupted_note);
  return write_plan(to, found, costs, page, convention, line.stopped());
}

int plan_with_model(const arguments& args, const output& to, const plan_problem& problem) {
  if (args.has("--memory-limit")) throw schedule_error("plan takes --memory-limit or --model; got both");
  const model m = *given_model(args);
  const stage_costs uniform =
      pipesched::costs_of(m, uniform_partition(m, problem.placement.stages()), problem.placement);
  progress_line line;
  const plan_limits limits = limits_of(args, pairs_that_may_run(args, uniform), line);
  const model_plan found = pipesched::plan(m,
                                           model_problem{.placement = problem.placement,
                                                         .micro = problem.micro,
                                                         .forward_only = problem.forward_only,
                                                         .may_recompute = args.has("--may-recompute")},
                                           limits);
  const schedule& s = found.plan.schedule;
  const std::vector<std::string> unused = unused_by_plan({.found = s,
                                                          .pairs = *limits.pairs,
                                                          .pairs_are_given = args.has("--pairs"),
                                                          .may_recompute = args.has("--may-recompute")},
                                                         m, found.partition);
  const std::string note = note_on_unused(unused);
  if (!note.empty() && (to.format == "csv" || to.format == "svg")) add_note(note);
  if (to.format == "csv") {
    write_csv(to.file, s);
  } else if (to.format == "svg") {
    write_output(to.file, render_svg(simulate(s, found.costs, verified)));
  } else if (to.format == "html") {
    const std::string_view also = line.stopped() ? interrupted_note : "";
    write_output(to.file, page_of_plan(args, m, found,
                                       fmt::format("{}{}{}", note, note.empty() || also.empty() ? "" : "; ", also)));
  } else if (to.format == "json") {
    nlohmann::ordered_json j = tool::json_of(m, found);
    if (!unused.empty()) j["not_used"] = unused;
    if (line.stopped()) j["interrupted"] = true;
    write_output(to.file, j.dump(2) + "\n");
  } else {
    const std::string layers = fmt::format("{}{}{}{}", pipesched::detail::count_text(layer_count(m), "layer"),
                                           unit_after("; times in ", m.time_unit), note.empty() ? "" : "; ", note);
    write_output(to.file, plan_headline(problem, layers) + tool::text_of(m, found) +
                              (line.stopped() ? fmt::format("{}\n\n", interrupted_note) : "") +
                              render_text(simulate(s, found.costs, verified), style_of(to)));
  }
  return 0;
}

}  // namespace

int plan(const arguments& args) {
  const output to = output_of(args, "plan", plan_formats);
  const plan_inputs step = plan_inputs_of(args);
  if (args.has("--pareto")) return plan_front(args, to, step);
  const plan_problem problem{.placement = step.placements.front(),
                             .micro = static_cast<std::uint32_t>(step.micro),
                             .forward_only = step.forward_only};
  return args.has("--model") ? plan_with_model(args, to, problem) : plan_with_costs(args, to, problem);
}

}  // namespace tool
