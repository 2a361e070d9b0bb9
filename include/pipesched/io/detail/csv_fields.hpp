// SPDX-License-Identifier: MIT
#pragma once

// The fields of a CSV text, as Python's csv module reads them: commas, optional double quotes ("" inside them is one
// quote), rows that end in CR LF, LF or CR. In addition, a byte order mark and blanks around a field are dropped.
// Source: Python, csv.reader with the dialect "excel", then str.strip(), as torch.distributed.pipelining does.

#include <istream>
#include <string>
#include <string_view>

#include "pipesched/error.hpp"

namespace pipesched::detail {

class csv_fields {
 public:
  explicit csv_fields(std::istream& in) : bytes_(in.rdbuf()) {
    if (bytes_ != nullptr && peek() == 0xEF)
      for (const char mark : std::string_view("\xEF\xBB\xBF"))
        if (peek() == static_cast<unsigned char>(mark)) take();
  }

  /// Reads the next field. An empty row has one empty field. False at the end of the text.
  /// @throws std::ios_base::failure when the stream cannot be read
  bool next() {
    if (bytes_ == nullptr || (ends_row_ && peek() == end)) return false;
    field_.clear();
    closed_ = true;
    while (is_blank(peek())) take();
    if (peek() == '"') read_quoted();
    int c = take();
    for (; c != ',' && c != '\n' && c != '\r' && c != end; c = take()) field_ += static_cast<char>(c);
    ends_row_ = c != ',';
    if (c == '\r' && peek() == '\n') take();
    field_.erase(field_.find_last_not_of(" \t\v\f\r\n") + 1);
    field_.erase(0, field_.find_first_not_of(" \t\v\f\r\n"));
    return true;
  }

  std::string_view field() const noexcept { return field_; }
  bool ends_row() const noexcept { return ends_row_; }       ///< the field is the last one of its row
  bool quote_is_closed() const noexcept { return closed_; }  ///< false: the text ended inside quotes

 private:
  static constexpr int end = std::char_traits<char>::eof();

  static constexpr bool is_blank(int c) { return c == ' ' || c == '\t' || c == '\v' || c == '\f'; }
  int peek() { return bytes_->sgetc(); }
  int take() { return bytes_->sbumpc(); }

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
  std::string field_;
  bool ends_row_ = true, closed_ = true;
};

}  // namespace pipesched::detail
