// SPDX-License-Identifier: MIT
#pragma once

// The one exception of the library's core. A parameter that no schedule can have, or a file that is none, throws
// it; a *broken schedule* is not an error but data, see report in verify.hpp.

#include <stdexcept>

namespace pipesched {

/// Bad input: `what()` is one sentence with the value got, the rule it breaks and, where there is one, the nearest
/// legal value. In a constant expression it is a compile error.
struct schedule_error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

}  // namespace pipesched
