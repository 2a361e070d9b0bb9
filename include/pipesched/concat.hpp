// SPDX-License-Identifier: MIT
#pragma once

// Sentences from texts and numbers, for errors and reports.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace pipesched::detail {

// One piece of a sentence: a text or a number.
struct piece {
  template <typename Text>
  requires std::is_convertible_v<const Text&, std::string_view>
  constexpr piece(const Text& of) : text(of) {}  // NOLINT: implicit, for lists of pieces
  template <typename Number>
  requires std::is_integral_v<Number>
  constexpr piece(Number of) : number(static_cast<std::uint64_t>(of)), kind(kinds::integer) {  // NOLINT: implicit
    if constexpr (std::is_signed_v<Number>)
      if (of < 0) number = -number, negative = true;
  }
  constexpr piece(double of) : real(of), kind(kinds::real) {}  // NOLINT: implicit

  enum class kinds : std::uint8_t { text, integer, real };

  std::string_view text{};
  std::uint64_t number = 0;  ///< magnitude
  double real = 0;
  kinds kind = kinds::text;
  bool negative = false;
};

/// Joins the pieces: `concat({"rank ", 3, " of ", name})`. It is not a template, which keeps its callers small.
inline std::string concat(std::initializer_list<piece> pieces) {
  std::string sentence;
  for (const piece& p : pieces) {
    if (p.kind == piece::kinds::text) {
      sentence += p.text;
    } else if (p.kind == piece::kinds::real) {
      char digits[32];
      sentence.append(digits, static_cast<std::size_t>(std::snprintf(digits, sizeof digits, "%g", p.real)));
    } else {
      char digits[21];
      char* first = digits + sizeof digits;
      std::uint64_t rest = p.number;
      do {
        *--first = static_cast<char>('0' + rest % 10);
        rest /= 10;
      } while (rest != 0);
      if (p.negative) *--first = '-';
      sentence.append(first, digits + sizeof digits);
    }
  }
  return sentence;
}

}  // namespace pipesched::detail
