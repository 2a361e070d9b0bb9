// SPDX-License-Identifier: MIT
#pragma once

// Ranks of one process on one device or several: messages are copies between the trainers' own buffers in device memory,
// ordered by events. To wait is to put an event between two streams: no thread ever waits for a device within a step. A
// thread may wait until another one has put its side of a message into a stream, which it does as fast as it can.
//
//   sender's compute     ... op that makes the message, record ready ............ wait moved, op that uses the buffer again
//   channel's stream     wait ready, wait free, copy, record moved
//   receiver's compute   ... op that read the buffer last, record free .......... wait moved, op that needs the message
//
// An event is waited for only after it was recorded, so every wait is for work that is in a stream already: whichever
// streams share a queue of the hardware, none waits for ever.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/device/device.hpp"
#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/executor.hpp"
#include "pipesched/execute/hub.hpp"
#include "pipesched/execute/run_ranks.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

struct peer_options {
  bool timed = false;        ///< measure every cell: two events more for each
  int copy_priority = -100;  ///< of the channels' streams, less is more urgent; the nearest that the device has
};

template <device_runtime R>
class peer_mover {
 public:
  static constexpr bool orders = true;

  /// Makes one stream a channel, on the sender's device, and all events. @throws device_error
  peer_mover(R runtime, const program& p, std::vector<device_rank<R>> ranks, const peer_options& options)
      : runtime_(std::move(runtime)), ranks_(std::move(ranks)), timed_(options.timed) {
    if (ranks_.size() != p.actions.size())
      throw schedule_error(detail::concat(
          {"a program of ", p.actions.size(), " pipeline ranks needs as many places; got ", ranks_.size()}));
    const transfer_counts counts(p);
    for (std::uint32_t number = 0; number < p.channels.size(); ++number) {
      const channel& c = p.channels[number];
      const int from = ranks_[c.from].device, to = ranks_[c.to].device;
      const auto where = [&] { return detail::concat({"making the channel from rank ", c.from, " to rank ", c.to}); };
      if (from != to) detail::require(runtime_, runtime_.connect(from, to), "DeviceEnablePeerAccess", where);
      channels_.push_back({.stream = detail::make_stream(runtime_, from, options.copy_priority, where), .moved = {}});
      for (std::size_t i = counts.entries[number]; i > 0; --i)
        channels_.back().moved.push_back(detail::make_event(runtime_, from, false, where));
    }
    for (std::uint32_t r = 0; r < ranks_.size(); ++r) {
      const auto where = [&] { return detail::concat({"making the events of rank ", r}); };
      const int device = ranks_[r].device;
      rank_state& own =
          states_.emplace_back(detail::rank_clock<R>(runtime_, device, p.schedule[r].size(), options.timed, where));
      const std::size_t buffers = std::size_t{p.pools[r].buffers} + p.pools[r].reductions + counts.weights[r];
      for (std::size_t i = 0; i < buffers; ++i)
        own.posted.push_back(detail::make_event(runtime_, device, false, where));
      own.moved.resize(buffers);
    }
  }

  template <typename Where>
  void posted(const message_side& side, const Where& where) {
    record(states_[side.rank].posted[side.buffer].handle(), ranks_[side.rank].compute, where);
  }
  template <typename Where>
  void move(std::uint32_t channel, std::size_t entry, const message_side& from, const message_side& into,
            std::size_t size, const Where& where) {
    const typename R::stream s = channels_[channel].stream.handle();
    const typename R::event moved = channels_[channel].moved[entry].handle();
    wait(s, states_[from.rank].posted[from.buffer].handle(), where);
    wait(s, states_[into.rank].posted[into.buffer].handle(), where);
    if (size > 0)
      detail::require(
          runtime_, runtime_.copy(s, into.bytes, ranks_[into.rank].device, from.bytes, ranks_[from.rank].device, size),
          "MemcpyPeerAsync", where);
    record(moved, s, where);
    states_[from.rank].moved[from.buffer] = states_[into.rank].moved[into.buffer] = moved;
  }
  template <typename Where>
  void moved(const message_side& side, const Where& where) {
    wait(ranks_[side.rank].compute, states_[side.rank].moved[side.buffer], where);
  }

  bool timed() const { return timed_; }
  detail::rank_clock<R>& clock(std::uint32_t rank) { return states_[rank].clock; }
  /// Waits, at most so long, until the ranks' streams and the channels' are empty: after a failure, before the trainers'
  /// buffers go. A trainer's own streams are its own business.
  void drain(std::chrono::duration<double> limit) noexcept {
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::nanoseconds>(limit);
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      if (!runtime_.succeeded(runtime_.set_device(ranks_[r].device))) continue;  // this thread may have chosen none
      detail::wait_until_empty(runtime_, states_[r].clock.end(), ranks_[r].compute, until);
    }
    for (const channel_state& c : channels_)
      detail::wait_until_empty(runtime_, c.moved[0].handle(), c.stream.handle(), until);
  }

  R& runtime() { return runtime_; }
  const std::vector<device_rank<R>>& ranks() const { return ranks_; }

 private:
  using event = device_handle<R, typename R::event>;
  struct channel_state {
    device_handle<R, typename R::stream> stream;
    std::vector<event> moved;  // by entry
  };
  struct rank_state {
    explicit rank_state(detail::rank_clock<R> of) : clock(std::move(of)) {}
    detail::rank_clock<R> clock;
    std::vector<event> posted{};             // by buffer: what was done with it before its message
    std::vector<typename R::event> moved{};  // by buffer: its last message
  };

  template <typename Where>
  void record(typename R::event e, typename R::stream s, const Where& where) {
    detail::require(runtime_, runtime_.record(e, s), "EventRecord", where);
  }
  template <typename Where>
  void wait(typename R::stream s, typename R::event e, const Where& where) {
    detail::require(runtime_, runtime_.wait(s, e), "StreamWaitEvent", where);
  }

  R runtime_;
  std::vector<device_rank<R>> ranks_;
  bool timed_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> states_;
};

