// SPDX-License-Identifier: MIT
#pragma once

// Lowering: from a schedule to a program, in passes. Routing finds the messages of every channel (detail/routing.hpp), then
// every channel gets its depth (detail/depths.hpp); then, rank by rank, actions are emitted in order, and activations,
// contexts and buffers get their slots.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/program/detail/depths.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

struct lower_options {
  /// Buffers per channel at the sender and at the receiver, 1 or more. A receive is posted as soon as one is free, and a
  /// rank may run ahead of its receiver by as many messages. A channel whose messages are used out of order gets as many as
  /// that needs. With equal stages 1 costs no time for 1F1B, zero bubble and DualPipe; interleaved families need up to 6,
  /// looped BFS one per micro-batch.
  std::uint32_t depth = 4;
  /// Pairs of stages that share their weights, such as the embedding and the head. A stage is in at most one pair.
  std::vector<std::array<std::uint16_t, 2>> tied{};
};

namespace detail {

/// LIFO free list of slot numbers. Allocation in order of interval start uses exactly max-overlap slots, which is optimal.
class number_pool {
 public:
  std::uint32_t take() {
    if (free_.empty()) return size_++;
    const std::uint32_t number = free_.back();
    free_.pop_back();
    return number;
  }
  void give(std::uint32_t number) { free_.push_back(number); }
  std::uint32_t size() const { return size_; }
  void clear() { size_ = 0, free_.clear(); }

 private:
  std::uint32_t size_ = 0;
  std::vector<std::uint32_t> free_;
};

/// The receiver's view of a channel: its receives and the buffers of its messages.
struct incoming_channel {
  incoming_channel(std::span<const tensor_id> messages, std::uint32_t buffers)
      : window(messages, buffers), buffer_of(messages.size(), no_slot) {}

  receive_window window;
  std::vector<std::uint32_t> free{};        // buffers; the last one is taken next
  std::vector<std::uint32_t> buffer_of;     // by message
  std::vector<std::uint32_t> reductions{};  // buffers of weight gradients, in order
  std::size_t accumulated = 0;              // of those
};

/// The last passes of lower(): emits actions and allocates slots, rank by rank.
class rank_lowering {
 public:
  rank_lowering(const message_routing& routing, program& p)
      : s_(p.schedule), routing_(routing), p_(p), hosted_(hosted_stages(p.schedule)) {
    in_.reserve(p.channels.size());
    for (std::uint32_t c = 0; c < p.channels.size(); ++c)
      in_.emplace_back(routing.messages(c), p.channels[c].receive_buffers);
    first_send_buffer_.resize(p.channels.size());
  }

  void run(std::uint32_t rank) {
    start(rank);
    number_channel_buffers();
    post_free_receives();
    const op_messages* next = routing_.ops(rank).data();
    for (std::size_t i = 0; i < row_.size(); ++i) {
      const messages ops(next, row_[i].size());
      next += ops.size();
      take_slots(i, ops);
      emit({action_kind::compute, {}, no_slot, no_slot, static_cast<std::uint32_t>(i)});
      release_slots(i, ops);
      emit_sends(i, ops);
    }
    post_free_receives();  // weight gradients that no tensor follows
    for (const std::uint32_t c : channels_in_) p_.channels[c].receive_buffers = in_[c].window.buffers();
    exchange_gradients();
    number_local_buffers();
    p_.pools[rank] = {activations_.size(), contexts_.size(), buffers_ + local_.size(), reductions_};
  }

 private:
  using messages = std::span<const op_messages>;

  // Resets what belongs to one rank; the memory is used again.
  void start(std::uint32_t rank) {
    rank_ = rank;
    row_ = s_[rank];
    slots_ = p_.slots[rank];
    next_action_ = p_.actions[rank].data();
    channels_in_.clear();
    buffers_ = reductions_ = 0;
    for (number_pool* pool : {&activations_, &contexts_, &local_}) pool->clear();
    activation_of_.assign(hosted_[rank].size() * s_.micro, no_slot);
    context_of_.assign(activation_of_.size(), no_slot);
    local_buffer_.assign(routing_.local(rank), no_slot);
    next_sent_after_ = 0;
  }

  void emit(const action& a) { *next_action_++ = a; }

