// SPDX-License-Identifier: MIT
#pragma once

// A picture of the inside of a cell as text: one line per resource.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>

#include "pipesched/plan/cell_tasks.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Both resources of a planned cell, drawn to scale: "|" and as much of its name as fits for each task, blanks where the
/// resource is idle. Linear.
/// @param columns  of the longest line without its label, 8 to 10000
/// @throws schedule_error for other numbers of columns. @pre cell was planned for these ops
inline std::string render_cell(const planned_cell& cell, const op_tasks& a, const op_tasks& b,
                               std::size_t columns = 100) {
  constexpr std::size_t min_columns = 8, max_columns = 10000;
  if (columns < min_columns || columns > max_columns)
    throw schedule_error(detail::concat({"render_cell() takes ", min_columns, " to ", max_columns, " columns; got ",
                                         columns, ", nearest ", columns < min_columns ? min_columns : max_columns}));
  const std::array ops{&a, &b};
  const double scale = cell.length > 0 ? static_cast<double>(columns - 1) / cell.length : 0;
  const auto column = [&](double time) { return static_cast<std::size_t>(std::lround(time * scale)); };
  std::array<std::string, 2> lines{std::string(columns, ' '), std::string(columns, ' ')};
  for (const timed_task& t : cell.tasks) {
    const cell_task task = detail::task_of(ops, t.task);
    std::string& line = lines[static_cast<std::size_t>(task.resource)];
    const std::string_view name = task.name;
    const std::size_t begin = column(t.start), end = column(t.end);
    for (std::size_t i = begin + 1; i < end; ++i) line[i] = i - begin <= name.size() ? name[i - begin - 1] : '-';
    line[begin] = '|', line[end] = '|';
  }
  std::string text;
  for (const cell_resource r : {cell_resource::compute, cell_resource::communication}) {
    std::string line =
        std::string(to_string(r)) + std::string(14 - to_string(r).size(), ' ') + lines[static_cast<std::size_t>(r)];
    text += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
  }
  return text;
}

}  // namespace pipesched
