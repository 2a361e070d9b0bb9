// SPDX-License-Identifier: MIT
#pragma once

// Runs one rank of a program: posts its receives, waits for the inputs of a cell, calls the trainer, posts its sends.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/trainer_checks.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

// Checks a trainer against a rank's program before anything runs.
template <typename Trainer>
void require_trainer(const program& p, std::uint32_t rank) {
  check_trainer<Trainer>();
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
  if constexpr (!trainer_has::reductions<Trainer>) {
    std::string missing;
    const auto lacks = [&](bool has, std::string_view function) {
      if (!has) missing += concat({missing.empty() ? "" : ", ", function});
    };
    lacks(trainer_has::weight_gradient<Trainer>, "weight_gradient");
    lacks(trainer_has::reduction_buffer<Trainer>, "reduction_buffer");
    lacks(trainer_has::reduce<Trainer>, "reduce");
    for (const action& a : p.actions[rank])
      if (is_weight_gradient(a))
        throw schedule_error(
            concat({"the trainer has no ", missing, ", which the reduction of stage ", a.what.stage, " needs"}));
  }
}

template <typename Trainer>
void run_op(Trainer& trainer, const task& t) {
  switch (t.what.pass) {
    case pass::forward:
      if constexpr (trainer_has::forward<Trainer>) trainer.forward(t);
      return;
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

// The memory that a message is received into or sent from.
template <typename Trainer>
std::span<std::byte> message_bytes(Trainer& trainer, const action& a) {
  if constexpr (trainer_has::reductions<Trainer>) {
    if (is_weight_gradient(a) && a.kind == action_kind::send) return trainer.weight_gradient(a.what.stage);
    if (is_weight_gradient(a)) return trainer.reduction_buffer(a.buffer);
  }
  if constexpr (trainer_has::buffer<Trainer>) return trainer.buffer(a.buffer);
}
[[noreturn]] inline void throw_no_bytes(std::uint32_t rank, const action& a) {
  const bool sends = a.kind == action_kind::send;
  const std::string memory = !is_weight_gradient(a) ? concat({"buffer(", a.buffer, ")"})
                             : sends                ? concat({"weight_gradient(", a.what.stage, ")"})
                                                    : concat({"reduction_buffer(", a.buffer, ")"});
  throw schedule_error(concat({"rank ", rank, ": ", to_string(a.what), sends ? " is sent from " : " is received into ",
                               memory, ", which has 0 bytes; expected at least 1"}));
}
// The bytes themselves. @throws schedule_error if they are empty: such a message would say nothing, and reduce() takes empty
// bytes for a gradient on this rank
inline std::span<std::byte> require_bytes(std::span<std::byte> bytes, std::uint32_t rank, const action& a) {
  if (bytes.empty()) throw_no_bytes(rank, a);
  return bytes;
}
template <typename Trainer>
std::span<std::byte> message_memory(Trainer& trainer, std::uint32_t rank, const action& a) {
  return require_bytes(message_bytes(trainer, a), rank, a);
}

// One rank's actions, with all that runs them. @param Drives  throw a trainer_error for what the trainer throws, as drivers do
template <typename Trainer, typename Transport, bool Drives = false>
struct rank_run {
  rank_run(const program& of, std::uint32_t r, Trainer& t, Transport& by)
      : p(of),
        rank(checked_rank(of, r)),
        actions(p.actions[rank]),
        cells(p.schedule[rank]),
        slots(p.slots[rank]),
        trainer(t),
        transport(by) {
    check_cell_hooks<Transport>();
    if constexpr (requires { transport.rank(); })
      if (transport.rank() != rank)
        throw schedule_error(concat({"rank ", rank, " runs with a transport of rank ", transport.rank()}));
    require_trainer<Trainer>(p, rank);
  }

  const program& p;
  std::uint32_t rank;
  std::span<const action> actions;
  std::span<const cell> cells;
  std::span<const std::array<op_slots, 2>> slots;
  Trainer& trainer;
  Transport& transport;

  void run(std::uint32_t n, std::span<interval> record = {}, std::chrono::steady_clock::time_point zero = {}) {
    const action& a = actions[n];
    transport.at(n);
    switch (a.kind) {
      case action_kind::receive: return transport.post_receive(a, memory(a));
      case action_kind::compute: return compute(a, record, zero);
      case action_kind::send: return transport.post_send(a, memory(a));
      case action_kind::accumulate:
        if constexpr (trainer_has::reductions<Trainer>) reduce(a);
    }
  }

 private:
  // Calls a function of the trainer.
  template <typename Call>
  decltype(auto) call(const action& a, Call&& function) {
    if constexpr (Drives)
      return call_trainer(
          rank, [&] { return place_of(p, rank, a); }, function);
    else
      return function();
  }
  std::span<std::byte> memory(const action& a) {
    return require_bytes(call(a, [&] { return message_bytes(trainer, a); }), rank, a);
  }

  void compute(const action& a, std::span<interval> record, std::chrono::steady_clock::time_point zero) {
    const auto now = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - zero).count(); };
    const std::uint32_t index = a.index;
    const auto& of = slots[index];
    for (const op_slots& s : of) {
      if (s.input != no_slot) transport.wait_received(s.input, false);
      if (s.output != no_slot) transport.wait_sent(s.output);
    }
    if (!record.empty()) record[index].start = now();
    if constexpr (requires { transport.begin_cell(index); }) transport.begin_cell(index);
    call(a, [&] { run_cell(trainer, cells[index], of); });
    if constexpr (requires { transport.end_cell(index); }) transport.end_cell(index);
    if (!record.empty()) record[index].end = now();
  }
  void reduce(const action& a) {
    const auto own = static_cast<std::uint16_t>(a.index);
    transport.wait_weights_sent();  // before it changes
    if (a.channel == no_slot) return call(a, [&] { trainer.reduce(own, a.what.stage, {}); });
    transport.wait_received(a.buffer, true);
    call(a, [&] { trainer.reduce(own, a.what.stage, trainer.reduction_buffer(a.buffer)); });
  }
};

