// SPDX-License-Identifier: MIT
#pragma once

// Limits of memory in bytes: one for all ranks, one per rank, or none.

#include <cstddef>
#include <limits>
#include <span>

#include "pipesched/support/concat.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// The limit of a rank; infinite without one. @pre require_memory()
constexpr double limit_of(std::span<const double> memory, std::size_t rank) {
  return memory.empty() ? std::numeric_limits<double>::infinity() : memory[memory.size() == 1 ? 0 : rank];
}

/// @throws schedule_error unless there is no limit, one, or one per rank, and none is negative
constexpr void require_memory(std::span<const double> memory, std::size_t ranks) {
  if (memory.size() > 1 && memory.size() != ranks)
    throw schedule_error(
        concat({"there are ", memory.size(), " limits of memory; expected 1, or ", ranks, ", one per rank"}));
  for (const double bytes : memory)
    if (!(bytes >= 0))
      throw schedule_error(concat({"a limit of memory is 0 bytes or more; got ", bytes, ", nearest 0"}));
}

}  // namespace pipesched::detail
