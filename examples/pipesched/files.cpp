// SPDX-License-Identifier: MIT

#include "files.hpp"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <pipesched/error.hpp>
#include <pipesched/io/costs_json.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/io/torch_csv.hpp>
#include <sstream>
#include <utility>

namespace fs = std::filesystem;
using pipesched::schedule_error;

namespace tool {

namespace {

// Reads through `read(stream)`, and puts the file's name before what is wrong with it.
template <typename Read>
auto read_file(const std::string& name, Read&& read) {
  try {
    if (name == "-") return read(std::cin);
    std::error_code ignored;
    std::ifstream file;
    if (!fs::is_directory(name, ignored)) file.open(name, std::ios::binary);
    if (!file.is_open()) throw schedule_error("cannot be read");
    return read(file);
  } catch (const std::exception& e) {
    throw schedule_error(name + ": " + e.what());
  }
}

[[noreturn]] void cannot_write(const std::string& name) {
  throw schedule_error((name.empty() ? "\"\"" : name) + ": cannot be written" +
                       (errno != 0 ? std::string(" (") + std::strerror(errno) + ")" : ""));
}

void write_in_place(const std::string& name, const std::function<void(std::ostream&)>& write) {
  errno = 0;
  std::ofstream file(name, std::ios::binary);
  if (file) write(file);
  file.close();
  if (!file) cannot_write(name);
}

void write_to(const std::string& name, const std::function<void(std::ostream&)>& write) {
  if (name == "-") {
    write(std::cout);
    if (!std::cout.flush()) throw schedule_error("standard output could not be written");
    return;
  }
  std::error_code ignored;
  const fs::file_status status = fs::symlink_status(name, ignored);
  if (fs::exists(status) && !fs::is_regular_file(status)) return write_in_place(name, write);

  errno = 0;
  std::string beside = name + ".XXXXXX";  // a name that nobody has
  const int made = mkstemp(beside.data());
  if (made < 0) cannot_write(name);
  mode_t permissions = fs::exists(status) ? static_cast<mode_t>(status.permissions()) : 0;
  if (permissions == 0) {
    const mode_t mask = umask(0);
    umask(mask);
    permissions = 0666 & ~mask;
  }
  fchmod(made, permissions);
  close(made);
  try {
    write_in_place(beside, write);
    errno = 0;
    if (std::rename(beside.c_str(), name.c_str()) != 0) cannot_write(name);
  } catch (...) {
    fs::remove(beside, ignored);
    throw;
  }
}

}  // namespace

pipesched::schedule read_schedule(const std::string& file) {
  if (!file.ends_with(".csv")) return read_file(file, [](std::istream& in) { return pipesched::read_json(in); });
  pipesched::torch_csv csv = read_file(file, [](std::istream& in) { return pipesched::read_torch_csv(in); });
  std::size_t counts[std::size(pipesched::torch_pass_names)] = {};
  for (const pipesched::torch_action& a : csv.actions) ++counts[static_cast<std::size_t>(a.pass)];
  for (std::size_t i = 0; i < std::size(counts); ++i)
    if (counts[i] > 0)
      std::cerr << "pipesched: " << file << ": left out " << counts[i] << ' ' << pipesched::torch_pass_names[i] << '\n';
  return std::move(csv.schedule);
}

pipesched::stage_costs read_costs(const cost_options& options) {
  pipesched::stage_costs costs;
  if (options.file == "deepseek_v3")
    costs = pipesched::deepseek_v3_costs();
  else if (!options.file.empty())
    costs = read_file(options.file, [](std::istream& in) { return pipesched::read_costs(in); });
  if (options.forward) costs.forward = *options.forward;
  if (options.backward_input) costs.backward_input = *options.backward_input;
  if (options.backward_weight) costs.backward_weight = *options.backward_weight;
  if (options.overlapped) costs.overlapped = *options.overlapped;
  if (options.transfer) costs.transfer_time = *options.transfer;
  return costs;
}

void write_output(const std::string& file, std::string_view text) {
  write_to(file, [&](std::ostream& out) { out << text; });
}

void write_json_to(const std::string& file, const pipesched::schedule& s) {
  write_to(file, [&](std::ostream& out) { pipesched::write_json(out, s); });
}

void write_csv_to(const std::string& file, const pipesched::schedule& s) {
  std::ostringstream text;  // whole before a byte is written: the format refuses some schedules
  pipesched::write_torch_csv(text, s);
  write_output(file, text.str());
}

pipesched::text_style terminal_style(const output_options& output) {
  pipesched::text_style style{.colour = output.colour == "always"};
  if (output.file != "-" || !isatty(STDOUT_FILENO)) return style;
  if (output.colour == "auto") style.colour = std::getenv("NO_COLOR") == nullptr;
  if (winsize size{}; ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) style.width = size.ws_col;
  return style;
}

}  // namespace tool