template <bool Drives, typename Trainer, transport Transport>
void execute(const program& p, std::uint32_t rank, Trainer& trainer, Transport& transport, std::span<interval> record,
             std::chrono::steady_clock::time_point zero) {
  rank_run<Trainer, Transport, Drives> run(p, rank, trainer, transport);
  if (!record.empty() && record.size() != p.schedule[rank].size())
    throw schedule_error(concat({"rank ", rank, " has ", p.schedule[rank].size(), " cells; got ", record.size(),
                                 " intervals to record them in"}));
  for (std::uint32_t n = 0; n < run.actions.size(); ++n) run.run(n, record, zero);
  transport.finish();
}

// One step as drivers run it: with the trainer's begin_step(), `run()`, and its end_step().
template <typename Trainer, typename Run>
void run_step(std::uint32_t rank, Trainer& trainer, std::size_t step, Run&& run) {
  check_step_hooks<Trainer>();
  const auto place = [&](std::string_view hook) { return [=] { return concat({hook, "(", step, ")"}); }; };
  if constexpr (trainer_has::begin_step<Trainer>)
    call_trainer(rank, place("begin_step"), [&] { trainer.begin_step(step); });
  run();
  if constexpr (trainer_has::end_step<Trainer>) call_trainer(rank, place("end_step"), [&] { trainer.end_step(step); });
}

}  // namespace detail

/// Runs one step of one rank. Whatever a function of the trainer throws comes out of here as it is. With `record`, the start
/// and end of every cell, in seconds since `zero`, are put there. No allocation, no lock and no virtual call of its own.
/// @throws schedule_error where rank, transport, trainer, one of its buffers or `record` does not fit the program
/// @pre verify(p) is true; every rank runs the same program
template <typename Trainer, transport Transport>
void execute(const program& p, std::uint32_t rank, Trainer& trainer, Transport& transport,
             std::span<interval> record = {}, std::chrono::steady_clock::time_point zero = {}) {
  detail::execute<false>(p, rank, trainer, transport, record, zero);
}

}  // namespace pipesched
