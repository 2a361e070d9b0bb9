// SPDX-License-Identifier: MIT
// The command compare.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/plan/divide.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/support/concat.hpp>
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

constexpr double default_memory = 2.0 * (std::size_t{1} << 30);

// The numbers of one family, and its timeline for a page.
struct row {
  std::string name;
  metrics measured;
  lower_bound_result bound;
  std::optional<closed_form> formula;
  nlohmann::ordered_json json;
  std::optional<double> uniform_makespan{};  // with a partition that was searched
  bool uniform_fits = true;                  // the memory of the ranks
  std::optional<html_panel> panel{};
  std::optional<noisy_makespan> noise{};
};

struct omission {
  std::string name, reason;
  bool for_memory = false;
};

// "left out: dualpipe needs an even number ...".
std::string line_of(const omission& o) {
  const bool named = o.reason.starts_with(o.name + ' ');
  return "left out: " + (named ? o.reason : o.name + ": " + o.reason);
}

// Shows the family in progress on standard error if that is a terminal.
class progress {
 public:
  void show(std::string_view name, std::size_t number, std::size_t all) const {
    if (terminal_) std::cerr << fmt::format("\r\x1b[K{} ({} of {})", name, number, all) << std::flush;
  }
  ~progress() {
    if (terminal_) std::cerr << "\r\x1b[K" << std::flush;
  }

 private:
  bool terminal_ = isatty(STDERR_FILENO) != 0;
};

std::vector<const family*> families_of(const arguments& args) {
  std::vector<const family*> chosen;
  const std::optional<std::string> given = args.text("--families");
  if (!given) {
    for (const family& f : families) chosen.push_back(&f);
    return chosen;
  }
  for (const std::string& name : parts_of(*given)) {
    if (name.empty()) throw schedule_error("--families takes names with commas between them; got " + in_quotes(*given));
    const family* f = &find_family(name);
    if (std::find(chosen.begin(), chosen.end(), f) != chosen.end())
      throw schedule_error("--families names " + name + " twice; expected once");
    chosen.push_back(f);
  }
  return chosen;
}

// One line for every parameter that only some families take: "chunks = 4: interleaved_1f1b, looped_bfs".
std::string lines_on_parameters(const schedule_params& p, const std::vector<const family*>& chosen,
                                const arguments& args) {
  std::string text;
  for (parameter which : all_parameters) {
    if (which == parameter::costs || !is_given(p, which)) continue;
    std::vector<std::string_view> takers, all_takers;
    for (const family* f : chosen)
      if (f->limits.takes.contains(which)) takers.push_back(f->name);
    for (const family& f : families)
      if (f.limits.takes.contains(which)) all_takers.push_back(f.name);
    const std::string option = option_of(which);
    if (takers.empty())
      throw schedule_error(
          fmt::format("no compared family takes {}; expected {} in --families", option, list_of(all_takers)));
    const std::string value = *args.text(option);
    text += wrapped(fmt::format("{}{}{}: for {}", option, value.empty() ? "" : " ", value, list_of(takers, "and")));
    text += '\n';
  }
  return text;
}

// "12.3G" for 12.3e9.
std::string with_prefix(double number) {
  constexpr std::array<std::string_view, 7> prefixes = {"", "k", "M", "G", "T", "P", "E"};
  std::size_t i = 0;
  for (; number >= 999.5 && i + 1 < prefixes.size(); ++i) number /= 1000;
  return fmt::format("{:.3g}{}", number, prefixes[i]);
}

// The columns that are not in every table.
struct contents {
  explicit contents(const std::vector<row>& rows) {
    for (const row& r : rows) {
      formulas = formulas || r.formula;
      failing_formulas = failing_formulas || (r.formula && !r.formula->holds());
      bytes = bytes || r.measured.peak_bytes > 0;
      weights = weights || r.measured.weight_bytes > 0;
      copies = copies || r.measured.parameter_copies != 1;
      uniform = uniform || r.uniform_makespan;
      uniform_fits = uniform_fits && r.uniform_fits;
      noise = noise || r.noise;
    }
    copies = copies && !weights;
    idle = !bytes && !weights;
    bubble = span = !noise;  // 80 columns
    formulas = formulas && bubble, failing_formulas = failing_formulas && bubble;
  }

