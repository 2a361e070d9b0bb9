// SPDX-License-Identifier: MIT

#include "plan_inputs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <pipesched/generate/families.hpp>
#include <pipesched/plan/pareto.hpp>
#include <pipesched/support/concat.hpp>
#include <string>
#include <vector>

#include "inputs.hpp"

namespace tool {

using namespace pipesched;

const std::vector<option>& plan_options() {
  static const std::vector<option> all = {
      {"--pp", "N", "pipeline ranks: 1 to 4096"},
      {"--micro", "N", "micro-batches per step"},
      {"--placement", "KIND",
       "linear, looped, vee, wave or bidirectional; looped and wave with stages per rank, as looped 3, or with "
       "--chunks; "
       "default linear, with --chunks looped; with --pareto also several, as linear,wave 4, default all with up to 4 "
       "stages per rank"},
      {"--family", "FAMILY", "the placement of a family instead; see pipesched list"},
      {"--model", "FILE", "a model of layers in place of costs, as JSON or by name: plans its partition as well"},
      {"--memory", "X",
       "bytes of each rank: 80e9, 80GB or 74GiB; default: the model's; with --pareto several: 60GB,80GB"},
      {"--may-recompute", "", "with --model: stages may recompute inside their backwards, if that is better"},
      {"--chunks", "N", "stages per rank on a looped or wave placement"},
      {"--forward-only", "", "evaluation: no backwards"},
      {"--pairs", "A,B", "passes that may share a cell: FB,FI,FF,..., any or none; default: those of the costs"},
      {"--memory-limit", "X",
       "live activations per rank, in shares; default: no limit; with --pareto several: 6,7.5,9"},
      {"--pareto", "", "plans for several limits of memory, over placements; --evaluations are for all together"},
      {"--evaluations", "N", "simulations of the step to spend; default 200000"},
      {"--seed", "N", "of the search: 0 or more; default 1"},
      {"--threads", "N", "1 to 256; the plan does not depend on it; default 1"}};
  return all;
}

namespace {

std::int64_t needed(const arguments& args, std::string_view name, std::int64_t most) {
  const auto value = whole_number_in(args, name, 1, most);
  if (!value) throw schedule_error(fmt::format("plan needs {}", name));
  return *value;
}

placement placement_of_family(const arguments& args, std::string_view name, std::int64_t pp, std::int64_t micro,
                              std::optional<std::int64_t> chunks) {
  const auto kinds = std::span(placement_kind_names).first(std::size(placement_kind_names) - 1);  // without custom
  if (std::find(kinds.begin(), kinds.end(), name) != kinds.end())
    throw schedule_error(fmt::format("--family takes a family, and {0} is a placement: --placement {0}", name));
  const family& f = find_family(name);
  schedule_params p{.pp = pp, .micro = micro, .chunks = chunks};
  if (chunks && f.limits.takes.contains(parameter::waves)) {
    if (*chunks % 2 != 0)
      throw schedule_error(fmt::format("{} has two stages per rank and wave; got --chunks {}, nearest {}", f.name,
                                       *args.text("--chunks"), *chunks + 1));
    p.chunks.reset(), p.waves = *chunks / 2;
  }
  require(f, p);
  return f.place(p);
}

[[noreturn]] void refuse_placement(std::string_view text) {
  for (const family& f : families)
    if (f.name == text)
      throw schedule_error(
          fmt::format("--placement takes a kind, and {} is a family; its placement: --family {}", text, text));
  throw schedule_error(
      fmt::format("--placement takes linear, looped, vee, wave or bidirectional, and stages per rank after looped and "
                  "wave, as in looped 3; got {}",
                  in_quotes(text)));
}

// "looped 3", as placements are printed: the kind alone, and the number in place of that of --chunks.
std::string_view kind_of(std::string_view text, std::optional<std::int64_t>& chunks) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  const std::size_t space = text.find(' ');
  if (space == text.npos) return text;
  const auto number = whole_numbers(text.substr(space + 1));
  const std::string_view kind = text.substr(0, space);
  if (!number || number->size() != 1 || (kind != "looped" && kind != "wave")) refuse_placement(text);
  const std::int64_t n = number->front(), step = kind == "wave" ? 2 : 1;
  const std::int64_t in_range = std::clamp<std::int64_t>(n, step, max_chunks), nearest = in_range + in_range % step;
  if (n != nearest)
    throw schedule_error(fmt::format("{} has {}{} stages per rank; got {}, nearest {} {}", kind,
                                     step == 2 ? "an even number of 2 to " : "1 to ", max_chunks, text, kind, nearest));
  if (chunks && *chunks != n)
    throw schedule_error(fmt::format("--chunks {} and {} differ; expected one of them", *chunks, text));
  chunks = n;
  return kind;
}

placement placement_of_kind(std::string_view text, std::int64_t pp, std::int64_t micro,
                            std::optional<std::int64_t> chunks) {
  const std::string_view kind = kind_of(text, chunks);
  for (std::size_t k = 0; k + 1 < std::size(placement_kind_names); ++k) {
    if (kind != placement_kind_names[k]) continue;
    const auto which = static_cast<placement_kind>(k);
    const std::int64_t per_rank = which == placement_kind::linear || which == placement_kind::bidirectional ? 1 : 2;
    if (chunks && which != placement_kind::looped && which != placement_kind::wave && *chunks != per_rank)
      throw schedule_error(fmt::format("a placement of kind {} has --chunks {}; got {}", kind, per_rank, *chunks));
    return placement::of_kind(which, pp, pp * chunks.value_or(per_rank), micro);
  }
  refuse_placement(text);
}

bool is_planned(pass p) { return p == pass::forward || p == pass::backward || p == pass::backward_input; }

}  // namespace

