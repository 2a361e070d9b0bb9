// SPDX-License-Identifier: MIT
#pragma once

// How long things take and how much they keep. Any unit of time will do, as long as it is one; sizes are in bytes.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/dependencies.hpp"
#include "pipesched/error.hpp"
#include "pipesched/op.hpp"

namespace pipesched {

/// What simulate() asks of a cost model:
///  * `duration(cell)`: how long a rank is busy with it;
///  * `transfer(from, to, tensor)`: how long after it was made a tensor arrives on another rank.
/// Optionally, and looked for by name:
///  * `release(cell, i)`: how long after the cell's start its i-th op has made its output; without it, outputs leave at the
///    end of the cell, as the published bubble formulas assume;
///  * `bytes(op)`: what the op keeps (F) or, negative, frees (I, W, B), as measure() wants it;
///  * `weights(stage)`: bytes of the stage's parameters, gradients and optimizer state;
///  * `check(stages)`: throws schedule_error when the numbers make no sense for so many stages.
template <typename Costs>
concept cost_model = requires(const Costs& costs, const cell& c, std::uint32_t rank, tensor_id t) {
  { costs.duration(c) } -> std::convertible_to<double>;
  { costs.transfer(rank, rank, t) } -> std::convertible_to<double>;
};

namespace detail {

/// @throws schedule_error unless 0 <= value < infinity.
constexpr void require_cost(double value, std::string_view name, std::int64_t stage = -1) {
  if (value >= 0 && value <= std::numeric_limits<double>::max()) return;
  std::string where(name);
  if (stage >= 0) where += concat({" of stage ", stage});
  throw schedule_error(concat({"costs: ", where, " is ",
                               value < 0   ? "negative"
                               : value > 0 ? "infinite"
                                           : "not a number",
                               "; expected a finite number that is not negative"}));
}

}  // namespace detail

/// Every stage costs the same.
struct uniform_costs {
  double forward = 1;
  double backward_input = 1;
  double backward_weight = 1;
  std::optional<double> backward{};    ///< default: backward_input + backward_weight
  std::optional<double> overlapped{};  ///< a cell of two ops; default: the sum of both
  double transfer_time = 0;            ///< between two ranks

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
  constexpr double transfer(std::uint32_t, std::uint32_t, tensor_id) const noexcept { return transfer_time; }

  constexpr void check(std::uint32_t) const {
    detail::require_cost(forward, "forward");
    detail::require_cost(backward_input, "backward_input");
    detail::require_cost(backward_weight, "backward_weight");
    detail::require_cost(backward.value_or(0), "backward");
    detail::require_cost(overlapped.value_or(0), "overlapped");
    detail::require_cost(transfer_time, "transfer");
  }

  friend constexpr bool operator==(const uniform_costs&, const uniform_costs&) = default;
};

/// One number for all stages, or one a stage.
class per_stage {
 public:
  constexpr per_stage(double same = 0) : values_{same} {}  // NOLINT: a number is the same for all stages
  constexpr per_stage(std::initializer_list<double> values) : values_(values) {}
  constexpr explicit per_stage(std::vector<double> values) : values_(std::move(values)) {}

  constexpr double operator[](std::uint32_t stage) const noexcept { return values_[values_.size() == 1 ? 0 : stage]; }
  constexpr const std::vector<double>& values() const noexcept { return values_; }

  /// @throws schedule_error unless there are one or `stages` numbers, none negative or infinite.
  constexpr void check(std::string_view name, std::uint32_t stages) const {
    if (values_.size() != 1 && values_.size() != stages)
      throw schedule_error(detail::concat(
          {"costs: ", name, " has ", values_.size(), " numbers; expected 1 or ", stages, ", one a stage"}));
    for (std::size_t i = 0; i < values_.size(); ++i)
      detail::require_cost(values_[i], name, values_.size() == 1 ? -1 : static_cast<std::int64_t>(i));
  }

  friend constexpr bool operator==(const per_stage&, const per_stage&) = default;