  bool idle = false, formulas = false, failing_formulas = false, bytes = false, weights = false, copies = false,
       uniform = false, uniform_fits = true, noise = false, bubble = true, span = true;
};

struct column {
  std::string name;
  std::vector<std::string> cells;
};

// Columns of a table, without those that would be empty. If memory is given, its columns replace others.
std::vector<column> columns_of(const std::vector<row>& rows, int digits, bool with_span) {
  std::vector<column> columns;
  const auto add = [&](const char* name, auto&& cell) {
    column c{.name = name, .cells = {}};
    for (const row& r : rows) c.cells.push_back(cell(r));
    columns.push_back(std::move(c));
  };
  const auto number = [&](double value) { return fmt::format("{:.{}g}", value, digits); };
  const auto percent = [](double part, const row& r) {
    return fmt::format("{:.1f}", r.measured.makespan > 0 ? 100 * part / r.measured.makespan : 0);
  };
  const contents has(rows);
  add("schedule", [](const row& r) { return r.name; });
  add("makespan", [&](const row& r) { return number(r.measured.makespan); });
  if (has.uniform)
    add("uniform", [&](const row& r) { return r.uniform_fits ? number(*r.uniform_makespan) : "no fit"; });
  if (has.noise) {
    add("mean", [&](const row& r) { return number(r.noise->mean); });
    add("95 %", [&](const row& r) { return number(r.noise->percentile_95); });
  }
  if (has.span && with_span) add("span", [&](const row& r) { return number(r.measured.span); });
  if (has.idle) add("idle", [&](const row& r) { return percent(r.measured.bubble, r); });
  if (has.bubble) add("bubble", [&](const row& r) { return percent(r.measured.max_bubble, r); });
  if (has.formulas)
    add("formula", [&](const row& r) {
      return r.formula ? percent(r.formula->bubble, r) + (r.formula->holds() ? " " : "*") : "";
    });
  add("bound", [&](const row& r) { return number(r.bound.makespan); });
  add("gap", [&](const row& r) { return fmt::format("{:.1f}", 100 * r.bound.gap(r.measured.makespan)); });
  add("peak", [](const row& r) { return fmt::format("{:.4g}", r.measured.peak_activations); });
  if (has.bytes) add("bytes", [](const row& r) { return with_prefix(r.measured.peak_bytes); });
  if (has.copies) add("copies", [](const row& r) { return fmt::format("{:.3g}", r.measured.parameter_copies); });
  if (has.weights) add("weights", [](const row& r) { return with_prefix(r.measured.weight_bytes); });
  return columns;
}

std::string table_of(const std::vector<column>& columns) {
  std::vector<std::size_t> widths;
  for (const column& c : columns) {
    widths.push_back(c.name.size());
    for (const std::string& cell : c.cells) widths.back() = std::max(widths.back(), cell.size());
  }
  std::string text;
  const auto add_line = [&](auto&& cell) {
    std::string line;
    for (std::size_t i = 0; i < columns.size(); ++i)
      line += i == 0 ? fmt::format("{:<{}}", cell(columns[i]), widths[i])
                     : fmt::format(" {:>{}}", cell(columns[i]), widths[i]);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
  };
  add_line([](const column& c) { return c.name; });
  for (std::size_t n = 0; n < columns[0].cells.size(); ++n) add_line([&](const column& c) { return c.cells[n]; });
  return text;
}

// The table with as many digits as fit, without the span if three digits do not fit with it.
std::string table_of(const std::vector<row>& rows) {
  constexpr std::size_t max_width = 80;
  std::string text;
  for (int digits : {6, 5, 4, 3, 2}) {
    text = table_of(columns_of(rows, std::max(digits, 3), digits > 2));
    std::size_t width = 0;
    for (const std::string& line : lines_of(text)) width = std::max(width, line.size());
    if (width <= max_width) break;
  }
  return text;
}

