// SPDX-License-Identifier: MIT
#pragma once

// All that a page says besides its timelines.

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "pipesched/cost/memory_unit.hpp"
#include "pipesched/render/front.hpp"

namespace pipesched {

/// A point of a front, with the panels that show its plan and the published schedule beside it.
struct html_front_point {
  front_point point;
  std::size_t plan = 0;                    ///< index among the panels
  std::optional<std::size_t> published{};  ///< the same; nothing if no family fits
};

struct html_style {
  std::string subject{};                          ///< the beginning of the headline: "DeepSeek-V3"
  std::string unit{};                             ///< of all times: s, ms, us; empty: none
  std::vector<std::string> notes{};               ///< lines of text; the first says what the costs are of
  std::vector<html_front_point> front{};          ///< in rising order of their limits; empty: no front
  memory_unit memory = memory_unit::activations;  ///< the unit of these limits
};

}  // namespace pipesched
