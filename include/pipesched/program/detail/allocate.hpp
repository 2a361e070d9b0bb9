// SPDX-License-Identifier: MIT
#pragma once

// Allocation, the fourth pass of lower(): the slots of activations, contexts and buffers, rank by rank.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/core/ops.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/program/detail/depths.hpp"
#include "pipesched/program/detail/emit.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::detail {

/// LIFO free list of slot numbers. Allocation in order of interval start uses exactly max-overlap slots, which is optimal.
class number_pool {
 public:
  std::uint32_t take() {
    if (free_ > 0) return numbers_[--free_];
    if (size_ == numbers_.size()) numbers_.push_back(0);
    return size_++;
  }
  void give(std::uint32_t number) { numbers_[free_++] = number; }
  std::uint32_t size() const { return size_; }
  void clear() { size_ = free_ = 0; }

 private:
  std::uint32_t size_ = 0, free_ = 0;
  std::vector<std::uint32_t> numbers_;  // the first of them are free; there is room for all
};

/// Fills the slots and pools of a program with the actions that action_order passes on, and passes them on to emission with
/// their buffers. The memory of one rank is used again for the next.
class slot_allocation {
 public:
  slot_allocation(const message_routing& routing, const depth_trial& depths, program& p, emission& next)
      : s_(p.schedule),
        routing_(routing),
        depths_(depths),
        p_(p),
        next_(next),
        hosted_(hosted_stages(s_)),
        recomputed_(s_, routing.recomputes()),
        in_(p.channels.size()),
        out_(p.channels.size()) {}

  /// Numbers the buffers: first those of the channels, then those for messages that are needed at once, then local ones.
  void start(std::uint32_t rank) {
    for (number_pool* pool : {&activations_, &contexts_, &kept_inputs_, &local_}) pool->clear();
    slots_of_.assign(hosted_[rank].size() * s_.micro, {});
    next_buffer_ = channel_buffers_ = sent_gradients_ = 0;
    reductions_.clear();
    slots_ = p_.slots[rank];
    for (const std::uint32_t c : routing_.channels_at(rank)) {
      const channel& of = p_.channels[c];
      if (of.to == rank) {
        channel_buffers_ += depths_.receive_buffers(c) - of.receive_buffers;
        incoming& in = in_[c];
        in.buffers.resize(depths_.receive_buffers(c));
        for (std::uint32_t i = 0; i < of.receive_buffers; ++i) in.give(next_buffer_ + i);
      } else {
        out_[c] = {.first = next_buffer_, .buffers = of.send_buffers};
      }
      next_buffer_ += of.to == rank ? of.receive_buffers : of.send_buffers;
    }
    channel_buffers_ += next_buffer_;
    next_.start(rank);
  }

  void receive(std::uint32_t channel, tensor_id what, bool new_buffer) {
    const std::uint32_t buffer = new_buffer ? next_buffer_++ : in_[channel].take();
    buffer_of(what) = buffer;
    next_.receive(channel, what, buffer);
  }

  void receive_gradient(std::uint32_t channel, tensor_id what) {
    next_.receive_gradient(channel, what, static_cast<std::uint32_t>(reductions_.size()));
    reductions_.push_back(channel);
  }

  void compute(std::uint32_t index, const cell& c, std::span<const op_needs* const> needs) {
    std::array<op_slots, 2>& slots = slots_[index];
    slots = {};
    for (std::size_t k = 0; k < needs.size(); ++k) take(c[k], *needs[k], slots[k]);
    for (std::size_t k = 0; k < needs.size(); ++k) slots[k].output = take_output(c[k], needs[k]->output);
    for (std::size_t k = 0; k < needs.size(); ++k) release(c[k], *needs[k], slots[k]);
    next_.compute(index);
  }

  void send(std::uint32_t channel, tensor_id what, std::uint32_t index, std::size_t k) {
    next_.send(channel, what, slots_[index][k].output);
  }
  /// A weight gradient is in the trainer's own memory, but has its turn among the messages of its channel.
  void send_gradient(std::uint32_t channel, const gradient_exchange& e) {
    out_[channel].take();
    next_.send_gradient(channel, e, sent_gradients_++);
  }
  void accumulate(std::uint32_t channel, const gradient_exchange& e) {
    if (channel == no_slot) return next_.accumulate(channel, e, no_slot);
    const auto received = std::find(reductions_.begin(), reductions_.end(), channel);
    *received = no_slot;
    next_.accumulate(channel, e, static_cast<std::uint32_t>(received - reductions_.begin()));
  }

