// SPDX-License-Identifier: MIT
// Any text is refused, or parsed to a cell that survives a round trip.

#include <cstdint>
#include <pipesched/core/notation.hpp>

#include "one_sentence.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto c = pipesched::parse_cell(std::string_view(reinterpret_cast<const char*>(data), size));
  require(!c || pipesched::parse_cell(to_string(*c)) == c);
  return 0;
}
