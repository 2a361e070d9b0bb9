// SPDX-License-Identifier: MIT
#pragma once

// Files and the terminal. "-" is standard input or output.

#include <pipesched/cost_model.hpp>
#include <pipesched/render/text.hpp>
#include <pipesched/schedule.hpp>
#include <string>
#include <string_view>

#include "commands.hpp"

namespace tool {

/// A file whose name ends in .csv is PyTorch's, any other is JSON; what a schedule does not have (messages, FSDP's actions)
/// is counted on standard error. @throws pipesched::schedule_error with the file's name when it cannot be read or is no
/// schedule.
pipesched::schedule read_schedule(const std::string& file);

/// The costs that the options ask for.
pipesched::stage_costs read_costs(const cost_options& options);

/// A plain file that is there is replaced only once all has been written; what is not a plain file (a device, a link) is
/// written to as it is. @throws pipesched::schedule_error when it cannot be written.
void write_output(const std::string& file, std::string_view text);
void write_json_to(const std::string& file, const pipesched::schedule& s);
void write_csv_to(const std::string& file, const pipesched::schedule& s);

/// Colour and width as the terminal has them, if standard output is one.
pipesched::text_style terminal_style(const output_options& output);

}  // namespace tool