 private:
  std::vector<double> values_;
};

/// Costs by stage.
///
/// The duration of an overlapped cell (a;b) is, in this order of preference: `overlapped`, by the stage of a; or, with an
/// `overlap_efficiency` e, max(sum of compute, sum of communication) / e where any communication is given, else
/// max(a, b) / e, in both cases at most a + b; or a + b.
struct stage_costs {
  per_stage forward = 1;
  per_stage backward_input = 1;
  per_stage backward_weight = 1;
  std::optional<per_stage> backward{};         ///< default: backward_input + backward_weight
  std::optional<per_stage> overlapped{};       ///< see above
  std::optional<double> overlap_efficiency{};  ///< 0 < e <= 1; see above

  /// The part of each op that is communication inside the stage (expert all-to-all), which a partner's compute can hide.
  per_stage forward_communication = 0;
  per_stage backward_input_communication = 0;
  per_stage backward_weight_communication = 0;

  /// When outputs leave an overlapped cell, counted from its start; default: at its end.
  std::optional<per_stage> release_forward{};
  std::optional<per_stage> release_backward{};

  /// From stage s on to another rank, activation and gradient alike: latency + message_bytes / bandwidth, the second
  /// where a bandwidth (bytes a unit of time) is given. A link carries any number of messages at a time.
  per_stage transfer_time = 0;
  per_stage message_bytes = 0;
  std::optional<per_stage> bandwidth{};

  /// Bytes: kept from the start of F on; freed at the end of I; at the end of W (default: the rest); parameters,
  /// gradients and optimizer state of the stage.
  per_stage kept_by_forward = 0;
  per_stage freed_by_input = 0;
  std::optional<per_stage> freed_by_weight{};
  per_stage weight_bytes = 0;

  constexpr double duration(op o) const noexcept {
    switch (o.pass) {
      case pass::forward: return forward[o.stage];
      case pass::backward: return backward ? (*backward)[o.stage] : backward_input[o.stage] + backward_weight[o.stage];
      case pass::backward_input: return backward_input[o.stage];
      case pass::backward_weight: return backward_weight[o.stage];
      case pass::none: break;
    }
    return 0;
  }

  constexpr double communication(op o) const noexcept {
    switch (o.pass) {
      case pass::forward: return forward_communication[o.stage];
      case pass::backward: return backward_input_communication[o.stage] + backward_weight_communication[o.stage];
      case pass::backward_input: return backward_input_communication[o.stage];
      case pass::backward_weight: return backward_weight_communication[o.stage];
      case pass::none: break;
    }
    return 0;
  }

  constexpr double duration(const cell& c) const noexcept {
    const double a = duration(c[0]);
    if (!c.overlapped()) return a;
    const double b = duration(c[1]);
    if (overlapped) return (*overlapped)[c[0].stage];
    if (!overlap_efficiency) return a + b;
    const double communicated = communication(c[0]) + communication(c[1]);
    const double ideal = communicated > 0 ? std::max(a + b - communicated, communicated) : std::max(a, b);
    return std::min(ideal / *overlap_efficiency, a + b);
  }

  constexpr double release(const cell& c, std::size_t i) const noexcept {
    const double end = duration(c);
    const auto& at = c[i].pass == pass::forward ? release_forward : release_backward;
    return c.overlapped() && at ? std::min((*at)[c[i].stage], end) : end;
  }

  constexpr double transfer(std::uint32_t, std::uint32_t, tensor_id t) const noexcept {
    return transfer_time[t.stage] + (bandwidth ? message_bytes[t.stage] / (*bandwidth)[t.stage] : 0);
  }

  constexpr double bytes(op o) const noexcept {
    const double kept = kept_by_forward[o.stage], by_input = freed_by_input[o.stage];
    const double by_weight = freed_by_weight ? (*freed_by_weight)[o.stage] : kept - by_input;
    switch (o.pass) {
      case pass::forward: return kept;
      case pass::backward: return -(by_input + by_weight);
      case pass::backward_input: return -by_input;
      case pass::backward_weight: return -by_weight;
      case pass::none: break;
    }
    return 0;
  }
  constexpr double weights(std::uint32_t stage) const noexcept { return weight_bytes[stage]; }

