// SPDX-License-Identifier: MIT
// Rules of the source tree: includes go one way, the core needs the standard library alone, headers stay short.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

const fs::path headers = fs::path(PIPESCHED_SOURCE_DIR) / "include" / "pipesched";

std::vector<fs::path> all_headers() {
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(headers))
    if (entry.path().extension() == ".hpp") found.push_back(fs::relative(entry.path(), headers));
  REQUIRE(found.size() > 10);
  return found;
}

std::vector<std::string> lines_of(const fs::path& file) {
  std::ifstream in(headers / file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> includes_of(const fs::path& file) {
  std::vector<std::string> found;
  for (const std::string& line : lines_of(file))
    if (line.rfind("#include ", 0) == 0) found.push_back(line.substr(9, line.find_last_of(">\"") - 8));
  return found;
}

// "generate" for generate/detail/greedy_ranks.hpp, "" for version.hpp.
std::string top_folder(const fs::path& file) {
  return file.has_parent_path() ? file.begin()->generic_string() : std::string();
}

bool declares(const fs::path& file, const std::string& in) {
  const auto lines = lines_of(file);
  return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) { return line.rfind(in, 0) == 0; });
}

// True if the header only includes others.
bool only_includes(const fs::path& file) { return !declares(file, "namespace pipesched"); }

// True if the header declares nothing outside pipesched::detail.
bool only_details(const fs::path& file) {
  return declares(file, "namespace pipesched::detail ") && !declares(file, "namespace pipesched ");
}

// All headers that a header includes, directly or through others.
void add_includes(const std::string& file, std::set<std::string>& found) {
  for (const std::string& included : includes_of(file)) {
    if (included.rfind("\"pipesched/", 0) != 0) continue;
    const std::string name = included.substr(11, included.size() - 12);
    if (found.insert(name).second) add_includes(name, found);
  }
}

// The layers of the library. A header may include its own folder and those named here.
const std::map<std::string, std::set<std::string>> may_include = {
    {"", {}},
    {"support", {""}},
    {"core", {"support"}},
    {"cost", {"support", "core"}},
    {"model", {"support", "core", "cost"}},
    {"generate", {"support", "core", "cost"}},
    {"simulate", {"support", "core", "cost", "model", "generate"}},
    {"program", {"support", "core", "cost", "simulate"}},
    {"plan", {"support", "core", "cost", "model", "generate", "simulate", "program"}},
    {"io", {"support", "core", "cost", "model", "simulate", "program"}},
    {"render", {"support", "core", "cost", "generate", "simulate", "program", "plan"}},
    {"execute", {"support", "core", "simulate", "program"}},
    {"launch", {"support", "core", "execute"}},
    {"mpi", {"support", "core", "simulate", "program", "execute", "launch"}},
    {"device", {"support", "core", "simulate", "program", "execute", "launch"}},
};

}  // namespace

TEST_CASE("tree: a folder includes only the folders above it") {
  for (const fs::path& file : all_headers()) {
    if (only_includes(file)) continue;
    CAPTURE(file.string());
    const std::string folder = top_folder(file);
    REQUIRE(may_include.count(folder) == 1);
    for (const std::string& included : includes_of(file)) {
      if (included.rfind("\"pipesched/", 0) != 0) continue;
      const std::string other = top_folder(included.substr(11, included.size() - 12));
      CAPTURE(included);
      CHECK((other == folder || may_include.at(folder).count(other) == 1));
    }
  }
}

TEST_CASE("tree: outside io/, execute/, device/, mpi/ and launch/ only the standard library is included") {
  for (const fs::path& file : all_headers()) {
    const std::string folder = top_folder(file);
    if (std::set<std::string>{"io", "execute", "device", "mpi", "launch"}.contains(folder)) continue;
    CAPTURE(file.string());
    for (const std::string& included : includes_of(file)) {
      CAPTURE(included);
      const bool own = included.rfind("\"pipesched/", 0) == 0;
      const bool standard = included[0] == '<' && included.find_first_of("./") == std::string::npos;
      CHECK((own || standard));
    }
  }
}

TEST_CASE("tree: the umbrella includes every header, except those that its comment names, alone or by their folder") {
  std::set<std::string> named;  // such as "core/transform.hpp" and "program/"
  for (std::string line : lines_of("pipesched.hpp")) {
    if (line.rfind("//", 0) != 0) continue;
    std::replace_if(
        line.begin(), line.end(), [](char c) { return c == '(' || c == ')' || c == ',' || c == ':'; }, ' ');
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      while (word.back() == '.' || word.back() == ';') word.pop_back();
      if (!word.ends_with(".hpp") && !word.ends_with("/")) continue;
      CAPTURE(word);
      CHECK((word == "//" || fs::exists(headers / word)));
      named.insert(word);
    }
  }
  std::set<std::string> included, expected;
  add_includes("pipesched.hpp", included);
  for (const fs::path& file : all_headers()) {
    const std::string name = file.generic_string();
    if (only_details(file))
      included.erase(name);
    else if (name != "pipesched.hpp" && named.count(name) == 0 && named.count(top_folder(file) + "/") == 0)
      expected.insert(name);
  }
  for (const std::string& name : expected) {
    CAPTURE(name);
    CHECK(included.count(name) == 1);
  }
  for (const std::string& name : included) {
    CAPTURE(name);
    CHECK(expected.count(name) == 1);  // named as left out, and yet included
  }
  const std::vector<std::string> lines = includes_of("pipesched.hpp");
  CHECK(std::is_sorted(lines.begin(), lines.end()));
}

TEST_CASE("tree: a family that does not search on costs does not include the cost model") {
  const std::set<std::string> with_costs = {"families",  "recognize",    "schedule_params", "zb_params",
                                            "zb_greedy", "zb_greedy_1p", "zb_greedy_2p",    "zb_h1",
                                            "zb_h2",     "zbv_greedy"};
  int without = 0;
  for (const fs::path& file : all_headers()) {
    if (top_folder(file) != "generate" || file.parent_path() != "generate") continue;
    CAPTURE(file.string());
    std::set<std::string> included;
    add_includes(file.generic_string(), included);
    const bool costs = std::any_of(included.begin(), included.end(),
                                   [](const std::string& name) { return name.starts_with("cost/"); });
    CHECK(costs == with_costs.contains(file.stem().string()));
    without += !costs;
  }
  CHECK(without > 15);
}

TEST_CASE("tree: headers open with licence, guard and a paragraph, and stay under 400 lines") {
  for (const fs::path& file : all_headers()) {
    CAPTURE(file.string());
    const auto lines = lines_of(file);
    REQUIRE(lines.size() > 5);
    CHECK(lines[0] == "// SPDX-License-Identifier: MIT");
    CHECK(lines[1] == "#pragma once");
    CHECK(lines[3].rfind("// ", 0) == 0);
    CHECK(lines.size() <= 400);
  }
}
