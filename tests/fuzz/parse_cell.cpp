// SPDX-License-Identifier: MIT
// Whatever text comes, it is no cell, or one that parses again from what it is written as.

#include <cstdint>
#include <cstdlib>
#include <pipesched/notation.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto c = pipesched::parse_cell(std::string_view(reinterpret_cast<const char*>(data), size));
  if (c && pipesched::parse_cell(to_string(*c)) != c) std::abort();
  return 0;
}