// How the costs given become costs per stage, for families with different numbers of stages.
std::string convention_of(const stage_costs& given, std::int64_t pp, const std::vector<const family*>& chosen) {
  std::string arrays;
  bool shares = false;
  stage_costs::for_each_field(given, [&](const auto& field, std::string_view name) {
    const per_stage* values = nullptr;
    if constexpr (requires { field.has_value(); }) {
      if (field) values = &*field;
    } else {
      values = &field;
    }
    if (!values || stage_costs::is_per_cut(name)) return;
    const auto count = static_cast<std::int64_t>(values->values().size());
    if (count != 1 && count != pp) arrays.append(arrays.empty() ? "" : ", ").append(name);
    shares = shares || count == pp;
  });
  std::string text = "costs are of a rank's share, split among its stages";
  std::vector<std::string_view> bidirectional;  // as many stages as ranks, of which each rank holds two
  for (const family* f : chosen)
    if (f->place({.pp = 2, .micro = 2}).replicas() == 2) bidirectional.push_back(f->name);
  if (shares && pp > 1 && !bidirectional.empty())
    text += fmt::format(" (of {} per stage)", list_of(bidirectional, "and"));
  if (!arrays.empty()) text += "; per stage: " + arrays;
  return text + unit_after("; times in ", given.time_unit);
}

std::string convention_of(const model& m, const std::string& partition) {
  const std::string with =
      partition == "best" ? "each family with the best partition found" : "partition: " + partition;
  return fmt::format("{}, {}{}", count_text(layer_count(m), "layer"), with, unit_after("; times in ", m.time_unit));
}

// The meaning of the columns. @pre not empty
std::string legend_of(const std::vector<row>& rows) {
  const contents has(rows);
  std::string text = "makespan: last end from 0";
  text += has.span ? "; span: longest from first start to last end of a rank\n" : "\n";
  if (has.noise) {
    text += wrapped("mean, 95 %: average makespan, and the one that 95 % of the draws do not exceed; " +
                    describe(rows[0].noise->options));
    text += '\n';
  }
  if (has.uniform) text += "uniform: makespan with as many layers on every stage\n";
  if (!has.uniform_fits) text += "no fit: that partition does not fit the memory of the ranks\n";
  if (has.idle) text += "idle: mean over the ranks";
  if (has.idle) text += has.bubble ? "; idle, bubble and formula in % of the makespan\n" : ", in % of the makespan\n";
  if (has.bubble) text += "bubble: idle time of the rank that idles longest";
  if (has.bubble) text += has.formulas ? "; formula: as published\n" : "\n";
  if (has.failing_formulas) text += "* an assumption of the formula fails here: believe the simulated bubble\n";
  text +=
      "bound: no order of such cells is shorter; gap: (makespan - bound) / bound in %\n"
      "peak: activations; 1 is one micro-batch through a rank's whole share\n";
  if (has.copies) text += "copies: of the parameters of a rank's share, held by one rank\n";
  if (has.bytes) text += "bytes: of activations, the highest peak of a rank; k = 1000\n";
  if (has.weights) text += "weights: bytes of parameters, gradients and optimizer state, highest per rank\n";
  return text;
}

std::string text_of(const std::vector<row>& rows, const std::vector<omission>& omitted, const schedule_params& p,
                    const std::string& convention, const std::string& notes) {
  std::string text = wrapped(fmt::format("{}, {}{}; {}", count_text(p.pp, "rank"), count_text(p.micro, "micro-batch"),
                                         p.forward_only ? ", forward only" : "", convention));
  text += '\n' + notes;
  if (!rows.empty()) text += table_of(rows) + legend_of(rows);
  for (const omission& o : omitted) text += wrapped(line_of(o)) + '\n';
  return text;
}

