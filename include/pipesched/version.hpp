// SPDX-License-Identifier: MIT
#pragma once

// The version of the library, for the preprocessor (#if PIPESCHED_VERSION >= 200) and as text. CMake reads it from here;
// CHANGELOG.md says what each version brought. Below 1.0 a new minor version may break source code.

#include <string_view>

#define PIPESCHED_VERSION_MAJOR 0
#define PIPESCHED_VERSION_MINOR 2
#define PIPESCHED_VERSION_PATCH 0
#define PIPESCHED_VERSION (PIPESCHED_VERSION_MAJOR * 10000 + PIPESCHED_VERSION_MINOR * 100 + PIPESCHED_VERSION_PATCH)

namespace pipesched {

#define PIPESCHED_TEXT(number) #number
#define PIPESCHED_VERSION_TEXT(major, minor, patch) \
  PIPESCHED_TEXT(major) "." PIPESCHED_TEXT(minor) "." PIPESCHED_TEXT(patch)
/// The version as `pipesched --version` prints it: "0.2.0" for major version 0, minor version 2, patch 0.
inline constexpr std::string_view library_version =
    PIPESCHED_VERSION_TEXT(PIPESCHED_VERSION_MAJOR, PIPESCHED_VERSION_MINOR, PIPESCHED_VERSION_PATCH);
#undef PIPESCHED_VERSION_TEXT
#undef PIPESCHED_TEXT

}  // namespace pipesched
