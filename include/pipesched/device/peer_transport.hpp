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

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/device/clock.hpp"
#include "pipesched/device/graph.hpp"
#include "pipesched/device/handle.hpp"
#include "pipesched/device/runtime.hpp"
#include "pipesched/execute/world.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Copies from device to device.
template <device_runtime R>
class peer_copy_engine {
 public:
  static constexpr bool orders = true;

  /// @throws device_error
  peer_copy_engine(R runtime, std::vector<device_rank<R>> ranks, int copy_priority)
      : runtime_(std::move(runtime)), ranks_(std::move(ranks)), copy_priority_(copy_priority) {
    for (std::uint32_t r = 0; r < ranks_.size(); ++r)
      states_.emplace_back(detail::rank_clock<R>(runtime_, ranks_[r], [r] {
        return detail::concat({"making the events of rank ", r});
      }));
  }

  /// Makes one stream per channel, on the sender's device, and all events, as far as earlier programs have not.
  /// @throws device_error
  void prepare(const program& p, const std::vector<std::size_t>& in_flight) {
    by_channel_.clear();
    for (std::uint32_t c = 0; c < p.channels.size(); ++c) by_channel_.push_back(&open(p.channels[c], in_flight[c]));
    for (std::uint32_t r = 0; r < ranks_.size(); ++r) {
      const auto where = [&] { return detail::concat({"making the events of rank ", r}); };
      rank_state& own = states_[r];
      while (own.posted.size() < p.pools[r].buffers())
        own.posted.push_back(detail::make_event(runtime_, ranks_[r].device, false, where));
      own.moved.resize(own.posted.size());
    }
  }
  void posted(const message_side& side, const auto& where) {
    detail::record(runtime_, states_[side.rank].posted[side.buffer].handle(), ranks_[side.rank].compute, where);
  }
  void move(std::uint32_t channel, std::size_t entry, const message_side& from, const message_side& into,
            std::size_t size, const auto& where) {
    const typename R::stream s = by_channel_[channel]->stream.handle();
    const typename R::event moved = by_channel_[channel]->moved[entry].handle();
    for (const message_side& side : {from, into})
      detail::wait(runtime_, s, states_[side.rank].posted[side.buffer].handle(), where);
    detail::require(runtime_,
                    runtime_.copy(s, into.bytes, ranks_[into.rank].device, from.bytes, ranks_[from.rank].device, size),
                    "MemcpyPeerAsync", where);
    detail::record(runtime_, moved, s, where);
    for (const message_side& side : {from, into}) states_[side.rank].moved[side.buffer] = moved;
  }
  void moved(const message_side& side, const auto& where) {
    detail::wait(runtime_, ranks_[side.rank].compute, states_[side.rank].moved[side.buffer], where);
  }

  /// Waits until the streams are empty, at most the limit: after a failure copies may be on their way.
  void drain(std::chrono::duration<double> limit) noexcept {
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::nanoseconds>(limit);
    for (std::uint32_t r = 0; r < ranks_.size(); ++r) {
      if (!runtime_.succeeded(runtime_.set_device(ranks_[r].device))) continue;  // this thread may have selected none
      clock(r).wait_until_empty(ranks_[r].compute, until);
    }
    for (const channel_state& c : channels_) clock(c.from).wait_until_empty(c.stream.handle(), until);
  }

  R& runtime() { return runtime_; }
  const std::vector<device_rank<R>>& ranks() const { return ranks_; }
  detail::rank_clock<R>& clock(std::uint32_t rank) { return states_[rank].clock; }

 private:
  using event = device_handle<R, typename R::event>;
  struct channel_state {
    std::uint32_t from = 0, to = 0;
    device_handle<R, typename R::stream> stream{};
    std::vector<event> moved{};  // by entry
  };
  struct rank_state {
    explicit rank_state(detail::rank_clock<R> of) : clock(std::move(of)) {}
    detail::rank_clock<R> clock;
    std::vector<event> posted{};             // by buffer: what was done with it before its message
    std::vector<typename R::event> moved{};  // by buffer: its last message
  };

