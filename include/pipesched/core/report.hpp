// SPDX-License-Identifier: MIT
#pragma once

// Reports on broken schedules and programs: every violation with its rule, its place and the expected value. verify.hpp
// makes them for schedules, program/verify.hpp for programs; each lists its rules.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/support/concat.hpp"

namespace pipesched {

enum class rule : std::uint8_t {
  // of schedules
  shape,
  range,
  placement,
  duplicate,
  missing,
  backward,
  order,
  overlap,
  cycle,
  // of programs
  program,
  slot,
  message,
  reduction,
  deadlock
};

inline constexpr std::string_view rule_names[] = {"shape",    "range",   "placement", "duplicate", "missing",
                                                  "backward", "order",   "overlap",   "cycle",     "program",
                                                  "slot",     "message", "reduction", "deadlock"};

constexpr std::string_view to_string(rule r) { return rule_names[static_cast<std::size_t>(r)]; }

struct violation {
  static constexpr std::size_t no_cell = ~std::size_t{0};

  pipesched::rule rule;
  std::uint32_t rank;          ///< of the fault, or of the place of the missing op
  std::size_t cell = no_cell;  ///< index in the rank's row
  std::string text;            ///< the fault and the expected value, in the notation of ops

  friend constexpr bool operator==(const violation&, const violation&) = default;
};

/// The violations of a schedule or program. Converts to true if there is no violation.
struct report {
  std::vector<violation> violations;  ///< the first ones
  std::size_t further = 0;            ///< number of violations after those

  constexpr explicit operator bool() const noexcept { return violations.empty() && further == 0; }
  /// True if one of `violations` is of this rule.
  constexpr bool names(rule r) const noexcept {
    for (const violation& v : violations)
      if (v.rule == r) return true;
    return false;
  }

  friend constexpr bool operator==(const report&, const report&) = default;
};

/// "rank 3, cell 17: duplicate: 3F5 again, first in cell 2; expected once".
inline std::string to_string(const violation& v) {
  const std::string place = v.cell == violation::no_cell ? std::string() : detail::concat({", cell ", v.cell});
  return detail::concat({"rank ", v.rank, place, ": ", to_string(v.rule), ": ", v.text});
}

/// One line per violation, at most `max_lines`, then "and 17 more" with the number of all others.
inline std::string to_string(const report& r, std::size_t max_lines = 10) {
  std::string text;
  const std::size_t lines = std::min(r.violations.size(), max_lines);
  for (std::size_t i = 0; i < lines; ++i) text += to_string(r.violations[i]) + "\n";
  if (const std::size_t more = r.violations.size() - lines + r.further; more > 0)
    text += detail::concat({"and ", more, " more\n"});
  return text;
}

namespace detail {

// The first violation and the number of others, on one line. @pre the report is false
inline std::string first_violation(const report& r) {
  if (r.violations.empty()) return concat({r.further, " violations"});
  const std::size_t more = r.violations.size() - 1 + r.further;
  const std::string text = to_string(r.violations[0]);
  return more == 0 ? text : concat({text, " (and ", more, " more)"});
}

}  // namespace detail
}  // namespace pipesched
