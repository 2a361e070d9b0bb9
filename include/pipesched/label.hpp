// SPDX-License-Identifier: MIT
#pragma once

// A short name held in place: unlike std::string it works in constant expressions with every supported compiler.

#include <cstddef>
#include <string>
#include <string_view>

#include "pipesched/error.hpp"

namespace pipesched {

/// Up to 63 printable ASCII characters; converts from texts and to std::string_view.
class label {
 public:
  static constexpr std::size_t most = 63;

  constexpr label() = default;
  /// @throws schedule_error when the text is longer, or holds other characters.
  constexpr label(std::string_view text) {  // NOLINT: a text is a label
    if (text.size() > most)
      throw schedule_error(detail::concat({"a name has at most 63 characters; got ", text.size()}));
    for (char c : text) {
      if (c < ' ' || c > '~')
        throw schedule_error(detail::concat({"a name is of printable ASCII characters; got byte ",
                                             static_cast<unsigned char>(c), " at position ", size_}));
      text_[size_++] = c;
    }
  }
  constexpr label(const char* text) : label(std::string_view(text)) {}  // NOLINT: likewise

  constexpr operator std::string_view() const noexcept { return {text_, size_}; }  // NOLINT: likewise

  constexpr std::string_view view() const noexcept { return *this; }
  std::string str() const { return std::string(view()); }

  friend constexpr bool operator==(const label&, const label&) = default;
  friend constexpr bool operator==(const label& a, std::string_view b) { return a.view() == b; }
  friend constexpr bool operator==(const label& a, const char* b) { return a.view() == b; }

 private:
  char text_[most]{};
  unsigned char size_ = 0;
};

template <typename Stream>
auto operator<<(Stream& out, const label& l) -> decltype(out << l.view()) {
  return out << l.view();
}

}  // namespace pipesched
