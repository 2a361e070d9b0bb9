// SPDX-License-Identifier: MIT
#pragma once

// The command line of the example.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <pipesched/generate/families.hpp>
#include <pipesched/launch/environment.hpp>
#include <pipesched/support/error.hpp>
#include <string>
#include <utility>
#include <vector>

#include "mlp.hpp"
#include "trainer.hpp"

namespace cuda_mlp {

struct options {
  std::string family = "dualpipe", mode = "threads", transport = "peer", transfer = "none", html, trace, json;
  std::vector<std::string> predict{};
  pipesched::schedule_params plan{.pp = 8, .micro = 20};
  mlp_sizes sizes;
  std::int64_t ranks_per_gpu = 0;  // 0: evenly
  std::size_t steps = 10;
  double time_limit = 60, start_limit = 300;  // seconds
  failure_on_demand failure;
  bool check = false, timed = false, in_double = false, no_overlap = false;
  pipesched::launch_environment where{};  // with --transport nccl

  trainer_options training() const { return {transfer == "host", !no_overlap, failure}; }
};

inline void require(bool holds, const std::string& otherwise) {
  if (!holds) throw pipesched::schedule_error(otherwise);
}

inline failure_on_demand parse_failure(const std::string& text) {
  failure_on_demand f;
  std::string how(8, 0);
  if (text.empty()) return f;
  const int read = std::sscanf(text.c_str(), "%u,%u,%7s", &f.rank, &f.micro, how.data());
  how.resize(how.find('\0'));
  f.how = how == "throw"   ? failure_on_demand::throws
          : how == "kill"  ? failure_on_demand::is_killed
          : how == "stall" ? failure_on_demand::stalls
                           : failure_on_demand::none;
  require(read == 3 && f.how != failure_on_demand::none,
          "--fail is a rank, a micro-batch and throw, kill or stall, such as 3,5,throw; got " + text);
  return f;
}

/// Nothing if only help was asked for. @throws schedule_error
inline std::optional<options> parse(int argc, char** argv) {
  options o;
  std::string fail;
  CLI::App app("Trains a chain of two-layer perceptrons on GPUs through a schedule of the library.", "cuda_mlp");
  app.footer(
      "Ends with 0; 1 if the check failed; 2 on bad input; 3 if there is no CUDA device; 4 if a call of CUDA "
      "failed.");
  app.add_option("--schedule", o.family, "see: pipesched list")->capture_default_str();
  app.add_option("--pp", o.plan.pp, "ranks")->capture_default_str();
  app.add_option("--micro", o.plan.micro, "micro-batches of a step")->capture_default_str();
  app.add_option("--chunks", o.plan.chunks, "stages per rank, for interleaved families; default 2");
  app.add_option("--ranks-per-gpu", o.ranks_per_gpu, "unless given, ranks are spread evenly over all GPUs");
  app.add_option("--steps", o.steps, "that are timed")->capture_default_str();
  app.add_option("--mode", o.mode, "threads: one per rank; turns: one for all ranks; graph: captured and replayed")
      ->capture_default_str();
  app.add_option("--transport", o.transport,
                 "peer: all ranks in this process; nccl: one in each of the processes that a launcher has started")
      ->capture_default_str();
  app.add_option("--time-limit", o.time_limit, "seconds without anything moving after which all ranks give up")
      ->capture_default_str();
  app.add_option("--start-limit", o.start_limit, "with --transport nccl: the same, for processes to start and connect")
      ->capture_default_str();
  app.add_option("--fail", fail, "see a failure: rank,micro,throw or kill or stall");
  app.add_option("--transfer", o.transfer, "between the halves of an op: none, or host for one to host memory and back")
      ->capture_default_str();
  app.add_flag("--no-overlap", o.no_overlap, "overlapped pairs one op after the other");
  app.add_flag("--double", o.in_double, "double instead of float");
  app.add_option("--rows", o.sizes.rows, "of a micro-batch")->capture_default_str();
  app.add_option("--width", o.sizes.width)->capture_default_str();
  app.add_option("--hidden", o.sizes.hidden)->capture_default_str();
  app.add_flag("--check", o.check, "run the same step on one device, too, and compare losses and gradients");
  app.add_flag("--timed", o.timed, "time every cell of one step, too; so do the options below");
  app.add_option("--predict", o.predict,
                 "schedules a,b,c of as many stages: their time by the costs of a measured step")
      ->delimiter(',');
  app.add_option("--html", o.html, "a file for the measured timeline of a step");
  app.add_option("--trace", o.trace, "the same for Perfetto");
  app.add_option("--json", o.json, "a file for what was measured");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    app.exit(e);
    return std::nullopt;
  } catch (const CLI::ParseError& e) {
    throw pipesched::schedule_error(e.what());
  }
  require(o.mode == "threads" || o.mode == "turns" || o.mode == "graph",
          "--mode is threads, turns or graph; got " + o.mode);
  require(o.transfer == "none" || o.transfer == "host", "--transfer is host or none; got " + o.transfer);
  require(o.transport == "peer" || o.transport == "nccl", "--transport is peer or nccl; got " + o.transport);
  const std::pair<const char*, double> limits[] = {{"time", o.time_limit}, {"start", o.start_limit}};
  for (const auto& [name, value] : limits)
    require(value > 0 && value <= 1e6,
            fmt::format("--{}-limit is above 0, at most 1000000 seconds; got {}", name, value));
  o.failure = parse_failure(fail);
  if (o.transport == "nccl") {
#ifndef CUDA_MLP_HAS_NCCL
    throw pipesched::schedule_error("--transport nccl: this was built without NCCL");
#endif
    o.where = pipesched::read_launch_environment();
    require(o.mode != "turns", "--mode is threads or graph with --transport nccl; got turns");
    require(o.ranks_per_gpu == 0, "--ranks-per-gpu is for --transport peer; a launcher places processes");
    if (app.count("--pp") == 0) o.plan.pp = o.where.size;
    require(o.plan.pp == o.where.size, fmt::format("--pp {} needs as many processes; the launcher ({}) has started {}",
                                                   o.plan.pp, o.where.launcher, o.where.size));
  }
  const std::pair<const char*, int> numbers[] = {
      {"rows", o.sizes.rows}, {"width", o.sizes.width}, {"hidden", o.sizes.hidden}};
  for (const auto& [name, value] : numbers)
    require(value >= 1 && value <= 16384, fmt::format("--{} is from 1 to 16384; got {}", name, value));
  require(o.steps >= 1 && o.steps <= 1'000'000, fmt::format("--steps is from 1 to 1000000; got {}", o.steps));
  require(o.plan.pp <= 256, fmt::format("--pp is at most 256; got {}", o.plan.pp));
  require(o.plan.micro <= 100'000, fmt::format("--micro is at most 100000; got {}", o.plan.micro));
  require(o.ranks_per_gpu >= 0 && o.ranks_per_gpu <= 256,
          fmt::format("--ranks-per-gpu is from 1 to 256; got {}", o.ranks_per_gpu));
  return o;
}

}  // namespace cuda_mlp
