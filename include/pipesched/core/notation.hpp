// SPDX-License-Identifier: MIT
#pragma once

// The notation of ops and cells in JSON, CSV, tests, error texts and printing:
//
//   op    <stage><pass><micro>     3F12, 0I4, 0W4, 7B13   (PyTorch's grammar for pipeline schedules), 7R13, 7RB13
//   cell  op, or (op;op)           (0F7;7B13) is an overlapped cell
//
// The chunk is not written: it follows from the schedule's placement.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "pipesched/core/op.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched {

/// Length of the longest text of a cell: two ops of 5 + 2 + 10 characters, two parentheses and a semicolon.
inline constexpr std::size_t max_cell_text = 2 * 17 + 3;

namespace detail {

constexpr char* write_op(char* to, op o) {
  to = write_number(to, std::uint32_t{o.stage});
  const std::string_view letters = name(o.pass);
  *to++ = letters.front();
  if (letters.size() == 2) *to++ = letters.back();
  return write_number(to, o.micro);
}

// Reads a decimal number without sign, at most `max`, and advances `text` past it.
constexpr std::optional<std::uint32_t> read_number(std::string_view& text, std::uint32_t max) {
  std::uint64_t n = 0;
  std::size_t digits = 0;
  for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
    n = 10 * n + static_cast<std::uint64_t>(text[digits] - '0');
    if (n > max) return std::nullopt;
  }
  if (digits == 0) return std::nullopt;
  text.remove_prefix(digits);
  return static_cast<std::uint32_t>(n);
}

}  // namespace detail

/// Writes the text of a cell to `to`, which must have room for `max_cell_text` characters. Returns the end of the text.
constexpr char* write_cell(char* to, const cell& c) {
  if (!c.overlapped()) return detail::write_op(to, c[0]);
  *to++ = '(';
  to = detail::write_op(to, c[0]);
  *to++ = ';';
  to = detail::write_op(to, c[1]);
  *to++ = ')';
  return to;
}

constexpr std::string to_string(const cell& c) {
  char text[max_cell_text]{};
  return {text, write_cell(text, c)};
}
constexpr std::string to_string(op o) { return to_string(cell(o)); }

/// Parses the whole of `text` as an op: `parse_op("3F12")->micro == 12`. Returns nothing if `text` is not an op or a
/// number does not fit its type.
constexpr std::optional<op> parse_op(std::string_view text) {
  const auto stage = detail::read_number(text, 0xFFFF);
  if (!stage) return std::nullopt;
  std::size_t letters = 0;
  while (letters < text.size() && (text[letters] < '0' || text[letters] > '9')) ++letters;
  op o{.pass = pass_of(text.substr(0, letters)), .stage = static_cast<std::uint16_t>(*stage)};
  if (o.pass == pass::none) return std::nullopt;
  text.remove_prefix(letters);
  const auto micro = detail::read_number(text, 0xFFFF'FFFF);
  if (!micro || !text.empty()) return std::nullopt;
  o.micro = *micro;
  return o;
}

/// Parses the whole of `text` as a cell: an op, or two as `(0F7;7B13)`.
constexpr std::optional<cell> parse_cell(std::string_view text) {
  if (text.empty() || text.front() != '(') {
    const auto only = parse_op(text);
    return only ? std::optional<cell>(*only) : std::nullopt;
  }
  const std::size_t middle = text.find(';');
  if (middle == text.npos || text.back() != ')') return std::nullopt;
  const auto first = parse_op(text.substr(1, middle - 1));
  const auto second = parse_op(text.substr(middle + 1, text.size() - middle - 2));
  return first && second ? std::optional<cell>(cell(*first, *second)) : std::nullopt;
}

static_assert(parse_op("3F12") == op{.pass = pass::forward, .stage = 3, .micro = 12});
static_assert(parse_cell("(0F7;7B13)")->overlapped() && !parse_cell("(0F7)") && !parse_cell("0F-1"));

}  // namespace pipesched
