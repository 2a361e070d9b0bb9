// SPDX-License-Identifier: MIT
#pragma once

// The text of a JSON document: bytes as nlohmann's parser takes them, the position reached, and sentences about both.

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>

#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// Line and column of the last byte read, both counted from 1.
struct text_position {
  std::size_t line = 1, column = 0;
  std::size_t line_before = 1, column_before = 0;  // of the byte before that one
  bool blank = true;                               // nothing but blanks so far

  void read(char c) {
    line_before = line;
    column_before = column;
    if (c == '\n')
      ++line, column = 0;
    else
      ++column;
    if (c < '\0' || c > ' ') blank = false;
  }

  /// " (line 3, column 17)". The parser has read one byte beyond a number when it reports the number.
  std::string text(bool after_number = false) const {
    return concat({" (line ", after_number ? line_before : line, ", column ",
                   std::max<std::size_t>(after_number ? column_before : column, 1), ")"});
  }
};

/// Input iterator over bytes that records its position. nlohmann's parser ends at a NUL, so that anything could follow one;
/// here a NUL is read as another byte that JSON does not allow.
template <typename Iterator>
struct json_bytes {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = char;

  char operator*() const { return *at == '\0' ? '\x01' : *at; }
  json_bytes& operator++() {
    position->read(*at);
    ++at;
    return *this;
  }
  friend bool operator==(const json_bytes& a, const json_bytes& b) { return a.at == b.at; }
  friend bool operator!=(const json_bytes& a, const json_bytes& b) { return !(a.at == b.at); }

  Iterator at;
  text_position* position;
};

/// The text as error sentences show it: one line of printable ASCII, cut after `max` characters.
inline std::string printable(std::string_view text, std::size_t max) {
  std::string shown;
  for (char c : text.substr(0, max)) shown += c >= ' ' && c <= '~' ? c : '?';
  if (text.size() > max) shown += "...";
  return shown;
}
inline std::string in_quotes(std::string_view text) { return '"' + printable(text, 40) + '"'; }

/// "not JSON: parse error at line 1, column 2: ...", from the text of nlohmann's exception.
inline std::string not_json(std::string_view what) {
  if (const auto bracket = what.find("] "); bracket != what.npos) what.remove_prefix(bracket + 2);
  return "not JSON: " + printable(what, 200);
}

}  // namespace pipesched::detail
