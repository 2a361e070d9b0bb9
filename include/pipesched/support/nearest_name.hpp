// SPDX-License-Identifier: MIT
#pragma once

// "Did you mean": the known name that a misspelled one was most likely meant to be.

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string_view>
#include <vector>

namespace pipesched {

namespace detail {

// Names are compared without case, and with '-' equal to '_'.
constexpr char folded(char c) noexcept {
  return c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

constexpr bool starts_with(std::string_view name, std::string_view start) noexcept {
  return name.size() >= start.size() &&
         std::equal(start.begin(), start.end(), name.begin(), [](char a, char b) { return folded(a) == folded(b); });
}

// The least number of characters to insert, delete, replace, or swap with their neighbour (each pair at most once).
// O(a.size() * b.size()).
constexpr std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> two_back(b.size() + 1, 0), back(b.size() + 1, 0), row(b.size() + 1, 0);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    two_back.swap(back), back.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = folded(a[i - 1]) == folded(b[j - 1]);
      row[j] = std::min({back[j] + 1, row[j - 1] + 1, back[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) && folded(a[i - 2]) == folded(b[j - 1]))
        row[j] = std::min(row[j], two_back[j - 2] + 1);
    }
  }
  return row[b.size()];
}

}  // namespace detail

/// The element of `names` that is nearest to `given`, or an empty text if none is near: at most two edits away, or one
/// for a name of two or three characters; failing that, one that starts with `given` (three characters or more). Upper
/// case and `-` count as lower case and `_`. The first one of several.
/// `name_of(element)` gives the name of an element.
///
///     nearest_name("dualpip", std::array<std::string_view, 2>{"dualpipev", "dualpipe"}) == "dualpipe"
template <typename Names, typename NameOf = std::identity>
constexpr std::string_view nearest_name(std::string_view given, const Names& names, NameOf&& name_of = {}) {
  constexpr std::size_t max_length = 64;  // no name is longer, and the distance is quadratic
  if (given.size() > max_length) return {};
  std::size_t least = given.size() < 4 ? given.size() / 2 : 2;
  std::string_view nearest;
  for (const auto& element : names) {
    const std::string_view name = std::invoke(name_of, element);
    const std::size_t distance = detail::edit_distance(given, name);
    if (distance < least || (distance == least && nearest.empty())) least = distance, nearest = name;
  }
  if (!nearest.empty() || given.size() < 3) return nearest;
  for (const auto& element : names) {
    const std::string_view name = std::invoke(name_of, element);
    if (detail::starts_with(name, given)) return name;
  }
  return {};
}

}  // namespace pipesched
