// SPDX-License-Identifier: MIT
#pragma once

// The exception of the library's core. Invalid parameters and malformed files throw it. A broken schedule is data, see
// report.hpp; it throws only where a function needs a valid one.

#include <stdexcept>

#include "pipesched/support/concat.hpp"  // IWYU pragma: export

namespace pipesched {

/// Invalid input. `what()` is one sentence: the value got, the rule that it breaks and, if there is one, the nearest
/// legal value. Thrown in a constant expression, it is a compile error.
struct schedule_error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

}  // namespace pipesched
