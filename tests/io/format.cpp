// SPDX-License-Identifier: MIT

#include "pipesched/io/format.hpp"

#include <doctest/doctest.h>

#include <string>

#include "pipesched/generate/families.hpp"

using namespace pipesched;

TEST_CASE("fmt: ops and cells print in the notation and take width and fill") {
  const op o{pass::forward, 0, 3, 12};
  CHECK(fmt::format("{}", o) == "3F12");
  CHECK(fmt::format("[{:>6}|{:*<6}]", o, cell(o)) == "[  3F12|3F12**]");
  CHECK(fmt::format("{}", cell(o, {pass::backward, 0, 1, 0})) == "(3F12;1B0)");
}

TEST_CASE("fmt: a schedule prints its name and sizes, then one line per rank") {
  CHECK(fmt::format("{}", make_1f1b_schedule({.pp = 2, .micro = 2, .forward_only = true})) ==
        "1f1b: 2 ranks, 2 stages (linear), 2 micro-batches, forward only\n"
        "rank 0: 0F0 0F1\n"
        "rank 1: 1F0 1F1");
}
