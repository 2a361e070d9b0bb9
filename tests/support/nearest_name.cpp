// SPDX-License-Identifier: MIT

#include "pipesched/support/nearest_name.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <string_view>

using namespace pipesched;

namespace {

constexpr std::array<std::string_view, 5> names = {"dualpipe", "dualpipev", "zbv", "zb_h1", "deepseek_v3"};

static_assert(nearest_name("dualpip", names) == "dualpipe");
static_assert(nearest_name("dualpipee", names) == "dualpipe");

}  // namespace

TEST_CASE("nearest name: ignores case and hyphens; accepts two edits, not three") {
  CHECK(nearest_name("DUALPIPEV", names) == "dualpipev");
  CHECK(nearest_name("deepseek-v3", names) == "deepseek_v3");
  CHECK(nearest_name("Deepsek-V", names) == "deepseek_v3");
  CHECK(nearest_name("deepk-v3", names) == "");
  CHECK(nearest_name("zb-1h", names) == "zb_h1");
}

TEST_CASE("nearest name: the start of a name stands for it, unless another is nearer") {
  CHECK(nearest_name("dual", names) == "dualpipe");
  CHECK(nearest_name("Deep-", names) == "");
  CHECK(nearest_name("deepseek", names) == "deepseek_v3");
  CHECK(nearest_name("DEEPSEEK-", names) == "deepseek_v3");
  CHECK(nearest_name("zb_", names) == "zbv");
  CHECK(nearest_name("ualpipe_", names) == "dualpipe");
  CHECK(nearest_name("du", names) == "");
}

TEST_CASE("nearest name: short names allow one edit, very short and very long ones none") {
  CHECK(nearest_name("zvb", names) == "zbv");
  CHECK(nearest_name("zb", names) == "zbv");
  CHECK(nearest_name("abv", names) == "zbv");
  CHECK(nearest_name("abb", names) == "");
  CHECK(nearest_name("z", names) == "");
  CHECK(nearest_name("", names) == "");
  CHECK(nearest_name(std::string(1 << 20, 'd'), names) == "");
  CHECK(nearest_name("dualpipe", std::array<std::string_view, 0>{}) == "");
}
