// SPDX-License-Identifier: MIT
// The command-line tool: make a schedule, prove one, list the families. Exit codes: 0 done, 1 the schedule is not valid,
// 2 the input is bad (one sentence on standard error).

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>
#include <pipesched/io/format.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/pipesched.hpp>
#include <string>
#include <system_error>

namespace {

namespace fs = std::filesystem;
using pipesched::schedule_error;

struct generate_options {
  std::string family, format = "json", output = "-", colour = "auto";
  pipesched::pipeline_params params{.pp = 0, .micro = 0};
};

// Writes to standard output or to a file. A file that is there is replaced only once all has been written.
void write_output(const std::string& name, const std::function<void(std::ostream&)>& write) {
  if (name == "-") {
    write(std::cout);
    if (!std::cout.flush()) throw schedule_error("standard output could not be written");
    return;
  }
  std::error_code ignored;
  const bool in_place = fs::exists(name, ignored) && !fs::is_regular_file(name, ignored);  // a device, say
  const std::string target = in_place ? name : name + ".part";
  std::ofstream file(target, std::ios::binary);
  if (file) write(file);
  file.close();
  std::error_code failed;
  if (file && !in_place) fs::rename(target, name, failed);
  if (file && !failed) return;
  if (!in_place) fs::remove(target, ignored);
  throw schedule_error(name + ": cannot be written");
}

// CLI11 reads 99999999999999999999 as the largest number there is; we would rather say so.
std::string refuse_no_whole_number(const std::string& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size()) return {};
  return error == std::errc::result_out_of_range ? "takes a whole number of at most 64 bits; got " + text
                                                 : "takes a whole number; got \"" + text + "\"";
}

pipesched::text_style terminal_style(const generate_options& options) {
  pipesched::text_style style{.colour = options.colour == "always"};
  if (options.output != "-" || !isatty(STDOUT_FILENO)) return style;
  if (options.colour == "auto") style.colour = std::getenv("NO_COLOR") == nullptr;
  if (winsize size{}; ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) style.width = size.ws_col;
  return style;
}

int generate(const generate_options& options) {
  const pipesched::schedule s = pipesched::make_schedule(options.family, options.params);
  write_output(options.output, [&](std::ostream& out) {
    if (options.format == "json") {
      pipesched::write_json(out, s);
    } else if (options.format == "text") {
      out << fmt::format("{}\n", s);
    } else {
      const pipesched::timeline t = pipesched::simulate(s);
      const pipesched::metrics m = pipesched::measure(t);
      out << fmt::format("{}: {} ranks, {} micro-batches{}; verified; makespan {}, idle {:.1f} %\n", options.family,
                         s.pp(), s.micro, s.forward_only ? ", forward only" : "", m.makespan, 100 * m.bubble_ratio)
          << render_text(t, terminal_style(options))
          << "F forward, B backward = I for inputs + W for weights, [F&B] overlapped, . idle; "
             "lower case: a rank's later stages\n";
    }
  });
  return 0;
}

int verify(const std::string& name) {
  pipesched::schedule s;
  try {
    std::ifstream file;
    if (name != "-") {
      file.open(name, std::ios::binary);
      if (!file || fs::is_directory(name)) throw schedule_error("cannot be read");
    }
    s = pipesched::read_json(name == "-" ? std::cin : file);
  } catch (const schedule_error& e) {
    throw schedule_error(name + ": " + e.what());
  }
  const pipesched::report report = pipesched::verify(s);
  if (!report) {
    std::cout << to_string(report);
    return 1;
  }
  std::cout << fmt::format("valid: {}, {} ranks, {} stages, {} micro-batches{}\n", std::string_view(s.name), s.pp(),
                           s.stages(), s.micro, s.forward_only ? ", forward only" : "");
  return 0;
}

int list() {
  for (const pipesched::family& f : pipesched::families) std::cout << fmt::format("{:<12} {}\n", f.name, f.summary);
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app("Schedules of pipeline-parallel training: make them, prove them.", "pipesched");
  app.require_subcommand(1);

  generate_options options;
  CLI::App* generating = app.add_subcommand("generate", "make a schedule");
  generating->add_option("family", options.family, "see: pipesched list")->required();
  generating->add_option("--pp", options.params.pp, "pipeline ranks")->required()->check(refuse_no_whole_number);
  generating->add_option("--micro", options.params.micro, "micro-batches of the step")->required()->check(refuse_no_whole_number);
  generating->add_flag("--forward-only", options.params.forward_only, "evaluation: no backward");
  generating->add_option("--format", options.format, "json, text (the cells) or grid (a picture)")
      ->check(CLI::IsMember({"json", "text", "grid"}))
      ->capture_default_str();
  generating->add_option("--output", options.output, "a file, or - for standard output")->capture_default_str();
  generating->add_option("--colour,--color", options.colour, "of the grid")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();

  std::string file;
  CLI::App* verifying = app.add_subcommand("verify", "prove a schedule, or name everything that is wrong with it");
  verifying->add_option("file", file, "a schedule in JSON, or - for standard input")->required();

  app.add_subcommand("list", "the families");

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    throw schedule_error(e.what());
  }
  if (*generating) return generate(options);
  if (*verifying) return verify(file);
  return list();
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  try {
    return run(argc, argv);
  } catch (const schedule_error& e) {
    std::cerr << "pipesched: " << e.what() << '\n';
  } catch (const std::bad_alloc&) {
    std::cerr << "pipesched: there is not enough memory for a schedule of this size; try fewer micro-batches\n";
  } catch (const std::exception& e) {
    std::cerr << "pipesched: " << e.what() << '\n';
  }
  return 2;
}
