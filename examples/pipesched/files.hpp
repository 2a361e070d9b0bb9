// SPDX-License-Identifier: MIT
#pragma once

// Files and the terminal. "-" is standard input or output.

#include <functional>
#include <iosfwd>
#include <optional>
#include <pipesched/core/schedule.hpp>
#include <pipesched/cost/stage_costs.hpp>
#include <pipesched/io/exported.hpp>
#include <pipesched/io/read_schedule.hpp>
#include <pipesched/model/model.hpp>
#include <pipesched/model/partition.hpp>
#include <pipesched/render/text.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "inputs.hpp"

namespace tool {

/// Reads a schedule as JSON or PyTorch's CSV, by its content, or the JSON of plan and divide. A CSV has no name: the schedule
/// is named after the family that makes this order, or "torch_csv". @throws schedule_error, with the file's name, if it cannot
/// be read.
pipesched::schedule_file read_schedule(const std::string& file);

/// Reads a schedule for a command that has no use for other actions and layers per stage, and names those in notes.
pipesched::schedule read_computation(const std::string& file);

/// A schedule, with the partition that a plan or a division chose for it.
struct planned_schedule {
  pipesched::schedule schedule;
  std::optional<pipesched::partition> partition{};
};
/// Reads what read_computation() reads.
planned_schedule read_planned(const std::string& file);

/// All that a file holds. @throws schedule_error, with the file's name, if it cannot be read
std::string read_text(const std::string& file);

/// Keeps a line for standard error, which print_notes() prints: an error is then the only line.
void add_note(std::string line);
void print_notes();

/// Reads a model as JSON. @throws schedule_error, with the file's name, if it cannot be read.
pipesched::model read_model(const std::string& file);

/// Reads costs as JSON. @throws schedule_error, with the file's name, if it cannot be read.
pipesched::stage_costs read_costs(const std::string& file);

/// Writes a file. A regular file is replaced only after all has been written; anything else, such as a device or a link, is
/// written in place. @throws schedule_error if it cannot be written.
void write_output(const std::string& file, std::string_view text);
void write_output(const std::string& file, const std::function<void(std::ostream&)>& write);
/// Writes files into a folder, which is made if it is not there, and prints their names. "-" prints the files themselves.
/// @throws schedule_error, before anything is written, if one of them is there with another text
void write_folder(const std::string& folder, const std::vector<pipesched::exported_file>& files);
void write_csv(const std::string& file, const pipesched::schedule& s);
void write_json(const std::string& file, const pipesched::schedule& s);

/// Colours as asked for, and the width of the terminal if the output is one.
pipesched::text_style style_of(const output& to);

}  // namespace tool
