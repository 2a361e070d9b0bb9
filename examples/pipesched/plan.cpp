// SPDX-License-Identifier: MIT
// The command plan.

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/model/costs_of.hpp>
#include <pipesched/plan/model_plan.hpp>
#include <pipesched/plan/pareto.hpp>
#include <pipesched/plan/plan.hpp>
#include <pipesched/render/front.hpp>
#include <pipesched/render/plan_page.hpp>
#include <pipesched/render/svg.hpp>
#include <pipesched/render/text.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <pipesched/support/concat.hpp>
#include <string>
#include <utility>
#include <vector>

#include "commands.hpp"
#include "files.hpp"
#include "inputs.hpp"
#include "models.hpp"
#include "plan_page.hpp"
#include "plan_report.hpp"
#include "study.hpp"

namespace tool {

using namespace pipesched;

namespace {

using pipesched::detail::count_text;

std::int64_t needed(const arguments& args, std::string_view name, std::int64_t most) {
  const auto value = whole_number_in(args, name, 1, most);
  if (!value) throw schedule_error(fmt::format("plan needs {}", name));
  return *value;
}

placement placement_of(const arguments& args, std::int64_t pp, std::int64_t micro) {
  const auto name = args.text("--placement"), family_name = args.text("--family");
  const auto chunks = whole_number_in(args, "--chunks", 1, 256);
  if (name && family_name) throw schedule_error("plan takes --placement or --family; got both");
  if (family_name) {
    const family& f = find_family(*family_name);
    schedule_params p{.pp = pp, .micro = micro, .chunks = chunks};
    if (chunks && f.limits.takes.contains(parameter::waves)) {
      if (*chunks % 2 != 0)
        throw schedule_error(fmt::format("{} has two stages per rank and wave; got --chunks {}, nearest {}", f.name,
                                         *chunks, *chunks + 1));
      p.chunks.reset(), p.waves = *chunks / 2;
    }
    require(f, p);
    return f.place(p);
  }
  const std::string kind = name.value_or(chunks.value_or(1) > 1 ? "looped" : "linear");
  for (std::size_t k = 0; k + 1 < std::size(placement_kind_names); ++k) {
    if (kind != placement_kind_names[k]) continue;
    const auto which = static_cast<placement_kind>(k);
    const std::int64_t per_rank = which == placement_kind::linear || which == placement_kind::bidirectional ? 1 : 2;
    if (chunks && which != placement_kind::looped && which != placement_kind::wave && *chunks != per_rank)
      throw schedule_error(fmt::format("a placement of kind {} has --chunks {}; got {}", kind, per_rank, *chunks));
    return placement::of_kind(which, pp, pp * chunks.value_or(per_rank), micro);
  }
  throw schedule_error(fmt::format("--placement takes linear, looped, vee, wave or bidirectional; got \"{}\"", kind));
}

pass_pair_set pairs_that_may_run(const arguments& args, const stage_costs& costs) {
  const auto text = args.text("--pairs");
  if (!text) return costs.may_overlap();
  pass_pair_set set;
  if (*text == "none") return set;
  if (*text == "any") {
    const pass all[] = {pass::forward, pass::backward, pass::backward_input};
    for (const pass a : all)
      for (const pass b : all) set.insert({a, b});
    return set;
  }
  for (std::size_t begin = 0; begin <= text->size();) {
    const std::size_t end = std::min(text->find(',', begin), text->size());
    const std::string one = text->substr(begin, end - begin);
    const auto pair = parse_pass_pair(one);
    const auto is_planned = [](pass p) {
      return p == pass::forward || p == pass::backward || p == pass::backward_input;
    };
    if (!pair || !is_planned(pair->first) || !is_planned(pair->second))
      throw schedule_error(
          fmt::format("--pairs takes pairs of F, B and I with commas between them, any or none; got \"{}\"", one));
    set.insert(*pair);
    begin = end + 1;
  }
  return set;
}

// The limits of a front: whole numbers around those that the published families need, eight at most.
std::vector<double> caps_of(const placement& where) {
  const std::uint32_t pp = where.ranks(), least = std::max(1u, pp / 2), most = pp + 4,
                      step = std::max(1u, (most - least + 7) / 8);
  std::vector<double> caps;
  for (std::uint32_t cap = most;; cap -= step) {
    caps.push_back(cap);
    if (cap < least + step) break;
  }
  return caps;
}

}  // namespace

const std::vector<option>& plan_options() {
  static const std::vector<option> all = {
      {"--pp", "N", "pipeline ranks: 1 to 4096"},
      {"--micro", "N", "micro-batches per step"},
      {"--placement", "KIND", "linear, looped, vee, wave or bidirectional; default linear, with --chunks looped"},
      {"--family", "FAMILY", "the placement of a family instead; see pipesched list"},
      {"--model", "FILE", "a model of layers in place of costs, as JSON or by name: plans its partition as well"},
      {"--memory", "X", "with --model: bytes of each rank: 80e9, 80GB or 74GiB; default: the model's"},
      {"--may-recompute", "", "with --model: stages may recompute inside their backwards, if that is better"},
      {"--chunks", "N", "stages per rank on a looped or wave placement"},
      {"--forward-only", "", "evaluation: no backwards"},
      {"--pairs", "A,B", "passes that may share a cell: FB,FI,FF,..., any or none; default: those of the costs"},
      {"--memory-limit", "X", "live activations per rank, in shares; default: no limit"},
      {"--pareto", "", "plans for several limits of memory; --evaluations are for all together"},
      {"--evaluations", "N", "simulations of the step to spend; default 200000"},
      {"--seed", "N", "of the search: 0 or more; default 1"},
      {"--threads", "N", "1 to 256; the plan does not depend on it; default 1"}};
  return all;
}

namespace {

// The limits of the options; the line shows the progress, and must outlive them.
plan_limits limits_of(const arguments& args, const pass_pair_set& pairs, progress_line& line) {
  plan_limits limits{
      .pairs = pairs,
      .evaluations = static_cast<std::uint64_t>(whole_number_in(args, "--evaluations", 1, 1LL << 40).value_or(200'000)),
      .seed = static_cast<std::uint64_t>(whole_number_in(args, "--seed", 0, 1LL << 53).value_or(1)),
      .threads = static_cast<unsigned>(whole_number_in(args, "--threads", 1, 256).value_or(1))};
  limits.progress = [&line, all = limits.evaluations](const plan_progress& p) { return line(p, all); };
  return limits;
}

std::string headline(const placement& where, std::int64_t micro, bool forward_only, const std::string& more) {
  return fmt::format("{} placement, {}, {}, {}{}; {}\n\n", to_string(where.kind()), count_text(where.ranks(), "rank"),
                     count_text(where.stages(), "stage"), count_text(micro, "micro-batch"),
                     forward_only ? ", forward only" : "", more);
}

int write_plans(const output& to, const plan_problem& problem, const std::vector<pareto_point>& front, bool is_front,
                const stage_costs& costs, const std::string& convention, const plan_page& page) {
  const plan_result& best = front.back().plan;
  if (to.format == "csv") {
    write_csv(to.file, best.schedule);
  } else if (to.format == "svg") {
    const std::string title =
        fmt::format("{}, {}, {}: step time against memory", to_string(problem.placement.kind()),
                    count_text(problem.placement.ranks(), "rank"), count_text(problem.micro, "micro-batch"));
    write_output(to.file, is_front ? render_front_svg(points_of(front), {.title = title})
                                   : render_svg(simulate(best.schedule, costs, verified)));
  } else if (to.format == "html") {
    write_output(to.file, is_front ? page_of_front(front, costs, page.style) : page_of_plan(page, best, costs));
  } else if (to.format == "json") {
    nlohmann::ordered_json j = tool::json_of(best);
    if (is_front) {
      j = {{"points", nlohmann::ordered_json::array()}};
      for (const pareto_point& p : front) {
        j["points"].push_back({{"memory_limit", p.cap}});
        j["points"].back().update(tool::json_of(p.plan));
      }
    }
    write_output(to.file, j.dump(2) + "\n");
  } else {
    std::string text = headline(problem.placement, problem.micro, problem.forward_only, convention) + row_titles();
    double evaluations = 0;
    for (const pareto_point& p : front) text += row_of(p.plan), evaluations += p.plan.evaluations;
    text += fmt::format("\n{:.0f} evaluations; bound: {}\n\n{}", evaluations, describe_bound(best.bound),
                        render_text(simulate(best.schedule, costs, verified), style_of(to)));
    write_output(to.file, text);
  }
  return 0;
}

int plan_with_costs(const arguments& args, const output& to, const plan_problem& problem) {
  for (const char* option : {"--memory", "--may-recompute"})
    if (args.has(option)) throw schedule_error(fmt::format("plan takes {} with --model only", option));
  const stage_costs given = costs_of(args), costs = split_stage_costs(given, problem.placement);
  progress_line line;
  plan_limits limits = limits_of(args, pairs_that_may_run(args, costs), line);
  const bool is_front = args.has("--pareto");
  std::vector<pareto_point> front;
  if (is_front) {
    if (args.has("--memory-limit")) throw schedule_error("plan takes --memory-limit or --pareto; got both");
    if (to.format == "csv") throw schedule_error("plan --pareto writes text, json, svg or html; got --format csv");
    front = pareto(problem, costs, caps_of(problem.placement), limits);
  } else {
    limits.memory.activations = args.number("--memory-limit");
    front.push_back({0, pipesched::plan(problem, costs, limits)});
  }
  plan_page page{.problem = problem,
                 .given = given,
                 .memory_limit = limits.memory.activations,
                 .style = page_style_of(args, given.time_unit)};
  std::string convention = describe_split(given, problem.placement) + unit_after("; times in ", given.time_unit);
  const std::string note = note_on_unused(unused_by_plan(
      {.found = front.back().plan.schedule, .pairs = *limits.pairs, .pairs_are_given = args.has("--pairs")}, given));
  if (!note.empty()) convention += "; " + note;
  if (!note.empty() && (to.format == "csv" || to.format == "svg" || to.format == "json")) add_note("costs " + note);
  page.style.notes = {note_on_costs(given, page.style.unit, convention)};
  return write_plans(to, problem, front, is_front, costs, convention, page);
}

int plan_with_model(const arguments& args, const output& to, const plan_problem& problem) {
  for (const char* option : {"--memory-limit", "--pareto"})
    if (args.has(option)) throw schedule_error(fmt::format("plan takes {} or --model; got both", option));
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
    write_output(to.file, page_of_plan(args, m, found, note));
  } else if (to.format == "json") {
    nlohmann::ordered_json j = tool::json_of(m, found);
    if (!unused.empty()) j["not_used"] = unused;
    write_output(to.file, j.dump(2) + "\n");
  } else {
    const std::string layers = fmt::format("{} layers{}{}{}", layer_count(m), unit_after("; times in ", m.time_unit),
                                           note.empty() ? "" : "; ", note);
    write_output(to.file, headline(problem.placement, problem.micro, problem.forward_only, layers) +
                              tool::text_of(m, found) + render_text(simulate(s, found.costs, verified), style_of(to)));
  }
  return 0;
}

}  // namespace

int plan(const arguments& args) {
  const output to = output_of(args, "plan", plan_formats);
  const std::int64_t pp = needed(args, "--pp", 4096), micro = needed(args, "--micro", 1 << 20);
  const plan_problem problem{.placement = placement_of(args, pp, micro),
                             .micro = static_cast<std::uint32_t>(micro),
                             .forward_only = args.has("--forward-only")};
  return args.has("--model") ? plan_with_model(args, to, problem) : plan_with_costs(args, to, problem);
}

}  // namespace tool
