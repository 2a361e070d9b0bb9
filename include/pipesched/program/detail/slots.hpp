// SPDX-License-Identifier: MIT
#pragma once

// Allocation of slots, a part of emission: the activations, contexts and buffers of one rank.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/program/detail/ordering.hpp"
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
  slot_allocation(const message_routing& routing, const ordering& order, program& p)
      : s_(p.schedule),
        routing_(routing),
        order_(order),
        p_(p),
        hosted_(hosted_stages(s_)),
        in_(p.channels.size()),
        out_(p.channels.size()) {}

  /// Numbers the buffers: first those of the channels, then those for messages that are needed at once, then local ones.
  void start(std::uint32_t rank) {
    for (number_pool* pool : {&activations_, &contexts_, &local_}) pool->clear();
    activation_of_.assign(hosted_[rank].size() * s_.micro, no_slot);
    context_of_.assign(activation_of_.size(), no_slot);
    local_buffer_.assign(routing_.local(rank), no_slot);
    next_buffer_ = channel_buffers_ = next_local_ = reductions_ = 0;
    for (const std::uint32_t c : routing_.channels_at(rank)) {
      const channel& of = p_.channels[c];
      if (of.to == rank) {
        channel_buffers_ += order_.receive_buffers(c) - of.receive_buffers;
        in_[c].buffer_of.resize(of.messages), in_[c].free.resize(of.messages + of.receive_buffers);
        for (std::uint32_t i = 0; i < of.receive_buffers; ++i) in_[c].give(next_buffer_ + i);
      } else {
        out_[c] = {.first = next_buffer_, .buffers = of.send_buffers};
      }
      next_buffer_ += of.to == rank ? of.receive_buffers : of.send_buffers;
    }
    channel_buffers_ += next_buffer_;
  }

  /// The buffer of a channel's next message; of a weight gradient its number among those that the rank receives.
  std::uint32_t receive(message_id m) {
    if (routing_.is_exchange(m)) return reductions_++;
    incoming& in = in_[m.channel];
    return in.buffer_of[m.number] = in.taken < in.freed ? in.free[in.taken++] : next_buffer_++;
  }

  /// The turn of a weight gradient, which has no buffer here, among the messages that a channel sends.
  void pass_over(std::uint32_t channel) { out_[channel].take(); }

  /// Fills the slots of a cell, and frees those that nothing needs after it.
  void run_cell(const cell& c, std::span<const op_messages> ops, std::array<op_slots, 2>& slots) {
    slots = {};
    take(c, ops, slots);
    release(c, ops, slots);
  }

  /// Fills the pools of the rank.
  void finish(std::uint32_t rank) {
    pool_sizes& pools = p_.pools[rank];
    pools[pool::activation] = activations_.size();
    pools[pool::context] = contexts_.size();
    pools[pool::tensor] = channel_buffers_ + local_.size();
    pools[pool::reduction] = reductions_;
    pools[pool::sent_gradient] = routing_.sent_gradients(rank);
    for (const std::uint32_t c : routing_.channels_at(rank))
      if (p_.channels[c].to == rank) in_[c] = {};
  }

 private:
  using messages = std::span<const op_messages>;

  // The receiver's buffers of a channel: of all messages, and those that became free, in order, of which some are taken again.
  struct incoming {
    std::vector<std::uint32_t> buffer_of, free;
    std::uint32_t freed = 0, taken = 0;

    void give(std::uint32_t buffer) { free[freed++] = buffer; }
  };

  // The sender's buffers of a channel, which its messages take in turn.
  struct outgoing {
    std::uint32_t first = 0, buffers = 0, next = 0;

    std::uint32_t take() {
      const std::uint32_t buffer = first + next;
      if (++next == buffers) next = 0;
      return buffer;
    }
  };

  // Index of an op's stage and micro-batch on this rank.
  std::size_t at(op o) const { return std::size_t{o.chunk} * s_.micro + o.micro; }

  void take(const cell& c, messages ops, std::array<op_slots, 2>& slots) {
    for (std::size_t k = 0; k < ops.size(); ++k) {
      op_slots& of = slots[k];
      const op o = c[k];
      if (const message_id in = ops[k].input; in.exists())
        of.input = in.is_remote() ? in_[in.channel].buffer_of[in.number] : local_buffer_[in.number];
      if (properties(o.pass).takes_activation) {
        of.activation = activation_of_[at(o)] = activations_.take();
        continue;
      }
      of.activation = activation_of_[at(o)];
      if (yields_input_gradient(o.pass)) context_of_[at(o)] = contexts_.take();
      of.context = context_of_[at(o)];
    }
    for (std::size_t k = 0; k < ops.size(); ++k)
      if (ops[k].output != no_slot)
        slots[k].output = out_[ops[k].output].take();
      else if (has_output(c[k], s_.stages()))
        slots[k].output = local_buffer_[next_local_++] = channel_buffers_ + local_.take();
  }

  void release(const cell& c, messages ops, const std::array<op_slots, 2>& slots) {
    for (std::size_t k = 0; k < ops.size(); ++k) {
      const op_slots& of = slots[k];
      if (const message_id in = ops[k].input; in.is_remote())
        in_[in.channel].give(of.input);
      else if (in.exists())
        local_.give(of.input - channel_buffers_);
      const bool last = yields_weight_gradient(c[k].pass);
      if (last || s_.forward_only) activations_.give(of.activation);
      if (last) contexts_.give(of.context);
    }
  }

  const schedule& s_;
  const message_routing& routing_;
  const ordering& order_;
  program& p_;
  std::vector<std::vector<std::uint16_t>> hosted_;  // by rank
  std::vector<incoming> in_;                        // by channel
  std::vector<outgoing> out_;                       // by channel

  // Of the rank:
  std::uint32_t next_buffer_ = 0, channel_buffers_ = 0, next_local_ = 0, reductions_ = 0;
  number_pool activations_, contexts_, local_;
  std::vector<std::uint32_t> activation_of_, context_of_;  // by at(op)
  std::vector<std::uint32_t> local_buffer_;                // by number of the local tensor
};

}  // namespace pipesched::detail
