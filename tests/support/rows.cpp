// SPDX-License-Identifier: MIT

#include "pipesched/support/rows.hpp"

#include <doctest/doctest.h>

#include <array>
#include <numeric>
#include <utility>
#include <vector>

using pipesched::rows;

static_assert([] {
  rows<int> r{{1, 2}, {}, {3}};
  rows<int> copy = r;
  copy[2][0] = 4;
  r.append(std::vector{5, 6, 7});
  return r.size() == 4 && r.all().size() == 6 && r[1].empty() && r[3][2] == 7 && copy[2][0] == 4 && r[2][0] == 3;
}());

TEST_CASE("rows: regular value semantics") {
  const rows<int> a{{1, 2}, {}, {3}};
  rows<int> b = a;
  CHECK(a == b);
  b[0][1] = 9;
  CHECK(a != b);
  CHECK(rows<int>{{1}, {2}} != rows<int>{{1, 2}});
  rows<int> c = std::move(b);
  CHECK(c[0][1] == 9);
  b = a;
  CHECK(b == a);
  b = rows<int>();
  CHECK((b.empty() && b.all().empty() && b == rows<int>{}));
}

TEST_CASE("rows: all values lie in one block, row after row") {
  const std::array<std::size_t, 3> lengths{2, 0, 3};
  auto r = rows<int>::for_overwrite(lengths);
  std::iota(r.all().begin(), r.all().end(), 0);
  CHECK(r == rows<int>{{0, 1}, {}, {2, 3, 4}});
  CHECK(r[0].data() + 2 == r[2].data());
  CHECK(r == rows<int>(std::vector<std::vector<int>>{{0, 1}, {}, {2, 3, 4}}));
}

TEST_CASE("rows: append keeps the earlier rows") {
  rows<int> r;
  for (int i = 0; i < 100; ++i) r.append(std::vector<int>(static_cast<std::size_t>(i % 7), i));
  CHECK(r.size() == 100);
  for (int i = 0; i < 100; ++i) {
    CHECK(r[static_cast<std::size_t>(i)].size() == static_cast<std::size_t>(i % 7));
    for (int value : r[static_cast<std::size_t>(i)]) CHECK(value == i);
  }
}
