// SPDX-License-Identifier: MIT
// The tree keeps its promises: data flows one way, the core needs the standard library alone, headers stay short.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
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

// The floors of the library. A header may include its own folder and those named here.
const std::map<std::string, std::set<std::string>> may_include = {
    {"", {}},
    {"generate", {""}},
    {"simulate", {"", "generate"}},
    {"program", {"", "program/detail"}},
    {"program/detail", {"", "program"}},
    {"io", {"", "simulate", "program"}},
    {"render", {"", "simulate"}},
    {"execute", {"", "simulate", "program"}},
};

}  // namespace

TEST_CASE("tree: a folder includes only the folders above it") {
  for (const fs::path& file : all_headers()) {
    if (file == "pipesched.hpp") continue;
    CAPTURE(file.string());
    const std::string folder = file.parent_path().string();
    REQUIRE(may_include.count(folder) == 1);
    for (const std::string& included : includes_of(file)) {
      if (included.rfind("\"pipesched/", 0) != 0) continue;
      const std::string other = fs::path(included.substr(11, included.size() - 12)).parent_path().string();
      CAPTURE(included);
      CHECK((other == folder || may_include.at(folder).count(other) == 1));
    }
  }
}

TEST_CASE("tree: outside io/ and execute/ only the standard library is included") {
  for (const fs::path& file : all_headers()) {
    const std::string folder = file.parent_path().string();
    if (folder == "io" || folder == "execute") continue;
    CAPTURE(file.string());
    for (const std::string& included : includes_of(file)) {
      CAPTURE(included);
      const bool own = included.rfind("\"pipesched/", 0) == 0;
      const bool standard = included[0] == '<' && included.find_first_of("./") == std::string::npos;
      CHECK((own || standard));
    }
  }
}

TEST_CASE(
    "tree: the umbrella includes every header that needs only the standard library, but for pictures in files, "
    "engines and transformations") {
  const std::set<std::string> left_out = {
      "generate/building_block.hpp", "generate/v_shape.hpp",   "generate/greedy.hpp", "generate/zb_greedy.hpp",
      "generate/families.hpp",       "simulate/fit_costs.hpp", "transform.hpp"};
  std::vector<std::string> expected;
  for (const fs::path& file : all_headers()) {
    const std::string folder = file.parent_path().string();
    if (left_out.count(file.generic_string()) == 1) continue;
    if (folder != "io" && folder != "execute" && folder != "program" && folder != "program/detail" &&
        (folder != "render" || file.stem() == "text") && file != "pipesched.hpp")
      expected.push_back("\"pipesched/" + file.generic_string() + "\"");
  }
  std::sort(expected.begin(), expected.end());
  CHECK(includes_of("pipesched.hpp") == expected);
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
