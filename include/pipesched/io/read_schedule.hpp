// SPDX-License-Identifier: MIT
#pragma once

// Schedules from a stream in either format, JSON or PyTorch's CSV. The first byte that is not blank decides, so pipes work
// and the suffix of a file does not matter.

#include <array>
#include <cstddef>
#include <cstdint>
#include <ios>
#include <istream>
#include <streambuf>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/io/detail/json_text.hpp"
#include "pipesched/io/json.hpp"
#include "pipesched/io/torch_csv.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

enum class schedule_format : std::uint8_t { json, torch_csv };

/// A schedule, and the actions of a CSV that are not part of it; none from JSON.
struct schedule_file {
  schedule_format format = schedule_format::json;
  pipesched::schedule schedule;
  std::vector<torch_action> actions;
};

namespace detail {

// Bytes that have been read from another buffer, then the rest of that buffer.
class rejoined_buffer : public std::streambuf {
 public:
  rejoined_buffer(std::string& read, std::streambuf* rest) : rest_(rest) {
    setg(read.data(), read.data(), read.data() + read.size());
  }

 private:
  int_type underflow() override {
    const std::streamsize count = rest_->sgetn(block_.data(), static_cast<std::streamsize>(block_.size()));
    if (count <= 0) return traits_type::eof();
    setg(block_.data(), block_.data(), block_.data() + count);
    return traits_type::to_int_type(block_[0]);
  }

  std::streambuf* rest_;
  std::array<char, 4096> block_;
};

inline bool is_blank(int c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Reads up to and with the first byte that is neither blank nor part of a byte order mark.
inline std::string first_bytes(std::streambuf& bytes) {
  std::string read;
  for (int c = bytes.sbumpc(); c != std::char_traits<char>::eof(); c = bytes.sbumpc()) {
    read += static_cast<char>(c);
    const bool mark = read.size() <= 3 && std::string_view("\xEF\xBB\xBF").starts_with(read);
    if (!mark && !is_blank(c)) break;
  }
  return read;
}

[[noreturn]] inline void refuse_format(const std::string& read, std::streambuf& rest) {
  constexpr std::string_view expected =
      "expected a schedule as JSON, {\"format\": ...}, or as PyTorch's CSV, 0F0,0F1,...";
  if (read.empty() || is_blank(read.back()) || read == "\xEF\xBB\xBF")
    throw schedule_error(concat({"empty; ", expected}));
  if (read[0] == '\xFF' || read[0] == '\xFE')
    throw schedule_error(concat({"UTF-16 text, as PowerShell's > writes it; expected UTF-8"}));
  std::string text(1, read.back());
  for (int c = rest.sbumpc(); c >= ' ' && text.size() <= 40; c = rest.sbumpc()) text += static_cast<char>(c);
  throw schedule_error(concat({"starts with ", in_quotes(text), "; ", expected}));
}

}  // namespace detail

/// Reads JSON if the text starts with { or [, and PyTorch's CSV if it starts with a digit, a parenthesis, a quote, a comma or
/// a sign. @throws schedule_error as read_json() and read_torch_csv() do, and for any other text.
inline schedule_file read_schedule(std::istream& in) {
  try {
    std::streambuf* const bytes = in.rdbuf();
    if (!in || bytes == nullptr) throw schedule_error("the stream cannot be read");
    std::string read = detail::first_bytes(*bytes);
    const char first = read.empty() ? '\0' : read.back();
    const bool json = first == '{' || first == '[';
    const bool csv = (first >= '0' && first <= '9') ||
                     (first != '\0' && std::string_view("(\",+-").find(first) != std::string_view::npos);
    if (!json && !csv) detail::refuse_format(read, *bytes);
    detail::rejoined_buffer whole(read, bytes);
    std::istream text(&whole);
    if (json) return {.format = schedule_format::json, .schedule = read_json(text), .actions = {}};
    torch_csv file = read_torch_csv(text);
    return {
        .format = schedule_format::torch_csv, .schedule = std::move(file.schedule), .actions = std::move(file.actions)};
  } catch (const std::ios_base::failure& e) {
    throw schedule_error(detail::concat({"the stream cannot be read: ", e.what()}));
  }
}
inline schedule_file read_schedule(std::istream&& in) { return read_schedule(in); }

}  // namespace pipesched
