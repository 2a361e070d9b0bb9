// SPDX-License-Identifier: MIT
#pragma once

// A cost model in which all stages cost the same.

#include <cstddef>
#include <cstdint>
#include <optional>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/pass_pairs.hpp"

namespace pipesched {

/// One time per pass, for all stages. If only `backward` is given, I = W = B/2.
struct uniform_costs {
  double forward = 1;
  std::optional<double> backward_input{};   ///< default: backward - backward_weight, or half of backward, or 1
  std::optional<double> backward_weight{};  ///< default: backward - backward_input, or half of backward, or 1
  std::optional<double> backward{};         ///< default: backward_input + backward_weight
  std::optional<double> overlapped{};       ///< F with B or I in one cell; default, and any other pair: the sum
  double transfer_time = 0;                 ///< between two ranks
  std::optional<double> recompute{};        ///< R; default: forward

  static constexpr bool micro_batches_alike() noexcept { return true; }

  constexpr detail::backward_times backward_times() const noexcept {
    return detail::resolve_backward(backward_input ? &*backward_input : nullptr,
                                    backward_weight ? &*backward_weight : nullptr, backward ? &*backward : nullptr);
  }
  constexpr double duration(op o) const noexcept {
    const pass p = without_recompute(o.pass);
    const double again = p == o.pass ? 0 : recompute.value_or(forward);
    switch (p) {
      case pass::forward: return forward;
      case pass::backward: return backward_times().whole + again;
      case pass::backward_input: return backward_times().input + again;
      case pass::backward_weight: return backward_times().weight;
      case pass::recompute: return recompute.value_or(forward);
      default: return 0;
    }
  }
  constexpr double duration(const cell& c) const noexcept {
    if (!c.overlapped()) return duration(c[0]);
    const auto [inside, rest] = detail::split_recompute(c);
    const double again = inside * recompute.value_or(forward);
    if (overlapped && pass_pair_set::forward_with_backward().contains(pair_of(rest))) return *overlapped + again;
    return duration(rest[0]) + duration(rest[1]) + again;
  }
  constexpr double transfer(std::uint32_t, std::uint32_t, tensor_id) const noexcept { return transfer_time; }

  /// @throws schedule_error if a number is negative, infinite or NaN, or a backward is shorter than its one given half.
  constexpr void check(std::uint32_t) const {
    detail::require_cost(forward, "forward");
    detail::require_cost(backward.value_or(0), "backward");
    detail::require_cost(backward_input.value_or(0), "backward_input");
    detail::require_cost(backward_weight.value_or(0), "backward_weight");
    detail::require_cost(overlapped.value_or(0), "overlapped");
    detail::require_cost(transfer_time, "transfer");
    detail::require_cost(recompute.value_or(0), "recompute");
    detail::require_rest_of_backward(backward_times());
  }

  friend constexpr bool operator==(const uniform_costs&, const uniform_costs&) = default;
};

static_assert(cost_model<uniform_costs>);

}  // namespace pipesched
