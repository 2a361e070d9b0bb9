// SPDX-License-Identifier: MIT
// Lists with keys, against a scan; prices and links are found as fast among thousands as among eight.

#include "pipesched/support/keyed_list.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "pipesched/cost/stage_costs.hpp"

using namespace pipesched;

namespace {

struct entry {
  std::uint64_t key = 0;
  int value = 0;
  friend constexpr std::uint64_t key_of(const entry& e) { return e.key; }
  friend constexpr bool operator==(const entry&, const entry&) = default;
};

constexpr bool known_list() {
  keyed_list<entry> list{{7, 1}, {9, 2}, {7, 3}};
  list.push_back({0, 4});
  bool right = list.find(7)->value == 1 && list.place_of(9) == 1 && list.find(0)->value == 4 && !list.find(8);
  list.erase_if([](const entry& e) { return e.value == 1; });
  right = right && list.size() == 3 && list.find(7)->value == 3 && list.place_of(7) == 1;
  list.change(1, [](entry& e) { e.key = 8; });
  right = right && !list.find(7) && list.find(8)->value == 3;
  list.clear();
  return right && list.empty() && !list.find(8) && list.place_of(8) == 0;
}
static_assert(known_list());

// Seconds of 200,000 lookups of pairs and links.
double seconds_of_lookups(std::uint32_t stages, std::uint32_t prices) {
  stage_costs c;
  for (std::uint32_t i = 0; i < prices; ++i) {
    c.pairs.push_back({.passes = {pass::forward, pass::backward},
                       .stages = {{static_cast<std::uint16_t>(i % stages), static_cast<std::uint16_t>(i / stages)}},
                       .time = 1.0 + i});
    c.links.push_back({.from = i / stages, .to = stages + i % stages, .latency = 1.0 + i});
  }
  double sum = 0;
  const auto start = std::chrono::steady_clock::now();
  for (std::uint32_t n = 0; n < 200'000; ++n) {
    const std::uint32_t i = n % prices;
    const auto first = static_cast<std::uint16_t>(i % stages), second = static_cast<std::uint16_t>(i / stages);
    sum += c.duration(cell(op{pass::backward, 0, second, 1}, op{pass::forward, 0, first, 0}));
    sum -= c.transfer(i / stages, stages + i % stages, {tensor_kind::activation, 0, 0});
  }
  CHECK(sum == 0);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("keyed_list: finds what a scan finds first") {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    keyed_list<entry> list;
    std::vector<entry> slow;
    const std::uint64_t keys = 1 + random() % 40, shift = random() % 40;
    for (int step = 0; step < 60; ++step) {
      const entry e{random() % keys << shift, step};
      if (random() % 8 == 0 && !slow.empty()) {
        list.pop_back(), slow.pop_back();
      } else if (random() % 16 == 0) {
        const auto gone = [&](const entry& other) { return other.key == e.key; };
        list.erase_if(gone), std::erase_if(slow, gone);
      } else {
        list.push_back(e), slow.push_back(e);
      }
      REQUIRE(std::equal(list.begin(), list.end(), slow.begin(), slow.end()));
      for (std::uint64_t k = 0; k < keys; ++k) {
        const auto found = std::find_if(slow.begin(), slow.end(), [&](const entry& x) { return x.key == k << shift; });
        REQUIRE(list.place_of(k << shift) == static_cast<std::size_t>(found - slow.begin()));
      }
    }
  }
}

TEST_CASE("keyed_list: a lookup among 8,192 prices and links costs no more than among eight") {
  double few = 1e9, many = 1e9;
  for (int round = 0; round < 5; ++round) {
    few = std::min(few, seconds_of_lookups(4, 8));
    many = std::min(many, seconds_of_lookups(128, 8192));
  }
  CHECK(many < 20 * few);  // a scan takes a thousand times as long
}
