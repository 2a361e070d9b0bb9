// SPDX-License-Identifier: MIT
#pragma once

// Schedules of other projects: files in tests/golden, each of which names its source.

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <pipesched/core/schedule.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace pipesched::tests {

inline std::string golden_text(const std::string& file) {
  std::ifstream in(std::string(PIPESCHED_SOURCE_DIR) + "/tests/golden/" + file, std::ios::binary);
  REQUIRE_MESSAGE(in, file);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The rows of golden/<name>.json, the cells of each separated by spaces.
inline std::vector<std::string> golden_rows(const std::string& name) {
  std::vector<std::string> rows;
  const auto document = nlohmann::json::parse(golden_text(name + ".json"));
  for (const auto& rank : document["ranks"]) {
    std::string row;
    for (const auto& cell : rank) row += (row.empty() ? "" : " ") + cell.get<std::string>();
    rows.push_back(row);
  }
  return rows;
}

/// The rows of PyTorch's golden/<name>.csv in the library's notation.
inline std::vector<std::string> golden_csv_rows(const std::string& name) {
  std::vector<std::string> rows;
  std::istringstream lines(golden_text(name + ".csv"));
  for (std::string line; std::getline(lines, line);) {
    const std::string overlap = "OVERLAP_F_B";
    for (std::size_t at; (at = line.find(overlap)) != line.npos;) line.erase(at, overlap.size());
    for (char& c : line)
      if (c == ',') c = ' ';
    line.erase(line.find_last_not_of("\r ") + 1);
    rows.push_back(line);
  }
  return rows;
}

inline std::vector<std::string> text_rows(const schedule& s) {
  std::vector<std::string> rows;
  for (std::size_t rank = 0; rank < s.pp(); ++rank) rows.push_back(to_string(s[rank]));
  return rows;
}

}  // namespace pipesched::tests
