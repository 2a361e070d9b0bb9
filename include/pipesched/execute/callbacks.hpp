// SPDX-License-Identifier: MIT
#pragma once

// What a user implements to run a program: a trainer, which does the work of one rank, and, beside those that come with the
// library, a transport, which moves messages.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>

#include "pipesched/op.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched {

/// An op and its slots, as a trainer's functions get it.
struct task {
  op what;
  op_slots slots;
};

/// What a trainer can do. `forward` and `buffer` are always needed; `backward` if the program has a B, `backward_input` and
/// `backward_weight` if it has an I; `weight_gradient`, `reduction_buffer` and `reduce` if it has reductions. `overlapped`
/// is called for a cell of two ops where there is one; otherwise they run one after the other, forwards first.
///
///   void forward(task)            reads buffer(slots.input), keeps in slots.activation, writes buffer(slots.output)
///   void backward(task)           likewise with gradients; what it reads or writes is no_slot at the ends of the model
///   void backward_input(task), void backward_weight(task)
///   void overlapped(task, task)
///   std::span<std::byte> buffer(std::uint32_t n)              one message; n below pools[rank].buffers
///   std::span<std::byte> weight_gradient(std::uint16_t stage)
///   std::span<std::byte> reduction_buffer(std::uint32_t n)    n below pools[rank].reductions
///   void reduce(std::uint16_t stage, std::uint16_t other, std::span<const std::byte>)    adds; empty: `other` is here, too,
///                                                                                        and both become the sum
namespace trainer_has {

template <typename T>
concept forward = requires(T& t, task k) {
  { t.forward(k) } -> std::same_as<void>;
};
template <typename T>
concept backward = requires(T& t, task k) {
  { t.backward(k) } -> std::same_as<void>;
};
template <typename T>
concept backward_input = requires(T& t, task k) {
  { t.backward_input(k) } -> std::same_as<void>;
};
template <typename T>
concept backward_weight = requires(T& t, task k) {
  { t.backward_weight(k) } -> std::same_as<void>;
};
template <typename T>
concept overlapped = requires(T& t, task k) {
  { t.overlapped(k, k) } -> std::same_as<void>;
};
template <typename T>
concept buffer = requires(T& t, std::uint32_t n) {
  { t.buffer(n) } -> std::convertible_to<std::span<std::byte>>;
};
template <typename T>
concept reductions = requires(T& t, std::uint16_t stage, std::uint32_t n, std::span<const std::byte> bytes) {
  { t.weight_gradient(stage) } -> std::convertible_to<std::span<std::byte>>;
  { t.reduction_buffer(n) } -> std::convertible_to<std::span<std::byte>>;
  { t.reduce(stage, stage, bytes) } -> std::same_as<void>;
};

}  // namespace trainer_has

/// What the executor asks of a transport, for its own rank.
///
///   post_receive(action, bytes), post_send(action, bytes)   do not wait; channel, message and buffer are in the action
///   wait_received(n, weights)   until what was posted into buffer n, or reduction buffer n, is there; at once if nothing was
///   wait_sent(n)                until what was posted from buffer n has gone; at once if nothing was
///   wait_weights_sent()         until all weight gradients posted have gone
///   at(n)                       the rank is at action n: for reports
///   finish()                    until everything posted has gone: the end of a step
///
/// Those that wait throw pipeline_aborted where that will never be.
template <typename T>
concept transport = requires(T& t, const action& a, std::span<std::byte> bytes, std::span<const std::byte> sent,
                             std::uint32_t n) {
  t.post_receive(a, bytes);
  t.post_send(a, sent);
  t.wait_received(n, false);
  t.wait_sent(n);
  t.wait_weights_sent();
  t.at(n);
  t.finish();
};

/// On every rank but the one where the first error was: which one, and what it was.
struct pipeline_aborted : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

/// The text of what is being handled. @pre in a catch clause
inline std::string text_of_exception() {
  try {
    throw;
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

}  // namespace detail

}  // namespace pipesched
