// SPDX-License-Identifier: MIT
#pragma once

// Seeded random cost models that JSON can express, valid or not.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <pipesched/cost/stage_costs.hpp>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

namespace pipesched::tests {

/// Generator of stage costs: each field is given with probability 1/2; numbers are of every magnitude.
class any_costs {
 public:
  explicit any_costs(std::uint64_t seed) : random_(seed) {}

  stage_costs make() {
    stage_costs c;
    stage_costs::for_each_field(c, [&](auto& field, std::string_view) {
      if (maybe()) field = numbers();
    });
    if (c.bandwidth) c.bandwidth = positive(c.bandwidth->values());
    if (maybe()) c.overlap_efficiency = 1 / (1 + std::abs(number()));
    if (c.overlap_efficiency == 0.0) c.overlap_efficiency = 0.5;
    for (std::size_t n = below(4); n > 0; --n) {
      pair_time p{.passes = {any_pass(), any_pass()}, .time = number()};
      if (maybe()) p.stages = {static_cast<std::uint16_t>(below(65536)), static_cast<std::uint16_t>(below(65536))};
      if (!c.pairs.find(key_of(p))) c.pairs.push_back(p);
    }
    if (maybe()) {
      c.allowed_pairs.emplace();
      for (std::size_t n = below(4); n > 0; --n) c.allowed_pairs->insert({any_pass(), any_pass()});
    }
    for (std::size_t n = below(3); n > 0; --n) {
      rank_link l{static_cast<std::uint32_t>(below(65536)),
                  static_cast<std::uint32_t>(below(65536)),
                  number(),
                  {},
                  link_busy::none};
      if (maybe()) l.bandwidth = positive({number()})[0];
      l.busy = static_cast<link_busy>(below(3));
      if (l.from != l.to && !c.links.find(key_of(l))) c.links.push_back(l);
    }
    c.time_unit = static_cast<time_unit>(below(4));
    c.transfers_busy = static_cast<link_busy>(below(3));
    for (std::size_t n = below(3); n > 0; --n) c.rank_speeds.push_back(positive({number()})[0]);
    for (std::size_t n = below(3); n > 0; --n) c.micro_batches.push_back(positive({number()})[0]);
    return c;
  }

 private:
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }
  bool maybe() { return below(2) == 1; }
  pass any_pass() { return static_cast<pass>(1 + below(7)); }
  double number() {
    switch (below(5)) {
      case 0: return 0;
      case 1: return static_cast<double>(below(100));
      case 2: return static_cast<double>(random_()) * 0x1p-60;
      case 3:
        return std::ldexp(1 + static_cast<double>(random_() >> 11) * 0x1p-53, static_cast<int>(below(2000)) - 1000);
      default: return std::numeric_limits<double>::max();
    }
  }
  // With 1 in place of 0.
  static per_stage positive(std::vector<double> values) {
    for (double& v : values) v = v > 0 ? v : 1;
    return per_stage(std::move(values));
  }
  per_stage numbers() {
    if (maybe()) return number();
    std::vector<double> values(1 + below(5));
    for (double& v : values) v = number();
    return per_stage(std::move(values));
  }

  std::mt19937_64 random_;
};

}  // namespace pipesched::tests
