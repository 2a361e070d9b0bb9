// SPDX-License-Identifier: MIT
#pragma once

// The text of a JSON document: bytes as nlohmann's parser takes them, the position reached, and sentences about both.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ios>
#include <istream>
#include <string>
#include <string_view>

#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// The whole text of a stream, or, if it has a NUL, up to and including the block with the first: no document has any, so the
/// reader refuses it there, and a device of endless zeros is refused at once.
/// @throws schedule_error "costs: the stream cannot be read"; also for a text of more than `max_bytes`. Without `document` the
/// sentence names none.
inline std::string text_of(std::istream& in, std::string_view document = {}, double max_bytes = 1e18) {
  const auto fault = [&](auto... words) {
    return schedule_error(concat({document, document.empty() ? "" : ": ", words...}));
  };
  if (!in || in.rdbuf() == nullptr) throw fault("the stream cannot be read");
  constexpr std::streamsize block = 1 << 16;
  try {
    std::string text;
    for (std::size_t begin = 0;; begin = text.size()) {
      text.resize(begin + block);
      const std::streamsize read = std::max<std::streamsize>(in.rdbuf()->sgetn(text.data() + begin, block), 0);
      text.resize(begin + static_cast<std::size_t>(read));
      if (read < block || text.find('\0', begin) != text.npos) return text;
      if (static_cast<double>(text.size()) > max_bytes)
        throw fault("a text of more than ", static_cast<std::uint64_t>(max_bytes) >> 20,
                    " MiB; expected one that fits in memory");
    }
  } catch (const std::ios_base::failure& e) {
    throw fault("the stream cannot be read: ", e.what());
  }
}

/// How far a text has been read.
class text_position {
 public:
  explicit text_position(std::string_view text) : text_(text), next_(text.data()) {}

  const char* begin() const noexcept { return text_.data(); }
  const char* end() const noexcept { return text_.data() + text_.size(); }
  void read_up_to(const char* next) noexcept { next_ = next; }

  /// True if nothing but blanks has been read.
  bool blank() const {
    return std::all_of(begin(), next_, [](char c) { return c > '\0' && c <= ' '; });
  }
  /// " (line 3, column 17)", of the last byte read, both counted from 1. The parser has read one byte beyond a number when it
  /// reports the number. Linear in what has been read.
  std::string text(bool after_number = false) const {
    const std::string_view read(begin(),
                                static_cast<std::size_t>(next_ - begin()) - (after_number && next_ != begin()));
    const auto line = 1 + std::count(read.begin(), read.end(), '\n');
    const std::size_t column = read.size() - (read.rfind('\n') + 1);
    return concat({" (line ", line, ", column ", std::max<std::size_t>(column, 1), ")"});
  }

 private:
  std::string_view text_;
  const char* next_;
};

/// Input iterator over bytes that records its position. nlohmann's parser ends at a NUL, so that anything could follow one;
/// here a NUL is read as another byte that JSON does not allow.
struct json_bytes {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = char;

  char operator*() const { return *at == '\0' ? '\x01' : *at; }
  json_bytes& operator++() {
    position->read_up_to(++at);
    return *this;
  }
  friend bool operator==(const json_bytes& a, const json_bytes& b) { return a.at == b.at; }
  friend bool operator!=(const json_bytes& a, const json_bytes& b) { return !(a.at == b.at); }

  const char* at;
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
