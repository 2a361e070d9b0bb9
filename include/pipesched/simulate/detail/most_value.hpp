// SPDX-License-Identifier: MIT
#pragma once

// The most value that fits into some bytes.

#include <algorithm>
#include <vector>

namespace pipesched::detail {

/// Things to choose from: their bytes and their value, all together.
struct sized_value {
  double bytes = 0, value = 0;
};

/// In the order in which most_value() takes them: the most value a byte first.
constexpr std::vector<sized_value> densest_first(std::vector<sized_value> all) {
  std::sort(all.begin(), all.end(),
            [](const sized_value& a, const sized_value& b) { return a.value * b.bytes > b.value * a.bytes; });
  return all;
}

/// The most value that fits into some bytes, of parts of things, too. @pre densest_first()
constexpr double most_value(const std::vector<sized_value>& all, double bytes) {
  double value = 0;
  bytes = std::max(0.0, bytes);
  for (const sized_value& s : all) {
    value += s.bytes <= bytes ? s.value : s.value * bytes / s.bytes;
    bytes = std::max(0.0, bytes - s.bytes);
  }
  return value;
}

}  // namespace pipesched::detail