std::string json_of(const std::vector<row>& rows, const std::vector<omission>& omitted) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const row& r : rows) all.push_back(r.json);
  for (const omission& o : omitted) all.push_back({{"name", o.name}, {"left_out", o.reason}});
  return all.dump(1) + '\n';
}

std::string html_of(std::vector<row>& rows, const std::vector<omission>& omitted, const std::string& convention,
                    const std::string& lines, html_style style) {
  std::vector<html_panel> panels;
  for (row& r : rows) panels.push_back(std::move(*r.panel));
  style.notes = {convention};
  for (std::string& line : lines_of(lines)) style.notes.push_back(std::move(line));
  for (const omission& o : omitted) style.notes.push_back(line_of(o));
  return render_html(panels, style);
}

// Simulates the families one after the other; a page keeps the timelines, the other formats only numbers.
class comparison {
 public:
  comparison(const arguments& args, const schedule_params& p, const stage_costs& costs, const std::optional<model>& m,
             const std::vector<double>& limits, const std::optional<noise_options>& noise, bool keeps_timelines,
             double budget)
      : args_(args),
        p_(p),
        costs_(costs),
        model_(m),
        limits_(limits),
        noise_(noise),
        keeps_timelines_(keeps_timelines),
        budget_(budget) {}

  void add(const family& f) {
    const schedule_params p = keep_taken(p_, f.limits);
    const double bytes = bytes_to_study(f, p) + (keeps_timelines_ ? bytes_of_format("html", pairs_of(f, p)) : 0);
    if (std::string text = refusal(f, p, bytes, budget_); !text.empty()) {
      omitted.push_back({std::string(f.name), std::move(text), true});
      return;
    }
    try {
      const bool own_order = !p.group_size && !p.overlap && !p.extra_warm_up && !transforms(args_);
      std::optional<division> best;
      study of = model_ ? study_of_model(f, p, own_order, best) : study_of_costs(f, p, own_order);
      if (noise_) of.noise = noise_of(of, *noise_);
      of.memory = memory_of(of, model_ ? memory_limits(*model_, of.times.schedule.pp()) : limits_);
      if (of.memory && !*of.memory) {
        omitted.push_back({std::string(f.name), (best ? "no partition was found that fits: " : "does not fit: ") +
                                                    to_string(*of.memory, of.times.schedule)});
        return;
      }
      rows.push_back(row_of(f, p, of, best));
      if (keeps_timelines_) {
        rows.back().panel = panel_of(of), budget_ -= bytes;
      }
    } catch (const schedule_error& e) {
      omitted.push_back({std::string(f.name), with_costs_file(args_, e.what())});
    }
  }

  // The costs that no family has a use for.
  std::vector<std::string> unused() const {
    std::vector<std::string> names;
    if (unused_.empty()) return names;
    for (const std::string& name : unused_[0])
      if (std::all_of(unused_.begin(), unused_.end(),
                      [&](const auto& of) { return std::find(of.begin(), of.end(), name) != of.end(); }))
        names.push_back(name);
    return names;
  }

  std::vector<row> rows;
  std::vector<omission> omitted;

 private:
  study study_of_model(const family& f, const schedule_params& p, bool own_order, std::optional<division>& best) {
    divided_schedule of = divided_by(args_, args_.text("--partition").value_or("best"), *model_, source_of(f, p));
    best = std::move(of.best);
    unused_.push_back(unused_entries(of.schedule, *model_, of.partition));
    return study_of(std::move(of.schedule), std::move(of.costs), "layers per stage: " + to_string(of.partition),
                    own_order);
  }
  study study_of_costs(const family& f, const schedule_params& p, bool own_order) {
    schedule s = make_family(f, p, costs_);
    require_valid(s);
    if (transforms(args_)) {
      const stage_costs per_stage = split_stage_costs(costs_, s.placement);
      s = transformed(args_, std::move(s), per_stage);
    }
    study of = study_of(std::move(s), costs_, own_order);
    unused_.push_back(unused_costs(of.times.schedule, costs_));
    return of;
  }
  row row_of(const family& f, const schedule_params& p, const study& of, const std::optional<division>& best) const {
    row r{.name = std::string(f.name),
          .measured = of.measured,
          .bound = of.bound,
          .formula = of.formula,
          .json = tool::json_of(of),
          .noise = of.noise};
    r.measured.ranks.clear();
    if (best) {
      r.uniform_makespan = best->uniform_makespan, r.uniform_fits = best->uniform_fits;
      r.json["uniform_makespan"] = best->uniform_makespan, r.json["partition"] = best->partition.layers;
      r.json["partitions_lower_bound"] = best->lower_bound, r.json["uniform_fits"] = best->uniform_fits;
    }
    for (parameter which : all_parameters)
      if (which != parameter::costs && is_given(p, which))
        r.json["parameters"][std::string(to_string(which))] = value_of(p, which);
    return r;
  }