/// What the ranks of one process share.
template <device_runtime R>
class peer_hub : public basic_hub<peer_mover<R>> {
 public:
  /// @param ranks       by pipeline rank; several may have one device, but each its own stream
  /// @param time_limit  how long a rank waits for another one, or in synchronize() for its device
  /// @throws device_error, schedule_error
  peer_hub(R runtime, const program& p, std::vector<device_rank<R>> ranks, const peer_options& options = {},
           std::chrono::duration<double> time_limit = std::chrono::seconds(60))
      : basic_hub<peer_mover<R>>(p, time_limit, peer_mover<R>(std::move(runtime), p, std::move(ranks), options)) {}
};

/// One rank's side: a transport. @pre the trainers' buffers are in the memory of their rank's device, and outlive all
/// ranks' steps
template <device_runtime R>
class peer_transport : public basic_in_process<peer_mover<R>> {
  using base = basic_in_process<peer_mover<R>>;

 public:
  peer_transport(peer_hub<R>& hub, std::uint32_t rank) : base(hub, rank) {}

  typename R::stream compute() const { return this->mover().ranks()[this->rank()].compute; }
  int device() const { return this->mover().ranks()[this->rank()].device; }

  /// Makes the rank's device this thread's, as kernels need.
  void select_device() { detail::require(runtime(), runtime().set_device(device()), "SetDevice", this->where()); }
  /// The executor calls these around every cell.
  void begin_cell(std::uint32_t i) { clock().record(runtime(), compute(), 2 * std::size_t{i}, this->where()); }
  void end_cell(std::uint32_t i) { clock().record(runtime(), compute(), 2 * std::size_t{i} + 1, this->where()); }

  /// From here on cells are timed. Devices have no common clock: call it on all ranks when nothing runs.
  void start_clock() { clock().record_zero(runtime(), compute(), this->where()); }

  /// Waits until the device has come to the end of the step: the only wait for a device that there is, outside of steps.
  /// @throws device_error if the device has failed; pipeline_aborted after the time limit, or if another rank has failed
  void synchronize() {
    clock().record_end(runtime(), compute(), this->where());
    this->wait_until([&] { return clock().ended(runtime(), this->where()); }, "the device did not end the step");
  }

  /// When the cells of the last step ran, in seconds since start_clock(). @throws schedule_error unless the hub is timed.
  /// @pre synchronize() has returned
  void read_times(std::span<interval> cells) { clock().read(runtime(), cells, this->where()); }

 private:
  R& runtime() const { return this->mover().runtime(); }
  detail::rank_clock<R>& clock() const { return this->mover().clock(this->rank()); }
};

/// Runs steps with a thread a rank, each with the trainer that `make_trainer(rank, transport)` makes there, until the
/// devices are through. A trainer's `begin_step(step)` and `end_step(step)` are called around every step if it has them,
/// the latter once its own device is through: there an optimizer may go. The timeline is of the last step, and empty unless
/// the hub is timed; the clocks of its ranks start within some microseconds.
/// @throws what the first rank that failed has thrown, once all threads have ended: trainer_error, with rank and place, around
/// an exception of its trainer; schedule_error for no steps of a timed hub. @pre verify(p) is true
template <device_runtime R, typename MakeTrainer>
timeline run_on_peers(const program& p, peer_hub<R>& hub, MakeTrainer&& make_trainer, std::size_t steps = 1) {
  timeline measured{.schedule = p.schedule};
  if (hub.mover().timed()) measured.intervals = rows<interval>::for_overwrite_like(p.schedule.cells);
  using trainer_type = detail::made_trainer<MakeTrainer, std::uint32_t, peer_transport<R>&>;
  if (steps == 0 && hub.mover().timed()) throw schedule_error("a timeline is of at least 1 step; got 0");
  const auto ranks = static_cast<std::uint32_t>(p.actions.size());
  std::vector<std::unique_ptr<trainer_type>> trainers(ranks);  // until all threads have ended
  const auto run = [&](std::uint32_t rank, detail::meeting_point<peer_mover<R>>& together) {
    peer_transport<R> transport(hub, rank);
    transport.select_device();
    detail::call_trainer(
        rank, [] { return std::string("its start"); },
        [&] { trainers[rank].reset(new trainer_type(make_trainer(rank, transport))); });
    transport.synchronize();  // what the trainer has put into its stream so far
    trainer_type& trainer = *trainers[rank];
    for (std::size_t step = 0; step < steps; ++step) {
      if (hub.mover().timed()) together.wait();
      transport.start_clock();
      detail::run_step(rank, trainer, step, [&] {
        detail::execute<true>(p, rank, trainer, transport, {}, {});
        transport.synchronize();
      });
    }
    if (hub.mover().timed()) transport.read_times(measured[rank]);
  };
  try {
    detail::run_ranks(hub, ranks, run);
  } catch (...) {
    hub.mover().drain(hub.time_limit());
    throw;
  }
  return measured;
}

}  // namespace pipesched
