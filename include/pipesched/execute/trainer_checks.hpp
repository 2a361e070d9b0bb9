// SPDX-License-Identifier: MIT
#pragma once

// Compile-time checks of trainers and transports: a member that has the name of a callback, but cannot be called as one, is a
// compile error in words. Without them an optional callback with the wrong signature would never be called.

#include <cstdint>
#include <type_traits>

#include "pipesched/execute/callbacks.hpp"

namespace pipesched::detail {

/// The names of optional callbacks.
struct callback_names {
  int backward, backward_input, backward_weight, overlapped, weight_gradient, reduction_buffer, reduce;
  int begin_step, end_step, begin_cell, end_cell;
};
/// A name is ambiguous here if T has a member of that name, whatever its signature and however often it is overloaded.
template <typename T>
struct with_callback_names : T, callback_names {};
/// Can a class derive from T? The members of a final class cannot be seen like this, and are not checked.
template <typename T>
concept derivable = std::is_class_v<T> && !std::is_final_v<T>;

template <typename T>
concept names_backward = derivable<T> && !requires {
  &with_callback_names<T>::backward;
};
template <typename T>
concept names_backward_input = derivable<T> && !requires {
  &with_callback_names<T>::backward_input;
};
template <typename T>
concept names_backward_weight = derivable<T> && !requires {
  &with_callback_names<T>::backward_weight;
};
template <typename T>
concept names_overlapped = derivable<T> && !requires {
  &with_callback_names<T>::overlapped;
};
template <typename T>
concept names_weight_gradient = derivable<T> && !requires {
  &with_callback_names<T>::weight_gradient;
};
template <typename T>
concept names_reduction_buffer = derivable<T> && !requires {
  &with_callback_names<T>::reduction_buffer;
};
template <typename T>
concept names_reduce = derivable<T> && !requires {
  &with_callback_names<T>::reduce;
};
template <typename T>
concept names_begin_step = derivable<T> && !requires {
  &with_callback_names<T>::begin_step;
};
template <typename T>
concept names_end_step = derivable<T> && !requires {
  &with_callback_names<T>::end_step;
};
template <typename T>
concept names_begin_cell = derivable<T> && !requires {
  &with_callback_names<T>::begin_cell;
};
template <typename T>
concept names_end_cell = derivable<T> && !requires {
  &with_callback_names<T>::end_cell;
};

/// Checks the functions that execute() calls.
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
  static_assert(trainer_has::buffer<T>, "a trainer needs: std::span<std::byte> buffer(std::uint32_t)");
  static_assert(trainer_has::overlapped<T> || !names_overlapped<T>,
                "the trainer has a member overlapped that cannot be called as: void overlapped(pipesched::task, "
                "pipesched::task)");
  static_assert(trainer_has::weight_gradient<T> || !names_weight_gradient<T>,
                "the trainer has a member weight_gradient that cannot be called as: std::span<std::byte> "
                "weight_gradient(std::uint16_t)");
  static_assert(trainer_has::reduction_buffer<T> || !names_reduction_buffer<T>,
                "the trainer has a member reduction_buffer that cannot be called as: std::span<std::byte> "
                "reduction_buffer(std::uint32_t)");
  static_assert(trainer_has::reduce<T> || !names_reduce<T>,
                "the trainer has a member reduce that cannot be called as: void reduce(std::uint16_t, std::uint16_t, "
                "std::span<const std::byte>)");
}

/// Checks the hooks that drivers call around a step.
template <typename T>
constexpr void check_step_hooks() {
  static_assert(trainer_has::begin_step<T> || !names_begin_step<T>,
                "the trainer has a member begin_step that cannot be called as: void begin_step(std::size_t)");
  static_assert(trainer_has::end_step<T> || !names_end_step<T>,
                "the trainer has a member end_step that cannot be called as: void end_step(std::size_t)");
}

/// The trainer that a `make_trainer` of a driver makes.
template <typename MakeTrainer, typename... Arguments>
constexpr auto trainer_made_by() {
  static_assert(std::is_invocable_v<MakeTrainer&, Arguments...>,
                "make_trainer cannot be called with the rank (run_on_peers: and its transport)");
  if constexpr (std::is_invocable_v<MakeTrainer&, Arguments...>) {
    using made = std::invoke_result_t<MakeTrainer&, Arguments...>;
    static_assert(!std::is_reference_v<made>,
                  "make_trainer returns a trainer by value: a reference would be copied");
    return std::type_identity<std::remove_cvref_t<made>>{};
  }
}
template <typename MakeTrainer, typename... Arguments>
using made_trainer = typename decltype(trainer_made_by<MakeTrainer, Arguments...>())::type;

/// Checks the hooks of a transport that execute() calls around a cell.
template <typename T>
constexpr void check_cell_hooks() {
  static_assert(
      !names_begin_cell<T> || requires(T & t, const std::uint32_t n) { t.begin_cell(n); },
      "the transport has a member begin_cell that cannot be called as: void begin_cell(std::uint32_t)");
  static_assert(
      !names_end_cell<T> || requires(T & t, const std::uint32_t n) { t.end_cell(n); },
      "the transport has a member end_cell that cannot be called as: void end_cell(std::uint32_t)");
}

}  // namespace pipesched::detail
