// SPDX-License-Identifier: MIT
#pragma once

// Meaning of the options: parameters of families, costs, and the output.

#include <cstdint>
#include <limits>
#include <optional>
#include <pipesched/cost/stage_costs.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/simulate/noise.hpp>
#include <pipesched/support/error.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "command_line.hpp"

namespace tool {

/// The options that params_of() and costs_of() read.
const std::vector<option>& parameter_options();
const std::vector<option>& cost_options();

/// The parameters of a family, without its costs.
/// @param why  the beginning of the sentence if --pp or --micro is missing: "simulate --family"
/// @throws schedule_error if --pp or --micro is missing, or the memory limit is not a positive number.
pipesched::schedule_params params_of(const arguments& args, std::string_view why);

/// @throws schedule_error for the options that a schedule in a file leaves no room for
void refuse_parameters_beside(const arguments& args, const std::string& file);

/// The option of an optional parameter: "--group-size".
std::string option_of(pipesched::parameter p);

/// Whether an option of costs_of() was given.
bool gives_costs(const arguments& args);

/// The costs of --costs, with the single costs of the other options in place of its own. --backward replaces B, I and W.
/// @throws schedule_error if the file cannot be read, or a number is negative, infinite or NaN.
pipesched::stage_costs costs_of(const arguments& args);

/// Whole numbers with commas between them; nothing for any other text.
std::optional<std::vector<std::int64_t>> whole_numbers(std::string_view text);
/// The same. @throws schedule_error for other texts
std::vector<std::int64_t> numbers_of_text(std::string_view option, std::string_view text);

/// A whole number that was given, nothing if none was. @throws schedule_error outside of its range
std::optional<std::int64_t> whole_number_in(const arguments& args, std::string_view name, std::int64_t least,
                                            std::int64_t most = std::numeric_limits<std::int64_t>::max());

/// --noise, --draws and --seed.
const std::vector<option>& draw_options();

/// The noise that the options ask for, or nothing.
/// @param format  of the output: text or json, if there is noise
/// @throws schedule_error if an option is missing or has a value that makes no sense
std::optional<pipesched::noise_options> noise_of(const arguments& args, std::string_view format);

std::string lower_case(std::string text);

/// An option with a value that it does not take.
struct option_error : pipesched::schedule_error {
  using schedule_error::schedule_error;
};

/// An error's text, with the name of the file of --costs in front if it is about costs.
std::string with_costs_file(const arguments& args, std::string text);

/// Stages of the family's placement. @pre legal parameters
std::int64_t stages_of(const pipesched::family& f, const pipesched::schedule_params& p);

/// The family's schedule. A family that takes costs gets those given, split among the stages of its ranks.
/// @throws schedule_error on parameters that the family refuses.
pipesched::schedule make_family(const pipesched::family& f, pipesched::schedule_params p,
                                const pipesched::stage_costs& costs);

/// Format, file and colours of an output.
struct output {
  std::string format;
  std::string file = "-";  ///< "-" is standard output
  std::string colour = "auto";
};

/// The output of --format, --output and --colour; the suffix of the file chooses the format.
/// @param formats  those of the command, the default first
/// @throws schedule_error on an unknown format or suffix, or if both are given and disagree.
output output_of(const arguments& args, std::string_view command, const std::vector<std::string_view>& formats);
output output_of(const arguments& args, std::string_view command, const std::vector<std::string_view>& formats,
                 std::string file);

}  // namespace tool
