// SPDX-License-Identifier: MIT

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <pipesched/version.hpp>
#include <string>

static_assert(PIPESCHED_VERSION ==
              PIPESCHED_VERSION_MAJOR * 10000 + PIPESCHED_VERSION_MINOR * 100 + PIPESCHED_VERSION_PATCH);
#if PIPESCHED_VERSION < 200
#error "the version before 0.2.0 had no version.hpp"
#endif

TEST_CASE("version: text and numbers agree, and the changelog starts with this version") {
  const std::string text = std::to_string(PIPESCHED_VERSION_MAJOR) + '.' + std::to_string(PIPESCHED_VERSION_MINOR) +
                           '.' + std::to_string(PIPESCHED_VERSION_PATCH);
  CHECK(pipesched::library_version == text);
  CHECK(PIPESCHED_PROJECT_VERSION == text);
  std::ifstream changelog(PIPESCHED_SOURCE_DIR "/include/pipesched/CHANGELOG.md");
  std::string heading;
  while (std::getline(changelog, heading) && heading.rfind("## ", 0) != 0) {
  }
  CHECK(heading.rfind("## " + text, 0) == 0);
}
