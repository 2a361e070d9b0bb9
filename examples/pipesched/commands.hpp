// SPDX-License-Identifier: MIT
#pragma once

// What the command-line tool can do: one function a subcommand, each returning the exit code, each throwing
// pipesched::schedule_error with one sentence where the input is bad.

#include <cstdint>
#include <optional>
#include <pipesched/cost_model.hpp>
#include <pipesched/generate/schedule_params.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/schedule.hpp>
#include <string>
#include <vector>

namespace tool {

/// A family and its parameters, as options give them.
struct size_options {
  std::string family;
  pipesched::schedule_params params{.pp = 0, .micro = 0};
};

/// A file of costs, or the name "deepseek_v3", with single costs laid over it.
struct cost_options {
  std::string file;
  std::optional<double> forward, backward_input, backward_weight, overlapped, transfer;
};

struct lowering_options {
  std::int64_t depth = pipesched::lower_options{}.depth;
  bool waits = true;
};

struct output_options {
  std::string format, file = "-", colour = "auto";
};

int generate(size_options sizes, const cost_options& costs, const output_options& output);
int verify(const std::string& file);
int convert(const std::string& from, const std::string& to);
int lower(const std::string& file, const lowering_options& how, const output_options& output);
int simulate(const std::string& file, size_options sizes, const cost_options& costs, const output_options& output);
int compare(const size_options& sizes, const std::vector<std::string>& families, const cost_options& costs,
            const output_options& output);
int list();

}  // namespace tool
