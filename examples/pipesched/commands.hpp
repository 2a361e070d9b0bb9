// SPDX-License-Identifier: MIT
#pragma once

// The commands of the tool. Each returns the exit code and throws pipesched::schedule_error, with one sentence, on bad input.

#include <string_view>
#include <vector>

#include "command_line.hpp"

namespace tool {

// The formats that a command writes; the first one is the default.
inline const std::vector<std::string_view> generate_formats = {"json", "csv", "text", "grid"};
inline const std::vector<std::string_view> convert_formats = {"json", "csv"};
inline const std::vector<std::string_view> lower_formats = {"json", "csv"};
inline const std::vector<std::string_view> simulate_formats = {"text", "json", "svg", "html", "trace"};
inline const std::vector<std::string_view> divide_formats = {"text", "json", "layout"};
inline const std::vector<std::string_view> model_formats = {"text", "json"};
inline const std::vector<std::string_view> plan_formats = {"text", "json", "svg", "html", "csv"};
inline const std::vector<std::string_view> import_formats = {"json"};
inline const std::vector<std::string_view> compare_formats = {"text", "json", "html"};

int generate(const arguments& args);
int verify(const arguments& args);
int convert(const arguments& args);
int lower(const arguments& args);
int simulate(const arguments& args);
int compare(const arguments& args);
int divide(const arguments& args);
int plan(const arguments& args);
const std::vector<option>& plan_options();
int export_schedule(const arguments& args);
const std::vector<option>& export_options();
int import_costs(const arguments& args);
const std::vector<option>& import_options();
int show_model(const arguments& args);
int list(const arguments& args);

}  // namespace tool
