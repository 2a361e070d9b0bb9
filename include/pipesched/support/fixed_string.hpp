// SPDX-License-Identifier: MIT
#pragma once

// A short string stored in place. Unlike std::string it works in constant expressions with all supported compilers.

#include <cstddef>
#include <string>
#include <string_view>

#include "pipesched/support/error.hpp"

namespace pipesched {

/// Up to `Capacity` printable ASCII characters; converts from strings and to std::string_view.
template <std::size_t Capacity>
class fixed_string {
 public:
  static constexpr std::size_t max_size = Capacity;

  constexpr fixed_string() = default;
  /// @throws schedule_error if the text is longer or has other characters.
  constexpr fixed_string(std::string_view text) {  // NOLINT: implicit
    if (text.size() > Capacity)
      throw schedule_error(detail::concat({"a name has at most ", Capacity, " characters; got ", text.size()}));
    for (char c : text) {
      if (c < ' ' || c > '~')
        throw schedule_error(detail::concat({"a name has only printable ASCII characters; got byte ",
                                             static_cast<unsigned char>(c), " at position ", size_}));
      text_[size_++] = c;
    }
  }
  constexpr fixed_string(const char* text) : fixed_string(std::string_view(text)) {}  // NOLINT: implicit

  constexpr operator std::string_view() const noexcept { return {text_, size_}; }  // NOLINT: implicit

  constexpr std::string_view view() const noexcept { return *this; }
  std::string str() const { return std::string(view()); }

  friend constexpr bool operator==(const fixed_string&, const fixed_string&) = default;
  friend constexpr bool operator==(const fixed_string& a, std::string_view b) { return a.view() == b; }
  friend constexpr bool operator==(const fixed_string& a, const char* b) { return a.view() == b; }

 private:
  char text_[Capacity]{};
  static_assert(Capacity < 256);
  unsigned char size_ = 0;
};

template <typename Stream, std::size_t Capacity>
auto operator<<(Stream& out, const fixed_string<Capacity>& l) -> decltype(out << l.view()) {
  return out << l.view();
}

}  // namespace pipesched