  /// @throws schedule_error when an array has another length than 1 or `stages`, a number is negative, infinite or not
  /// one, the efficiency is not in (0, 1], a bandwidth is 0, communication is longer than its op, or more is freed than
  /// kept.
  constexpr void check(std::uint32_t stages) const {
    for_each_field(*this, [&](const auto& field, std::string_view name) {
      if constexpr (requires { field.has_value(); }) {
        if (field) field->check(name, stages);
      } else {
        field.check(name, stages);
      }
    });
    if (overlap_efficiency && !(*overlap_efficiency > 0 && *overlap_efficiency <= 1))
      throw schedule_error("costs: overlap_efficiency is more than 0 and at most 1; nearest 1");
    for (std::uint32_t s = 0; s < stages; ++s) {
      const auto refuse = [&](const char* what) { throw schedule_error(detail::concat({"costs: stage ", s, what})); };
      if (bandwidth && (*bandwidth)[s] == 0) refuse(" has a bandwidth of 0; expected a positive one");
      if (forward_communication[s] > forward[s] || backward_input_communication[s] > backward_input[s] ||
          backward_weight_communication[s] > backward_weight[s])
        refuse(" communicates for longer than the op lasts; communication is a part of it");
      if (freed_by_input[s] + (freed_by_weight ? (*freed_by_weight)[s] : 0) > kept_by_forward[s])
        refuse(" frees more bytes than its forward keeps");
    }
  }

  /// Calls `f(field, name)` for every number or array, a per_stage or an optional one, with the name it has in JSON.
  template <typename Self, typename F>
  static constexpr void for_each_field(Self& self, F&& f) {
    f(self.forward, "forward");
    f(self.backward_input, "backward_input");
    f(self.backward_weight, "backward_weight");
    f(self.backward, "backward");
    f(self.overlapped, "overlapped");
    f(self.forward_communication, "communication.forward");
    f(self.backward_input_communication, "communication.backward_input");
    f(self.backward_weight_communication, "communication.backward_weight");
    f(self.release_forward, "release.forward");
    f(self.release_backward, "release.backward");
    f(self.transfer_time, "transfer");
    f(self.message_bytes, "message_bytes");
    f(self.bandwidth, "bandwidth");
    f(self.kept_by_forward, "memory.kept_by_forward");
    f(self.freed_by_input, "memory.freed_by_input");
    f(self.freed_by_weight, "memory.freed_by_weight");
    f(self.weight_bytes, "memory.weights");
  }

  friend constexpr bool operator==(const stage_costs&, const stage_costs&) = default;
};

/// The costs of `stages` stages, given those of `shares` equal shares of the model (one for each rank, say) of which each
/// is divided into stages / shares stages. Durations, kept and freed bytes and weights are divided; transfers and messages
/// are not. Costs that are given for `stages` stages already stay as they are.
/// @pre stages is a multiple of shares
inline stage_costs split_stage_costs(const stage_costs& costs, std::uint32_t shares, std::uint32_t stages) {
  stage_costs of = costs;
  const double parts = static_cast<double>(stages) / shares;
  stage_costs::for_each_field(of, [&](auto& field, std::string_view name) {
    if (name == "transfer" || name == "message_bytes" || name == "bandwidth") return;
    const auto divide = [&](per_stage& values) {
      if (values.values().size() != 1 && values.values().size() != shares) return;
      std::vector<double> parted;
      for (std::size_t s = 0; s < (values.values().size() == 1 ? 1 : stages); ++s)
        parted.push_back(values[static_cast<std::uint32_t>(s * shares / stages)] / parts);
      values = per_stage(std::move(parted));
    };
    if constexpr (requires { field.has_value(); }) {
      if (field) divide(*field);
    } else {
      divide(field);
    }
  });
  return of;
}

/// DeepSeek-V3's own costs in milliseconds: four MoE layers a stage, EP64, TP1, sequences of 4096, as measured from the
/// traces that DeepSeek published. Alone a forward takes 97.39 ms and a full backward 135.32, as an overlapped pair 129.01:
/// all-to-all of one hides behind compute of the other. Pipeline transfers are not in the traces and cost nothing here.
/// Source: deepseek-ai/profile-data, train.json, kernel times by annotation.
inline stage_costs deepseek_v3_costs() {
  return {.forward = 17.48 + 18.41 + 26.76 + 34.74,         // attention, MLP, dispatch, combine
          .backward_input = 37.36 + 21.22 + 29.95 + 23.08,  // likewise
          .backward_weight = 9.55 + 14.16,                  // attention, MLP
          .overlapped = 129.01,
          .forward_communication = 26.76 + 34.74,
          .backward_input_communication = 29.95 + 23.08};
}

static_assert(cost_model<uniform_costs> && cost_model<stage_costs>);

}  // namespace pipesched
