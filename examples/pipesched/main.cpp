// SPDX-License-Identifier: MIT
// The command-line tool: make schedules, prove them, see what they cost. Exit codes: 0 done, 1 the schedule is not valid,
// 2 the input is bad (one sentence on standard error).

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <exception>
#include <iostream>
#include <new>
#include <pipesched/error.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "commands.hpp"

namespace {

using pipesched::schedule_error;

// CLI11 would read 010 as 8 and 99999999999999999999 as the largest number there is.
template <typename Number>  // std::int64_t or an optional one
CLI::Option* add_whole_number(CLI::App* app, const std::string& name, Number& to, const std::string& help) {
  return app
      ->add_option_function<std::string>(
          name,
          [name, &to](const std::string& text) {
            std::int64_t number = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
            if (error == std::errc::result_out_of_range)
              throw schedule_error(name + " takes a whole number of at most 64 bits; got " + text.substr(0, 60));
            if (error != std::errc() || end != text.data() + text.size())
              throw schedule_error(name + " takes a whole number; got \"" + text.substr(0, 60) + "\"");
            to = number;
          },
          help)
      ->type_name("N");
}

void add_sizes(CLI::App* app, tool::size_options& sizes, bool required) {
  pipesched::schedule_params& p = sizes.params;
  add_whole_number(app, "--pp", p.pp, "pipeline ranks")->required(required);
  add_whole_number(app, "--micro", p.micro, "micro-batches of the step")->required(required);
  app->add_flag("--forward-only", p.forward_only, "evaluation: no backward");
  add_whole_number(app, "--chunks", p.chunks, "stages a rank, for looped placements; default 2");
  add_whole_number(app, "--group-size", p.group_size, "micro-batches a group, for interleaved families");
  app->add_option("--memory-limit", p.memory_limit,
                  "activations of a rank's whole share, for zb_greedy and zbv_greedy; default pp");
  add_whole_number(app, "--wave", p.waves, "how often the stages run down the ranks and back, for hanayo; default 1");
  app->add_flag("--overlap", p.overlap, "interleaved 1F1B: F&B pairs in the steady state");
}

void add_costs(CLI::App* app, tool::cost_options& costs) {
  app->add_option("--costs", costs.file, "a file of costs in JSON, or deepseek_v3 for DeepSeek-V3's own, in ms");
  app->add_option("--forward", costs.forward, "time of a forward");
  app->add_option("--backward-input", costs.backward_input, "time of a backward for inputs");
  app->add_option("--backward-weight", costs.backward_weight, "time of a backward for weights");
  app->add_option("--overlapped", costs.overlapped, "time of an overlapped pair; default: the sum of its ops");
  app->add_option("--transfer", costs.transfer, "time from one rank to another");
}

void add_output(CLI::App* app, tool::output_options& output, const std::vector<std::string>& formats) {
  output.format = formats[0];
  app->add_option("--format", output.format)->check(CLI::IsMember(formats))->capture_default_str();
  app->add_option("-o,--output", output.file, "a file, or - for standard output")->capture_default_str();
  app->add_option("--colour,--color", output.colour, "of grids")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
}

int run(int argc, char** argv) {
  CLI::App app("Schedules of pipeline-parallel training: make them, prove them, see what they cost.", "pipesched");
  app.require_subcommand(1);
  tool::size_options sizes;
  tool::cost_options costs;
  tool::output_options generated, simulated, compared;
  std::string file;
  std::vector<std::string> families;

  CLI::App* generate = app.add_subcommand("generate", "make a schedule");
  generate->add_option("family", sizes.family, "see: pipesched list")->required();
  add_sizes(generate, sizes, true);
  add_costs(generate, costs);
  add_output(generate, generated, {"json", "csv", "text", "grid"});

  CLI::App* verify = app.add_subcommand("verify", "prove a schedule, or name what is wrong with it");
  verify->add_option("file", file, "a schedule in JSON, or - for standard input")->required();

  std::string target;
  CLI::App* convert = app.add_subcommand("convert", "between JSON and PyTorch's CSV, by the files' suffixes");
  convert->add_option("from", file, "a schedule: PyTorch's if it ends in .csv, else JSON")->required();
  convert->add_option("to", target, "likewise")->required();

  tool::lowering_options lowering;
  tool::output_options lowered;
  CLI::App* lower = app.add_subcommand(
      "lower", "the program of a schedule: its messages, buffers and slots; as csv PyTorch's compute_comms");
  lower->add_option("file", file, "a schedule, or - for standard input")->required();
  add_whole_number(lower, "--depth", lowering.depth, "json: buffers of a channel on either side; default 4");
  lower->add_flag("--waits,!--no-waits", lowering.waits,
                  "csv: waits for sends and reductions, as PyTorch wants from 2.15 on; default yes");
  lower->add_option("--format", lowered.format = "json")->check(CLI::IsMember({"json", "csv"}))->capture_default_str();
  lower->add_option("-o,--output", lowered.file, "a file, or - for standard output")->capture_default_str();

  CLI::App* simulate = app.add_subcommand("simulate", "what a schedule costs and what it looks like");
  simulate->add_option("file", file, "a schedule in JSON, or - for standard input");
  simulate->add_option("--family", sizes.family, "instead of a file");
  add_sizes(simulate, sizes, false);
  add_costs(simulate, costs);
  add_output(simulate, simulated, {"text", "json", "svg", "html", "trace"});

  CLI::App* compare = app.add_subcommand("compare", "all families on the same ranks, model and costs");
  add_sizes(compare, sizes, true);
  add_costs(compare, costs);
  compare->add_option("--families", families, "only these: a,b,c")->delimiter(',');
  add_output(compare, compared, {"text", "json", "html"});

  app.add_subcommand("list", "the families");

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    throw schedule_error(e.what());
  }
  if (*generate) return tool::generate(sizes, costs, generated);
  if (*verify) return tool::verify(file);
  if (*convert) return tool::convert(file, target);
  if (*lower) return tool::lower(file, lowering, lowered);
  if (*simulate) return tool::simulate(file, sizes, costs, simulated);
  if (*compare) return tool::compare(sizes, families, costs, compared);
  return tool::list();
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  try {
    return run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::cerr << "pipesched: there is not enough memory for a schedule of this size; try fewer micro-batches\n";
  } catch (const std::exception& e) {
    std::cerr << "pipesched: " << e.what() << '\n';
  }
  return 2;
}