  void number_channel_buffers() {
    for (const std::uint32_t c : routing_.channels_at(rank_)) {
      const channel& of = p_.channels[c];
      if (of.to == rank_) {
        channels_in_.push_back(c);
        for (std::uint32_t i = of.receive_buffers; i-- > 0;) in_[c].free.push_back(buffers_ + i);
        buffers_ += of.receive_buffers;
      } else {
        first_send_buffer_[c] = buffers_;
        buffers_ += of.send_buffers;
      }
    }
  }

  // Posts the next receive of a channel, as receive_window::post().
  bool post(std::uint32_t channel, bool needed) {
    incoming_channel& from = in_[channel];
    const std::uint32_t number = from.window.posted();
    if (!from.window.post(needed)) return false;
    const tensor_id what = routing_.messages(channel)[number];
    std::uint32_t buffer = no_slot;
    if (what.kind == tensor_kind::weight_gradient) {
      from.reductions.push_back(buffer = reductions_++);
    } else if (from.free.empty()) {
      buffer = buffers_++;
    } else {
      buffer = from.free.back();
      from.free.pop_back();
    }
    from.buffer_of[number] = buffer;
    emit({action_kind::receive, what, channel, buffer, 0});
    return true;
  }
  void post_free_receives(std::uint32_t channel) {
    while (post(channel, false)) {
    }
  }
  void post_free_receives() {
    for (const std::uint32_t c : channels_in_) post_free_receives(c);
  }

  // Index of an op's stage and micro-batch on this rank.
  std::size_t at(op o) const { return std::size_t{o.chunk} * s_.micro + o.micro; }

  void take_slots(std::size_t i, messages ops) {
    const cell& c = row_[i];
    slots_[i] = {};
    for (std::size_t k = 0; k < ops.size(); ++k) {
      op_slots& of = slots_[i][k];
      if (const message_id in = ops[k].input; in.is_remote()) {
        while (in_[in.channel].window.posted() <= in.number) post(in.channel, true);
        of.input = in_[in.channel].buffer_of[in.number];
      } else if (in.exists()) {
        of.input = local_buffer_[in.number];
      }
      if (c[k].pass == pass::forward) activation_of_[at(c[k])] = activations_.take();
      if (yields_input_gradient(c[k].pass)) context_of_[at(c[k])] = contexts_.take();
      of.activation = activation_of_[at(c[k])];
      if (c[k].pass != pass::forward) of.context = context_of_[at(c[k])];
    }
    for (std::size_t k = 0; k < ops.size(); ++k)
      if (const message_id out = ops[k].output; out.is_remote())
        slots_[i][k].output = first_send_buffer_[out.channel] + out.number % p_.channels[out.channel].send_buffers;
      else if (out.exists())
        slots_[i][k].output = local_buffer_[out.number] = local_.take();
  }

  void release_slots(std::size_t i, messages ops) {
    const cell& c = row_[i];
    for (std::size_t k = 0; k < ops.size(); ++k) {
      const op_slots& of = slots_[i][k];
      if (const message_id in = ops[k].input; in.is_remote()) {
        in_[in.channel].free.push_back(of.input);
        in_[in.channel].window.give_back();
        post_free_receives(in.channel);
      } else if (in.exists()) {
        local_.give(of.input);
      }
      if (s_.forward_only || yields_weight_gradient(c[k].pass)) activations_.give(of.activation);
      if (yields_weight_gradient(c[k].pass)) contexts_.give(of.context);
    }
  }

  void emit_sends(std::size_t i, messages ops) {
    for (std::size_t k = 0; k < ops.size(); ++k)
      if (const message_id out = ops[k].output; out.is_remote())
        emit({action_kind::send, routing_.messages(out.channel)[out.number], out.channel, slots_[i][k].output, 0});
    routing_.for_each_sent_after(rank_, i, next_sent_after_, [&](const gradient_exchange& e) { send(e); });
  }

