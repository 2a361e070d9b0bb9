// SPDX-License-Identifier: MIT
#pragma once

// Trainers: a user implements one to run a program. It does the work of one rank.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "pipesched/core/op.hpp"
#include "pipesched/execute/failure.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched {

/// An op and its slots.
struct task {
  op what;
  op_slots slots;
};

/// The weight gradient of a chunk of this rank gets another one added: that of a replica, or of a stage with the same weights.
struct reduction {
  std::uint32_t chunk = 0;         ///< whose weight gradient becomes the sum
  std::uint16_t stage = 0;         ///< of that chunk
  tensor_id other{};               ///< the weight gradient that is added
  std::uint32_t buffer = no_slot;  ///< which holds it; no_slot if it is that of `other_chunk` on this rank
  std::uint32_t other_chunk = 0;   ///< without a buffer: its weight gradient becomes the sum, too
};

/// The functions of a trainer. `forward`, `buffer` and a backward, whole or in two halves, are always needed: `backward` if the
/// program has a B, `backward_input` and `backward_weight` if it has an I; `recompute` if it recomputes; `weight_gradient` and
/// `reduce` if it has reductions. `overlapped` is called for a cell of two ops if there is one; otherwise they run one after the
/// other, forwards first. A member that has one of these names but cannot be called like this does not compile.
///
///   void forward(task)                    reads buffer slots.input, fills slots.activation, writes buffer slots.output; if
///                                         there is a slots.kept_input, that is all that stays
///   void backward(task)                   the same with gradients; input or output is no_slot at the ends of the model
///   void backward_input(task), void backward_weight(task)
///   void recompute(task)                  fills slots.activation again from what F left in slots.kept_input; called for R,
///                                         and before the backward for RB and RI
///   void overlapped(task, task)           for RB and RI it recomputes, too
///   std::span<std::byte> buffer(tensor_id message, std::uint32_t n)   the message's bytes in buffer n: at least 1, as many
///                                                                     on its sender as on its receiver
///   std::span<std::byte> weight_gradient(std::uint32_t chunk)
///   void reduce(reduction)
///   void begin_step(std::size_t step), void end_step(std::size_t step)   around every step
namespace trainer_has {

template <typename T>
concept forward = requires(T& t, const task k) {
  { t.forward(k) } -> std::same_as<void>;
};
template <typename T>
concept backward = requires(T& t, const task k) {
  { t.backward(k) } -> std::same_as<void>;
};
template <typename T>
concept backward_input = requires(T& t, const task k) {
  { t.backward_input(k) } -> std::same_as<void>;
};
template <typename T>
concept backward_weight = requires(T& t, const task k) {
  { t.backward_weight(k) } -> std::same_as<void>;
};
template <typename T>
concept recompute = requires(T& t, const task k) {
  { t.recompute(k) } -> std::same_as<void>;
};
template <typename T>
concept overlapped = requires(T& t, const task k) {
  { t.overlapped(k, k) } -> std::same_as<void>;
};
template <typename T>
concept buffer = requires(T& t, const tensor_id message, const std::uint32_t n) {
  { t.buffer(message, n) } -> std::convertible_to<std::span<std::byte>>;
};
template <typename T>
concept weight_gradient = requires(T& t, const std::uint32_t chunk) {
  { t.weight_gradient(chunk) } -> std::convertible_to<std::span<std::byte>>;
};
template <typename T>
concept reduce = requires(T& t, const reduction r) {
  { t.reduce(r) } -> std::same_as<void>;
};
template <typename T>
concept reductions = weight_gradient<T> && reduce<T>;
template <typename T>
concept begin_step = requires(T& t, const std::size_t step) {
  { t.begin_step(step) } -> std::same_as<void>;
};
template <typename T>
concept end_step = requires(T& t, const std::size_t step) {
  { t.end_step(step) } -> std::same_as<void>;
};

}  // namespace trainer_has

/// An exception of a trainer, with rank, place and text, as in "rank 2 at 2F3: no memory". The trainer's own exception is
/// nested in it: std::rethrow_if_nested(error).
struct trainer_error : std::runtime_error {
  trainer_error(std::uint32_t rank_, std::string place_, std::string cause_, std::string hook_ = {})
      : std::runtime_error(detail::concat({place_, ": ", cause_})),
        rank(rank_),
        place(std::move(place_)),
        cause(std::move(cause_)),
        hook(std::move(hook_)) {}
  std::uint32_t rank;
  std::string place;  ///< "rank 2 at 2F3", "rank 2 at begin_step(7)"
  std::string cause;  ///< the text of the trainer's exception
  std::string hook;   ///< "begin_step(7)"; empty if it was thrown in an action
};

namespace detail {

/// The text of the exception that is being handled; of a trainer_error without its rank and action, which its readers add.
/// @pre in a catch clause
inline std::string text_of_exception() {
  try {
    throw;
  } catch (const trainer_error& e) {
    return e.hook.empty() ? e.cause : concat({e.hook, ": ", e.cause});
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

struct no_hook {
  std::string operator()() const { return {}; }
};

/// Calls a function of a trainer. @param place, hook  return where the rank is, and the hook that is called, if one is.
/// @throws trainer_error around whatever the function throws; pipeline_aborted as it is, since another rank has failed then
template <typename Place, typename Call, typename Hook = no_hook>
decltype(auto) call_trainer(std::uint32_t rank, const Place& place, Call&& call, const Hook& hook = {}) {
  try {
    return call();
  } catch (const pipeline_aborted&) {
    throw;
  } catch (...) {
    std::throw_with_nested(trainer_error(rank, place(), text_of_exception(), hook()));
  }
}

}  // namespace detail

}  // namespace pipesched
