// SPDX-License-Identifier: MIT
#pragma once

// The one exception of the library's core, and how its sentences are put together. A parameter that no schedule can
// have, or a file that is none, throws it; a *broken schedule* is not an error but data, see report in verify.hpp.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace pipesched {

/// Bad input: `what()` is one sentence with the value got, the rule it breaks and, where there is one, the nearest
/// legal value. In a constant expression it is a compile error.
struct schedule_error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

namespace detail {

// A piece of a sentence: a text or a number.
struct piece {
  template <typename Text>
  requires std::is_convertible_v<const Text&, std::string_view>
  constexpr piece(const Text& of) : text(of) {}  // NOLINT: pieces are listed as they are
  template <typename Number>
  requires std::is_integral_v<Number>
  constexpr piece(Number of) : number(static_cast<std::uint64_t>(of)), is_number(true) {  // NOLINT: likewise
    if constexpr (std::is_signed_v<Number>)
      if (of < 0) number = -number, negative = true;
  }

  constexpr piece(double of) : real(of), is_real(true) {}  // NOLINT: likewise

  std::string_view text{};
  std::uint64_t number = 0;
  double real = 0;
  bool is_number = false, negative = false, is_real = false;
};

/// `concat({"rank ", 3, " of ", name})`. One function for all sentences keeps the code around them small.
inline std::string concat(std::initializer_list<piece> pieces) {
  std::string sentence;
  for (const piece& p : pieces) {
    if (p.is_real) {
      char digits[32];
      sentence.append(digits, static_cast<std::size_t>(std::snprintf(digits, sizeof digits, "%g", p.real)));
      continue;
    }
    if (!p.is_number) {
      sentence += p.text;
      continue;
    }
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
  return sentence;
}

}  // namespace detail
}  // namespace pipesched