  void send(const gradient_exchange& e) {
    const std::uint32_t channel = routing_.channel_between(e.from, e.to);
    emit({action_kind::send, {tensor_kind::weight_gradient, e.stage, 0}, channel, no_slot, 0});
  }
  void accumulate(const gradient_exchange& e) {
    action a{action_kind::accumulate, {tensor_kind::weight_gradient, e.stage, 0}, no_slot, no_slot, e.own};
    if (e.from != e.to) {
      a.channel = routing_.channel_between(e.from, e.to);
      incoming_channel& from = in_[a.channel];
      a.buffer = from.reductions[from.accumulated++];
    }
    emit(a);
  }
  void exchange_gradients() {
    for (const gradient_exchange& e : routing_.replicas(rank_)) accumulate(e);
    for (const gradient_exchange& e : routing_.tied(rank_))
      if (e.from == rank_ && e.to != rank_) send(e);
    for (const gradient_exchange& e : routing_.tied(rank_))
      if (e.to == rank_) accumulate(e);
  }

  // Buffers between stages of this rank get the numbers after those of all channels.
  void number_local_buffers() {
    if (local_.size() == 0) return;
    const auto is_local = [](message_id m) { return m.exists() && !m.is_remote(); };
    const op_messages* of = routing_.ops(rank_).data();
    for (std::size_t i = 0; i < row_.size(); ++i)
      for (std::size_t k = 0; k < row_[i].size(); ++k, ++of) {
        if (is_local(of->input)) slots_[i][k].input += buffers_;
        if (is_local(of->output)) slots_[i][k].output += buffers_;
      }
  }

  const schedule& s_;
  const message_routing& routing_;
  program& p_;
  std::vector<std::vector<std::uint16_t>> hosted_;  // by rank
  std::vector<incoming_channel> in_;                // by channel
  std::vector<std::uint32_t> first_send_buffer_;    // by channel

  // Of the rank that is lowered:
  std::uint32_t rank_ = 0;
  std::span<const cell> row_;
  std::span<std::array<op_slots, 2>> slots_;  // by cell
  action* next_action_ = nullptr;
  std::vector<std::uint32_t> channels_in_;
  std::uint32_t buffers_ = 0, reductions_ = 0;
  number_pool activations_, contexts_, local_;
  std::vector<std::uint32_t> activation_of_, context_of_;  // by at(op)
  std::vector<std::uint32_t> local_buffer_;                // by number of the local tensor
  std::size_t next_sent_after_ = 0;
};

inline void require_tied(const schedule& s, const std::vector<std::array<std::uint16_t, 2>>& tied) {
  std::vector<bool> taken(s.stages());
  for (const auto& pair : tied) {
    if (pair[0] == pair[1] || std::max(pair[0], pair[1]) >= s.stages())
      throw schedule_error(
          concat({"tied stages are two different stages in 0..", s.stages() - 1, "; got ", pair[0], " and ", pair[1]}));
    for (const std::uint16_t stage : pair) {
      if (taken[stage])
        throw schedule_error(concat({"a stage is tied to at most one other; got two for stage ", stage}));
      taken[stage] = true;
    }
  }
}

}  // namespace detail

/// Lowers a schedule that the caller has verified, as lower(s, options). @pre verify(s) is true
inline program lower(const schedule& s, const lower_options& options, verified_t) {
  if (options.depth < 1) throw schedule_error("lower() takes a depth of at least 1; got 0, nearest 1");
  detail::require_tied(s, options.tied);
  const detail::message_routing routing(s, options.tied);
  program p{.schedule = s,
            .channels = routing.channels(),
            .actions = rows<action>::for_overwrite(routing.actions()),
            .slots = rows<std::array<op_slots, 2>>::for_overwrite_like(s.cells),
            .pools = std::vector<pool_sizes>(s.pp())};
  detail::set_depths(p.channels, s, routing, options.depth);
  detail::rank_lowering all(routing, p);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) all.run(rank);
  return p;
}

/// The program of a schedule. Receives are posted as soon as a buffer is free, so no message delays another one. If
/// `depth` is so small that ranks would wait for each other in a cycle, the channels concerned get more buffers.
/// @throws schedule_error if the schedule is not valid, depth is 0, or a tied stage does not exist or is tied twice
/// Linear in the numbers of ops, stages and ranks, times the number of rounds in which channels get more buffers.
inline program lower(const schedule& s, const lower_options& options = {}) {
  require_valid(s);
  return lower(s, options, verified);
}

}  // namespace pipesched