  /// Fills the pools of the rank.
  void finish(std::uint32_t rank) {
    pool_sizes& pools = p_.pools[rank];
    pools[pool::activation] = activations_.size();
    pools[pool::context] = contexts_.size();
    pools[pool::kept_input] = kept_inputs_.size();
    pools[pool::tensor] = channel_buffers_ + local_.size();
    pools[pool::reduction] = static_cast<std::uint32_t>(reductions_.size());
    pools[pool::sent_gradient] = sent_gradients_;
    for (const std::uint32_t c : routing_.channels_at(rank))
      if (p_.channels[c].to == rank) in_[c] = {};
    next_.finish(rank);
  }

 private:
  // The receiver's buffers of a channel: a ring of those that are free, taken in the order in which they became free.
  struct incoming {
    std::vector<std::uint32_t> buffers{};
    std::uint32_t first = 0, end = 0;

    void give(std::uint32_t buffer) {
      buffers[end] = buffer;
      end = end + 1 == buffers.size() ? 0 : end + 1;
    }
    std::uint32_t take() {
      const std::uint32_t buffer = buffers[first];
      first = first + 1 == buffers.size() ? 0 : first + 1;
      return buffer;
    }
  };

  // The sender's buffers of a channel, which its messages take in turn.
  struct outgoing {
    std::uint32_t first = 0, buffers = 0, next = 0;

    std::uint32_t take() {
      const std::uint32_t buffer = first + next;
      next = next + 1 == buffers ? 0 : next + 1;
      return buffer;
    }
  };

  // The slots of a stage and micro-batch: kept, and of what its F and its B or I read.
  struct stage_slots {
    std::uint32_t activation = no_slot, context = no_slot, kept_input = no_slot;
    std::array<std::uint32_t, 2> input = {no_slot, no_slot};
  };

  stage_slots& slots_of(std::uint8_t chunk, std::uint32_t micro) { return slots_of_[chunk * micro_ + micro]; }
  // The buffer of a tensor that this rank uses.
  std::uint32_t& buffer_of(tensor_id t) {
    return slots_of(s_.placement.chunk_of(receiver_of(t), t.micro), t.micro).input[t.kind == tensor_kind::gradient];
  }

  void take(op o, const op_needs& needs, op_slots& to) {
    stage_slots& of = slots_of(o.chunk, o.micro);
    if (needs.input != no_slot) {
      to.input = of.input[o.pass != pass::forward];
      if (to.input == no_slot) require_valid(s_);  // throws: a cycle within the rank, which the depths do not show
    }
    if (needs.takes_activation) of.activation = activations_.take();
    if (needs.takes_context) of.context = contexts_.take();
    to.activation = of.activation, to.context = of.context;
    if (!routing_.recomputes() || !recomputed_(o)) return;
    if (o.pass == pass::forward) of.kept_input = kept_inputs_.take();
    if (needs.takes_activation) to.kept_input = of.kept_input;
  }

  std::uint32_t take_output(op o, std::uint32_t channel) {
    if (channel < local_channel) return out_[channel].take();
    return channel == no_slot ? no_slot : buffer_of(product_of(o)) = channel_buffers_ + local_.take();
  }

  void release(op o, const op_needs& needs, const op_slots& slots) {
    if (needs.input < local_channel)
      in_[needs.input].give(slots.input);
    else if (needs.input == local_channel)
      local_.give(slots.input - channel_buffers_);
    if (needs.frees_activation || (o.pass == pass::forward && slots.kept_input != no_slot))
      activations_.give(slots.activation);
    if (recomputes(o.pass)) kept_inputs_.give(slots.kept_input);
    if (needs.frees_context) contexts_.give(slots.context);
  }

  const schedule& s_;
  const std::size_t micro_ = s_.micro;
  const message_routing& routing_;
  const depth_trial& depths_;
  program& p_;
  emission& next_;
  std::vector<std::vector<std::uint16_t>> hosted_;  // by rank
  recomputed_ops recomputed_;
  std::vector<incoming> in_;   // by channel
  std::vector<outgoing> out_;  // by channel

  // Of the rank:
  std::span<std::array<op_slots, 2>> slots_;
  std::uint32_t next_buffer_ = 0, channel_buffers_ = 0, sent_gradients_ = 0;
  std::vector<std::uint32_t> reductions_;  // the channels of received weight gradients that are not added yet
  number_pool activations_, contexts_, kept_inputs_, local_;
  std::vector<stage_slots> slots_of_;  // by chunk and micro-batch
};

}  // namespace pipesched::detail
