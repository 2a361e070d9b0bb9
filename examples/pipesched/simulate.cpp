// SPDX-License-Identifier: MIT
// The command simulate.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <pipesched/core/notation.hpp>
#include <pipesched/core/verify.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/model/costs_of.hpp>
#include <pipesched/plan/divide.hpp>
#include <pipesched/render/chrome_trace.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/render/svg.hpp>
#include <pipesched/render/text.hpp>
#include <pipesched/simulate/explain.hpp>
#include <pipesched/support/concat.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "commands.hpp"
#include "files.hpp"
#include "inputs.hpp"
#include "memory.hpp"
#include "models.hpp"
#include "study.hpp"

namespace tool {

using namespace pipesched;

namespace {

using pipesched::detail::count_text;

std::string table_of(const metrics& m, const std::optional<memory_report>& memory) {
  std::string text =
      fmt::format("{:>5} {:>12} {:>12} {:>12} {:>6} {:>12}", "rank", "busy", "bubble", "span", "peak", "overlapped");
  if (memory) text += fmt::format(" {:>12} {:>12} {:>12} {:>12}", "weights", "activations", "buffers", "bytes");
  text += '\n';
  for (std::size_t rank = 0; rank < m.ranks.size(); ++rank) {
    const rank_metrics& r = m.ranks[rank];
    text += fmt::format("{:>5} {:>12.6g} {:>12.6g} {:>12.6g} {:>6.4g} {:>10.1f} %", rank, r.busy, r.bubble, r.span,
                        r.peak_activations, 100 * r.overlapped_fraction);
    if (memory) {
      const rank_memory& of = memory->ranks[rank];
      text +=
          fmt::format(" {:>12.6g} {:>12.6g} {:>12.6g} {:>12.6g}", of.weights, of.activations, of.buffers, of.total());
    }
    text += '\n';
  }
  return text;
}

std::string text_of(const study& of, const text_style& style) {
  const schedule& s = of.times.schedule;
  const metrics& m = of.measured;
  std::string text = fmt::format("{}: {}, {}{}; {}; idle {:.1f} %; {}\n", s.name.view(), count_text(s.pp(), "rank"),
                                 count_text(s.micro, "micro-batch"), s.forward_only ? ", forward only" : "",
                                 format_optimality_gap(m.makespan, of.bound), 100 * m.bubble_ratio, of.convention);
  text += fmt::format("bound: {}", of.bound.reason);
  text += of.bound.reason.find("rank") == of.bound.reason.npos ? "\n" : fmt::format(", rank {}\n", of.bound.rank);
  if (of.formula)
    text += fmt::format(
        "bubble by formula {} = {:.6g}{}; simulated {:.6g} on the rank that idles longest, {:.6g} on "
        "average\n",
        of.formula->formula, of.formula->bubble,
        of.formula->holds() ? "" : fmt::format(" (assumes {}: not so here)", of.formula->fails), m.max_bubble,
        m.bubble);
  if (of.noise) {
    const noisy_makespan& n = *of.noise;
    text += fmt::format(
        "noise: {}: makespan {:.6g} on average ({:+.2f} %), standard deviation {:.3g}, median {:.6g}, 5 % of the draws "
        "at most {:.6g}, 95 % at most {:.6g}\n",
        describe(n.options), n.mean, n.exact > 0 ? 100 * (n.mean - n.exact) / n.exact : 0, n.standard_deviation,
        n.median, n.percentile_5, n.percentile_95);
  }
  text += '\n' + render_text(of.times, style) + '\n' + table_of(m, of.memory);
  text += "peak: activations; 1 is one micro-batch through a rank's whole share";
  text += of.memory ? "; bytes: weights, activations at their peak, and buffers\n" : "\n";
  if (of.memory && !*of.memory)
    text += to_string(*of.memory, s) + '\n';
  else if (of.memory && std::isfinite(of.memory->ranks[0].limit))
    text += "every rank fits into its memory\n";
  text += "critical path:";
  for (cell_ref c : explain(of.times, of.costs, verified).critical_path) text += ' ' + to_string(s[c.rank][c.index]);
  return text + '\n';
}

struct named_schedule {
  schedule plan;
  bool own_order = false;                           // of its family, with default parameters
  std::optional<pipesched::partition> partition{};  // of a file
};

named_schedule schedule_of(const arguments& args, const stage_costs& costs, const std::string& format) {
  if (!args.operands.empty()) {
    planned_schedule planned = read_planned(args.operands[0]);
    refuse_parameters_beside(args, args.operands[0]);
    if (planned.partition && args.has("--partition"))
      throw schedule_error(
          fmt::format("{} has layers per stage, and --partition names others; expected one of them", args.operands[0]));
    if (planned.partition && !args.has("--model"))
      throw schedule_error(
          fmt::format("{} has layers per stage; expected --model with the model that they are of", args.operands[0]));
    return {.plan = std::move(planned.schedule), .partition = std::move(planned.partition)};
  }
  const family& f = find_family(*args.text("--family"));
  const schedule_params p = params_of(args, "simulate --family");
  const double bytes = bytes_to_study(f, p) + bytes_of_format(format, pairs_of(f, p));
  require_memory(args, f, p, bytes);
  return {.plan = make_family(f, p, costs), .own_order = !p.group_size && !p.overlap && !p.extra_warm_up};
}

// The schedule under a model, as it will run.
study study_with_model(const arguments& args, const model& m, named_schedule named) {
  const schedule_source source =
      args.has("--family") ? source_of(find_family(*args.text("--family")), params_of(args, "simulate --family"))
                           : source_of(std::move(named.plan));
  const std::string of_file = named.partition ? fmt::format("{}", fmt::join(named.partition->layers, ",")) : "uniform";
  divided_schedule of = divided_by(args, args.text("--partition").value_or(of_file), m, source);
  std::string convention = "layers per stage: " + to_string(of.partition) + unit_after("; times in ", m.time_unit);
  if (const std::string note = note_on_unused(unused_entries(of.schedule, m, of.partition)); !note.empty())
    convention += "; " + note;
  return study_of(std::move(of.schedule), std::move(of.costs), std::move(convention), named.own_order);
}

}  // namespace

int simulate(const arguments& args) {
  if (args.operands.empty() == !args.has("--family"))
    throw schedule_error("simulate takes a file, or --family with --pp and --micro");
  const output to = output_of(args, "simulate", simulate_formats);
  const std::optional<noise_options> noise = noise_of(args, to.format);
  const std::optional<model> layers = given_model(args);
  const stage_costs costs = costs_of(args);
  const std::vector<double> limits = layers ? std::vector<double>() : limits_of_costs(args, costs);
  named_schedule named = schedule_of(args, costs, to.format);
  if (const report r = verify(named.plan); !r) {
    write_output("-", to_string(r));
    return 1;
  }
  if (transforms(args)) named.own_order = false;
  if (!layers && transforms(args)) {
    const stage_costs per_stage = split_stage_costs(costs, named.plan.placement);
    named.plan = transformed(args, std::move(named.plan), per_stage);
  }
  study of = layers ? study_with_model(args, *layers, std::move(named))
                    : study_of(std::move(named.plan), costs, named.own_order);
  of.memory = memory_of(of, layers ? memory_limits(*layers, of.times.schedule.pp()) : limits);
  if (noise) of.noise = noise_of(of, *noise);
  const time_unit unit = layers ? layers->time_unit : costs.time_unit;
  if (to.format == "text") write_output(to.file, text_of(of, style_of(to)));
  if (to.format == "json") write_output(to.file, json_with_ranks(of).dump(1) + '\n');
  if (to.format == "svg") write_output(to.file, render_svg(of.times));
  if (to.format == "html") {
    html_style style = page_style_of(args, unit);
    style.notes = {layers ? of.convention : note_on_costs(costs, style.unit, of.convention),
                   "bound: " + std::string(of.bound.reason)};
    const html_panel panel = panel_of(of);
    write_output(to.file, render_html(std::span(&panel, 1), style));
  }
  if (to.format == "trace") write_output(to.file, render_chrome_trace(of.times, of.costs, trace_style_of(unit)));
  return 0;
}

}  // namespace tool
