// SPDX-License-Identifier: MIT
#pragma once

// The concept of a cost model: durations of cells, transfer times, and sizes. Any unit of time will do, as long as one
// model uses one unit; sizes are in bytes.

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The ranks that a message keeps busy for latency + bytes / bandwidth: none; its sender, after the cell that made it and before
/// the next; or its receiver, too, right before the first cell that needs it.
enum class link_busy : std::uint8_t { none, sender, both };
inline constexpr std::array<std::string_view, 3> link_busy_names = {"none", "sender", "both"};
constexpr std::string_view to_string(link_busy b) noexcept { return link_busy_names[static_cast<std::size_t>(b)]; }

/// Requirements of simulate() and the bounds on a cost model:
///  * `duration(cell)`: how long a rank is busy with the cell;
///  * `transfer(from, to, tensor)`: time from the production of a tensor until it arrives on another rank.
/// Both may depend on stage, rank, micro-batch and partner; none may be negative. Optional members, found by name:
///  * `duration(cell, rank)`: in place of the above, for ranks that differ;
///  * `busy(from, to, tensor)`: the link_busy of a message; default: none;
///  * `keeps_ranks_busy()`: false if no message keeps a rank busy; default: true if the model has `busy`;
///  * `release(cell, i)` or `release(cell, i, rank)`: time from the cell's start until its i-th op has produced its output.
///    Without it outputs are released at the end of the cell, as the published bubble formulas assume;
///  * `bytes(op)`: bytes that are kept from the start of an F; that an R keeps again from its start, and an F gives back at its
///    end if there is an R; and that a B, I or W keeps from its end, negative where it frees some. Asked for these passes alone;
///  * `transient(op)`: bytes on top while the op runs;
///  * `message(tensor)`: bytes of a message, for fits();
///  * `weights(stage)`: bytes of the stage's parameters, gradients and optimizer state;
///  * `may_overlap()`: the pass_pair_set of cells that a planner may use; default: F with B and F with I;
///  * `check(stages)` or `check(stages, ranks, micro)`: throws schedule_error if the numbers make no sense for that many;
///  * `micro_batches_alike()`: true if no cost depends on the micro-batch. The bounds are then linear in stages x
///    micro-batches; else quadratic in micro-batches.
template <typename Costs>
concept cost_model = requires(const Costs& costs, const cell& c, std::uint32_t rank, tensor_id t) {
  { costs.duration(c) } -> std::convertible_to<double>;
  { costs.transfer(rank, rank, t) } -> std::convertible_to<double>;
};

namespace detail {

template <typename Costs>
constexpr bool micro_batches_alike(const Costs& costs) {
  if constexpr (requires { costs.micro_batches_alike(); })
    return costs.micro_batches_alike();
  else
    return false;
}

template <typename Costs>
constexpr void check_costs(const Costs& costs, std::uint32_t stages, std::uint32_t ranks, std::uint32_t micro) {
  if constexpr (requires { costs.check(stages, ranks, micro); })
    costs.check(stages, ranks, micro);
  else if constexpr (requires { costs.check(stages); })
    costs.check(stages);
}

template <typename Costs>
constexpr link_busy busy_of(const Costs& costs, std::uint32_t from, std::uint32_t to, tensor_id t) {
  if constexpr (requires { costs.busy(from, to, t); })
    return costs.busy(from, to, t);
  else
    return link_busy::none;
}

// False if messages certainly keep no rank busy.
template <typename Costs>
constexpr bool may_be_busy(const Costs& costs) {
  if constexpr (requires { costs.keeps_ranks_busy(); })
    return costs.keeps_ranks_busy();
  else
    return requires(tensor_id t) { costs.busy(0u, 0u, t); };
}

// Time that a rank is busy with a cell.
template <typename Costs>
constexpr double duration_of(const Costs& costs, std::uint32_t rank, const cell& c) {
  if constexpr (requires { costs.duration(c, rank); })
    return costs.duration(c, rank);
  else
    return costs.duration(c);
}

// Time from the start of a cell until the output of its k-th op is available on its own rank. @param duration  of the cell
template <typename Costs>
constexpr double release_of(const Costs& costs, std::uint32_t rank, const cell& c, std::size_t k, double duration) {
  if constexpr (requires { costs.release(c, k, rank); })
    return costs.release(c, k, rank);
  else if constexpr (requires { costs.release(c, k); })
    return costs.release(c, k);
  else
    return duration;
}
template <typename Costs>
constexpr double release_of(const Costs& costs, std::uint32_t rank, const cell& c, std::size_t k) {
  return release_of(costs, rank, c, k, duration_of(costs, rank, c));
}

/// @throws schedule_error unless 0 <= value < infinity.
constexpr void require_cost(double value, std::string_view name, std::int64_t stage = -1) {
  if (value >= 0 && value <= std::numeric_limits<double>::max()) return;
  std::string where(name);
  if (stage >= 0) where += concat({" of stage ", stage});
  throw schedule_error(concat({"costs: ", where, " is ",
                               value < 0   ? "negative"
                               : value > 0 ? "infinite"
                                           : "not a number",
                               "; expected a finite number that is not negative, nearest 0"}));
}

// Bytes of an op, each 0 if the model does not know it.
template <typename Costs>
constexpr double bytes_of(const Costs& costs, op o, pass as) {
  if constexpr (requires { costs.bytes(o); })
    return costs.bytes(with_pass(o, as));
  else
    return 0;
}
template <typename Costs>
constexpr double transient_of(const Costs& costs, op o) {
  if constexpr (requires { costs.transient(o); })
    return costs.transient(o);
  else
    return 0;
}

// The times of a backward and its two halves, of which any may be given.
struct backward_times {
  double input = 1, weight = 1, whole = 2;
};

/// B alone: I = W = B/2. B with I or W: the other is the rest. Without B: I and W default to 1, and B = I + W.
constexpr backward_times resolve_backward(const double* input, const double* weight, const double* whole) noexcept {
  if (!whole) {
    const double i = input ? *input : 1, w = weight ? *weight : 1;
    return {i, w, i + w};
  }
  if (!input && !weight) return {*whole / 2, *whole / 2, *whole};
  return {input ? *input : *whole - *weight, weight ? *weight : *whole - *input, *whole};
}

/// @throws schedule_error if a half that is the rest of a backward is negative.
constexpr void require_rest_of_backward(const backward_times& t, std::int64_t stage = -1) {
  if (t.input >= 0 && t.weight >= 0) return;
  std::string where = "backward";
  if (stage >= 0) where += concat({" of stage ", stage});
  const double half = t.input < 0 ? t.weight : t.input;
  throw schedule_error(concat({"costs: ", where, " is ", t.whole, ", less than its ",
                               t.input < 0 ? "backward_weight" : "backward_input", "; nearest ", half}));
}

}  // namespace detail
}  // namespace pipesched