  static nlohmann::ordered_json value_of(const schedule_params& p, parameter which) {
    switch (which) {
      case parameter::chunks: return *p.chunks;
      case parameter::group_size: return *p.group_size;
      case parameter::waves: return *p.waves;
      case parameter::memory_limit: return *p.memory_limit;
      default: return true;
    }
  }

  const arguments& args_;
  const schedule_params& p_;
  const stage_costs& costs_;
  const std::optional<model>& model_;
  const std::vector<double>& limits_;  // of memory, without a model
  const std::optional<noise_options>& noise_;
  bool keeps_timelines_;
  double budget_;
  std::vector<std::vector<std::string>> unused_;  // by family
};

}  // namespace

int compare(const arguments& args) {
  const output to = output_of(args, "compare", compare_formats);
  const std::vector<const family*> chosen = families_of(args);
  const schedule_params p = params_of(args, "compare");
  const std::optional<noise_options> noise = noise_of(args, to.format);
  const stage_costs costs = costs_of(args);
  const std::optional<model> layers = given_model(args);
  const std::vector<double> limits = layers ? std::vector<double>() : limits_of_costs(args, costs);
  std::string notes = lines_on_parameters(p, chosen, args);
  if (!note_on_backward(costs).empty()) notes += note_on_backward(costs) + '\n';
  const std::string convention =
      layers ? convention_of(*layers, args.text("--partition").value_or("best")) : convention_of(costs, p.pp, chosen);
  comparison all(args, p, costs, layers, limits, noise, to.format == "html", memory_budget(args, default_memory));
  {
    const progress shown;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      shown.show(chosen[i]->name, i + 1, chosen.size());
      all.add(*chosen[i]);
    }
  }
  if (const std::string note = note_on_unused(all.unused()); !note.empty()) notes += wrapped(note) + '\n';
  std::stable_sort(all.rows.begin(), all.rows.end(),
                   [](const row& a, const row& b) { return a.measured.makespan < b.measured.makespan; });
  const bool for_memory =
      std::any_of(all.omitted.begin(), all.omitted.end(), [](const omission& o) { return o.for_memory; });
  const auto text = [&] {
    if (to.format == "json") return json_of(all.rows, all.omitted);
    if (to.format != "html") return text_of(all.rows, all.omitted, p, convention, notes);
    const html_style style = page_style_of(args, layers ? layers->time_unit : costs.time_unit);
    const std::string facts = layers ? convention : note_on_costs(costs, style.unit, convention);
    return html_of(all.rows, all.omitted, facts, notes, style);
  };
  if (!all.rows.empty() || (for_memory && to.file == "-" && to.format != "html")) write_output(to.file, text());
  if (!all.rows.empty()) return 0;
  if (std::all_of(all.omitted.begin(), all.omitted.end(),
                  [&](const omission& o) { return o.reason == all.omitted[0].reason; }))
    throw schedule_error(all.omitted[0].reason);
  throw schedule_error(
      fmt::format("no family can be compared: {} (and {} more)", all.omitted[0].reason, all.omitted.size() - 1));
}

}  // namespace tool
