// SPDX-License-Identifier: MIT
// The command export.

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <pipesched/core/verify.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/io/export_automodel.hpp>
#include <pipesched/io/export_jaxpp.hpp>
#include <pipesched/io/export_megatron.hpp>
#include <pipesched/io/export_torchtitan.hpp>
#include <pipesched/support/nearest_name.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "commands.hpp"
#include "files.hpp"
#include "inputs.hpp"
#include "memory.hpp"
#include "models.hpp"

namespace tool {

using pipesched::divided_model;
using pipesched::exported;
using pipesched::schedule_error;

namespace {

const std::vector<std::string_view> trainers = {"torchtitan", "automodel", "megatron", "jaxpp"};

std::string trainer_of(const arguments& args) {
  const auto name = args.text("--for");
  if (!name) throw schedule_error(fmt::format("export needs --for with {}", list_of(trainers)));
  if (std::find(trainers.begin(), trainers.end(), *name) != trainers.end()) return *name;
  const std::string_view nearest = pipesched::nearest_name(*name, trainers);
  throw schedule_error(fmt::format("--for takes {}; got {}{}", list_of(trainers), in_quotes(*name),
                                   nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest)));
}

// The schedule to export: a file's, or a family's.
struct export_source {
  schedule_source of;
  std::optional<pipesched::partition> partition{};  // that a plan chose
};

export_source export_source_of(const arguments& args) {
  if (!args.operands.empty()) {
    planned_schedule planned = read_planned(args.operands[0]);
    refuse_parameters_beside(args, args.operands[0]);
    if (gives_costs(args))
      throw schedule_error(
          fmt::format("costs go with --family; the schedule of {} has its own order", args.operands[0]));
    return {.of = source_of(std::move(planned.schedule)), .partition = std::move(planned.partition)};
  }
  const pipesched::family& f = pipesched::find_family(*args.text("--family"));
  const pipesched::schedule_params p = params_of(args, "export --family");
  const double bytes = bytes_to_generate(f, p) + bytes_of_format("csv", pairs_of(f, p));
  require_memory(args, f, p, bytes);
  const bool takes_costs = f.limits.takes.contains(pipesched::parameter::costs);
  if (gives_costs(args) && !takes_costs)
    throw schedule_error(fmt::format("the order of {} does not depend on costs; expected no costs", f.name));
  return {.of = source_of(f, p)};
}

// The schedule as it will run, and the layers of its stages with a model.
struct export_input {
  pipesched::schedule schedule;
  std::optional<divided_model> layers{};
  std::optional<pipesched::partition> partition{};  // of a file, without its model
};

export_input export_input_of(const arguments& args, bool needs_model) {
  const std::optional<pipesched::model> m = given_model(args);
  export_source source = export_source_of(args);
  if (source.partition && !m && needs_model)
    throw schedule_error(
        fmt::format("{} has layers per stage; expected --model with the model that they are of", args.operands[0]));
  if (!m)
    return {.schedule = source.of.make(split_stage_costs(costs_of(args), source.of.placement)),
            .partition = std::move(source.partition)};
  if (source.partition && args.has("--partition"))
    throw schedule_error(
        fmt::format("{} has layers per stage, and --partition names others; expected one of them", args.operands[0]));
  if (source.partition) {
    pipesched::require_partition(*source.partition, *m, source.of.placement.stages());
    return {.schedule = source.of.make({}), .layers = divided_model{*m, *std::move(source.partition)}};
  }
  divided_schedule of = divided_by(args, args.text("--partition").value_or("uniform"), *m, source.of);
  return {.schedule = std::move(of.schedule), .layers = divided_model{*m, std::move(of.partition)}};
}

exported exported_for(const std::string& trainer, const export_input& in) {
  if (trainer == "torchtitan") return pipesched::export_torchtitan(in.schedule, in.layers);
  if (trainer == "automodel") return pipesched::export_automodel(in.schedule, in.layers);
  if (trainer == "megatron") return pipesched::export_megatron(in.schedule, in.layers);
  return pipesched::export_jaxpp(in.schedule, in.partition);
}

}  // namespace

const std::vector<option>& export_options() {
  static const std::vector<option> options = {
      {"--for", "NAME", "torchtitan, automodel (NeMo), megatron (Megatron-LM) or jaxpp"},
      {"--family", "FAMILY", "a family in place of a file; see pipesched list"},
  };
  return options;
}

int export_schedule(const arguments& args) {
  const std::string trainer = trainer_of(args);
  if (args.operands.empty() == !args.has("--family"))
    throw schedule_error("export takes a file, or --family with --pp and --micro");
  if (trainer == "jaxpp" && args.has("--model"))
    throw schedule_error(
        "--model is for torchtitan, automodel and megatron; a model for jaxpp marks its stages itself");
  const std::string folder = args.text("--output").value_or("-");
  if (folder.empty()) throw schedule_error("--output takes the name of a folder, or -; got \"\"");
  const export_input in = export_input_of(args, trainer != "jaxpp");
  if (const pipesched::report r = pipesched::verify(in.schedule); !r) {
    write_output("-", to_string(r));
    return 1;
  }
  const exported result = exported_for(trainer, in);
  write_folder(folder, result.files);
  for (const std::string& note : result.notes) add_note(note);
  return 0;
}

}  // namespace tool
