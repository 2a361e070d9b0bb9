// SPDX-License-Identifier: MIT

#include "pipesched/support/concat.hpp"

#include <doctest/doctest.h>

using namespace pipesched;

TEST_CASE("count_text: one thing, or several in the plural") {
  CHECK(detail::count_text(1, "rank") == "1 rank");
  CHECK(detail::count_text(0, "rank") == "0 ranks");
  CHECK(detail::count_text(2u, "micro-batch") == "2 micro-batches");
  CHECK(detail::count_text(1, "process") == "1 process");
  CHECK(detail::count_text(3, "process") == "3 processes");
  CHECK(detail::count_text(2, "copy") == "2 copies");
}
