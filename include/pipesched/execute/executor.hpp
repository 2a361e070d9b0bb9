// SPDX-License-Identifier: MIT
#pragma once

// One rank's actions: posts its receives, waits for the inputs of a cell, calls the trainer, posts its sends.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "pipesched/execute/trainer.hpp"
#include "pipesched/execute/trainer_checks.hpp"
#include "pipesched/execute/transport.hpp"
#include "pipesched/program/describe.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

// A function that a trainer may lack, and the passes that need it.
struct trainer_function {
  std::string_view name, hint;
  bool missing;
  pass_bits passes;
};
template <typename Trainer>
constexpr std::array<trainer_function, 4> functions_of() {
  constexpr std::string_view merge = "; merge_backward() makes B of I and W";
  return {
      {{"recompute", "; keep_activations() makes a schedule that recomputes nothing", !trainer_has::recompute<Trainer>,
        bit_of(pass::recompute) | bit_of(pass::recompute_backward) | bit_of(pass::recompute_backward_input)},
       {"backward", "; split_backward() makes I and W of B", !trainer_has::backward<Trainer>,
        bit_of(pass::backward) | bit_of(pass::recompute_backward)},
       {"backward_input", merge, !trainer_has::backward_input<Trainer>,
        bit_of(pass::backward_input) | bit_of(pass::recompute_backward_input)},
       {"backward_weight", merge, !trainer_has::backward_weight<Trainer>, bit_of(pass::backward_weight)}}};
}

// Refuses a row with an op that needs a function which the trainer lacks. One pass over the row, without branches.
// @param recomputes  whether the row may
template <typename Trainer>
void require_functions(std::span<const cell> row, bool recomputes) {
  constexpr auto functions = functions_of<Trainer>();
  const auto may_be_needed = [&](const trainer_function& f) {
    return f.missing && (recomputes || f.name != "recompute");
  };
  if (std::ranges::none_of(functions, may_be_needed)) return;
  pass_bits seen = 0;
  for (const cell& c : row) seen |= bit_of(c[0].pass) | bit_of(c[1].pass);
  for (const trainer_function& f : functions) {
    if (!f.missing || (seen & f.passes) == 0) continue;
    for (const cell& c : row)
      for (op o : c)
        if ((bit_of(o.pass) & f.passes) != 0)
          throw schedule_error(concat({"the trainer has no ", f.name, ", which ", to_string(o), " needs", f.hint}));
  }
}

// Checks a trainer against a rank's program before anything runs.
template <typename Trainer>
void require_trainer(const program& p, std::uint32_t rank) {
  check_trainer<Trainer>();
  require_functions<Trainer>(p.schedule[rank], p.pools[rank][pool::kept_input] > 0);
  if (trainer_has::reductions<Trainer>) return;
  const auto reduction = std::ranges::find_if(
      p.actions[rank], [](const action& a) { return a.kind != action_kind::compute && is_weight_gradient(a); });
  if (reduction == p.actions[rank].end()) return;
  throw schedule_error(concat({"the trainer has no ", trainer_has::weight_gradient<Trainer> ? "" : "weight_gradient",
                               trainer_has::weight_gradient<Trainer> || trainer_has::reduce<Trainer> ? "" : ", ",
                               trainer_has::reduce<Trainer> ? "" : "reduce", ", which the reduction of stage ",
                               reduction->what.stage, " needs"}));
}

