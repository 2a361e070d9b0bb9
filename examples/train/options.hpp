// SPDX-License-Identifier: MIT
#pragma once

// The command line of the example.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <pipesched/generate/families.hpp>
#include <pipesched/model/partition.hpp>
#include <pipesched/support/error.hpp>
#include <string>
#include <utility>
#include <vector>

#include "gpt.hpp"

#ifndef PIPESCHED_SOURCE_DIR
#define PIPESCHED_SOURCE_DIR "."
#endif

namespace train {

struct options {
  std::string family = "zbv", transport = "threads", html, fitted;
  std::vector<std::string> predict{};
  std::string data = std::filesystem::exists(PIPESCHED_SOURCE_DIR "/include") ? PIPESCHED_SOURCE_DIR "/include" : ".";
  pipesched::schedule_params plan{.pp = 4, .micro = 8};
  model_sizes model;
  std::size_t steps = 100;
  std::uint64_t seed = 1;
  double rate = 0.003;
  bool check = false, evaluate = false, one_thread = false;
  std::string recompute = "none";
  pipesched::partition layers{};  // per stage; empty: uniform
  std::size_t fit = 0;
};

inline void require(bool holds, const std::string& otherwise) {
  if (!holds) throw pipesched::schedule_error(otherwise);
}

/// @throws schedule_error for values out of range, and options that exclude each other
inline void require_ranges(const options& o) {
  const model_sizes& m = o.model;
  require(o.transport == "threads" || o.transport == "mpi", "--transport must be threads or mpi; got " + o.transport);
#ifndef PIPESCHED_HAS_MPI
  require(o.transport == "threads", "--transport mpi: this program was built without MPI");
#endif
  require(o.transport == "threads" || (o.html.empty() && o.predict.empty() && o.fit == 0 && !o.one_thread),
          "--html, --predict, --fit and --one-thread need all ranks in one process: --transport threads");
  const std::pair<const char*, std::size_t> numbers[] = {
      {"layers", m.layers}, {"width", m.width}, {"heads", m.heads}, {"context", m.context}, {"batch", m.batch}};
  for (const auto& [name, value] : numbers)
    require(value >= 1 && value <= 4096,
            fmt::format("--{} must be from 1 to 4096; got {}, nearest {}", name, value, value < 1 ? 1 : 4096));
  require(o.steps >= 1 && o.steps <= 1'000'000,
          fmt::format("--steps must be from 1 to 1000000; got {}, nearest {}", o.steps, o.steps < 1 ? 1 : 1000000));
  require(o.fitted.empty() || o.fit > 0, "--fitted needs --fit");
  require(o.fit <= 1000, fmt::format("--fit must be at most 1000; got {}, nearest 1000", o.fit));
  require(o.plan.pp <= 256, fmt::format("--pp must be at most 256; got {}, nearest 256", o.plan.pp));
  require(m.width % m.heads == 0,
          fmt::format("--width must be a multiple of --heads; got {} and {}", m.width, m.heads));
  require(o.rate > 0 && std::isfinite(o.rate),
          fmt::format("--learning-rate must be positive and finite; got {}", o.rate));
}

/// Nothing if only help was asked for. @throws schedule_error
inline std::optional<options> parse(int argc, char** argv) {
  options o;
  CLI::App app("Trains a small GPT under a pipeline schedule.", "train");
  app.add_option("--schedule", o.family, "a family, see: pipesched list; or a JSON file of pipesched plan")
      ->capture_default_str();
  app.add_option("--pp", o.plan.pp, "ranks")->capture_default_str();
  app.add_option("--micro", o.plan.micro, "micro-batches per step")->capture_default_str();
  app.add_option("--chunks", o.plan.chunks, "stages per rank, for interleaved families; default 2");
  app.add_option("--steps", o.steps)->capture_default_str();
  app.add_option("--transport", o.transport, "threads or mpi")->capture_default_str();
  app.add_option("--data", o.data, "folder whose *.hpp files are the text")->capture_default_str();
  app.add_option("--seed", o.seed)->capture_default_str();
  app.add_option("--layers", o.model.layers)->capture_default_str();
  app.add_option("--width", o.model.width)->capture_default_str();
  app.add_option("--heads", o.model.heads)->capture_default_str();
  app.add_option("--context", o.model.context, "characters per sequence")->capture_default_str();
  app.add_option("--batch", o.model.batch, "sequences per micro-batch")->capture_default_str();
  app.add_option("--learning-rate", o.rate)->capture_default_str();
  app.add_option("--recompute", o.recompute, "none; all, between other ops; or inside, in the backward")
      ->check(CLI::IsMember({"none", "all", "inside"}))
      ->capture_default_str();
  app.add_option("--html", o.html, "write the measured timeline of the last step to this file");
  app.add_option("--predict", o.predict, "predict the time of schedules a,b,c with as many stages, from the last step")
      ->delimiter(',');
  app.add_option("--partition", o.layers.layers,
                 "layers per stage, with the embedding in the first and the head in the last: 3,2,2,3; default uniform")
      ->delimiter(',');
  app.add_option("--fit", o.fit,
                 "fit costs of layers to so many more steps, and print them beside those of each layer alone");
  app.add_option("--fitted", o.fitted, "with --fit: write the fitted model to this file, for pipesched plan --model");
  app.add_flag("--one-thread", o.one_thread, "run all ranks by turns on one thread, so that none disturbs another");
  app.add_flag("--check", o.check, "also run the same steps on one device and compare the losses");
  app.add_flag("--evaluate", o.evaluate, "print the loss on held-out text at the end");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    app.exit(e);
    return std::nullopt;
  }
  require_ranges(o);
  return o;
}

}  // namespace train
