// SPDX-License-Identifier: MIT
#pragma once

// What a user implements to run a program: a trainer, which does the work of one rank, and, beside those that come with the
// library, a transport, which moves messages.

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "pipesched/core/op.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// An op and its slots, as a trainer's functions get it.
struct task {
  op what;
  op_slots slots;
};

/// What a trainer can do. `forward` and `buffer` are always needed; `backward` if the program has a B, `backward_input` and
/// `backward_weight` if it has an I; `weight_gradient`, `reduction_buffer` and `reduce` if it has reductions. `overlapped`
/// is called for a cell of two ops where there is one; otherwise they run one after the other, forwards first. A member
/// with one of these names that cannot be called like this does not compile (trainer_checks.hpp).
///
///   void forward(task)            reads buffer(slots.input), keeps in slots.activation, writes buffer(slots.output)
///   void backward(task)           likewise with gradients; what it reads or writes is no_slot at the ends of the model
///   void backward_input(task), void backward_weight(task)
///   void overlapped(task, task)
///   std::span<std::byte> buffer(std::uint32_t n)              one message, never empty; n below pools[rank].buffers
///   std::span<std::byte> weight_gradient(std::uint16_t stage)
///   std::span<std::byte> reduction_buffer(std::uint32_t n)    n below pools[rank].reductions
///   void reduce(std::uint16_t stage, std::uint16_t other, std::span<const std::byte>)    adds; empty: `other` is here, too,
///                                                                                        and both become the sum
///   void begin_step(std::size_t step), void end_step(std::size_t step)    around a step, by drivers such as run_in_process;
///                                                                         execute() calls neither
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
concept overlapped = requires(T& t, const task k) {
  { t.overlapped(k, k) } -> std::same_as<void>;
};
template <typename T>
concept buffer = requires(T& t, const std::uint32_t n) {
  { t.buffer(n) } -> std::convertible_to<std::span<std::byte>>;
};
template <typename T>
concept weight_gradient = requires(T& t, const std::uint16_t stage) {
  { t.weight_gradient(stage) } -> std::convertible_to<std::span<std::byte>>;
};
template <typename T>
concept reduction_buffer = requires(T& t, const std::uint32_t n) {
  { t.reduction_buffer(n) } -> std::convertible_to<std::span<std::byte>>;
};
template <typename T>
concept reduce = requires(T& t, const std::uint16_t stage, const std::span<std::byte> bytes) {
  { t.reduce(stage, stage, bytes) } -> std::same_as<void>;
};
template <typename T>
concept reductions = weight_gradient<T> && reduction_buffer<T> && reduce<T>;
template <typename T>
concept begin_step = requires(T& t, const std::size_t step) {
  { t.begin_step(step) } -> std::same_as<void>;
};
template <typename T>
concept end_step = requires(T& t, const std::size_t step) {
  { t.end_step(step) } -> std::same_as<void>;
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
concept transport = requires(T& t, const action& a, const std::span<std::byte> bytes,
                             const std::span<const std::byte> sent, const std::uint32_t n) {
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

/// An exception of a trainer, with rank, place and text, as in "rank 2 at 2F3: no memory": run_in_process() and the other
/// drivers throw it. The trainer's own exception is nested in it: std::rethrow_if_nested(error).
struct trainer_error : std::runtime_error {
  trainer_error(std::uint32_t rank_, std::string place_, std::string cause_)
      : std::runtime_error(detail::concat({"rank ", rank_, " at ", place_, ": ", cause_})),
        rank(rank_),
        place(std::move(place_)),
        cause(std::move(cause_)) {}
  std::uint32_t rank;
  std::string place;  ///< the cell, message, reduction or hook
  std::string cause;  ///< the text of the trainer's exception
};

namespace detail {

/// The text of the exception that is being handled; of a trainer_error the cause alone, as its readers add rank and place.
/// @pre in a catch clause
inline std::string text_of_exception() {
  try {
    throw;
  } catch (const trainer_error& e) {
    return e.cause;
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

/// Calls a function of a trainer. @param place  returns where the rank is. @throws trainer_error around whatever the
/// function throws; pipeline_aborted as it is, since another rank has failed then
template <typename Place, typename Call>
decltype(auto) call_trainer(std::uint32_t rank, const Place& place, Call&& call) {
  try {
    return call();
  } catch (const pipeline_aborted&) {
    throw;
  } catch (...) {
    std::throw_with_nested(trainer_error(rank, place(), text_of_exception()));
  }
}

/// The rank itself. @throws schedule_error if the program has no such rank
inline std::uint32_t checked_rank(const program& p, std::uint32_t rank) {
  if (rank < p.actions.size()) return rank;
  throw schedule_error(
      concat({"a program of ", p.actions.size(), " ranks has ranks 0 to ", p.actions.size() - 1, "; got rank ", rank}));
}

/// The place of a rank at an action: "3F2", "(0F7;7B13)", "the send of activation 3F2", "the reduction of weight gradient of stage 3".
inline std::string place_of(const program& p, std::uint32_t rank, const action& a) {
  if (a.kind == action_kind::compute) return to_string(p.schedule[rank][a.index]);
  return concat({a.kind == action_kind::receive ? "the receive of "
                 : a.kind == action_kind::send  ? "the send of "
                                                : "the reduction of ",
                 to_string(a.what)});
}

/// The time limit itself. @throws schedule_error unless it is above 0 and at most 1e9 seconds
inline std::chrono::duration<double> checked_time_limit(std::chrono::duration<double> limit) {
  if (!(limit.count() > 0 && limit.count() <= 1e9))
    throw schedule_error(concat({"a time limit is above 0 and at most 1e9 seconds; got ", limit.count()}));
  return limit;
}

}  // namespace detail

}  // namespace pipesched
