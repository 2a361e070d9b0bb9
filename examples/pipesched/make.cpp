// SPDX-License-Identifier: MIT
// generate, verify, convert, lower, list

#include <fmt/format.h>

#include <iostream>
#include <pipesched/generate/families.hpp>
#include <pipesched/io/format.hpp>
#include <pipesched/io/program_json.hpp>
#include <pipesched/io/torch_comms_csv.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/program/check.hpp>
#include <pipesched/program/lower.hpp>
#include <sstream>

#include "commands.hpp"
#include "files.hpp"

namespace tool {

int generate(size_options sizes, const cost_options& costs, const output_options& output) {
  if (pipesched::find_family(sizes.family).limits.takes.contains(pipesched::parameter::costs))
    sizes.params.costs = read_costs(costs);
  const pipesched::schedule s = pipesched::make_schedule(sizes.family, sizes.params);
  if (output.format == "json") {
    write_json_to(output.file, s);
  } else if (output.format == "csv") {
    write_csv_to(output.file, s);
  } else if (output.format == "text") {
    write_output(output.file, fmt::format("{}\n", s));
  } else {
    const pipesched::timeline t = pipesched::simulate(s);
    const pipesched::metrics m = pipesched::measure(t);
    write_output(output.file,
                 fmt::format("{}: {} ranks, {} micro-batches{}; verified; makespan {}, idle {:.1f} %\n{}"
                             "F forward, B backward = I for inputs + W for weights, [F&B] overlapped, . idle; "
                             "lower case: a rank's later stages\n",
                             sizes.family, s.pp(), s.micro, s.forward_only ? ", forward only" : "", m.makespan,
                             100 * m.bubble_ratio, render_text(t, terminal_style(output))));
  }
  return 0;
}

int verify(const std::string& file) {
  const pipesched::schedule s = read_schedule(file);
  const pipesched::report report = pipesched::verify(s);
  if (report)
    write_output("-", fmt::format("valid: {}, {} ranks, {} stages, {} micro-batches{}\n", s.name.view(), s.pp(),
                                  s.stages(), s.micro, s.forward_only ? ", forward only" : ""));
  else
    write_output("-", to_string(report));
  return report ? 0 : 1;
}

int convert(const std::string& from, const std::string& to) {
  const pipesched::schedule s = read_schedule(from);
  if (to.ends_with(".csv"))
    write_csv_to(to, s);
  else
    write_json_to(to, s);
  return 0;
}

int lower(const std::string& file, const lowering_options& how, const output_options& output) {
  if (how.depth < 1 || how.depth > 65536)
    throw pipesched::schedule_error(
        fmt::format("--depth takes 1 to 65536 buffers; got {}, nearest {}", how.depth, how.depth < 1 ? 1 : 65536));
  const pipesched::schedule s = read_schedule(file);
  std::ostringstream text;
  if (output.format == "csv") {
    write_torch_comms_csv(text, s, how.waits ? pipesched::torch_waits::written : pipesched::torch_waits::omitted);
  } else {
    const pipesched::program p = pipesched::lower(s, {.depth = static_cast<std::uint32_t>(how.depth), .tied = {}});
    if (const pipesched::report r = check(p); !r) {
      write_output("-", to_string(r));
      return 1;
    }
    write_json(text, p);
  }
  write_output(output.file, text.str());
  return 0;
}

int list() {
  std::string text;
  for (const pipesched::family& f : pipesched::families) text += fmt::format("{:<18} {}\n", f.name, f.summary);
  write_output("-", text);
  return 0;
}

}  // namespace tool