template <typename Trainer>
void run_op(Trainer& trainer, const task& t) {
  pass p = t.what.pass;
  if constexpr (trainer_has::recompute<Trainer>)
    if (recomputes(p)) trainer.recompute(t), p = without_recompute(p);
  switch (p) {  // four cases become comparisons, which are predicted better than a jump by a table
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
    default: return;
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

/// The memory that a message is received into or sent from, at least 1 byte. @throws trainer_error, schedule_error
template <typename Trainer>
std::span<std::byte> message_memory(Trainer& trainer, const program& p, std::uint32_t rank, const action& a) {
  const bool own_gradient = is_weight_gradient(a) && a.kind == action_kind::send;
  const auto place = [&] { return concat({"rank ", rank, " at the memory of ", describe(p, a)}); };
  const std::span<std::byte> bytes = call_trainer(rank, place, [&]() -> std::span<std::byte> {
    if constexpr (trainer_has::weight_gradient<Trainer>)
      if (own_gradient) return trainer.weight_gradient(a.chunk);
    if constexpr (trainer_has::buffer<Trainer>) return trainer.buffer(a.what, a.buffer);
  });
  if (bytes.empty())
    throw schedule_error(
        concat({"rank ", rank, ": ", describe(p, a), " has 0 bytes in ",
                own_gradient ? concat({"weight_gradient(", a.chunk, ")"}) : concat({"buffer ", a.buffer}),
                "; expected at least 1"}));
  return bytes;
}

// The actions of one rank, with what runs them.
template <typename Trainer, typename Transport>
class rank_executor {
 public:
  /// @throws schedule_error if rank, trainer or transport do not fit the program
  /// @param measured  for the times of the cells while the clock runs
  rank_executor(const program& p, std::uint32_t rank, Trainer& trainer, Transport& transport,
                std::span<interval> measured = {})
      : p_(p), rank_(rank), trainer_(trainer), transport_(transport), measured_(measured) {
    check_transport<Transport>();
    require_rank(p, rank);
    if constexpr (requires { transport.rank(); })
      if (transport.rank() != rank)
        throw schedule_error(concat({"rank ", rank, " runs with a transport of rank ", transport.rank()}));
    require_trainer<Trainer>(p, rank);
    actions_ = p.actions[rank], cells_ = p.schedule[rank], slots_ = p.slots[rank];
  }

  std::uint32_t rank() const { return rank_; }
  Transport& transport() const { return transport_; }
  std::span<const action> actions() const { return actions_; }
  auto memory() const {
    return [this](const action& a) { return message_memory(trainer_, p_, rank_, a); };
  }

  void prepare() {
    if constexpr (requires { transport_.prepare(p_, memory()); }) transport_.prepare(p_, memory());
  }
  void synchronize() {
    if constexpr (requires { transport_.synchronize(); }) transport_.synchronize();
  }

  /// Makes what the clock of a device needs and waits for the device, so that all clocks can start at one time.
  void make_clock() {
    if constexpr (has_clock) transport_.start_clock();
    synchronize();
  }
  /// Measures the cells from now on: by the device's clock, or by this thread's in seconds since `zero`.
  void start_clock(std::chrono::steady_clock::time_point zero) {
    if constexpr (has_clock)
      transport_.start_clock();
    else
      zero_ = zero, records_ = true;
  }
  void stop_clock() {
    if constexpr (has_clock)
      transport_.read_clock(measured_);
    else
      records_ = false;
  }

  /// Runs all actions of a step.
  void run() {
    records_ ? run_all<true>() : run_all<false>();
    transport_.finish();
  }
  void run(std::uint32_t n) { records_ ? run<true>(n, actions_[n]) : run<false>(n, actions_[n]); }
  /// True if an action would wait for another rank: for one thread that runs several ranks.
  bool waits(std::uint32_t n) const {
    bool any = false;
    for_each_awaited(p_, rank_, actions_[n], [&](std::uint32_t buffer) { any = any || !transport_.is_done(buffer); });
    return any;
  }
  bool waits_at_end() const {
    for (std::uint32_t n = 0; n < p_.pools[rank_].buffers(); ++n)
      if (!transport_.is_done(n)) return true;
    return false;
  }

  /// Calls the trainer's hook `begin_step(step)` or `end_step(step)`.
  void begin_step(std::size_t step) {
    if constexpr (trainer_has::begin_step<Trainer>) call_hook("begin_step", step, [&] { trainer_.begin_step(step); });
  }
  void end_step(std::size_t step) {
    if constexpr (trainer_has::end_step<Trainer>) call_hook("end_step", step, [&] { trainer_.end_step(step); });
  }

 private:
  static constexpr bool has_clock = requires(Transport & t) { t.start_clock(); };

  template <typename Call>
  void call_hook(std::string_view name, std::size_t step, Call&& call) {
    const auto hook = [&] { return concat({name, "(", step, ")"}); };
    const auto at = [&] { return concat({"rank ", rank_, " at ", hook()}); };
    call_trainer(rank_, at, call, hook);
  }
  auto place(std::uint32_t n) const {
    return [this, n] { return describe(p_, rank_, n); };
  }
  double now() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - zero_).count(); }

  template <bool Records>
  void run_all() {
    const std::span<const action> actions = actions_;  // a copy, as calls might change members
    for (std::uint32_t n = 0; n < actions.size(); ++n) run<Records>(n, actions[n]);
  }
  template <bool Records>
  void run(std::uint32_t n, const action& a) {
    transport_.on_action(n);
    switch (a.kind) {
      case action_kind::receive: return transport_.post_receive(a, message_memory(trainer_, p_, rank_, a));
      case action_kind::compute: return compute<Records>(n, a);
      case action_kind::send: return transport_.post_send(a, message_memory(trainer_, p_, rank_, a));
      case action_kind::accumulate: return accumulate(n, a);
    }
  }
  template <bool Records>
  void compute(std::uint32_t n, const action& a) {
    const std::uint32_t index = a.index;
    const std::array<op_slots, 2>& slots = slots_[index];
    const cell& c = cells_[index];
    for_each_awaited(slots, [&](std::uint32_t buffer) { transport_.wait(buffer); });
    if constexpr (Records) measured_[index].start = now();
    if constexpr (requires { transport_.begin_cell(index); }) transport_.begin_cell(index);
    call_trainer(rank_, place(n), [&] { run_cell(trainer_, c, slots); });
    if constexpr (requires { transport_.end_cell(index); }) transport_.end_cell(index);
    if constexpr (Records) measured_[index].end = now();
  }
  void accumulate(std::uint32_t n, const action& a) {
    if constexpr (trainer_has::reductions<Trainer>) {
      for_each_awaited(p_, rank_, a, [&](std::uint32_t buffer) { transport_.wait(buffer); });
      const reduction r{a.chunk, static_cast<std::uint16_t>(a.index), a.what, a.buffer, a.other_chunk};
      call_trainer(rank_, place(n), [&] { trainer_.reduce(r); });
    }
  }

  const program& p_;
  std::uint32_t rank_;
  std::span<const action> actions_;
  std::span<const cell> cells_;
  std::span<const std::array<op_slots, 2>> slots_;
  Trainer& trainer_;
  Transport& transport_;
  std::span<interval> measured_;
  bool records_ = false;
  std::chrono::steady_clock::time_point zero_{};
};

}  // namespace pipesched::detail
