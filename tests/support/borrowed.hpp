// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "pipesched/execute/callbacks.hpp"

namespace pipesched::tests {

/// A trainer that forwards every call to another one. The executor owns its trainers; a test inspects the other one after
/// the run.
template <typename Trainer>
struct borrowed {
  Trainer& t;
  void forward(task k) { t.forward(k); }
  void backward(task k) { t.backward(k); }
  void backward_input(task k) { t.backward_input(k); }
  void backward_weight(task k) { t.backward_weight(k); }
  std::span<std::byte> buffer(std::uint32_t n) { return t.buffer(n); }
  std::span<std::byte> weight_gradient(std::uint16_t s) { return t.weight_gradient(s); }
  std::span<std::byte> reduction_buffer(std::uint32_t n) { return t.reduction_buffer(n); }
  void reduce(std::uint16_t s, std::uint16_t o, std::span<const std::byte> b) { t.reduce(s, o, b); }
};

}  // namespace pipesched::tests
