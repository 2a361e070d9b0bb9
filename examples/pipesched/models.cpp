// SPDX-License-Identifier: MIT

#include "models.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <pipesched/core/freeze.hpp>
#include <pipesched/core/recompute.hpp>
#include <pipesched/model/costs_of.hpp>
#include <pipesched/model/layout.hpp>
#include <pipesched/model/presets.hpp>
#include <pipesched/plan/place_recompute.hpp>
#include <pipesched/support/error.hpp>
#include <utility>

#include "files.hpp"
#include "inputs.hpp"

using pipesched::parameter;
using pipesched::schedule;
using pipesched::schedule_error;
using pipesched::stage_costs;

namespace tool {

namespace {

// Stages, each of them once.
std::vector<std::int64_t> stages_of_text(std::string_view option, std::string_view text) {
  const std::vector<std::int64_t> stages = numbers_of_text(option, text);
  for (std::size_t i = 0; i < stages.size(); ++i)
    if (std::find(stages.begin(), stages.begin() + static_cast<std::ptrdiff_t>(i), stages[i]) !=
        stages.begin() + static_cast<std::ptrdiff_t>(i))
      throw schedule_error(fmt::format("{} names stage {} twice; expected once", option, stages[i]));
  return stages;
}

schedule frozen(const schedule& s, const std::string& stages) {
  schedule result = pipesched::freeze(s, stages_of_text("--freeze", stages));
  if (result == s) throw schedule_error(fmt::format("--freeze {} changes nothing: these stages are frozen", stages));
  return result;
}

pipesched::recompute_choice choice_of(const arguments& args, const std::string& which) {
  const auto refuse = [&] {
    throw schedule_error(fmt::format("--recompute takes all, stages such as 0,3, or 2/4; got {}", in_quotes(which)));
  };
  pipesched::recompute_choice choice{.inside_backward = args.has("--recompute-inside")};
  choice.first_whole = args.whole_number("--first-whole").value_or(0);
  if (const std::size_t slash = which.find('/'); slash != which.npos) {
    const auto part = whole_numbers(which.substr(0, slash)), whole = whole_numbers(which.substr(slash + 1));
    if (!part || !whole || part->size() != 1 || whole->size() != 1) refuse();
    choice.count = (*part)[0], choice.of_every = (*whole)[0];
    if (choice.count == 0 && choice.of_every > 0)
      throw schedule_error(
          fmt::format("--recompute takes 1 to {0} of every {0} micro-batches; got 0, nearest 1/{0}", choice.of_every));
  } else if (which != "all") {
    if (!whole_numbers(which)) refuse();
    choice.stages = stages_of_text("--recompute", which);
  }
  return choice;
}

// The reason why nothing is recomputed.
std::string why_unchanged(const schedule& s, const pipesched::recompute_choice& choice) {
  if (s.forward_only) return "the step is forward only";
  const std::int64_t micro = s.micro - (s.placement.replicas() == 1 ? 0 : s.micro / 2);
  if (choice.first_whole >= micro)
    return fmt::format("--first-whole {} keeps all {} micro-batches{} whole, nearest {}", choice.first_whole, micro,
                       s.placement.replicas() == 1 ? "" : " of a replica", micro - 1);
  if (choice.of_every - choice.count >= micro)
    return fmt::format("of every {} micro-batches the first {} are kept whole, and there are {}", choice.of_every,
                       choice.of_every - choice.count, micro);
  return "these stages and micro-batches have no backward, or recompute already";
}

schedule recomputed(const arguments& args, const schedule& s, const std::string& which) {
  const pipesched::recompute_choice choice = choice_of(args, which);
  schedule result = pipesched::recompute(s, choice);
  if (result == s)
    throw schedule_error(fmt::format("--recompute {} changes nothing: {}", which, why_unchanged(s, choice)));
  return result;
}

}  // namespace

const std::vector<option>& transform_options() {
  static const std::vector<option> options = {
      {"--freeze", "A,B,C", "stages whose weights are frozen; the first ones of the model then have no backward"},
      {"--recompute", "WHICH",
       "recompute activations: all; of stages 0,3; or 2/4, the last 2 of every 4 micro-batches"},
      {"--recompute-inside", "", "in the backward, which lasts longer; default: an R of its own"},
      {"--first-whole", "N", "the first N micro-batches are kept whole; default 0"},
      {"--place-recompute", "", "move each R into a stall before its backward, or beside another op"},
  };
  return options;
}

bool transforms(const arguments& args) {
  return std::any_of(transform_options().begin(), transform_options().end(),
                     [&](const option& o) { return args.has(o.name); });
}

schedule transformed(const arguments& args, schedule s, const stage_costs& costs) {
  const auto which = args.text("--recompute");
  for (const std::string_view option : {"--recompute-inside", "--first-whole", "--place-recompute"})
    if (!which && args.has(option)) throw schedule_error(fmt::format("{} goes with --recompute", option));
  if (args.has("--recompute-inside") && args.has("--place-recompute"))
    throw schedule_error("--place-recompute moves ops that --recompute-inside does not make; expected one of them");
  if (const auto stages = args.text("--freeze")) s = frozen(s, *stages);
  if (which) s = recomputed(args, s, *which);
  return args.has("--place-recompute") ? pipesched::place_recompute(s, costs) : s;
}

pipesched::model model_of(const std::string& name) {
  if (name.empty()) throw schedule_error("a model is a file or a name; got \"\"");
  if (auto known = pipesched::find_model(name)) return *std::move(known);
  return read_model(name);
}

bool knows_bytes(const pipesched::model& m) {
  return std::any_of(m.layers.begin(), m.layers.end(), [](const pipesched::layer& l) {
    return l.kept > 0 || l.context.value_or(0) > 0 || l.weights > 0 || l.message > 0 ||
           l.transient != pipesched::transient_bytes{};
  });
}

bool knows_bytes(const stage_costs& costs) {
  bool any = false;
  const auto look_at = [&](const pipesched::per_stage& numbers) { any = any || numbers != pipesched::per_stage(0); };
  stage_costs::for_each_field(costs, [&](const auto& field, std::string_view name) {
    if (!name.starts_with("memory.") && !name.starts_with("transient.") && name != "message_bytes") return;
    if constexpr (requires { field.has_value(); }) {
      if (field) look_at(*field);
    } else {
      look_at(field);
    }
  });
  return any;
}

namespace {

// The limits of --memory: one, with --pareto also several.
std::vector<double> limits_of_option(const arguments& args) {
  const auto text = args.text("--memory");
  std::vector<double> bytes;
  if (!text) return bytes;
  for (const std::string& one : parts_of(*text)) bytes.push_back(bytes_of_text("--memory", one));
  if (bytes.size() > 1 && !args.has("--pareto"))
    throw schedule_error(
        fmt::format("--memory takes one number of bytes, and several with --pareto; got {}", in_quotes(*text)));
  return bytes;
}

}  // namespace

std::optional<pipesched::model> given_model(const arguments& args) {
  const auto name = args.text("--model");
  if (!name && args.has("--partition")) throw schedule_error("--partition goes with --model");
  if (!name) return std::nullopt;
  if (gives_costs(args)) throw schedule_error("--model takes the place of costs; expected one of them");
  pipesched::model m = model_of(*name);
  const std::vector<double> bytes = limits_of_option(args);
  if ((!bytes.empty() || args.has("--pareto")) && !knows_bytes(m))
    throw schedule_error(
        fmt::format("{} limits bytes, and the layers of {} take none; expected kept, weights or others of them",
                    bytes.empty() ? "--pareto with --model" : "--memory", in_quotes(*name)));
  if (bytes.empty() || args.has("--pareto")) return m;
  if (m.ranks.empty()) m.ranks.emplace_back();
  for (pipesched::model_rank& r : m.ranks) r.memory = bytes.front();
  return m;
}

std::vector<double> limits_of_costs(const arguments& args, const stage_costs& costs) {
  std::vector<double> bytes = limits_of_option(args);
  if (!bytes.empty() && !knows_bytes(costs))
    throw schedule_error(
        "--memory limits bytes, and the costs have none; expected memory, transient or message_bytes in --costs");
  return bytes;
}

std::string unit_after(std::string_view separator, pipesched::time_unit unit) {
  return unit == pipesched::time_unit::none ? "" : fmt::format("{}{}", separator, to_string(unit));
}

pipesched::html_style page_style_of(const arguments& args, pipesched::time_unit unit) {
  pipesched::html_style style;
  const std::string file = args.text(args.has("--model") ? "--model" : "--costs").value_or("");
  const std::size_t name = file.rfind('/') == file.npos ? 0 : file.rfind('/') + 1;
  if (file == "deepseek_v3")
    style.subject = "DeepSeek-V3";
  else if (file != "-")
    style.subject = file.substr(name, file.find('.', name) - name);
  style.unit = unit_after("", unit);
  return style;
}

std::string describe_partition(const pipesched::partition& p, const pipesched::model& m,
                               const pipesched::placement& where) {
  std::string text = fmt::format("layers per stage: {}\n", to_string(p));
  if (!has_layout(where)) return text;
  const std::string refusal = layout_refusal(p, m, where);
  return text +
         (refusal.empty() ? fmt::format("layout: {}\n", to_layout(p, m, where)) : fmt::format("no {}\n", refusal));
}

const std::vector<option>& model_options() {
  static const std::vector<option> options = {
      {"--model", "FILE",
       "a model of layers as JSON in place of costs, or a name: deepseek_v3, gemma_h1536_s4096_v256k, "
       "deepseek_h2048_s4096_v131k"},
      {"--partition", "TEXT",
       "its layers per stage: uniform, best (searched), 5,4,4,3, or a layout; default uniform, of compare best"},
  };
  return options;
}

const option memory_option{"--memory", "X", "bytes of each rank: 80e9, 80GB or 74GiB; default: the model's"};

pipesched::partition partition_of_text(const std::string& text, const pipesched::model& m,
                                       const pipesched::placement& where) {
  if (text == "uniform") return pipesched::uniform_partition(m, where.stages());
  const bool is_word = std::isalpha(static_cast<unsigned char>(text.empty() ? '1' : text[0])) != 0 &&
                       std::string_view("EtmL").find(text[0]) == std::string_view::npos;
  if (!is_word && text.find_first_of("EtmL|") != text.npos) return pipesched::parse_layout(text, m, where);
  const auto layers = whole_numbers(text);
  if (!layers || std::any_of(layers->begin(), layers->end(),
                             [](std::int64_t n) { return n < 0 || n > std::numeric_limits<std::uint32_t>::max(); }))
    throw schedule_error(fmt::format(
        "--partition takes uniform, best, numbers of layers such as 5,4,4,3, or a layout; got {}", in_quotes(text)));
  pipesched::partition p;
  for (const std::int64_t n : *layers) p.layers.push_back(static_cast<std::uint32_t>(n));
  pipesched::require_partition(p, m, where.stages());
  return p;
}

double bytes_of_text(std::string_view option, const std::string& text) {
  const auto refuse = [&] {
    throw schedule_error(
        fmt::format("{} takes bytes above 0, such as 80e9, 80GB or 74GiB; got {}", option, in_quotes(text)));
  };
  std::string unit = lower_case(text);
  std::size_t end = unit.find_first_not_of("0123456789.");
  if (end != unit.npos && unit[end] == 'e')
    end = unit.find_first_not_of("0123456789", end + (end + 1 < unit.size() && unit[end + 1] == '+' ? 2 : 1));
  const std::string digits = unit.substr(0, end);
  unit = end == unit.npos ? "" : unit.substr(end);
  char* stop = nullptr;
  const double value = std::strtod(digits.c_str(), &stop);  // libc++ has no std::from_chars of a double
  if (digits.empty() || stop != digits.c_str() + digits.size()) refuse();
  double factor = 1;
  if (const bool binary = unit.size() == 3 && unit.ends_with("ib");
      binary || (unit.size() == 2 && unit.ends_with("b"))) {
    const std::size_t power = std::string_view("kmgt").find(unit[0]);
    if (power == std::string_view::npos) refuse();
    factor = std::pow(binary ? 1024 : 1000, static_cast<double>(power + 1));
  } else if (!unit.empty() && unit != "b") {
    refuse();
  }
  if (!(value * factor > 0 && std::isfinite(value * factor))) refuse();
  return value * factor;
}

schedule_source source_of(const pipesched::family& f, const pipesched::schedule_params& p) {
  const bool takes_costs = f.limits.takes.contains(parameter::costs);
  require(f, p);
  return {.make =
              [&f, p, takes_costs](const stage_costs& costs) {
                pipesched::schedule_params with = p;
                if (takes_costs) with.costs = costs;
                return make_schedule(f, with);
              },
          .placement = f.place(p),
          .micro = static_cast<std::uint32_t>(p.micro),
          .takes_costs = takes_costs};
}
schedule_source source_of(schedule s) {
  pipesched::placement where = s.placement;
  const std::uint32_t micro = s.micro;
  return {.make = [s = std::move(s)](const stage_costs&) { return s; }, .placement = std::move(where), .micro = micro};
}

namespace {

bool is_made_anew(const arguments& args, const schedule_source& source) {
  return source.takes_costs || args.has("--place-recompute");
}

}  // namespace

pipesched::divide_limits divide_limits_of(const arguments& args, const schedule_source& source) {
  return {.evaluations = is_made_anew(args, source) ? 2'000u : 20'000u};
}

pipesched::division divided(const arguments& args, const pipesched::model& m, const schedule_source& source,
                            const pipesched::divide_limits& limits) {
  require_lengths(m, source.micro);
  const auto make = [&](const stage_costs& costs) { return transformed(args, source.make(costs), costs); };
  return is_made_anew(args, source) ? divide(m, source.placement, make, limits) : divide(m, make({}), limits);
}

divided_schedule divided_by(const arguments& args, const std::string& partition, const pipesched::model& m,
                            const schedule_source& source) {
  if (partition == "best") {
    pipesched::division d = divided(args, m, source, divide_limits_of(args, source));
    return {d.schedule, d.costs, d.partition, d};
  }
  require_lengths(m, source.micro);
  pipesched::partition p = partition_of_text(partition, m, source.placement);
  stage_costs costs = costs_of(m, p, source.placement);
  schedule s = transformed(args, source.make(costs), costs);
  return {std::move(s), std::move(costs), std::move(p), std::nullopt};
}

}  // namespace tool
