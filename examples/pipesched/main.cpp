// SPDX-License-Identifier: MIT
// The command-line tool: makes schedules, proves them, and shows their costs. Exit codes: 0 done, 1 the schedule is not
// valid, 2 bad input (one sentence on standard error).

#include <fmt/format.h>

#include <exception>
#include <iostream>
#include <new>
#include <pipesched/support/error.hpp>
#include <pipesched/version.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "commands.hpp"
#include "files.hpp"
#include "inputs.hpp"
#include "models.hpp"

namespace {

using pipesched::schedule_error;
using tool::command;
using tool::option;

std::vector<option> joined(std::initializer_list<std::vector<option>> groups) {
  std::vector<option> all;
  for (const auto& group : groups) all.insert(all.end(), group.begin(), group.end());
  return all;
}

const option output_file{"--output", "FILE",
                         "a file, whose suffix chooses the format, or - for standard output; default -", "-o"};
const option colour{"--colour", "WHEN", "colours of the grid: auto, always or never; default auto", "--color"};
const option max_memory{"--max-memory", "X", "GiB that the command may take; default: what is free"};

option format_of(std::string_view help) { return {"--format", "NAME", help}; }

// The options of simulate and compare that say which steps are studied.
std::vector<option> study_options() {
  return joined({tool::parameter_options(),
                 tool::cost_options(),
                 tool::model_options(),
                 tool::transform_options(),
                 {tool::memory_option},
                 tool::draw_options()});
}

const std::vector<command>& commands() {
  static const std::vector<command> all = {
      {.name = "generate",
       .usage = {"generate FAMILY --pp N --micro N [options]"},
       .summary = "make the schedule of a family",
       .min_operands = 1,
       .max_operands = 1,
       .options = joined({tool::parameter_options(),
                          tool::cost_options(),
                          tool::transform_options(),
                          {format_of("json, csv (PyTorch's), text, or grid (a picture); default json"), output_file,
                           colour, max_memory}}),
       .examples = {"generate dualpipe --pp 8 --micro 20 --format grid", "generate zbv --pp 4 --micro 8 -o zbv.json",
                    "generate zb_greedy --pp 4 --micro 8 --costs deepseek_v3 -o plan.csv"},
       .run = tool::generate},
      {.name = "verify",
       .usage = {"verify FILE"},
       .summary = "prove that a schedule is valid, or name what is wrong with it",
       .min_operands = 1,
       .max_operands = 1,
       .options = {},
       .examples = {"verify zbv.json", "verify - < plan.csv"},
       .run = tool::verify},
      {.name = "convert",
       .usage = {"convert FILE FILE [options]"},
       .summary = "convert a schedule between JSON and PyTorch's CSV",
       .min_operands = 2,
       .max_operands = 2,
       .options = {format_of("json or csv; default: by the suffix of the second file, or json")},
       .examples = {"convert zbv.json zbv.csv", "convert plan.csv - --format json"},
       .run = tool::convert},
      {.name = "lower",
       .usage = {"lower FILE [options]"},
       .summary = "derive the program of a schedule: messages, buffers and slots",
       .min_operands = 1,
       .max_operands = 1,
       .options = {{"--depth", "N", "json: buffers per channel and end: 1 to 65536; default 4"},
                   {"--waits", "", "csv: wait for sends and reductions, as PyTorch 2.15 needs it; the default"},
                   {"--no-waits", "", "csv: no such waits"},
                   {"--tied", "A,B,C",
                    "json: stages that share their weights; groups with slashes between them: 0,7/1,6"},
                   format_of("json, or csv: PyTorch's with communication; default json"),
                   output_file},
       .examples = {"lower zbv.json -o program.json", "lower zbv.json -o plan.csv"},
       .run = tool::lower},
      {.name = "simulate",
       .usage = {"simulate FILE [options]", "simulate --family FAMILY --pp N --micro N [options]"},
       .summary = "show a schedule's times, memory, bound and picture",
       .min_operands = 0,
       .max_operands = 1,
       .options = joined({{{"--family", "FAMILY", "a family in place of a file; see pipesched list"}},
                          study_options(),
                          {format_of("text, json, svg, html, or trace (for Perfetto); default text"), output_file,
                           colour, max_memory}}),
       .examples = {"simulate --family dualpipe --pp 8 --micro 20", "simulate zbv.json --forward 1 --backward 2.2",
                    "simulate zbv.json --costs costs.json -o zbv.svg",
                    "simulate zbv.json --costs costs.json --recompute 2/4 --memory 80GB",
                    "simulate zbv.json --noise 0.05 --draws 1000"},
       .run = tool::simulate},
      {.name = "compare",
       .usage = {"compare --pp N --micro N [options]"},
       .summary = "simulate all families with the same ranks, micro-batches and costs",
       .min_operands = 0,
       .max_operands = 0,
       .options = joined({{{"--families", "A,B,C", "these families only"}},
                          study_options(),
                          {format_of("text, json or html; default text"),
                           output_file,
                           {"--max-memory", "X", "GiB that a family may take; default 2, or what is free"}}}),
       .examples = {"compare --pp 8 --micro 20 --costs deepseek_v3",
                    "compare --pp 8 --micro 20 --families 1f1b,zbv -o families.html",
                    "compare --pp 8 --micro 32 --model m.json --memory 80GB --freeze 0,1"},
       .run = tool::compare},
      {.name = "divide",
       .usage = {"divide --model FILE --family FAMILY --pp N --micro N [options]"},
       .summary = "divide a model's layers among the stages of a family",
       .min_operands = 0,
       .max_operands = 0,
       .options =
           joined({{{"--model", "FILE",
                     "a model as JSON, or a name: deepseek_v3, gemma_h1536_s4096_v256k, deepseek_h2048_s4096_v131k"},
                    {"--family", "FAMILY", "the family; see pipesched list"}},
                   tool::parameter_options(),
                   tool::transform_options(),
                   {tool::memory_option,
                    {"--evaluations", "N",
                     "simulations to spend, 1 or more; default 20000, or 2000 where the order depends on the costs"},
                    {"--seed", "N", "of the search: 0 or more; default 1"},
                    format_of("text, json, or layout (Megatron-LM's); default text"),
                    output_file,
                    max_memory}}),
       .examples = {"divide --model model.json --family 1f1b --pp 8 --micro 32",
                    "divide --model deepseek_v3 --family zbv --pp 8 --micro 32",
                    "divide --model m.json --family 1f1b --pp 8 --micro 32 --memory 80GB",
                    "divide --model m.json --family zbv --pp 8 --micro 9 --recompute all",
                    "divide --model m.json --family 1f1b --pp 8 --micro 9 --format layout"},
       .run = tool::divide},
      {.name = "plan",
       .usage = {"plan --pp N --micro N [options]"},
       .summary = "search the shortest order for a placement, costs and a limit of memory",
       .min_operands = 0,
       .max_operands = 0,
       .options = joined({tool::plan_options(),
                          tool::cost_options(),
                          {format_of("text, json, svg, html or csv (PyTorch's); default text"), output_file, colour}}),
       .examples = {"plan --family dualpipe --pp 8 --micro 20 --memory-limit 9",
                    "plan --placement vee --pp 4 --micro 12 --pareto",
                    "plan --family zbv --pp 4 --micro 8 -o plan.html",
                    "plan --family zbv --pp 4 --micro 8 -o plan.json"},
       .run = tool::plan},
      {.name = "export",
       .usage = {"export FILE --for NAME [options]", "export --family FAMILY --pp N --micro N --for NAME [options]"},
       .summary = "write what a trainer reads: torchtitan, NeMo Automodel, Megatron-LM or jaxpp",
       .min_operands = 0,
       .max_operands = 1,
       .options = joined({tool::export_options(),
                          tool::parameter_options(),
                          tool::cost_options(),
                          tool::model_options(),
                          {{"--output", "FOLDER",
                            "a folder for the files, none of which is replaced by another text, or - for standard "
                            "output; default -",
                            "-o"},
                           max_memory}}),
       .examples = {"export --family zbv --pp 4 --micro 8 --for torchtitan",
                    "export plan.json --model model.json --for automodel -o pipeline",
                    "export --family 1f1b --pp 4 --micro 8 --model m.json --partition best --for megatron",
                    "export --family hanayo --pp 4 --micro 8 --waves 2 --for jaxpp"},
       .run = tool::export_schedule},
      {.name = "import-costs",
       .usage = {"import-costs FILE... [options]"},
       .summary = "costs, or times of a model's layers, from measured steps",
       .min_operands = 1,
       .max_operands = 65536,
       .options = joined({tool::import_options(), tool::parameter_options(), {output_file, max_memory}}),
       .examples = {"import-costs trace_rank0.json trace_rank1.json -o costs.json",
                    "import-costs times.json --skip 2 --model model.json --partition 5,4,4,3",
                    "import-costs output/pp_data --family 1f1b --pp 8 --micro 16 --skip 1"},
       .run = tool::import_costs},
      {.name = "model",
       .usage = {"model FILE [options]"},
       .summary = "show and check a model of layers, a file or a name",
       .min_operands = 1,
       .max_operands = 1,
       .options = {format_of("text or json; default text"), output_file},
       .examples = {"model model.json", "model deepseek_v3 --format json"},
       .run = tool::show_model},
      {.name = "list",
       .usage = {"list"},
       .summary = "list the families, each with the parameters that it takes",
       .min_operands = 0,
       .max_operands = 0,
       .options = {},
       .examples = {"list"},
       .run = tool::list},
  };
  return all;
}

std::string help() {
  return tool::help_on_program("Schedules of pipeline-parallel training: make them, prove them, see their costs.",
                               commands(),
                               {"A schedule is read as JSON or PyTorch's CSV, by its content. One time, or one\n"
                                "per rank, is for a rank's whole share of the model and is divided among its\n"
                                "stages; one time per stage is used as it is.",
                                "exit codes: 0 done, 1 the schedule is not valid, 2 bad input"});
}

int run(const std::vector<std::string>& words) {
  std::vector<std::string_view> names;
  for (const command& c : commands()) names.push_back(c.name);
  if (words.empty()) throw schedule_error("expected a command: " + tool::list_of(names) + "; see pipesched --help");
  const std::string& first = words[0];
  const bool is_help = first == "--help" || first == "-h" || first == "help";
  if ((is_help || first == "--version") && words.size() > (first == "help" ? 2u : 1u))
    throw schedule_error(first + " takes " + (first == "help" ? "one command" : "nothing") + "; got " +
                         tool::in_quotes(words[first == "help" ? 2 : 1]) + (first == "help" ? " as well" : ""));
  if (first == "--version") {
    tool::write_output("-", fmt::format("pipesched {}\n", pipesched::library_version));
    return 0;
  }
  if (is_help) {
    tool::write_output("-", words.size() == 1 ? help() : help_on_command(tool::find_command(words[1], commands())));
    return 0;
  }
  const command& chosen = tool::find_command(first, commands());
  const std::vector<std::string> rest(words.begin() + 1, words.end());
  for (const std::string& word : rest)
    if (word == "--help" || word == "-h") {
      tool::write_output("-", help_on_command(chosen));
      return 0;
    }
  const tool::arguments args = tool::parse_arguments(chosen, commands(), rest);
  try {
    const int code = chosen.run(args);
    tool::print_notes();
    return code;
  } catch (const tool::option_error&) {
    throw;
  } catch (const schedule_error& e) {
    throw schedule_error(tool::with_costs_file(args, e.what()));
  }
}

// Errors are one line, whatever the names of files in them.
int fail(std::string_view what) {
  std::string line(what.substr(0, 2000));
  for (char& c : line)
    if ((c >= 0 && c < ' ') || c == '\x7f') c = '?';
  std::cerr << "pipesched: " << line << '\n';
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  try {
    return run({argv + (argc > 0 ? 1 : 0), argv + argc});
  } catch (const std::bad_alloc&) {
    return fail("there is not enough memory for a schedule of this size; try fewer micro-batches");
  } catch (const std::exception& e) {
    return fail(e.what());
  }
}
