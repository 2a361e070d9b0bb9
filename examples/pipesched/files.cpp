// SPDX-License-Identifier: MIT

#include "files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <pipesched/generate/recognize.hpp>
#include <pipesched/io/costs_json.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/io/model_json.hpp>
#include <pipesched/io/torch_csv.hpp>
#include <pipesched/model/layout.hpp>
#include <pipesched/model/presets.hpp>
#include <pipesched/support/concat.hpp>
#include <pipesched/support/error.hpp>
#include <pipesched/support/nearest_name.hpp>
#include <sstream>
#include <utility>
#include <vector>

#include "command_line.hpp"
#include "memory.hpp"

namespace fs = std::filesystem;
using pipesched::schedule_error;
using pipesched::detail::count_text;

namespace tool {

namespace {

std::string shown(const std::string& name) { return name.empty() ? "\"\"" : name; }

// "; did you mean plan.json?", from the folder of the file and `others`; for the name of a family, the option that takes it. A name
// without a dot and a folder is answered with the others.
std::string hint_at(const std::string& name, const std::vector<std::string>& others) {
  for (const pipesched::family& f : pipesched::families)
    if (f.name == name) return fmt::format("; the family goes with --family, as in simulate --family {}", name);
  constexpr std::size_t max_entries = 10000;
  const fs::path folder = fs::path(name).parent_path();
  std::vector<std::string> names = others;
  std::error_code error;
  for (fs::directory_iterator at(folder.empty() ? "." : folder, error), end; !error && at != end; at.increment(error)) {
    if (names.size() == max_entries) break;
    names.push_back(at->path().filename().string());
  }
  const std::string_view nearest = pipesched::nearest_name(fs::path(name).filename().string(), names);
  if (nearest.empty() && !others.empty() && name.find_first_of("./") == name.npos)
    return fmt::format("; by name: {}", fmt::join(others, ", "));
  if (nearest.empty()) return {};
  const bool is_other = std::find(others.begin(), others.end(), nearest) != others.end();
  return "; did you mean " + (is_other ? std::string(nearest) : (folder / nearest).string()) + "?";
}

// Calls `read()`, and puts the file's name before errors.
template <typename Read>
auto with_name_of(const std::string& name, Read&& read) {
  try {
    return read();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    throw schedule_error((name == "-" ? "standard input" : shown(name)) + ": " + e.what());
  }
}

// The text of a file, which may take an eighth of the free memory: it is copied twice while it grows and is parsed. The names in
// `others` may stand for a file.
std::string text_of_file(const std::string& name, const std::vector<std::string>& others = {}) {
  return with_name_of(name, [&] {
    const double max_bytes = free_memory() / 8;
    if (name == "-") return pipesched::detail::text_of(std::cin, {}, max_bytes);
    std::error_code ignored;
    std::ifstream file;
    if (fs::is_directory(name, ignored))
      errno = EISDIR;
    else
      errno = 0, file.open(name, std::ios::binary);
    if (!file.is_open()) {
      const int reason = errno;
      throw schedule_error(std::string("cannot be read (") + std::strerror(reason) + ")" +
                           (reason == ENOENT ? hint_at(name, others) : ""));
    }
    return pipesched::detail::text_of(file, {}, max_bytes);
  });
}

[[noreturn]] void cannot_write(const std::string& name) {
  throw schedule_error(shown(name) + ": cannot be written" +
                       (errno != 0 ? std::string(" (") + std::strerror(errno) + ")" : ""));
}

void write_in_place(const std::string& name, const std::function<void(std::ostream&)>& write) {
  errno = 0;
  std::ofstream file(name, std::ios::binary);
  if (file) write(file);
  file.close();
  if (!file) cannot_write(name);
}

// A CSV has no name: the schedule gets that of the family whose order it is, of the file's own name first.
void name_after_family(pipesched::schedule& s, const std::string& stem) {
  const double read = 16.0 * static_cast<double>(s.cells.all().size());
  const double budget = std::max(4 * read, 256.0 * 1024 * 1024);
  const auto fits = [&](const pipesched::family& f, const pipesched::schedule_params& p) {
    return stages_of(f, p) == s.stages() && bytes_to_generate(f, p) <= budget;
  };
  if (const std::string_view name = pipesched::recognize_family(s, stem, fits); !name.empty()) s.name = name;
}

}  // namespace

std::string read_text(const std::string& file) { return text_of_file(file); }

namespace {

std::vector<std::string> notes;

}  // namespace

void add_note(std::string line) { notes.push_back(std::move(line)); }

void print_notes() {
  for (const std::string& line : notes) std::cerr << "pipesched: " << line << '\n';
}

namespace {

// Counts the actions that are left out in a note.
pipesched::schedule computation_of(const std::string& file, pipesched::schedule_file read) {
  const auto counts = pipesched::counts_of(read.actions);
  std::string left_out;
  for (std::size_t i = 0; i < counts.size(); ++i)
    if (counts[i] > 0)
      left_out += fmt::format("{}{} {}", left_out.empty() ? "" : ", ", counts[i], pipesched::torch_pass_names[i]);
  if (!left_out.empty()) add_note(file + ": left out " + left_out);
  return std::move(read.schedule);
}

// Refuses a layout, in Megatron-LM's words, of other layers. Its E and L need not be layers of the model.
void require_layout(const std::string& text, const std::vector<std::uint32_t>& layers) {
  std::vector<std::uint32_t> least(1), most(1);
  for (const auto& [letter, column] : pipesched::detail::layout_parser(text).unrolled()) {
    if (letter == '|')
      least.push_back(0), most.push_back(0);
    else
      ++most.back(), least.back() += letter != 'E' && letter != 'L';
  }
  if (most.size() != layers.size())
    throw schedule_error(
        fmt::format("layout has {}, and partition {}", count_text(most.size(), "stage"), layers.size()));
  for (std::size_t s = 0; s < layers.size(); ++s)
    if (layers[s] < least[s] || layers[s] > most[s])
      throw schedule_error(
          fmt::format("partition has {} on stage {}, and layout {}", count_text(layers[s], "layer"), s,
                      least[s] == most[s] ? fmt::format("{}", most[s]) : fmt::format("{} to {}", least[s], most[s])));
}

// @throws schedule_error if the partition is not of the schedule, of all layers, or of the layout beside it
void require_layers(const nlohmann::json& j, const planned_schedule& planned) {
  const auto& layers = planned.partition->layers;
  if (layers.size() != planned.schedule.stages())
    throw schedule_error(fmt::format("partition has layers of {}; the schedule has {}",
                                     count_text(layers.size(), "stage"), planned.schedule.stages()));
  const auto sum = std::accumulate(layers.begin(), layers.end(), std::uint64_t{0});
  if (j.contains("layers") && j["layers"] != sum)
    throw schedule_error(fmt::format("partition has {}; the entry layers has {}", count_text(sum, "layer"),
                                     j["layers"].is_number() ? j["layers"].dump() : in_quotes(j["layers"].dump())));
  if (sum == 0) throw schedule_error("partition has no layers; expected at least 1");
  if (!j.contains("layout") || !j["layout"].is_string()) return;
  require_layout(j["layout"].get<std::string>(), layers);
}

// The JSON of plan or divide: an object without the entry "format". Nothing for any other text.
std::optional<planned_schedule> planned_of(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n{");  // its first entry: no large schedule is read twice
  if (!text.starts_with('{') || first == text.npos || text.compare(first, 8, "\"format\"") == 0) return std::nullopt;
  const auto j = nlohmann::json::parse(text, nullptr, false);
  if (!j.is_object() || j.contains("format")) return std::nullopt;
  const bool is_front = j.contains("points") && j["points"].is_array();
  if (is_front && j["points"].size() != 1)
    throw schedule_error(
        fmt::format("a front of {}; expected one, of a single limit", count_text(j["points"].size(), "plan")));
  if (is_front) return planned_of(j["points"][0].dump());
  if (!j.contains("schedule") || !j.contains("makespan")) return std::nullopt;
  planned_schedule planned{.schedule = pipesched::read_json(j["schedule"].dump())};
  if (!j.contains("partition")) return planned;
  if (!j["partition"].is_array())
    throw schedule_error(
        fmt::format("partition is a list of layers per stage; got {}", in_quotes(j["partition"].dump())));
  planned.partition.emplace();
  for (const auto& layers : j["partition"]) {
    if (!layers.is_number_unsigned() || layers.get<std::uint64_t>() > pipesched::max_layers)
      throw schedule_error(fmt::format("partition has layers per stage, 0 to {}; got {}", pipesched::max_layers,
                                       in_quotes(layers.dump())));
    planned.partition->layers.push_back(layers.get<std::uint32_t>());
  }
  require_layers(j, planned);
  return planned;
}

struct file_of_schedule {
  pipesched::schedule_file read;
  std::optional<pipesched::partition> partition{};
};

file_of_schedule read_any(const std::string& file) {
  const std::string text = read_text(file);
  file_of_schedule found = with_name_of(file, [&]() -> file_of_schedule {
    if (auto planned = planned_of(text)) {
      file_of_schedule whole{.read = {}, .partition = std::move(planned->partition)};
      whole.read.schedule = std::move(planned->schedule);
      return whole;
    }
    return {pipesched::read_schedule(std::istringstream(text))};
  });
  if (found.read.format == pipesched::schedule_format::torch_csv)
    name_after_family(found.read.schedule, fs::path(file).stem().string());
  return found;
}

}  // namespace

pipesched::schedule_file read_schedule(const std::string& file) { return read_any(file).read; }

pipesched::schedule read_computation(const std::string& file) {
  planned_schedule planned = read_planned(file);
  if (planned.partition)
    add_note(fmt::format("{}: left out the layers per stage {}, which a schedule does not have", file,
                         fmt::join(planned.partition->layers, ",")));
  return std::move(planned.schedule);
}

planned_schedule read_planned(const std::string& file) {
  file_of_schedule found = read_any(file);
  return {.schedule = computation_of(file, std::move(found.read)), .partition = std::move(found.partition)};
}

pipesched::stage_costs read_costs(const std::string& file) {
  std::istringstream text(text_of_file(file, {"deepseek_v3"}));
  return with_name_of(file, [&] { return pipesched::read_costs(text); });
}

pipesched::model read_model(const std::string& file) {
  std::istringstream text(text_of_file(file, {pipesched::model_names.begin(), pipesched::model_names.end()}));
  return with_name_of(file, [&] { return pipesched::read_model(text); });
}

void write_output(const std::string& file, const std::function<void(std::ostream&)>& write) {
  if (file == "-") {
    write(std::cout);
    if (!std::cout.flush()) throw schedule_error("standard output could not be written");
    return;
  }
  std::error_code ignored;
  const fs::file_status status = fs::symlink_status(file, ignored);
  if (fs::exists(status) && !fs::is_regular_file(status)) return write_in_place(file, write);

  errno = 0;
  std::string beside = file + ".XXXXXX";  // a name that no file has
  const int made = mkstemp(beside.data());
  if (made < 0) cannot_write(file);
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
    if (std::rename(beside.c_str(), file.c_str()) != 0) cannot_write(file);
  } catch (...) {
    fs::remove(beside, ignored);
    throw;
  }
}

void write_output(const std::string& file, std::string_view text) {
  write_output(file, [&](std::ostream& out) { out << text; });
}

namespace {

void refuse_other_text(const fs::path& file, const std::string& text) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(file, ignored))) return;
  if (fs::is_regular_file(file, ignored) && fs::file_size(file, ignored) == text.size()) {
    std::ifstream in(file, std::ios::binary);
    if (in && pipesched::detail::text_of(in) == text) return;
  }
  throw schedule_error(file.string() + " is there with another text; expected a folder without it");
}

