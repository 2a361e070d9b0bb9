// SPDX-License-Identifier: MIT
#pragma once

// The fields of a CSV text, as Python's csv module reads them: commas, optional double quotes ("" inside them is one
// quote), rows that end in CR LF, LF or CR. In addition, a byte order mark and blanks around a field are dropped.
// Source: Python, csv.reader with the dialect "excel", then str.strip(), as torch.distributed.pipelining does.

#include <algorithm>
#include <array>
#include <cstddef>
#include <istream>
#include <string>
#include <string_view>

#include "pipesched/support/error.hpp"

namespace pipesched::detail {

class csv_fields {
 public:
  explicit csv_fields(std::istream& in) : bytes_(in.rdbuf()) {
    if (bytes_ == nullptr) return;
    for (const char mark : std::string_view("\xEF\xBB\xBF")) {
      if (peek() != static_cast<unsigned char>(mark)) return;
      begin_ += static_cast<char>(take());
    }
    begin_.clear();
  }

  /// Reads the next field. An empty row has one empty field. False at the end of the text.
  /// @throws std::ios_base::failure when the stream cannot be read
  bool next() {
    if (bytes_ == nullptr || (ends_row_ && begin_.empty() && peek() == end)) return false;
    field_.assign(begin_);
    begin_.clear();
    closed_ = true;
    while (field_.empty() && is_blank(peek())) take();
    if (field_.empty() && peek() == '"') read_quoted();
    append_plain();
    const int c = take();
    ends_row_ = c != ',';
    if (c == '\r' && peek() == '\n') take();
    while (!field_.empty() && is_space(field_.back())) field_.pop_back();
    std::size_t blanks = 0;
    while (blanks < field_.size() && is_space(field_[blanks])) ++blanks;
    if (blanks > 0) field_.erase(0, blanks);
    return true;
  }

  std::string_view field() const noexcept { return field_; }
  bool ends_row() const noexcept { return ends_row_; }       ///< the field is the last one of its row
  bool quote_is_closed() const noexcept { return closed_; }  ///< false: the text ended inside quotes

 private:
  static constexpr int end = std::char_traits<char>::eof();

  static constexpr bool is_space(char c) { return is_blank(c) || c == '\r' || c == '\n'; }
  static constexpr bool is_blank(int c) { return c == ' ' || c == '\t' || c == '\v' || c == '\f'; }
  int peek() {
    if (at_ == size_) {
      at_ = 0;
      size_ = static_cast<std::size_t>(bytes_->sgetn(block_.data(), static_cast<std::streamsize>(block_.size())));
      if (size_ == 0) return end;
    }
    return static_cast<unsigned char>(block_[at_]);
  }
  int take() {
    const int c = peek();
    if (c != end) ++at_;
    return c;
  }

  // Appends everything up to the end of the field.
  void append_plain() {
    while (peek() != end) {
      const auto is_last = [](char c) { return c == ',' || c == '\n' || c == '\r'; };
      const char *from = block_.data() + at_, *last = block_.data() + size_, *to = std::find_if(from, last, is_last);
      field_.append(from, to);
      at_ += static_cast<std::size_t>(to - from);
      if (to != last) return;
    }
  }

  void read_quoted() {
    take();
    while (true) {
      const int c = take();
      if (c == end) {
        closed_ = false;
        return;
      }
      if (c == '"' && peek() != '"') return;
      if (c == '"') take();
      field_ += static_cast<char>(c);
    }
  }

  std::streambuf* bytes_;
  std::array<char, 4096> block_;
  std::size_t at_ = 0, size_ = 0;  // read and present bytes of the block
  std::string field_;
  std::string begin_;  // of a text that starts with a part of a byte order mark
  bool ends_row_ = true, closed_ = true;
};

}  // namespace pipesched::detail
