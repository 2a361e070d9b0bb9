// SPDX-License-Identifier: MIT

#include "plan_front.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <pipesched/cost/memory_unit.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/model/costs_of.hpp>
#include <pipesched/plan/model_pareto.hpp>
#include <pipesched/plan/pareto.hpp>
#include <pipesched/program/fits.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/render/front.hpp>
#include <pipesched/render/plan_page.hpp>
#include <pipesched/render/text.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <string>
#include <utility>
#include <vector>

#include "files.hpp"
#include "models.hpp"
#include "plan_report.hpp"
#include "study.hpp"

namespace tool {

using namespace pipesched;

namespace {

using pipesched::detail::count_text;

// Live activations around those that the published families need, eight numbers at most.
std::vector<double> usual_activations(std::uint32_t pp) {
  const std::uint32_t least = std::max(1u, pp / 2), most = pp + 4, step = std::max(1u, (most - least + 7) / 8);
  std::vector<double> caps;
  for (std::uint32_t cap = most;; cap -= step) {
    caps.push_back(cap);
    if (cap < least + step) break;
  }
  return caps;
}

// Bytes of the rank that needs most, for a number of live activations; rounded up to three digits.
double bytes_for(const placement& where, const stage_costs& costs, double activations) {
  std::vector<double> bytes(where.ranks(), 0), running(where.ranks(), 0);
  for (std::uint32_t replica = 0; replica < where.replicas(); ++replica)
    for (std::uint32_t stage = 0; stage < where.stages(); ++stage) {
      const std::uint16_t rank = where.rank_of_stage(replica)[stage];
      bytes[rank] += costs.weights(stage) + (replica == 0 ? activations * costs.kept_by_forward[stage] : 0);
      for (const pass p : {pass::forward, pass::backward})
        running[rank] =
            std::max(running[rank], costs.transient({.pass = p, .stage = static_cast<std::uint16_t>(stage)}));
    }
  double most = 0;
  for (std::size_t r = 0; r < bytes.size(); ++r) most = std::max(most, bytes[r] + running[r]);
  const double digit = std::pow(10, std::floor(std::log10(std::max(most, 1e-300))) - 2);
  return std::ceil(most / digit * (1 - 1e-12)) * digit;
}

// Limits of bytes for every second of the usual numbers of activations, with one copy of the weights and, if some placement
// has two, with two.
template <typename CostsOn>
std::vector<double> usual_bytes(const std::vector<placement>& placements, CostsOn&& costs_on) {
  std::vector<double> caps;
  for (const std::uint32_t copies : {1u, 2u}) {
    const auto where =
        std::find_if(placements.begin(), placements.end(), [&](const placement& p) { return p.replicas() == copies; });
    if (where == placements.end()) continue;
    const stage_costs costs = costs_on(*where);
    const std::vector<double> activations = usual_activations(where->ranks());
    for (std::size_t i = 0; i < activations.size(); i += 2) caps.push_back(bytes_for(*where, costs, activations[i]));
  }
  return caps;
}

std::string in_unit(double cap, memory_unit unit, double most) {
  const pipesched::detail::memory_axis axis = pipesched::detail::memory_axis_of(unit, most);
  return axis.scale == 1 ? fmt::format("{:.6g}", cap) : fmt::format("{:.4g} {}", cap / axis.scale, axis.unit);
}

// "8 ranks, 20 micro-batches; linear, vee; more".
std::string headline_of_front(const plan_inputs& step, const std::vector<placement>& placements,
                              const std::string& more) {
  std::string names;
  for (const placement& p : placements) names += (names.empty() ? "" : ", ") + to_string(p);
  return fmt::format("{}, {}{}; placements: {}; {}\n\n", count_text(step.pp, "rank"),
                     count_text(step.micro, "micro-batch"), step.forward_only ? ", forward only" : "", names, more);
}

// A row of a front, and the titles of its columns. The bound for any placement is shown where there are several.
std::string front_titles(memory_unit unit, bool several) {
  return fmt::format("{:>9} {:<13} {:<8} {}{}\n", unit == memory_unit::bytes ? "memory" : "limit", "placement",
                     "weights", several ? fmt::format("{:>13} ", "any placement") : "", row_titles());
}
std::string front_row(const std::string& limit, const plan_result& p, double bound, bool several) {
  const placement& where = p.schedule.placement;
  return fmt::format("{:>9} {:<13} {:<8} {}{}\n", limit, to_string(where),
                     where.replicas() == 2 ? "2 copies" : "1 copy", several ? fmt::format("{:>13.8g} ", bound) : "",
                     row_of(p));
}

// A front as all formats take it.
struct front_view {
  memory_unit unit = memory_unit::activations;
  std::vector<placement> placements{};         // that were planned
  std::vector<std::string> left_out{};         // a note on each of the others
  std::vector<pareto_point> rows{};            // the columns of the text, and the points of the picture
  std::vector<nlohmann::ordered_json> json{};  // of the plans
  std::string convention{};                    // of the costs, for the first line
  std::string note{};                          // on entries that are not used, with what they are of
  std::string remarks{};                       // under the table
  bool is_interrupted = false;
  timeline last{};  // of the plan with most memory
  std::function<std::string(html_style)> page{};
  html_style style{};
};

std::string text_of(const output& to, const plan_inputs& step, const front_view& v) {
  const bool several = v.placements.size() > 1;
  std::string text = headline_of_front(step, v.placements, v.convention) + front_titles(v.unit, several);
  for (const pareto_point& p : v.rows)
    text += front_row(in_unit(p.cap, v.unit, v.rows.back().cap), p.plan, p.lower_bound, several);
  text += "\n" + v.remarks;
  for (const std::string& note : v.left_out) text += note + "\n";
  if (v.is_interrupted) text += fmt::format("{}\n", interrupted_note);
  return text + "\n" + render_text(v.last, style_of(to));
}

std::string json_of(const front_view& v) {
  nlohmann::ordered_json j = {{"memory_unit", to_string(v.unit)}};
  if (!v.style.unit.empty()) j["time_unit"] = v.style.unit;
  j["points"] = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < v.rows.size(); ++i) {
    const placement& where = v.rows[i].plan.schedule.placement;
    j["points"].push_back({{"memory_limit", v.rows[i].cap},
                           {"placement", to_string(where)},
                           {"copies_of_weights", where.replicas()},
                           {"lower_bound_for_any_placement", v.rows[i].lower_bound}});
    j["points"].back().update(v.json[i]);
  }
  if (v.is_interrupted) j["interrupted"] = true;
  return j.dump(2) + "\n";
}

std::string picture_of(const plan_inputs& step, const front_view& v) {
  const bool several = v.placements.size() > 1;
  const std::string title = fmt::format("{}{}, {}: step time against memory",
                                        several ? "" : fmt::format("{}, ", to_string(v.placements[0].kind())),
                                        count_text(step.pp, "rank"), count_text(step.micro, "micro-batch"));
  return render_front_svg(points_of(v.rows), {.title = title, .memory = v.unit, .time_unit = v.style.unit});
}

int write_front(const output& to, const plan_inputs& step, front_view v) {
  if (to.format == "svg" || to.format == "json") {
    if (!v.note.empty()) add_note(v.note);
    for (const std::string& note : v.left_out) add_note(note);
  }
  if (to.format == "html") {
    v.style.notes.insert(v.style.notes.end(), v.left_out.begin(), v.left_out.end());
    if (v.is_interrupted) v.style.notes.emplace_back(interrupted_note);
    v.style.memory = v.unit;
  }
  write_output(to.file, to.format == "svg"    ? picture_of(step, v)
                        : to.format == "html" ? v.page(v.style)
                        : to.format == "json" ? json_of(v)
                                              : text_of(to, step, v));
  return 0;
}

// Calls f(placement) for each of the placements; those that it refuses are left out with a note, unless they are named.
template <typename F>
std::vector<std::string> for_each_placement(const plan_inputs& step, F&& f) {
  std::vector<std::string> left_out;
  for (const placement& where : step.placements) {
    try {
      f(where);
    } catch (const schedule_error& e) {
      if (step.are_named || step.placements.size() == left_out.size() + 1) throw;
      left_out.push_back(fmt::format("left out: {}: {}", to_string(where), e.what()));
    }
  }
  return left_out;
}

// A note on each limit that has no point.
void note_limits(const std::vector<double>& caps, front_view& v) {
  for (const double cap : caps)
    if (std::none_of(v.rows.begin(), v.rows.end(), [&](const pareto_point& p) { return p.cap == cap; }))
      v.left_out.push_back(fmt::format("left out: {}: no plan is found that fits",
                                       in_unit(cap, v.unit, *std::max_element(caps.begin(), caps.end()))));
}

std::vector<double> activations_of_option(const arguments& args) {
  std::vector<double> caps;
  for (const std::string& one : parts_of(*args.text("--memory-limit"))) caps.push_back(limit_of_activations(one));
  return caps;
}

// The steps of --costs, one a placement.
std::vector<placed_step<>> steps_of(const plan_inputs& step, const stage_costs& given, front_view& v) {
  std::vector<placed_step<>> steps;
  v.left_out = for_each_placement(step, [&](const placement& where) {
    stage_costs costs = split_stage_costs(given, where);
    costs.check(where.stages());
    const auto micro = static_cast<std::uint32_t>(step.micro);
    steps.push_back({{.placement = where, .micro = micro, .forward_only = step.forward_only}, std::move(costs)});
    v.placements.push_back(where);
  });
  return steps;
}

// How the costs of all placements come from the numbers given.
std::string convention_of(const stage_costs& given, const std::vector<placement>& placements) {
  const auto stages = [](const placement& a, const placement& b) { return a.stages() < b.stages(); };
  const std::string most = describe_split(given, *std::max_element(placements.begin(), placements.end(), stages));
  const bool shared = placements.size() > 1 && most.starts_with("costs are of a rank's share");
  return shared ? "costs are of a rank's share, divided among its stages" : most;
}

int front_of_costs(const arguments& args, const output& to, const plan_inputs& step) {
  if (args.has("--may-recompute")) throw schedule_error("plan takes --may-recompute with --model only");
  const stage_costs given = costs_of(args);
  front_view v;
  const std::vector<placed_step<>> steps = steps_of(step, given, v);
  const bool in_bytes = !args.has("--memory-limit") && (args.has("--memory") || given.kept_by_forward != per_stage(0));
  v.unit = in_bytes ? memory_unit::bytes : memory_unit::activations;
  std::vector<double> caps = limits_of_costs(args, given);
  if (args.has("--memory-limit")) caps = activations_of_option(args);
  if (caps.empty() && in_bytes)
    caps = usual_bytes(v.placements, [&](const placement& where) { return split_stage_costs(given, where); });
  if (caps.empty()) caps = usual_activations(static_cast<std::uint32_t>(step.pp));
  progress_line line;
  const plan_limits limits = limits_of(args, pairs_that_may_run(args, given), line);
  v.rows = pareto(steps, caps, v.unit, limits);
  note_limits(caps, v);
  v.is_interrupted = line.stopped();

  const pareto_point& best = v.rows.back();
  v.convention = convention_of(given, v.placements);
  v.convention += unit_after("; times in ", given.time_unit);
  const std::string note = note_on_unused(unused_by_plan(
      {.found = best.plan.schedule, .pairs = *limits.pairs, .pairs_are_given = args.has("--pairs")}, given));
  if (!note.empty()) v.convention += "; " + note, v.note = "costs " + note;
  v.remarks = fmt::format("bound of the last: {}\n", describe_bound(best.plan.bound));
  for (const pareto_point& p : v.rows) {
    v.json.push_back(tool::json_of(p.plan));
    const std::vector<double> within(in_bytes ? 1 : 0, p.cap);
    if (knows_bytes(given))
      v.json.back()["ranks"] = tool::json_of(fits(lower(p.plan.schedule, {}, verified), steps[p.step].costs, within));
  }
  v.last = simulate(best.plan.schedule, steps[best.step].costs, verified);
  v.style = page_style_of(args, given.time_unit);
  v.style.notes = {note_on_costs(given, v.style.unit, v.convention)};
  v.page = [&](html_style style) { return page_of_front(v.rows, steps, std::move(style)); };
  return write_front(to, step, v);
}

int front_of_model(const arguments& args, const output& to, const plan_inputs& step) {
  if (args.has("--memory-limit")) throw schedule_error("plan takes --memory-limit or --model; got both");
  const model m = *given_model(args);
  front_view v;
  v.unit = memory_unit::bytes;
  std::vector<model_problem> problems;
  const auto costs_on = [&](const placement& where) {
    return pipesched::costs_of(m, uniform_partition(m, where.stages()), where);
  };
  v.left_out = for_each_placement(step, [&](const placement& where) {
    costs_on(where);
    problems.push_back({.placement = where,
                        .micro = static_cast<std::uint32_t>(step.micro),
                        .forward_only = step.forward_only,
                        .may_recompute = args.has("--may-recompute")});
    v.placements.push_back(where);
  });
  const stage_costs first = costs_on(v.placements[0]);
  std::vector<double> caps = limits_of_costs(args, first);
  if (caps.empty()) caps = usual_bytes(v.placements, costs_on);
  progress_line line;
  const plan_limits limits = limits_of(args, pairs_that_may_run(args, first), line);
  const std::vector<model_pareto_point> front = pareto(m, problems, caps, limits);

  const model_plan& best = front.back().plan;
  v.note = note_on_unused(unused_by_plan({.found = best.plan.schedule,
                                          .pairs = *limits.pairs,
                                          .pairs_are_given = args.has("--pairs"),
                                          .may_recompute = args.has("--may-recompute")},
                                         m, best.partition));
  v.convention = fmt::format("{}{}{}{}", count_text(layer_count(m), "layer"), unit_after("; times in ", m.time_unit),
                             v.note.empty() ? "" : "; ", v.note);
  for (const model_pareto_point& p : front) {
    v.rows.push_back(pipesched::detail::plain_point(p));
    v.json.push_back(tool::json_of(m, p.plan));
  }
  note_limits(caps, v);
  v.is_interrupted = line.stopped();
  v.remarks = "of the last: " + describe_partition(best.partition, m, best.plan.schedule.placement);
  v.last = simulate(best.plan.schedule, best.costs, verified);
  v.style = page_style_of(args, m.time_unit);
  v.style.notes = {v.convention};
  v.page = [&](html_style style) { return page_of_front(front, std::move(style)); };
  return write_front(to, step, v);
}

}  // namespace

int plan_front(const arguments& args, const output& to, const plan_inputs& step) {
  if (to.format == "csv") throw schedule_error("plan --pareto writes text, json, svg or html; got --format csv");
  if (args.has("--memory") && args.has("--memory-limit"))
    throw schedule_error("plan takes --memory or --memory-limit; got both");
  return args.has("--model") ? front_of_model(args, to, step) : front_of_costs(args, to, step);
}

}  // namespace tool
