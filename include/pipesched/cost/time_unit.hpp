// SPDX-License-Identifier: MIT
#pragma once

// Units of time.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pipesched {

/// The unit of all times of a model or of costs; `none`: any one unit.
enum class time_unit : std::uint8_t { none, s, ms, us };
inline constexpr std::array<std::string_view, 4> time_unit_names = {"none", "s", "ms", "us"};
constexpr std::string_view to_string(time_unit u) noexcept { return time_unit_names[static_cast<std::size_t>(u)]; }
/// Units of time in a second; 1 for `none`.
constexpr double units_per_second(time_unit u) noexcept {
  return u == time_unit::ms ? 1e3 : u == time_unit::us ? 1e6 : 1;
}

}  // namespace pipesched
