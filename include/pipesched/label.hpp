// SPDX-License-Identifier: MIT
#pragma once

// A short name held in place: unlike std::string it works in constant expressions with every supported compiler.

#include <cstddef>
#include <string_view>

#include "pipesched/error.hpp"

namespace pipesched {

/// Up to 63 characters; converts from and to std::string_view.
class label {
 public:
  static constexpr std::size_t most = 63;

  constexpr label() = default;
  /// @throws schedule_error when the text is longer than 63 characters.
  constexpr label(std::string_view text) {  // NOLINT: a text is a label
    if (text.size() > most)
      throw schedule_error(detail::concat({"a name has at most 63 characters; got ", text.size()}));
    for (char c : text) text_[size_++] = c;
  }
  constexpr label(const char* text) : label(std::string_view(text)) {}  // NOLINT: likewise

  constexpr operator std::string_view() const noexcept { return {text_, size_}; }  // NOLINT: likewise

  friend constexpr bool operator==(const label&, const label&) = default;
  friend constexpr bool operator==(const label& a, std::string_view b) { return std::string_view(a) == b; }

 private:
  char text_[most]{};
  unsigned char size_ = 0;
};

}  // namespace pipesched
