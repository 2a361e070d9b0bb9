// SPDX-License-Identifier: MIT
#pragma once

// Allocation of slots, a part of emission: the activations, contexts and buffers of one rank.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "pipesched/core/ops.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/program/detail/depths.hpp"
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

/// Fills the slots and pools of a program, rank by rank: start(), then its receives and cells in order, then finish(). The
/// memory of one rank is used again for the next.
class slot_allocation {
 public:
  slot_allocation(const message_routing& routing, const depth_trial& depths, program& p)
      : s_(p.schedule),
        routing_(routing),
        depths_(depths),
        p_(p),
        hosted_(hosted_stages(s_)),
        recomputed_(s_, routing.recomputes()),
        in_(p.channels.size()),
        out_(p.channels.size()) {}

  /// Numbers the buffers: first those of the channels, then those for messages that are needed at once, then local ones.
  void start(std::uint32_t rank) {
    for (number_pool* pool : {&activations_, &contexts_, &kept_inputs_, &local_}) pool->clear();
    slots_of_.assign(hosted_[rank].size() * s_.micro, {});
    next_buffer_ = channel_buffers_ = reductions_ = 0;
    for (const std::uint32_t c : routing_.channels_at(rank)) {
      const channel& of = p_.channels[c];
      if (of.to == rank) {
        channel_buffers_ += depths_.receive_buffers(c) - of.receive_buffers;
        incoming& in = in_[c];
        in.messages = routing_.messages(c);
        in.buffers.resize(depths_.receive_buffers(c));
        for (std::uint32_t i = 0; i < of.receive_buffers; ++i) in.give(next_buffer_ + i);
      } else {
        out_[c] = {.first = next_buffer_, .buffers = of.send_buffers};
      }
      next_buffer_ += of.to == rank ? of.receive_buffers : of.send_buffers;
    }
    channel_buffers_ += next_buffer_;
  }

  /// A message that is received, with its buffer; of a weight gradient its number among those that the rank receives.
  struct received {
    tensor_id what;
    std::uint32_t buffer;
  };
  /// The next message of a channel if it has a buffer. @param new_buffer  whether it gets a new one otherwise
  std::optional<received> receive(std::uint32_t channel, bool new_buffer = false) {
    incoming& in = in_[channel];
    if (in.messages.empty()) return std::nullopt;
    const tensor_id what = in.messages[0];
    const bool reduces = what.kind == tensor_kind::weight_gradient;
    if (!reduces && in.free == 0 && !new_buffer) return std::nullopt;
    in.messages = in.messages.subspan(1);
    if (reduces) return received{what, reductions_++};
    return received{what, buffer_of(what) = in.free > 0 ? in.take() : next_buffer_++};
  }

  /// The turn of a weight gradient, which has no buffer here, among the messages that a channel sends.
  void pass_over(std::uint32_t channel) { out_[channel].take(); }

  /// Fills the slots of a cell, and frees those that nothing needs after it. Calls `receive_next(channel)` for each message
  /// that is to be received before the cell can run; false if no message is left.
  template <typename Receive>
  void run_cell(const cell& c, std::span<const op_needs* const> needs, std::array<op_slots, 2>& slots,
                Receive&& receive_next) {
    slots = {};
    for (std::size_t k = 0; k < needs.size(); ++k) take(c[k], *needs[k], slots[k], receive_next);
    for (std::size_t k = 0; k < needs.size(); ++k) slots[k].output = take_output(c[k], needs[k]->output);
    for (std::size_t k = 0; k < needs.size(); ++k) release(c[k], *needs[k], slots[k]);
  }

  /// Fills the pools of the rank.
  void finish(std::uint32_t rank) {
    pool_sizes& pools = p_.pools[rank];
    pools[pool::activation] = activations_.size();
    pools[pool::context] = contexts_.size();
    pools[pool::kept_input] = kept_inputs_.size();
    pools[pool::tensor] = channel_buffers_ + local_.size();
    pools[pool::reduction] = reductions_;
    pools[pool::sent_gradient] = routing_.sent_gradients(rank);
    for (const std::uint32_t c : routing_.channels_at(rank))
      if (p_.channels[c].to == rank) in_[c] = {};
  }

 private:
  // A channel at its receiver, with a ring of free buffers, which are taken in the order in which they became free.
  struct incoming {
    std::span<const tensor_id> messages;  // to be received
    std::vector<std::uint32_t> buffers;
    std::uint32_t first = 0, free = 0;

    void give(std::uint32_t buffer) {
      const std::size_t end = first + free++;
      buffers[end < buffers.size() ? end : end - buffers.size()] = buffer;
    }
    std::uint32_t take() {
      const std::uint32_t buffer = buffers[first];
      first = first + 1 == buffers.size() ? 0 : first + 1;
      --free;
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

  stage_slots& slots_of(std::uint8_t chunk, std::uint32_t micro) {
    return slots_of_[std::size_t{chunk} * s_.micro + micro];
  }
  // The buffer of a tensor that this rank uses.
  std::uint32_t& buffer_of(tensor_id t) {
    return slots_of(s_.placement.chunk_of(receiver_of(t), t.micro), t.micro).input[t.kind == tensor_kind::gradient];
  }

  void take(op o, const op_needs& needs, op_slots& to, auto& receive_next) {
    stage_slots& of = slots_of(o.chunk, o.micro);
    if (needs.input != no_slot) {
      const std::uint32_t& input = of.input[o.pass != pass::forward];
      while (input == no_slot && needs.input < local_channel && receive_next(needs.input)) {
      }
      if (input == no_slot) require_valid(s_);  // throws: a cycle within the rank, which the depths do not show
      to.input = input;
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
  const message_routing& routing_;
  const depth_trial& depths_;
  program& p_;
  std::vector<std::vector<std::uint16_t>> hosted_;  // by rank
  recomputed_ops recomputed_;
  std::vector<incoming> in_;   // by channel
  std::vector<outgoing> out_;  // by channel

  // Of the rank:
  std::uint32_t next_buffer_ = 0, channel_buffers_ = 0, reductions_ = 0;
  number_pool activations_, contexts_, kept_inputs_, local_;
  std::vector<stage_slots> slots_of_;  // by chunk and micro-batch
};

}  // namespace pipesched::detail
