// SPDX-License-Identifier: MIT

#include "inputs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <pipesched/cost/presets.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/support/error.hpp>
#include <pipesched/support/nearest_name.hpp>
#include <span>
#include <utility>

#include "files.hpp"

using pipesched::parameter;
using pipesched::schedule_error;
using pipesched::stage_costs;

namespace tool {

namespace {

// Suffixes that a format is written with, the usual one first.
struct format_suffixes {
  std::string_view format;
  std::vector<std::string_view> suffixes;
};

const std::vector<format_suffixes> all_suffixes = {
    {"json", {".json"}},
    {"csv", {".csv"}},
    {"text", {".txt"}},
    {"grid", {".txt"}},
    {"svg", {".svg"}},
    {"html", {".html", ".htm"}},
    {"trace", {".trace.json", ".json"}},
    {"layout", {".layout"}},
};

const std::vector<std::string_view>& suffixes_of(std::string_view format) {
  return std::find_if(all_suffixes.begin(), all_suffixes.end(), [&](const auto& f) { return f.format == format; })
      ->suffixes;
}

// The file's suffix, ".json", or nothing for a name without one.
std::string suffix_of(const std::string& file) {
  const std::size_t slash = file.rfind('/');
  const std::string name = lower_case(slash == file.npos ? file : file.substr(slash + 1));
  if (name.ends_with(".trace.json") && name != ".trace.json") return ".trace.json";
  const std::size_t dot = name.rfind('.');
  return dot == name.npos || dot == 0 || name.find_first_not_of('.') == name.npos ? std::string() : name.substr(dot);
}

std::string what_is_written(std::string_view command, const std::vector<std::string_view>& formats) {
  std::string text = std::string(command) + " writes ";
  std::vector<std::string> names;
  for (std::string_view format : formats) names.push_back(fmt::format("{} ({})", format, suffixes_of(format)[0]));
  return text + list_of({names.begin(), names.end()});
}

std::string format_of_suffix(const std::string& suffix, const std::vector<std::string_view>& formats) {
  for (std::string_view format : formats)
    if (suffixes_of(format)[0] == suffix) return std::string(format);
  for (std::string_view format : formats)
    for (std::string_view other : suffixes_of(format))
      if (other == suffix) return std::string(format);
  return {};
}

double cost_of(const arguments& args, std::string_view option, std::string_view name) {
  const double value = *args.number(option);
  if (value >= 0 && std::isfinite(value)) return value;
  throw option_error(fmt::format("costs: {} is {}; {} takes a finite number, 0 or more; got {}{}", name,
                                 value < 0   ? "negative"
                                 : value > 0 ? "infinite"
                                             : "not a number",
                                 option, *args.text(option), value < 0 ? ", nearest 0" : ""));
}

// The preset without its communication, which only an efficiency would use.
stage_costs measured_deepseek_v3() {
  stage_costs costs = pipesched::deepseek_v3_costs();
  costs.forward_communication = costs.backward_input_communication = 0;
  return costs;
}

}  // namespace

std::string lower_case(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

const std::vector<option>& parameter_options() {
  static const std::vector<option> options = {
      {"--pp", "N", "pipeline ranks: 1 to 65536 / stages per rank"},
      {"--micro", "N", "micro-batches per step: 1 to 2^28 / stages"},
      {"--forward-only", "", "evaluation: the forwards alone"},
      {"--chunks", "N", "stages per rank, for interleaved families: 1 to 256; default 2"},
      {"--group-size", "N", "micro-batches per group, for interleaved families; default: the family's own"},
      {"--extra-warm-up", "", "interleaved_1f1b: one more forward per rank before its first backward"},
      {"--overlap", "", "interleaved_1f1b: F and B overlapped in the steady state"},
      {"--waves", "N", "hanayo: waves of two stages per rank: 1 to 128; default 1", "--wave"},
      {"--memory-limit", "X",
       "zb_greedy, zbv_greedy: activations that a rank may keep, in those of one micro-batch through its whole share: "
       "1 "
       "or more; default pp"},
  };
  return options;
}

const std::vector<option>& cost_options() {
  static const std::vector<option> options = {
      {"--costs", "FILE", "costs as JSON, or deepseek_v3: measured ones, in ms"},
      {"--forward", "X", "time of F, as all times of a rank's whole share in any unit: 0 or more; default 1"},
      {"--backward", "X", "time of B; alone it means I = W = X/2; default I + W"},
      {"--backward-input", "X", "time of I, the backward for inputs; default 1"},
      {"--backward-weight", "X", "time of W, the backward for weights; default 1"},
      {"--overlapped", "X", "time of F and B, or F and I, in one cell; default: the sum of both"},
      {"--transfer", "X", "time of a message between two ranks; default 0"},
  };
  return options;
}

pipesched::schedule_params params_of(const arguments& args, std::string_view why) {
  std::vector<std::string_view> missing;
  for (std::string_view name : {"--pp", "--micro"})
    if (!args.has(name)) missing.push_back(name);
  if (!missing.empty()) throw schedule_error(fmt::format("{} needs {}", why, list_of(missing, "and")));
  pipesched::schedule_params p{.pp = *args.whole_number("--pp"), .micro = *args.whole_number("--micro")};
  p.forward_only = args.has("--forward-only");
  p.chunks = args.whole_number("--chunks");
  p.group_size = args.whole_number("--group-size");
  p.extra_warm_up = args.has("--extra-warm-up");
  p.overlap = args.has("--overlap");
  p.waves = args.whole_number("--waves");
  p.memory_limit = args.number("--memory-limit");
  if (p.memory_limit && !(*p.memory_limit > 0 && std::isfinite(*p.memory_limit)))
    throw schedule_error(fmt::format("--memory-limit takes a finite number of activations, 1 or more; got {}{}",
                                     *args.text("--memory-limit"), *p.memory_limit <= 0 ? ", nearest 1" : ""));
  return p;
}

void refuse_parameters_beside(const arguments& args, const std::string& file) {
  for (const option& o : parameter_options())
    if (args.has(o.name))
      throw schedule_error(fmt::format("{} goes with --family; the schedule of {} has its own sizes", o.name, file));
  if (args.has("--max-memory"))
    throw schedule_error("--max-memory goes with --family; a schedule in a file takes what its size asks for");
}

std::string option_of(parameter p) {
  std::string name = "--" + std::string(to_string(p));
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

bool gives_costs(const arguments& args) {
  return std::any_of(cost_options().begin(), cost_options().end(), [&](const option& o) { return args.has(o.name); });
}

stage_costs costs_of(const arguments& args) {
  stage_costs costs;
  if (const auto file = args.text("--costs")) {
    if (file->empty()) throw schedule_error("--costs takes a file, or deepseek_v3; got \"\"");
    costs = *file == "deepseek_v3" ? measured_deepseek_v3() : read_costs(*file);
  }
  if (args.has("--backward")) costs.backward_input.reset(), costs.backward_weight.reset();
  const auto replace = [&](auto& field, std::string_view option, std::string_view name) {
    if (args.has(option)) field = cost_of(args, option, name);
  };
  replace(costs.forward, "--forward", "forward");
  replace(costs.backward, "--backward", "backward");
  replace(costs.backward_input, "--backward-input", "backward_input");
  replace(costs.backward_weight, "--backward-weight", "backward_weight");
  replace(costs.overlapped, "--overlapped", "overlapped");
  replace(costs.transfer_time, "--transfer", "transfer");
  return costs;
}

std::optional<std::vector<std::int64_t>> whole_numbers(std::string_view text) {
  std::vector<std::int64_t> numbers;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at <= end;) {
    const auto [stop, error] = std::from_chars(at, end, numbers.emplace_back());
    if (error != std::errc() || (stop != end && *stop != ',')) return std::nullopt;
    at = stop + 1;
  }
  return numbers;
}
std::vector<std::int64_t> numbers_of_text(std::string_view option, std::string_view text) {
  if (auto numbers = whole_numbers(text)) return *std::move(numbers);
  throw schedule_error(fmt::format("{} takes whole numbers such as 0,3; got {}", option, in_quotes(std::string(text))));
}

std::optional<std::int64_t> whole_number_in(const arguments& args, std::string_view name, std::int64_t least,
                                            std::int64_t most) {
  const auto given = args.whole_number(name);
  if (!given || (*given >= least && *given <= most)) return given;
  const std::string range = most == std::numeric_limits<std::int64_t>::max() ? fmt::format("{} or more", least)
                                                                             : fmt::format("{} to {}", least, most);
  throw schedule_error(
      fmt::format("{} takes {}; got {}, nearest {}", name, range, *given, *given < least ? least : most));
}

const std::vector<option>& draw_options() {
  static const std::vector<option> options = {
      {"--noise", "X", "each cell longer by a random share from 0 to X: 0.05 is up to 5 %; 0 or more"},
      {"--draws", "N", "with --noise: random steps to simulate, 1 to 10000000"},
      {"--seed", "N", "of the random shares: 0 or more; default 1"},
  };
  return options;
}

std::optional<pipesched::noise_options> noise_of(const arguments& args, std::string_view format) {
  if (!args.has("--noise")) {
    for (const std::string_view option : {"--draws", "--seed"})
      if (args.has(option)) throw schedule_error(fmt::format("{} goes with --noise", option));
    return std::nullopt;
  }
  const double noise = *args.number("--noise");
  if (!(noise >= 0 && std::isfinite(noise)))
    throw schedule_error(fmt::format("--noise takes a finite share, 0 or more, such as 0.05; got {}{}",
                                     *args.text("--noise"), noise < 0 ? ", nearest 0" : ""));
  if (!args.has("--draws")) throw schedule_error("--noise goes with --draws, a number of random steps such as 1000");
  const std::int64_t draws = *whole_number_in(args, "--draws", 1, pipesched::max_draws);
  const std::int64_t seed = whole_number_in(args, "--seed", 0).value_or(1);
  if (format != "text" && format != "json")
    throw schedule_error(fmt::format("--noise is for --format text and json; got --format {}", format));
  return pipesched::noise_options{
      .noise = noise, .draws = static_cast<std::uint32_t>(draws), .seed = static_cast<std::uint64_t>(seed)};
}

std::string with_costs_file(const arguments& args, std::string text) {
  const std::optional<std::string> file = args.text("--costs");
  if (!file || *file == "deepseek_v3" || !text.starts_with("costs: ")) return text;
  return *file + ": " + text;
}

std::int64_t stages_of(const pipesched::family& f, const pipesched::schedule_params& p) {
  return p.pp * f.stages_per_rank(p);
}

pipesched::schedule make_family(const pipesched::family& f, pipesched::schedule_params p, const stage_costs& costs) {
  if (f.limits.takes.contains(parameter::costs)) {
    pipesched::require_sizes(f, p);
    p.costs = split_stage_costs(costs, f.place(p));
  }
  return make_schedule(f, p);
}

output output_of(const arguments& args, std::string_view command, const std::vector<std::string_view>& formats) {
  const std::optional<std::string> file = args.text("--output");
  if (file && file->empty()) throw schedule_error("--output takes the name of a file, or -; got \"\"");
  return output_of(args, command, formats, file.value_or("-"));
}

output output_of(const arguments& args, std::string_view command, const std::vector<std::string_view>& formats,
                 std::string file) {
  output to{.format = std::string(formats[0]), .file = std::move(file)};
  const std::optional<std::string> format = args.text("--format");
  if (format && std::find(formats.begin(), formats.end(), *format) == formats.end()) {
    const std::string_view nearest = pipesched::nearest_name(*format, formats);
    throw schedule_error(fmt::format("--format takes {}; got {}{}", list_of(formats), in_quotes(*format),
                                     nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest)));
  }
  if (format) to.format = *format;
  if (const std::string suffix = suffix_of(to.file); !suffix.empty()) {
    const std::string by_suffix = format_of_suffix(suffix, formats);
    if (by_suffix.empty())
      throw schedule_error(fmt::format("{}; got a file that ends in {}", what_is_written(command, formats), suffix));
    const auto& expected = suffixes_of(to.format);
    if (!format)
      to.format = by_suffix;
    else if (std::find(expected.begin(), expected.end(), suffix) == expected.end())
      throw schedule_error(
          fmt::format("--format {} and a file that ends in {} disagree; expected {}", *format, suffix, expected[0]));
  }
  if (const auto colour = args.text("--colour")) {
    const std::vector<std::string_view> legal = {"auto", "always", "never"};
    if (std::find(legal.begin(), legal.end(), *colour) == legal.end())
      throw schedule_error(fmt::format("--colour takes {}; got {}", list_of(legal), in_quotes(*colour)));
    const std::string_view grid = command == "generate" ? "grid" : "text";
    if (to.format != grid)
      throw schedule_error(fmt::format("--colour is for --format {}; got --format {}", grid, to.format));
    to.colour = *colour;
  }
  return to;
}

}  // namespace tool
