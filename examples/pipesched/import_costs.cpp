// SPDX-License-Identifier: MIT
// The command import-costs.

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <pipesched/core/verify.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/io/costs_json.hpp>
#include <pipesched/io/model_json.hpp>
#include <pipesched/io/read_primus.hpp>
#include <pipesched/io/read_times.hpp>
#include <pipesched/simulate/fit_costs.hpp>
#include <pipesched/simulate/fit_model.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "commands.hpp"
#include "files.hpp"
#include "inputs.hpp"
#include "memory.hpp"
#include "models.hpp"

namespace fs = std::filesystem;

namespace tool {

using pipesched::measured_steps;
using pipesched::schedule_error;
using pipesched::time_unit;

namespace {

using named_text = std::pair<std::string, std::string>;

// The rank of a file that is called pp_rank_N.json.
std::optional<std::size_t> rank_of_file(const std::string& file) {
  std::string name = fs::path(file).filename().string();
  constexpr std::string_view begin = "pp_rank_", end = ".json";
  if (!name.starts_with(begin) || !name.ends_with(end) || name.size() <= begin.size() + end.size()) return std::nullopt;
  name = name.substr(begin.size(), name.size() - begin.size() - end.size());
  const auto numbers = whole_numbers(name);
  if (!numbers || numbers->size() != 1 || (*numbers)[0] < 0 || (*numbers)[0] > 65535) return std::nullopt;
  return static_cast<std::size_t>((*numbers)[0]);
}

// The files given, with those of Primus in a folder.
std::vector<std::string> files_of(const std::vector<std::string>& operands) {
  std::vector<std::string> files;
  for (const std::string& operand : operands) {
    std::error_code error;
    if (!fs::is_directory(operand, error)) {
      files.push_back(operand);
      continue;
    }
    const std::size_t before = files.size();
    for (fs::directory_iterator at(operand, error), end; !error && at != end; at.increment(error))
      if (rank_of_file(at->path().string())) files.push_back(at->path().string());
    if (files.size() == before)
      throw schedule_error(fmt::format("{}: a folder without files such as pp_rank_0.json", operand));
  }
  return files;
}

// By rank.
std::vector<named_text> texts_of_ranks(const std::vector<std::string>& files) {
  std::vector<named_text> by_rank(files.size());
  for (const std::string& file : files) {
    const auto rank = rank_of_file(file);
    if (!rank) throw schedule_error(fmt::format("{}: files of Primus are called pp_rank_0.json and on", file));
    if (*rank >= files.size() || !by_rank[*rank].first.empty())
      throw schedule_error(fmt::format("{}: expected files of ranks 0 to {}, one each", file, files.size() - 1));
    by_rank[*rank] = {file, read_text(file)};
  }
  return by_rank;
}

// The schedule that ran, which Primus' files do not tell.
pipesched::schedule schedule_that_ran(const arguments& args) {
  if (args.has("--schedule") == args.has("--family"))
    throw schedule_error(
        "Primus' files need the schedule that ran: --schedule with a file, or --family with --pp and --micro");
  if (const auto file = args.text("--schedule")) {
    refuse_parameters_beside(args, *file);
    return read_planned(*file).schedule;
  }
  const pipesched::family& f = pipesched::find_family(*args.text("--family"));
  const pipesched::schedule_params p = params_of(args, "import-costs --family");
  const double bytes = bytes_to_generate(f, p);
  require_memory(args, f, p, bytes);
  return make_family(f, p, {});
}

void refuse_schedule(const arguments& args) {
  for (const std::string_view option : {"--schedule", "--family"})
    if (args.has(option))
      throw schedule_error(fmt::format("{} goes with Primus' files; events name their ops", option));
  for (const option& o : parameter_options())
    if (args.has(o.name)) throw schedule_error(fmt::format("{} goes with --family", o.name));
}

struct imported {
  measured_steps measured;
  time_unit unit = time_unit::none;
};

imported imported_events(const std::vector<std::string>& files) {
  std::vector<named_text> texts;
  for (const std::string& file : files) texts.emplace_back(file, read_text(file));
  // A trace has "ph" or, without events, "traceEvents", an event of a hook "action"; no word is in the other's own entries.
  const bool is_trace = texts[0].second.find("\"ph\"") != std::string::npos ||
                        texts[0].second.find("\"traceEvents\"") != std::string::npos;
  if (!is_trace && texts.size() > 1)
    throw schedule_error(fmt::format("events of a hook come in one file; got {}", texts.size()));
  const std::string more = texts.size() > 1 ? fmt::format(" and {} more", texts.size() - 1) : "";
  const auto naming_files = [&](auto&& read) {
    try {
      return read();
    } catch (const schedule_error& e) {
      throw schedule_error(fmt::format("{}{}: {}", texts[0].first, more, e.what()));
    }
  };
  const auto times = is_trace ? pipesched::read_traces(texts)  // which names the file at fault
                              : naming_files([&] { return pipesched::read_times(texts[0].second); });
  for (const std::string& note : times.notes) add_note(note);
  return {.measured = naming_files([&] { return steps_of(times.cells); }), .unit = times.unit};
}

imported imported_steps(const arguments& args) {
  const std::vector<std::string> files = files_of(args.operands);
  const bool is_primus =
      std::any_of(files.begin(), files.end(), [](const std::string& file) { return rank_of_file(file).has_value(); });
  if (!is_primus) {
    refuse_schedule(args);
    return imported_events(files);
  }
  const pipesched::schedule ran = schedule_that_ran(args);
  pipesched::require_valid(ran);
  return {.measured = read_primus(ran, texts_of_ranks(files)), .unit = time_unit::ms};
}

std::int64_t skip_steps(const arguments& args, std::vector<pipesched::timeline>& steps) {
  const auto most = static_cast<std::int64_t>(steps.size()) - 1;
  const auto skipped = whole_number_in(args, "--skip", 0, most).value_or(0);
  steps.erase(steps.begin(), steps.begin() + skipped);
  return skipped;
}

// A note if the first step is far longer than the others: it warmed up. @param first  its number
void note_warm_up(const std::vector<pipesched::timeline>& steps, std::int64_t first) {
  if (steps.size() < 2) return;
  std::vector<double> lengths;
  for (const pipesched::timeline& t : steps) {
    double longest = 0;  // of a rank, as clocks may differ
    for (const auto row : t.intervals)
      if (!row.empty()) longest = std::max(longest, row.back().end - row.front().start);
    lengths.push_back(longest);
  }
  std::vector<double> others(lengths.begin() + 1, lengths.end());
  const double middle = pipesched::detail::median(others);
  if (lengths[0] > 1.5 * middle && middle > 0)
    add_note(fmt::format("step {} took {:.3g} times as long as the steps after it; --skip {} leaves it out", first,
                         lengths[0] / middle, first + 1));
}

// The times in another unit, if both units are known.
double factor_between(time_unit from, time_unit to) {
  return from == time_unit::none || to == time_unit::none ? 1 : units_per_second(to) / units_per_second(from);
}

void change_unit(imported& of, time_unit to) {
  const double factor = factor_between(of.unit, to);
  for (pipesched::timeline& t : of.measured.steps)
    for (pipesched::interval& i : t.intervals.all()) i = {i.start * factor, i.end * factor};
  if (of.unit != time_unit::none && to != time_unit::none) of.unit = to;
}

nlohmann::json fitted_model(const arguments& args, imported& of) {
  const pipesched::model m = *given_model(args);
  const auto text = args.text("--partition");
  if (!text || *text == "best")
    throw schedule_error(
        "import-costs --model needs --partition, the layers per stage that ran: uniform, 5,4,4,3 or a layout");
  change_unit(of, m.time_unit);
  const auto& steps = of.measured.steps;
  const pipesched::partition p = partition_of_text(*text, m, steps[0].schedule.placement);
  const std::vector<pipesched::partition> partitions(steps.size(), p);
  pipesched::model_fit fit = pipesched::fit_model(steps, partitions, m);
  for (const auto& kinds : fit.alike)
    add_note(
        fmt::format("{} cannot be distinguished: the sum of their times is right, their ratio is that of the model",
                    list_of({kinds.begin(), kinds.end()}, "and")));
  if (m.time_unit == time_unit::none) fit.fitted.time_unit = of.unit;
  return pipesched::model_document(fit.fitted);
}

nlohmann::json fitted_costs(imported& of) {
  change_unit(of, time_unit::ms);
  const auto& [steps, clocks, facts] = of.measured;
  for (const std::string& note : pipesched::estimates_of(steps, clocks)) add_note(note);
  pipesched::stage_costs costs = pipesched::fit_costs(steps, clocks);
  costs.time_unit = of.unit;
  return costs;
}

}  // namespace

const std::vector<option>& import_options() {
  static const std::vector<option> options = {
      {"--skip", "N", "first steps to leave out, as they warm up: 0 or more; default 0"},
      {"--schedule", "FILE", "Primus' files: the schedule that ran"},
      {"--family", "FAMILY", "Primus' files: a family in place of it"},
      {"--model", "FILE", "a model whose layers get the measured times, in place of costs"},
      {"--partition", "TEXT", "its layers per stage that ran: uniform, 5,4,4,3, or a layout"},
  };
  return options;
}

int import_costs(const arguments& args) {
  const output to = output_of(args, "import-costs", import_formats);
  imported of = imported_steps(args);
  const std::int64_t first = skip_steps(args, of.measured.steps);
  const pipesched::schedule& s = of.measured.steps[0].schedule;
  using pipesched::detail::count_text;
  add_note(fmt::format("{} of {}, {}, {}", count_text(of.measured.steps.size(), "step"), count_text(s.pp(), "rank"),
                       count_text(s.stages(), "stage"), count_text(s.micro, "micro-batch")));
  note_warm_up(of.measured.steps, first);
  for (const std::string& fact : of.measured.notes) add_note(fact);
  if (!given_model(args)) {
    const nlohmann::json costs = fitted_costs(of);
    if (of.unit != time_unit::none) add_note(fmt::format("times in {}", to_string(of.unit)));
    write_output(to.file, costs.dump(2) + "\n");
    return 0;
  }
  write_output(to.file, fitted_model(args, of).dump(2) + "\n");
  return 0;
}

}  // namespace tool
