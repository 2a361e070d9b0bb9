// SPDX-License-Identifier: MIT
#pragma once

// Seeded random models that check() accepts, with every entry given with probability 1/2.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <pipesched/model/model.hpp>
#include <random>
#include <string>

namespace pipesched::tests {

class any_model {
 public:
  explicit any_model(std::uint64_t seed) : random_(seed) {}

  model make() {
    model m;
    m.time_unit = static_cast<time_unit>(below(4));
    for (std::size_t n = 1 + below(4); n > 0; --n) m.layers.push_back(make_layer());
    for (const pass_pair passes : {pass_pair{pass::forward, pass::backward}, {pass::forward, pass::backward_input}})
      if (maybe()) m.pairs.push_back({{m.layers[0].kind, m.layers.back().kind}, passes, number()});
    if (maybe()) m.allowed_pairs = pass_pair_set{{pass::forward, static_cast<pass>(1 + below(4))}};
    for (std::size_t n = below(4); n > 0; --n) m.ranks.push_back({.speed = 1 + number(), .memory = maybe_number()});
    for (std::uint32_t n = 0; n < below(4); ++n) {
      model_link l{.latency = number(), .busy = static_cast<link_busy>(below(3))};
      if (n > 0) l.from = n, l.to = n + 1;
      if (maybe()) l.bandwidth = 1 + number();
      m.links.push_back(l);
    }
    for (std::size_t n = below(4); n > 0; --n) m.micro_batches.push_back(1 + number());
    return m;
  }

 private:
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }
  bool maybe() { return below(2) == 1; }
  double number() { return maybe() ? static_cast<double>(below(10)) : static_cast<double>(random_()) * 0x1p-40; }
  std::optional<double> maybe_number() { return maybe() ? std::optional(number()) : std::nullopt; }

  layer make_layer() {
    constexpr std::array kinds = {"moe", "dense", "embedding", "head", "layer"};
    layer l{
        .kind = kinds[below(kinds.size())], .count = static_cast<std::uint32_t>(1 + below(100)), .forward = number()};
    l.backward_input = maybe_number(), l.backward_weight = maybe_number();
    if (maybe()) l.backward = 1 + l.backward_input.value_or(0) + l.backward_weight.value_or(0);
    l.recompute = maybe_number(), l.context = maybe_number();
    l.kept_input = number(), l.kept = l.kept_input + number(), l.weights = number(), l.message = number();
    l.transient = {number(), number(), maybe_number(), maybe_number(), maybe_number()};
    return l;
  }

  std::mt19937_64 random_;
};

}  // namespace pipesched::tests
