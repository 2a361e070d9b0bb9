// SPDX-License-Identifier: MIT

#include "pipesched/core/notation.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace pipesched;

TEST_CASE("notation: parsing is the inverse of writing") {
  for (int p = 1; p <= 4; ++p)
    for (int stage : {0, 1, 9, 10, 4095, 65535})
      for (std::uint32_t micro : {0u, 7u, 10u, 99999u, 4294967295u}) {
        const op a{static_cast<pass>(p), 0, static_cast<std::uint16_t>(stage), micro}, b{pass::backward, 0, 3, 12};
        CHECK(parse_op(to_string(a)) == a);
        CHECK(parse_cell(to_string(a)) == cell(a));
        CHECK(parse_cell(to_string(cell(a, b))) == cell(a, b));
        CHECK(to_string(cell(a, b)).size() <= max_cell_text);
      }
  CHECK(to_string(op{pass::backward_input, 0, 7, 13}) == "7I13");
  CHECK(to_string(cell({pass::forward, 0, 0, 7}, {pass::backward, 1, 7, 13})) == "(0F7;7B13)");
}

TEST_CASE("notation: refuses any text that is not exactly one op or cell") {
  for (const char* text :
       {"",           "F0",       "0F",    "0X0",   "0f0",     " 0F0",         "0F0 ",
        "0F0garbage", "0F-1",     "-1F0",  "+1F0",  "65536F0", "0F4294967296", "99999999999999999999F0",
        "0F0;1F0",    "0SEND_F0", "0.5F0", "0F0F0", "?",       "0?0"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_op(text));
    CHECK_FALSE(parse_cell(text));
  }
  for (const char* text : {"(", "()", "(0F0)", "(0F0;)", "(;0F0)", "(0F0;1B0", "0F0;1B0)", "(0F0;1B0))", "((0F0;1B0)",
                           "(0F0;1B0;2B0)", "(0F0;1B0)OVERLAP_F_B", "(0F0 ;1B0)", "(0F0,1B0)"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_cell(text));
  }
}
