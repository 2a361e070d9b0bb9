// SPDX-License-Identifier: MIT
#pragma once

// The data of a page, as its script reads them.

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace pipesched::tests {

inline nlohmann::json data_in(const std::string& page) {
  const std::string_view begin = "const PAGE = ";
  const std::size_t from = page.find(begin) + begin.size(), to = page.find(";\nconst $ =");
  return nlohmann::json::parse(page.substr(from, to - from));
}

}  // namespace pipesched::tests
