// SPDX-License-Identifier: MIT
#pragma once

// Compile-time checks of trainers and transports: a member that has the name of a callback, but cannot be called as one, is a
// compile error in words. Without them an optional callback with the wrong signature would never be called.

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "pipesched/execute/trainer.hpp"

namespace pipesched::detail {

/// The names of optional callbacks.
struct callback_names {
  int backward, backward_input, backward_weight, overlapped, weight_gradient, reduce, begin_step, end_step;
  int begin_cell, end_cell, abort, leave, synchronize;  // of transports
};
/// A name is ambiguous here if T has a member of that name, whatever its signature and however often it is overloaded.
template <typename T>
struct with_callback_names : T, callback_names {};
/// Can a class derive from T? The members of a final class cannot be seen like this, and are not checked.
template <typename T>
concept derivable = std::is_class_v<T> && !std::is_final_v<T>;

#define PIPESCHED_NAMES(function)                        \
  template <typename T>                                  \
  concept names_##function = derivable<T> && !requires { \
    &with_callback_names<T>::function;                   \
  }
PIPESCHED_NAMES(backward);
PIPESCHED_NAMES(backward_input);
PIPESCHED_NAMES(backward_weight);
PIPESCHED_NAMES(overlapped);
PIPESCHED_NAMES(weight_gradient);
PIPESCHED_NAMES(reduce);
PIPESCHED_NAMES(begin_step);
PIPESCHED_NAMES(end_step);
PIPESCHED_NAMES(begin_cell);
PIPESCHED_NAMES(end_cell);
PIPESCHED_NAMES(abort);
PIPESCHED_NAMES(leave);
PIPESCHED_NAMES(synchronize);
#undef PIPESCHED_NAMES

/// Checks the functions of a trainer.
template <typename T>
constexpr void check_trainer() {
  static_assert(trainer_has::forward<T>, "a trainer needs: void forward(pipesched::task)");
  static_assert(trainer_has::backward<T> || !names_backward<T>,
                "the trainer has a member backward that cannot be called as: void backward(pipesched::task)");
  static_assert(
      trainer_has::backward_input<T> || !names_backward_input<T>,
      "the trainer has a member backward_input that cannot be called as: void backward_input(pipesched::task)");
  static_assert(
      trainer_has::backward_weight<T> || !names_backward_weight<T>,
      "the trainer has a member backward_weight that cannot be called as: void backward_weight(pipesched::task)");
  static_assert(trainer_has::backward<T> || (trainer_has::backward_input<T> && trainer_has::backward_weight<T>) ||
                    names_backward<T>,
                "a trainer needs: void backward(pipesched::task); or void backward_input(pipesched::task) and "
                "void backward_weight(pipesched::task); or all three");
  static_assert(trainer_has::buffer<T>,
                "a trainer needs: std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t)");
  static_assert(trainer_has::overlapped<T> || !names_overlapped<T>,
                "the trainer has a member overlapped that cannot be called as: void overlapped(pipesched::task, "
                "pipesched::task)");
  static_assert(trainer_has::weight_gradient<T> || !names_weight_gradient<T>,
                "the trainer has a member weight_gradient that cannot be called as: std::span<std::byte> "
                "weight_gradient(std::uint32_t)");
  static_assert(trainer_has::reduce<T> || !names_reduce<T>,
                "the trainer has a member reduce that cannot be called as: void reduce(pipesched::reduction)");
  static_assert(trainer_has::begin_step<T> || !names_begin_step<T>,
                "the trainer has a member begin_step that cannot be called as: void begin_step(std::size_t)");
  static_assert(trainer_has::end_step<T> || !names_end_step<T>,
                "the trainer has a member end_step that cannot be called as: void end_step(std::size_t)");
}

/// Checks the functions of a transport that are called only if it has them.
template <typename T>
constexpr void check_transport() {
  static_assert(
      !names_begin_cell<T> || requires(T & t, const std::uint32_t n) { t.begin_cell(n); },
      "the transport has a member begin_cell that cannot be called as: void begin_cell(std::uint32_t)");
  static_assert(
      !names_end_cell<T> || requires(T & t, const std::uint32_t n) { t.end_cell(n); },
      "the transport has a member end_cell that cannot be called as: void end_cell(std::uint32_t)");
  static_assert(
      !names_abort<T> || requires(T & t, const std::string_view cause) { t.abort(cause); },
      "the transport has a member abort that cannot be called as: void abort(std::string_view)");
  static_assert(
      !names_leave<T> || requires(T & t) { t.leave(); },
      "the transport has a member leave that cannot be called as: void leave()");
  static_assert(
      !names_synchronize<T> || requires(T & t) { t.synchronize(); },
      "the transport has a member synchronize that cannot be called as: void synchronize()");
}

}  // namespace pipesched::detail
