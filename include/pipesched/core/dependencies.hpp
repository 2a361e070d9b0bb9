// SPDX-License-Identifier: MIT
#pragma once

// Dependencies between ops, and a walk over a schedule in an order that respects them.
//
//   F(s,m)           needs F(s-1,m)
//   R(s,m)           needs F(s,m)
//   B(s,m), I(s,m)   need their own R(s,m) if there is one, else F(s,m); and B or I(s+1,m)
//   W(s,m)           needs I(s,m)
//
// Dependencies inside a stage stay on one rank. An op has at most one dependency between stages, which may cross ranks.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/support/worklist.hpp"

namespace pipesched {

/// Kinds of tensors that ranks exchange.
enum class tensor_kind : std::uint8_t {
  activation,      ///< the output of F(s,m), an input of stage s+1
  gradient,        ///< the output of B or I(s,m), an input of stage s-1
  weight_gradient  ///< the gradient of a stage's weights, for a rank that holds the same weights
};

/// Identity of a tensor: its kind, and the stage and micro-batch of the op that produces it.
struct tensor_id {
  tensor_kind kind = tensor_kind::activation;
  std::uint16_t stage = 0;  ///< of the op that produces it
  std::uint32_t micro = 0;  ///< 0 for weight gradients

  friend constexpr bool operator==(const tensor_id&, const tensor_id&) = default;
  friend constexpr auto operator<=>(const tensor_id&, const tensor_id&) = default;
};

/// True if the op produces a tensor for a neighbouring stage: all but W, R, the last stage's F, and B and I of the first stage
/// that is trained.
constexpr bool has_output(op o, stage_chain of) noexcept {
  return o.pass == pass::forward ? o.stage + 1u < of.stages
                                 : o.stage > of.first_trained && yields_input_gradient(o.pass);
}

/// The tensor that the op produces. @pre has_output(o, of)
constexpr tensor_id product_of(op o) noexcept {
  return {o.pass == pass::forward ? tensor_kind::activation : tensor_kind::gradient, o.stage, o.micro};
}

/// The tensor that the op produces for a neighbouring stage, if it has one.
constexpr std::optional<tensor_id> output_of(op o, stage_chain of) noexcept {
  return has_output(o, of) ? std::optional(product_of(o)) : std::nullopt;
}

/// True if the op needs a tensor of a neighbouring stage: all but W, R, the first stage's F and the last stage's B and I.
constexpr bool has_input(op o, stage_chain of) noexcept {
  return o.pass == pass::forward ? o.stage > 0 : o.stage + 1u < of.stages && yields_input_gradient(o.pass);
}

/// The tensor that the op needs. @pre has_input(o, of)
constexpr tensor_id source_of(op o) noexcept {
  const bool forward = o.pass == pass::forward;
  return {forward ? tensor_kind::activation : tensor_kind::gradient,
          static_cast<std::uint16_t>(forward ? o.stage - 1 : o.stage + 1), o.micro};
}

/// The tensor that the op needs from a neighbouring stage, if it needs one.
constexpr std::optional<tensor_id> input_of(op o, stage_chain of) noexcept {
  return has_input(o, of) ? std::optional(source_of(o)) : std::nullopt;
}

/// The stage that receives the tensor.
constexpr std::uint16_t receiver_of(tensor_id t) noexcept {
  return static_cast<std::uint16_t>(t.kind == tensor_kind::gradient ? t.stage - 1 : t.stage + 1);
}

/// True if `later` needs `earlier`, directly or through other ops of the same micro-batch. The forwards down the stages
/// and the backwards up the stages form one chain; each R stands beside it, between the F and the backward of its stage, and
/// each W follows the I of its stage.
constexpr bool depends(op later, op earlier, stage_chain of) noexcept {
  if (later.micro != earlier.micro || earlier.pass == pass::backward_weight) return false;
  if (earlier.pass == pass::recompute)
    return later.pass != pass::forward && later.pass != pass::recompute && later.stage <= earlier.stage;
  if (later.pass == pass::recompute) return earlier.pass == pass::forward && earlier.stage <= later.stage;
  if (later.pass == pass::backward_weight && earlier.stage == later.stage && earlier.pass != pass::forward)
    return without_recompute(earlier.pass) == pass::backward_input;
  const auto place_in_chain = [&](op o) { return o.pass == pass::forward ? o.stage : 2 * of.stages - 1 - o.stage; };
  return place_in_chain(earlier) < place_in_chain(later);
}

namespace detail {

// One value per activation and gradient of a schedule.
template <typename T>
class tensor_table {
 public:
  constexpr tensor_table(const schedule& s, T initial)
      : micro_(s.micro), gradients_(std::size_t{s.stages()} * s.micro), values_(2 * gradients_, initial) {}

  constexpr void fill(T value) noexcept { std::fill(values_.begin(), values_.end(), value); }
  constexpr T& operator[](tensor_id t) noexcept { return values_[at(t)]; }
  constexpr const T& operator[](tensor_id t) const noexcept { return values_[at(t)]; }

 private:
  constexpr std::size_t at(tensor_id t) const noexcept {
    return (t.kind == tensor_kind::gradient ? gradients_ : 0) + std::size_t{t.stage} * micro_ + t.micro;
  }

  std::size_t micro_, gradients_;
  std::vector<T> values_;
};

// Runs the ranks of a schedule, each until it is blocked. A rank may be woken more than once.
class cell_runner {
 public:
  constexpr explicit cell_runner(const schedule& s) : s_(s), chain_(s.chain()), state_(s, absent), runnable_(s.pp()) {}

  // Calls `advance(rank)` for one runnable rank after another until all are blocked.
  template <typename Advance>
  constexpr void run(Advance&& advance) {
    runnable_.run(advance);
  }
  // True if the inputs of the rank's next cell are there. Otherwise the rank is woken once one that lacks is produced.
  constexpr bool ready(const cell& c) {
    for (op o : c)
      if (const auto in = input_of(o, chain_); in && state_[*in] != produced) {
        state_[*in] = awaited;
        return false;
      }
    return true;
  }
  constexpr void finish(const cell& c) {
    for (op o : c)
      if (const auto out = output_of(o, chain_)) produce(*out);
  }
  constexpr void wake(std::uint32_t rank) { runnable_.wake(rank); }

 private:
  enum : std::uint8_t { absent, awaited, produced };

  constexpr void produce(tensor_id t) {
    std::uint8_t& now = state_[t];
    if (now == awaited) wake(s_.placement.rank_of(receiver_of(t), t.micro));
    now = produced;
  }

  const schedule& s_;
  stage_chain chain_;
  tensor_table<std::uint8_t> state_;
  worklist runnable_;
};

}  // namespace detail

/// Visits all cells with `visit(rank, index, cell)`: each rank's in order, and each after the producers of its inputs.
/// Returns the number of cells visited per rank: all of them unless the order is cyclic. Linear in the number of ops.
/// @pre every op has a stage and micro-batch in range and is on the rank that the placement gives
template <typename Visit>
constexpr std::vector<std::size_t> walk(const schedule& s, Visit&& visit) {
  detail::cell_runner runner(s);
  std::vector<std::size_t> done(s.pp(), 0);
  runner.run([&](std::uint32_t rank) {
    const std::span<const cell> row = s[rank];
    std::size_t i = done[rank];
    for (; i < row.size() && runner.ready(row[i]); ++i) {
      visit(rank, i, row[i]);
      runner.finish(row[i]);
    }
    done[rank] = i;
  });
  return done;
}

}  // namespace pipesched
