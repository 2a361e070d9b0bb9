// SPDX-License-Identifier: MIT
#pragma once

// Sentences from texts and numbers, for errors and reports.

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

namespace pipesched::detail {

// Writes decimal digits to `to`, which must have room for those of any number of the type, and returns their end. For the short
// numbers of ops it takes half the time of std::to_chars.
template <typename Unsigned>
constexpr char* write_number(char* to, Unsigned n) {
  static_assert(std::is_unsigned_v<Unsigned>);
  char* end = to + 1;
  for (Unsigned rest = n / 10; rest != 0; rest /= 10) ++end;
  for (to = end; to == end || n != 0; n /= 10) *--to = static_cast<char>('0' + n % 10);
  return end;
}

// Appends a number with so many significant digits, as printf's %g does, but the same in every locale.
inline void append_real(std::string& to, double value, int digits = 6) {
  char text[32];
  to.append(text, std::to_chars(text, text + sizeof text, value, std::chars_format::general, digits).ptr);
}

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

/// Appends the pieces to a text. It is not a template, which keeps its callers small.
inline void append(std::string& to, std::initializer_list<piece> pieces) {
  for (const piece& p : pieces) {
    if (p.kind == piece::kinds::text) {
      to += p.text;
    } else if (p.kind == piece::kinds::real) {
      append_real(to, p.real);
    } else {
      char digits[20];
      if (p.negative) to += '-';
      to.append(digits, write_number(digits, p.number));
    }
  }
}

/// Joins the pieces: `concat({"rank ", 3, " of ", name})`.
inline std::string concat(std::initializer_list<piece> pieces) {
  std::string sentence;
  append(sentence, pieces);
  return sentence;
}

/// The plural of a noun: ranks, micro-batches, processes, copies. A y comes after a consonant.
inline std::string plural(std::string_view noun) {
  if (noun.ends_with("y")) return concat({noun.substr(0, noun.size() - 1), "ies"});
  return concat({noun, noun.ends_with("ch") || noun.ends_with("s") ? "es" : "s"});
}

/// "1 rank", "2 ranks", "3 micro-batches".
template <std::integral T>
std::string count_text(T n, std::string_view noun) {
  return concat({n, " ", n == 1 ? std::string(noun) : plural(noun)});
}

}  // namespace pipesched::detail