  channel_state& open(const channel& c, std::size_t in_flight) {
    const int from = ranks_[c.from].device, to = ranks_[c.to].device;
    const auto where = [&] { return detail::concat({"making the channel from rank ", c.from, " to rank ", c.to}); };
    auto found = channels_.begin();
    while (found != channels_.end() && !(found->from == c.from && found->to == c.to)) ++found;
    if (found == channels_.end()) {
      if (from != to) detail::require(runtime_, runtime_.connect(from, to), "DeviceEnablePeerAccess", where);
      channels_.push_back({c.from, c.to, detail::make_stream(runtime_, from, copy_priority_, where)});
      found = channels_.end() - 1;
    }
    while (found->moved.size() < in_flight) found->moved.push_back(detail::make_event(runtime_, from, false, where));
    return *found;
  }

  R runtime_;
  std::vector<device_rank<R>> ranks_;
  int copy_priority_;
  std::deque<channel_state> channels_;
  std::vector<channel_state*> by_channel_;  // of the program
  std::vector<rank_state> states_;
};

template <device_runtime R>
class peer_transport;

struct peer_options {
  int copy_priority = -100;  ///< of the channels' streams, less is more urgent; the nearest that the device has
  /// How long a rank waits for another one, not counted while a rank is between steps, and for its device at the end of a step.
  std::chrono::duration<double> time_limit = std::chrono::minutes(10);
};

/// The ranks of a process, for run_all().
template <device_runtime R>
class peer_world : public basic_world<peer_copy_engine<R>> {
 public:
  using transport_type = peer_transport<R>;

  /// @param ranks  by pipeline rank; several may have one device, but each its own stream. @throws device_error, schedule_error
  peer_world(R runtime, std::vector<device_rank<R>> ranks, const peer_options& options = {})
      : basic_world<peer_copy_engine<R>>(
            ranks.size(), options.time_limit,
            peer_copy_engine<R>(std::move(runtime), std::vector(ranks), options.copy_priority)) {}

  template <typename Enqueue>
  step_graph<R> capture(Enqueue&& enqueue) {
    return step_graph<R>(this->engine().runtime(), this->engine().ranks(), enqueue);
  }
  void drain() noexcept { this->engine().drain(this->time_limit()); }
};

/// One rank's transport. @pre the trainers' buffers are in the memory of their rank's device, and outlive all ranks' steps
template <device_runtime R>
class peer_transport : public world_transport<peer_copy_engine<R>> {
  using base = world_transport<peer_copy_engine<R>>;

 public:
  peer_transport(peer_world<R>& all, std::uint32_t rank) : base(all, rank) {}

  typename R::stream compute() const { return place().compute; }
  /// Makes the rank's device this thread's, as kernels need.
  void select_device() {
    R& runtime = this->engine().runtime();
    detail::require(runtime, runtime.set_device(place().device), "SetDevice", this->where());
  }

  void start_clock() { clock().start(this->cells(), this->where()); }
  void begin_cell(std::uint32_t i) { clock().record(2 * std::size_t{i}, this->where()); }
  void end_cell(std::uint32_t i) { clock().record(2 * std::size_t{i} + 1, this->where()); }
  /// @pre synchronize() has returned
  void read_clock(std::span<interval> cells) { clock().read(cells, this->where()); }

  /// Waits until the device has finished the step: the only wait for a device.
  /// @throws device_error if the device has failed; pipeline_aborted after the time limit, or if another rank has failed
  void synchronize() {
    clock().record_end(this->where());
    this->wait_until([&] { return clock().ended(this->where()); }, "the device did not end the step", false);
  }

 private:
  const device_rank<R>& place() const { return this->engine().ranks()[this->rank()]; }
  detail::rank_clock<R>& clock() const { return this->engine().clock(this->rank()); }
};

}  // namespace pipesched
