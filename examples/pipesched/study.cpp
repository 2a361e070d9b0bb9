// SPDX-License-Identifier: MIT
// simulate, compare

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <pipesched/generate/families.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/simulate/closed_form_of.hpp>
#include <pipesched/render/chrome_trace.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/render/svg.hpp>
#include <string>
#include <vector>

#include "commands.hpp"
#include "files.hpp"

namespace tool {

namespace {

using namespace pipesched;

struct study {
  stage_costs costs;
  timeline times;
  metrics measured;
  lower_bound_result bound;
  std::optional<closed_form> formula;
};

study studied(schedule s, const stage_costs& costs, bool own_order) {
  study of{.costs = costs, .times = simulate(std::move(s), costs, verified), .measured = {}, .bound = {}, .formula = {}};
  const schedule& plan = of.times.schedule;
  of.measured = measure(of.times, costs);
  of.bound = lower_bound(plan, costs);
  of.formula = closed_form_of(plan, costs, own_order);
  return of;
}

std::string text_of(const study& of, const stage_costs& costs, const text_style& style) {
  const schedule& s = of.times.schedule;
  const metrics& m = of.measured;
  std::string text = fmt::format("{}: {} ranks, {} micro-batches{}; {}; idle {:.1f} %\n", s.name.view(), s.pp(),
                                 s.micro, s.forward_only ? ", forward only" : "",
                                 format_optimality_gap(m.makespan, of.bound), 100 * m.bubble_ratio);
  text += fmt::format("bound: {}, rank {}\n", of.bound.reason, of.bound.rank);
  if (of.formula)
    text += fmt::format(
        "bubble by formula {} = {:.6g}{}; simulated {:.6g} on average\n", of.formula->formula, of.formula->bubble,
        of.formula->holds() ? "" : fmt::format(" (assumes {}: not so here)", of.formula->fails), m.bubble);
  text += '\n' + render_text(of.times, style) + '\n';
  text += fmt::format("{:>5} {:>12} {:>12} {:>12} {:>6} {:>12} {:>11}\n", "rank", "busy", "bubble", "span", "peak",
                      "peak bytes", "overlapped");
  for (std::size_t rank = 0; rank < m.ranks.size(); ++rank) {
    const rank_metrics& r = m.ranks[rank];
    text += fmt::format("{:>5} {:>12.6g} {:>12.6g} {:>12.6g} {:>6} {:>12.6g} {:>9.1f} %\n", rank, r.busy, r.bubble,
                        r.span, r.peak_activations, r.peak_bytes, 100 * r.overlapped_fraction);
  }
  text += "critical path:";
  for (cell_ref c : explain(of.times, costs).critical_path) text += ' ' + to_string(s[c.rank][c.index]);
  return text + '\n';
}

nlohmann::ordered_json json_of(const study& of) {
  const schedule& s = of.times.schedule;
  const metrics& m = of.measured;
  nlohmann::ordered_json j = {{"name", s.name.view()},
                              {"pp", s.pp()},
                              {"stages", s.stages()},
                              {"micro", s.micro},
                              {"makespan", m.makespan},
                              {"bubble_ratio", m.bubble_ratio},
                              {"span", m.span},
                              {"lower_bound", of.bound.makespan},
                              {"lower_bound_reason", of.bound.reason},
                              {"gap", of.bound.gap(m.makespan)}};
  if (of.formula)
    j["closed_form"] = {{"formula", of.formula->formula},
                        {"bubble", of.formula->bubble},
                        {"peak_activations", of.formula->peak_activations},
                        {"holds", of.formula->holds()},
                        {"source", of.formula->source}};
  j["peak_activations"] = m.peak_activations;
  j["peak_bytes"] = m.peak_bytes;
  j["parameter_copies"] = m.parameter_copies;
  j["weight_bytes"] = m.weight_bytes;
  j["overlapped_fraction"] = m.overlapped_fraction;
  return j;
}

nlohmann::ordered_json json_with_ranks(const study& of, const stage_costs& costs) {
  nlohmann::ordered_json j = json_of(of);
  for (const rank_metrics& r : of.measured.ranks)
    j["ranks"].push_back({{"busy", r.busy},
                          {"bubble", r.bubble},
                          {"span", r.span},
                          {"peak_activations", r.peak_activations},
                          {"peak_activations_at", r.peak_activations_at},
                          {"peak_bytes", r.peak_bytes},
                          {"peak_bytes_at", r.peak_bytes_at},
                          {"overlapped_fraction", r.overlapped_fraction}});
  j["critical_path"] = nlohmann::ordered_json::array();
  for (cell_ref c : explain(of.times, costs).critical_path)
    j["critical_path"].push_back(to_string(of.times.schedule[c.rank][c.index]));
  return j;
}

}  // namespace

int simulate(const std::string& file, size_options sizes, const cost_options& cost, const output_options& output) {
  if (file.empty() == sizes.family.empty())
    throw schedule_error("simulate takes a file, or --family with --pp and --micro");
  const stage_costs costs = read_costs(cost);
  if (file.empty() && find_family(sizes.family).limits.takes.contains(parameter::costs)) sizes.params.costs = costs;
  schedule plan = !file.empty() ? read_schedule(file) : make_schedule(sizes.family, sizes.params);
  if (const report r = pipesched::verify(plan); !r) {
    write_output("-", to_string(r));
    return 1;
  }
  const study of = studied(std::move(plan), costs, file.empty());
  if (output.format == "text") write_output(output.file, text_of(of, costs, terminal_style(output)));
  if (output.format == "json") write_output(output.file, json_with_ranks(of, costs).dump(1) + '\n');
  if (output.format == "svg") write_output(output.file, render_svg(of.times));
  if (output.format == "html") write_output(output.file, render_html(make_panel(of.times, costs)));
  if (output.format == "trace") write_output(output.file, render_chrome_trace(of.times, costs));
  return 0;
}

int compare(const size_options& sizes, const std::vector<std::string>& names, const cost_options& cost,
            const output_options& output) {
  for (const std::string& name : names) find_family(name);  // refuses an unknown one before any work is done
  const stage_costs share = read_costs(cost);
  std::vector<study> studies;
  std::string left_out;
  for (const family& f : families) {
    const bool asked = std::find(names.begin(), names.end(), f.name) != names.end();
    if (!names.empty() && !asked) continue;
    try {
      schedule_params params = sizes.params;
      params.costs = share;
      schedule s = f.make(keep_taken(params, f.limits));
      const stage_costs costs = split_stage_costs(share, s.placement);
      studies.push_back(studied(std::move(s), costs, true));
    } catch (const schedule_error& e) {
      if (asked || names.empty() == (f.name == families[0].name)) throw;  // costs or sizes that no family takes
      left_out += fmt::format("left out: {}\n", e.what());
    }
  }
  std::stable_sort(studies.begin(), studies.end(),
                   [](const study& a, const study& b) { return a.measured.makespan < b.measured.makespan; });
  if (output.format == "html") {
    std::vector<html_panel> panels;
    for (study& of : studies) panels.push_back(make_panel(std::move(of.times), of.costs));
    write_output(output.file, render_html(panels));
    return 0;
  }
  if (output.format == "json") {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const study& of : studies) all.push_back(json_of(of));
    write_output(output.file, all.dump(1) + '\n');
    return 0;
  }
  std::string text = fmt::format(
      "{} ranks, {} micro-batches{}; costs are of one rank's share of the model, which a family with "
      "several stages a rank divides among them\n",
      sizes.params.pp, sizes.params.micro, sizes.params.forward_only ? ", forward only" : "");
  text += fmt::format("{:<18} {:>10} {:>10} {:>8} {:>10} {:>10} {:>7} {:>6} {:>11} {:>11}\n", "schedule", "makespan",
                      "span", "bubble", "formula", "at least", "gap", "peak", "peak bytes", "parameters");
  bool marked = false;
  for (const study& of : studies) {
    const metrics& m = of.measured;
    std::string formula = "-";
    if (of.formula) {
      formula = fmt::format("{:.1f} %{}", 100 * of.formula->bubble / m.makespan, of.formula->holds() ? "" : "*");
      marked = marked || !of.formula->holds();
    }
    text +=
        fmt::format("{:<18} {:>10.6g} {:>10.6g} {:>6.1f} % {:>10} {:>10.6g} {:>5.1f} % {:>6.4g} {:>11.5g} {:>10.3g}x\n",
                    of.times.schedule.name.view(), m.makespan, m.span, 100 * m.bubble_ratio, formula, of.bound.makespan,
                    100 * of.bound.gap(m.makespan), m.peak_activations, m.peak_bytes, m.parameter_copies);
  }
  text +=
      "makespan: from 0 to the last end; span: from a rank's first start to its last end, the longest; peak: "
      "activations of one "
      "micro-batch through a rank's share of the model; formula: the published bubble\n";
  if (marked)
    text += "* the formula's assumptions do not hold here (such as F = I = W): believe the simulated bubble\n";
  write_output(output.file, text + left_out);
  return 0;
}

}  // namespace tool
