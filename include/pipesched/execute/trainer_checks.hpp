// SPDX-License-Identifier: MIT
#pragma once

// Compile-time checks of trainers and transports: a member that has the name of a callback, but cannot be called as one, is a
// compile error in words. Without them an optional callback with the wrong signature would never be called.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "pipesched/execute/trainer.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::detail {

/// The names of optional callbacks.
struct callback_names {
  int backward, backward_input, backward_weight, recompute, overlapped, weight_gradient, reduce, begin_step, end_step;
  int prepare, meet, leave, abort, select_device, synchronize, start_clock, begin_cell, end_cell;  // of transports
};
/// A name is ambiguous here if T has a member of that name, whatever its signature and however often it is overloaded.
template <typename T>
struct with_callback_names : T, callback_names {};
/// The members of a final class cannot be seen like this, and are not checked.
template <typename T>
using names_of = std::conditional_t<std::is_class_v<T> && !std::is_final_v<T>, with_callback_names<T>, callback_names>;

#define PIPESCHED_CHECK(of, callable, function, signature)          \
  static_assert((callable) || requires { &names_of<T>::function; }, \
                "the " of " has a member " #function " that cannot be called as: " signature)

/// Checks the functions of a trainer.
template <typename T>
constexpr void check_trainer() {
  using namespace trainer_has;
  static_assert(forward<T>, "a trainer needs: void forward(pipesched::task)");
  static_assert(buffer<T>, "a trainer needs: std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t)");
  static_assert(
      backward<T> || (backward_input<T> && backward_weight<T>) || !requires { &names_of<T>::backward; },
      "a trainer needs: void backward(pipesched::task); or void backward_input(pipesched::task) and "
      "void backward_weight(pipesched::task); or all three");
  PIPESCHED_CHECK("trainer", backward<T>, backward, "void backward(pipesched::task)");
  PIPESCHED_CHECK("trainer", backward_input<T>, backward_input, "void backward_input(pipesched::task)");
  PIPESCHED_CHECK("trainer", backward_weight<T>, backward_weight, "void backward_weight(pipesched::task)");
  PIPESCHED_CHECK("trainer", trainer_has::recompute<T>, recompute, "void recompute(pipesched::task)");
  PIPESCHED_CHECK("trainer", overlapped<T>, overlapped, "void overlapped(pipesched::task, pipesched::task)");
  PIPESCHED_CHECK("trainer", weight_gradient<T>, weight_gradient,
                  "std::span<std::byte> weight_gradient(std::uint32_t)");
  PIPESCHED_CHECK("trainer", reduce<T>, reduce, "void reduce(pipesched::reduction)");
  PIPESCHED_CHECK("trainer", begin_step<T>, begin_step, "void begin_step(std::size_t)");
  PIPESCHED_CHECK("trainer", end_step<T>, end_step, "void end_step(std::size_t)");
}

/// Checks the functions of a transport that are called only if it has them.
template <typename T>
constexpr void check_transport() {
  constexpr bool has_abort = requires(T & t, const std::string_view cause) { t.abort(cause); };
  constexpr bool has_prepare = requires(T & t, const program& p, std::span<std::byte> (&memory)(const action&)) {
    t.prepare(p, memory);
  };
  constexpr bool has_meet = requires(T & t, std::chrono::steady_clock::time_point at) { at = t.meet(); };
  constexpr bool has_begin_cell = requires(T & t, const std::uint32_t n) { t.begin_cell(n); };
  constexpr bool has_end_cell = requires(T & t, const std::uint32_t n) { t.end_cell(n); };
  PIPESCHED_CHECK("transport", has_prepare, prepare, "void prepare(const program&, memory)");
  PIPESCHED_CHECK("transport", has_meet, meet, "std::chrono::steady_clock::time_point meet()");
  PIPESCHED_CHECK("transport", has_begin_cell, begin_cell, "void begin_cell(std::uint32_t)");
  PIPESCHED_CHECK("transport", has_end_cell, end_cell, "void end_cell(std::uint32_t)");
  PIPESCHED_CHECK("transport", has_abort, abort, "void abort(std::string_view)");
  PIPESCHED_CHECK(
      "transport", requires(T & t) { t.leave(); }, leave, "void leave()");
  PIPESCHED_CHECK(
      "transport", requires(T & t) { t.select_device(); }, select_device, "void select_device()");
  PIPESCHED_CHECK(
      "transport", requires(T & t) { t.synchronize(); }, synchronize, "void synchronize()");
  PIPESCHED_CHECK(
      "transport", requires(T & t) { t.start_clock(); }, start_clock, "void start_clock()");
}
#undef PIPESCHED_CHECK

}  // namespace pipesched::detail