plan_inputs plan_inputs_of(const arguments& args) {
  const std::int64_t pp = needed(args, "--pp", 4096), micro = needed(args, "--micro", 1 << 20);
  plan_inputs step{.pp = pp, .micro = micro, .forward_only = args.has("--forward-only"), .placements = {}};
  const auto kinds = args.text("--placement"), family_name = args.text("--family");
  const auto chunks = whole_number_in(args, "--chunks", 1, 256);
  if (kinds && family_name) throw schedule_error("plan takes --placement or --family; got both");
  if (family_name) {
    step.placements = {placement_of_family(args, *family_name, pp, micro, chunks)};
  } else if (kinds) {
    const std::vector<std::string> all = parts_of(*kinds);
    if (all.size() > 1 && !args.has("--pareto"))
      throw schedule_error(
          fmt::format("plan takes several placements with --pareto only; got --placement {}", in_quotes(*kinds)));
    for (const std::string& kind : all) {
      const placement where = placement_of_kind(kind, pp, micro, chunks);
      const auto same = [&](const placement& p) { return same_stages_on_ranks(p, where); };
      if (std::none_of(step.placements.begin(), step.placements.end(), same)) step.placements.push_back(where);
    }
  } else if (chunks.value_or(1) > 1) {
    step.placements = {placement::looped(pp, *chunks)};
  } else {
    step.are_named = !args.has("--pareto") || chunks;
    step.placements = step.are_named ? std::vector{placement::linear(pp)} : placements_for(pp, micro);
  }
  return step;
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
  for (const std::string& one : parts_of(*text)) {
    const auto pair = parse_pass_pair(one);
    if (!pair || !is_planned(pair->first) || !is_planned(pair->second))
      throw schedule_error(
          fmt::format("--pairs takes pairs of F, B and I with commas between them, any or none; got \"{}\"", one));
    if (args.has("--forward-only") && (pair->first != pass::forward || pair->second != pass::forward))
      throw schedule_error(fmt::format("--forward-only has no backwards; got --pairs {}, nearest FF", one));
    set.insert(*pair);
  }
  return set;
}

double limit_of_activations(const std::string& text) {
  const double limit = number_of_text("--memory-limit", text);
  if (!(limit > 0) || !std::isfinite(limit))
    throw schedule_error(fmt::format("--memory-limit takes a finite number of live activations above 0; got {}{}",
                                     in_quotes(text), limit <= 0 ? ", nearest 1" : ""));
  return limit;
}

std::string plan_headline(const plan_problem& problem, const std::string& more) {
  using pipesched::detail::count_text;
  const placement& where = problem.placement;
  return fmt::format("{} placement, {}, {}, {}{}; {}\n\n", to_string(where.kind()), count_text(where.ranks(), "rank"),
                     count_text(where.stages(), "stage"), count_text(problem.micro, "micro-batch"),
                     problem.forward_only ? ", forward only" : "", more);
}

plan_limits limits_of(const arguments& args, const pass_pair_set& pairs, progress_line& line) {
  plan_limits limits{
      .pairs = pairs,
      .evaluations = static_cast<std::uint64_t>(whole_number_in(args, "--evaluations", 1, 1LL << 40).value_or(200'000)),
      .seed = static_cast<std::uint64_t>(whole_number_in(args, "--seed", 0, 1LL << 53).value_or(1)),
      .threads = static_cast<unsigned>(whole_number_in(args, "--threads", 1, 256).value_or(1))};
  limits.progress = [&line, all = limits.evaluations](const plan_progress& p) { return line(p, all); };
  return limits;
}

}  // namespace tool
