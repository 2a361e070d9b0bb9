// SPDX-License-Identifier: MIT

#include "pipesched/core/op.hpp"

#include <doctest/doctest.h>

#include <type_traits>
#include <unordered_set>
#include <vector>

using namespace pipesched;

static_assert(sizeof(op) == 8 && std::is_trivially_copyable_v<op>);
static_assert(sizeof(cell) == 16 && std::is_trivially_copyable_v<cell>);

constexpr op F3{.pass = pass::forward, .stage = 2, .micro = 3};
constexpr op B1{.pass = pass::backward, .stage = 5, .micro = 1};

static_assert(cell(F3).size() == 1 && cell(F3, B1).size() == 2 && cell(F3, B1).overlapped());
static_assert(cell(F3, B1) != cell(B1, F3) && op{} < F3);

TEST_CASE("cell: is a range of its ops") {
  std::vector<op> seen;
  for (op o : cell(F3, B1)) seen.push_back(o);
  CHECK(seen == std::vector{F3, B1});
  cell c = F3;
  for (op& o : c) o.micro += 1;
  CHECK(c[0].micro == 4);
}

TEST_CASE("op: the hashes of a whole schedule's ops differ") {
  std::unordered_set<std::size_t> hashes;
  std::size_t ops = 0;
  for (int p = 1; p <= 4; ++p)
    for (std::uint16_t stage = 0; stage < 32; ++stage)
      for (std::uint32_t micro = 0; micro < 256; ++micro, ++ops)
        hashes.insert(std::hash<op>()({static_cast<pass>(p), 0, stage, micro}));
  CHECK(hashes.size() == ops);
}
