// SPDX-License-Identifier: MIT
// The commands generate, verify, convert, lower and list.

#include <fmt/format.h>

#include <algorithm>
#include <pipesched/core/verify.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/io/format.hpp>
#include <pipesched/io/program_json.hpp>
#include <pipesched/io/torch_comms_csv.hpp>
#include <pipesched/io/torch_comms_verify.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/program/verify.hpp>
#include <pipesched/render/text.hpp>
#include <pipesched/support/concat.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "commands.hpp"
#include "files.hpp"
#include "inputs.hpp"
#include "memory.hpp"
#include "models.hpp"
#include "study.hpp"

namespace tool {

using pipesched::schedule_error;

namespace {

using pipesched::detail::count_text;

// The groups of --tied.
std::vector<std::vector<std::int64_t>> tied_stages_of(const arguments& args, const pipesched::schedule& s) {
  std::vector<std::vector<std::int64_t>> groups;
  if (!args.has("--tied")) return groups;
  const std::string text = *args.text("--tied");
  if (s.forward_only)
    throw schedule_error(fmt::format("--tied {} changes nothing: the step is forward only, without gradients", text));
  for (const std::string& group : parts_of(text, '/')) groups.push_back(numbers_of_text("--tied", group));
  return groups;
}

std::string grid_of(pipesched::schedule s, const pipesched::stage_costs& costs, const output& to) {
  pipesched::require_valid(s);
  const study of = study_of(std::move(s), costs, false);
  const pipesched::schedule& plan = of.times.schedule;
  return fmt::format(
      "{}: {}, {}{}; verified; makespan {:.10g}, idle {:.1f} %; {}\n{}"
      "F forward, B backward = I for inputs + W for weights, [F&B] overlapped, . idle; "
      "lower case: a rank's later stages\n",
      plan.name.view(), count_text(plan.pp(), "rank"), count_text(plan.micro, "micro-batch"),
      plan.forward_only ? ", forward only" : "", of.measured.makespan, 100 * of.measured.bubble_ratio, of.convention,
      render_text(of.times, style_of(to)));
}

}  // namespace

int generate(const arguments& args) {
  const pipesched::family& f = pipesched::find_family(args.operands[0]);
  const output to = output_of(args, "generate", generate_formats);
  const pipesched::schedule_params p = params_of(args, "generate");
  if (gives_costs(args) && to.format != "grid" && !f.limits.takes.contains(pipesched::parameter::costs))
    throw schedule_error(
        fmt::format("the order of {} does not depend on costs; expected no costs, or --format grid", f.name));
  const pipesched::stage_costs costs = costs_of(args);
  const double bytes = (to.format == "grid" ? bytes_to_study(f, p) : bytes_to_generate(f, p)) +
                       bytes_of_format(to.format, pairs_of(f, p));
  require_memory(args, f, p, bytes);
  pipesched::schedule s = make_family(f, p, costs);
  if (transforms(args)) {
    const pipesched::stage_costs per_stage = split_stage_costs(costs, s.placement);
    s = transformed(args, std::move(s), per_stage);
  }
  std::vector<std::string> unused = unused_costs(s, costs);
  if (to.format != "grid" && costs.weight_bytes != pipesched::per_stage(0)) unused.emplace_back("memory.weights");
  if (args.text("--costs") == "deepseek_v3" && !args.has("--overlapped")) std::erase(unused, "overlapped");
  if (const std::string note = note_on_unused(unused); !note.empty() && to.format != "grid") add_note("costs " + note);
  if (const std::string note = note_on_backward(costs); !note.empty() && to.format != "grid")
    add_note("costs: " + note);
  if (to.format == "json") write_json(to.file, s);
  if (to.format == "csv") write_csv(to.file, s);
  if (to.format == "text") write_output(to.file, fmt::format("{}\n", s));
  if (to.format == "grid") write_output(to.file, grid_of(std::move(s), costs, to));
  return 0;
}

int verify(const arguments& args) {
  const pipesched::schedule_file file = read_schedule(args.operands[0]);
  const pipesched::schedule& s = file.schedule;
  const pipesched::report report = verify(s, file.actions);
  if (!report) {
    write_output("-", to_string(report));
    return 1;
  }
  std::string text =
      fmt::format("valid: {}, {}, {}, {}{}", s.name.view(), count_text(s.pp(), "rank"), count_text(s.stages(), "stage"),
                  count_text(s.micro, "micro-batch"), s.forward_only ? ", forward only" : "");
  std::size_t messages = 0;
  for (const pipesched::torch_action& a : file.actions) messages += a.pass < pipesched::torch_pass::unshard;
  if (messages > 0) text += fmt::format("; {} message actions verified", messages);
  if (const std::size_t others = file.actions.size() - messages; others > 0)
    text += fmt::format("; {} actions of FSDP not verified", others);
  write_output("-", text + '\n');
  return 0;
}

int convert(const arguments& args) {
  if (args.operands[1].empty()) throw schedule_error("convert takes the name of a file to write, or -; got \"\"");
  const output to = output_of(args, "convert", convert_formats, args.operands[1]);
  const pipesched::schedule s = read_computation(args.operands[0]);
  if (!pipesched::verify(s))
    add_note(fmt::format("{}: the schedule is not valid; pipesched verify says why", args.operands[0]));
  if (to.format == "csv")
    write_csv(to.file, s);
  else
    write_json(to.file, s);
  return 0;
}

int lower(const arguments& args) {
  const output to = output_of(args, "lower", lower_formats);
  for (std::string_view name : {"--waits", "--no-waits"})
    if (args.has(name) && to.format != "csv")
      throw schedule_error(fmt::format("{} goes with --format csv; got --format {}", name, to.format));
  if (args.has("--waits") && args.has("--no-waits"))
    throw schedule_error("--waits and --no-waits contradict each other; expected one of them");
  for (std::string_view name : {"--depth", "--tied"})
    if (args.has(name) && to.format != "json")
      throw schedule_error(fmt::format("{} goes with --format json; got --format {}", name, to.format));
  const std::int64_t depth = args.whole_number("--depth").value_or(pipesched::lower_options{}.depth);
  if (depth < 1 || depth > 65536)
    throw schedule_error(
        fmt::format("--depth takes 1 to 65536 buffers; got {}, nearest {}", depth, depth < 1 ? 1 : 65536));
  const pipesched::schedule s = read_computation(args.operands[0]);
  if (const pipesched::report r = pipesched::verify(s); !r) {
    write_output("-", to_string(r));
    return 1;
  }
  std::ostringstream text;
  if (to.format == "csv") {
    write_torch_comms_csv(text, s,
                          args.has("--no-waits") ? pipesched::torch_waits::omitted : pipesched::torch_waits::written);
  } else {
    const pipesched::program p = pipesched::lower(s, {.depth = depth, .tied = tied_stages_of(args, s)});
    if (const pipesched::report r = verify(p); !r) {
      write_output("-", to_string(r));
      return 1;
    }
    write_json(text, p);
  }
  write_output(to.file, text.view());
  return 0;
}

int list(const arguments&) {
  std::string text;
  for (const pipesched::family& f : pipesched::families) {
    text += fmt::format("{:<18} {}", f.name, f.summary);
    std::string taken;
    for (pipesched::parameter p : pipesched::all_parameters)
      if (f.limits.takes.contains(p)) taken += (taken.empty() ? "" : " ") + option_of(p);
    text += (taken.empty() ? "" : "  [" + taken + "]") + '\n';
  }
  write_output("-", text);
  return 0;
}

}  // namespace tool
