// SPDX-License-Identifier: MIT
#pragma once

// Runs one rank of a program: posts its receives, waits for the inputs of a cell, calls the trainer, posts its sends.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/execute/callbacks.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

namespace detail {

// What a trainer lacks for a program is found before anything runs.
template <typename Trainer>
void require_trainer(const program& p, std::uint32_t rank) {
  static_assert(trainer_has::forward<Trainer>, "a trainer needs: void forward(pipesched::task)");
  static_assert(
      trainer_has::backward<Trainer> || (trainer_has::backward_input<Trainer> && trainer_has::backward_weight<Trainer>),
      "a trainer needs: void backward(pipesched::task); or void backward_input(pipesched::task) and "
      "void backward_weight(pipesched::task); or all three");
  static_assert(trainer_has::buffer<Trainer>, "a trainer needs: std::span<std::byte> buffer(std::uint32_t)");
  const auto needs = [&](op o, std::string_view function, std::string_view hint) {
    throw schedule_error(concat({"the trainer has no ", function, ", which ", to_string(o), " needs", hint}));
  };
  if constexpr (!trainer_has::backward<Trainer> || !trainer_has::backward_input<Trainer> ||
                !trainer_has::backward_weight<Trainer>)
    for (const cell& c : p.schedule[rank])
      for (op o : c) {
        if (o.pass == pass::backward && !trainer_has::backward<Trainer>)
          needs(o, "backward", "; split_backward() makes I and W of B");
        if (o.pass == pass::backward_input && !trainer_has::backward_input<Trainer>)
          needs(o, "backward_input", "; merge_backward() makes B of I and W");
        if (o.pass == pass::backward_weight && !trainer_has::backward_weight<Trainer>)
          needs(o, "backward_weight", "; merge_backward() makes B of I and W");
      }
  if constexpr (!trainer_has::reductions<Trainer>)
    for (const action& a : p.actions[rank])
      if (is_weight_gradient(a))
        throw schedule_error(
            concat({"the trainer has no weight_gradient, reduction_buffer and reduce, which the reduction of stage ",
                    a.what.stage, " needs"}));
}

template <typename Trainer>
void run_op(Trainer& trainer, const task& t) {
  switch (t.what.pass) {
    case pass::forward: return trainer.forward(t);
    case pass::backward:
      if constexpr (trainer_has::backward<Trainer>) trainer.backward(t);
      return;
    case pass::backward_input:
      if constexpr (trainer_has::backward_input<Trainer>) trainer.backward_input(t);
      return;
    case pass::backward_weight:
      if constexpr (trainer_has::backward_weight<Trainer>) trainer.backward_weight(t);
      return;
    case pass::none: return;
  }
}

template <typename Trainer>
void run_cell(Trainer& trainer, const cell& c, const std::array<op_slots, 2>& slots) {
  const task first{c[0], slots[0]};
  if (!c.overlapped()) return run_op(trainer, first);
  const task second{c[1], slots[1]};
  if constexpr (trainer_has::overlapped<Trainer>) {
    trainer.overlapped(first, second);
  } else {
    const bool swapped = c[1].pass == pass::forward && c[0].pass != pass::forward;
    run_op(trainer, swapped ? second : first);
    run_op(trainer, swapped ? first : second);
  }
}

// What a message is received into or sent from.
template <typename Trainer>
std::span<std::byte> message_memory(Trainer& trainer, const action& a) {
  if constexpr (trainer_has::reductions<Trainer>) {
    if (is_weight_gradient(a) && a.kind == action_kind::send) return trainer.weight_gradient(a.what.stage);
    if (is_weight_gradient(a)) return trainer.reduction_buffer(a.buffer);
  }
  return trainer.buffer(a.buffer);
}

// What one rank's actions are run with.
template <typename Trainer, typename Transport>
struct rank_run {
  rank_run(const program& p, std::uint32_t rank, Trainer& t, Transport& by)
      : actions(p.actions[rank]), cells(p.schedule[rank]), slots(p.slots[rank]), trainer(t), transport(by) {
    require_trainer<Trainer>(p, rank);
  }

  std::span<const action> actions;
  std::span<const cell> cells;
  std::span<const std::array<op_slots, 2>> slots;
  Trainer& trainer;
  Transport& transport;

  void run(std::uint32_t n, std::span<interval> record = {}, std::chrono::steady_clock::time_point zero = {}) {
    const action& a = actions[n];
    transport.at(n);
    switch (a.kind) {
      case action_kind::receive: return transport.post_receive(a, message_memory(trainer, a));
      case action_kind::compute: return compute(a.index, record, zero);
      case action_kind::send: return transport.post_send(a, message_memory(trainer, a));
      case action_kind::accumulate:
        if constexpr (trainer_has::reductions<Trainer>) reduce(a);
    }
  }

 private:
  void compute(std::uint32_t index, std::span<interval> record, std::chrono::steady_clock::time_point zero) {
    const auto now = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - zero).count(); };
    const auto& of = slots[index];
    for (const op_slots& s : of) {
      if (s.input != no_slot) transport.wait_received(s.input, false);
      if (s.output != no_slot) transport.wait_sent(s.output);
    }
    if (!record.empty()) record[index].start = now();
    if constexpr (requires { transport.begin_cell(index); }) transport.begin_cell(index);
    run_cell(trainer, cells[index], of);
    if constexpr (requires { transport.end_cell(index); }) transport.end_cell(index);
    if (!record.empty()) record[index].end = now();
  }
  void reduce(const action& a) {
    const auto own = static_cast<std::uint16_t>(a.index);
    transport.wait_weights_sent();  // before it changes
    if (a.channel == no_slot) return trainer.reduce(own, a.what.stage, {});
    transport.wait_received(a.buffer, true);
    trainer.reduce(own, a.what.stage, trainer.reduction_buffer(a.buffer));
  }
};

}  // namespace detail

/// Runs one step of one rank. Whatever a function of the trainer throws comes out of here. With `record`, the start and end
/// of every cell, in seconds since `zero`, are put there. No allocation, no lock and no virtual call of its own.
/// @pre check(p) is true; every rank runs the same program
template <typename Trainer, transport Transport>
void execute(const program& p, std::uint32_t rank, Trainer& trainer, Transport& transport,
             std::span<interval> record = {}, std::chrono::steady_clock::time_point zero = {}) {
  detail::rank_run<Trainer, Transport> run(p, rank, trainer, transport);
  for (std::uint32_t n = 0; n < run.actions.size(); ++n) run.run(n, record, zero);
  transport.finish();
}

}  // namespace pipesched
