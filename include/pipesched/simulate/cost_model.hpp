// SPDX-License-Identifier: MIT
#pragma once

// How long things take. Any unit of time will do, as long as it is one.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "pipesched/dependencies.hpp"
#include "pipesched/op.hpp"

namespace pipesched {

/// What simulate() asks of a cost model:
///  * `duration(cell)`: how long a rank is busy with it;
///  * `transfer(from, to, tensor)`: how long after its maker's cell ended a tensor arrives on another rank;
///  * optionally `release(cell, i)`: how long after the cell's start its i-th op has made its output; without it,
///    outputs leave at the end of the cell, as the published bubble formulas assume.
template <typename Costs>
concept cost_model = requires(const Costs& costs, const cell& c, std::uint32_t rank, tensor t) {
  { costs.duration(c) } -> std::convertible_to<double>;
  { costs.transfer(rank, rank, t) } -> std::convertible_to<double>;
};

/// Every stage costs the same.
struct uniform_costs {
  double forward = 1;
  double backward_input = 1;
  double backward_weight = 1;
  std::optional<double> backward{};    ///< default: backward_input + backward_weight
  std::optional<double> overlapped{};  ///< a cell of two ops; default: the sum of both
  double transfer_time = 0;

  constexpr double duration(op o) const noexcept {
    switch (o.pass) {
      case pass::forward: return forward;
      case pass::backward: return backward.value_or(backward_input + backward_weight);
      case pass::backward_input: return backward_input;
      case pass::backward_weight: return backward_weight;
      case pass::none: break;
    }
    return 0;
  }
  constexpr double duration(const cell& c) const noexcept {
    return c.overlapped() ? overlapped.value_or(duration(c[0]) + duration(c[1])) : duration(c[0]);
  }
  constexpr double transfer(std::uint32_t, std::uint32_t, tensor) const noexcept { return transfer_time; }
};

static_assert(cost_model<uniform_costs>);

}  // namespace pipesched
