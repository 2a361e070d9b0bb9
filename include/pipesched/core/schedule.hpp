// SPDX-License-Identifier: MIT
#pragma once

// A schedule: the placement of the stages, and for each rank the cells that it runs, in order. A plain value without times
// and messages; simulate() and lower() derive those.

#include <cstdint>
#include <span>
#include <string>

#include "pipesched/core/notation.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/support/fixed_string.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

/// `s[rank]` is the row of a rank. All members may be read and changed; verify() checks the whole.
struct schedule {
  fixed_string<63> name{};           ///< of the family, e.g. "dualpipe"
  pipesched::placement placement{};  ///< stages, ranks and replicas
  std::uint32_t micro = 0;           ///< micro-batches of the step, both replicas together
  bool forward_only = false;         ///< for evaluation: every op is an F
  rows<cell> cells{};                ///< one row per rank

  constexpr std::uint32_t pp() const noexcept { return placement.ranks(); }
  constexpr std::uint32_t stages() const noexcept { return placement.stages(); }

  constexpr std::span<const cell> operator[](std::size_t rank) const noexcept { return cells[rank]; }
  constexpr std::span<cell> operator[](std::size_t rank) noexcept { return cells[rank]; }

  friend constexpr bool operator==(const schedule&, const schedule&) = default;
};

/// One row of cells in the library's notation, separated by spaces.
constexpr std::string to_string(std::span<const cell> row) {
  std::string text;
  for (const cell& c : row) {
    if (!text.empty()) text += ' ';
    text += to_string(c);
  }
  return text;
}

/// One line per rank: "rank 0: 0F0 0F1 ...".
constexpr std::string to_string(const schedule& s) {
  std::string text;
  for (std::size_t rank = 0; rank < s.cells.count(); ++rank) {
    char number[10]{};
    text += "rank ";
    text.append(number, detail::write_number(number, static_cast<std::uint32_t>(rank)));
    text += ": ";
    text += to_string(s[rank]);
    text += '\n';
  }
  return text;
}

}  // namespace pipesched