void make_folder(const std::string& folder) {
  std::error_code ignored;
  for (fs::path above = folder; above.has_relative_path(); above = above.parent_path())
    if (above.has_filename() && fs::exists(above, ignored) && !fs::is_directory(above, ignored))
      throw schedule_error(above.string() + " is not a folder; expected a folder, or a name that is not taken");
  std::error_code error;
  fs::create_directories(folder, error);
  if (!fs::is_directory(folder, ignored))
    throw schedule_error(shown(folder) + ": cannot be made a folder" + (error ? " (" + error.message() + ")" : ""));
}

}  // namespace

void write_folder(const std::string& folder, const std::vector<pipesched::exported_file>& files) {
  std::string printed;
  if (folder == "-") {
    for (const pipesched::exported_file& f : files)
      printed += files.size() == 1 ? f.text : fmt::format("--- {}\n{}", f.name, f.text);
    return write_output("-", printed);
  }
  for (const pipesched::exported_file& f : files) refuse_other_text(fs::path(folder) / f.name, f.text);
  make_folder(folder);
  for (const pipesched::exported_file& f : files) {
    const std::string name = (fs::path(folder) / f.name).string();
    write_output(name, f.text);
    printed += name + '\n';
  }
  write_output("-", printed);
}

void write_json(const std::string& file, const pipesched::schedule& s) {
  write_output(file, [&](std::ostream& out) { pipesched::write_json(out, s); });
}

void write_csv(const std::string& file, const pipesched::schedule& s) {
  std::ostringstream text;  // all of it before the file is touched, as the format refuses some schedules
  pipesched::write_torch_csv(text, s);
  write_output(file, text.view());
}

pipesched::text_style style_of(const output& to) {
  pipesched::text_style style{.colour = to.colour == "always"};
  if (to.file != "-" || !isatty(STDOUT_FILENO)) return style;
  if (to.colour == "auto") style.colour = std::getenv("NO_COLOR") == nullptr;
  if (winsize size{}; ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) style.width = size.ws_col;
  return style;
}

}  // namespace tool
