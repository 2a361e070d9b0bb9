// SPDX-License-Identifier: MIT
#pragma once

// Allocation of slots, a part of emission: the activations, contexts and buffers of one rank.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/core/ops.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
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
        recomputed_(s_),
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
        channel_buffers_ += order_.receive_buffers(c) - of.receive_buffers;
        in_[c].buffers.resize(order_.receive_buffers(c));
        for (std::uint32_t i = 0; i < of.receive_buffers; ++i) in_[c].give(next_buffer_ + i);
      } else {
        out_[c] = {.first = next_buffer_, .buffers = of.send_buffers};
      }
      next_buffer_ += of.to == rank ? of.receive_buffers : of.send_buffers;
    }
    channel_buffers_ += next_buffer_;
  }

  /// The buffer of a channel's next message; of a weight gradient its number among those that the rank receives.
  std::uint32_t receive(std::uint32_t channel, tensor_id what) {
    if (what.kind == tensor_kind::weight_gradient) return reductions_++;
    incoming& in = in_[channel];
    return buffer_of(what) = in.free > 0 ? in.take() : next_buffer_++;
  }

  /// The turn of a weight gradient, which has no buffer here, among the messages that a channel sends.
  void pass_over(std::uint32_t channel) { out_[channel].take(); }

  /// Fills the slots of a cell, and frees those that nothing needs after it.
  void run_cell(const cell& c, std::span<const op_channels> ops, std::array<op_slots, 2>& slots) {
    slots = {};
    take(c, ops, slots);
    release(c, ops, slots);
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
  // A ring of the receiver's free buffers of a channel, which are taken in the order in which they became free.
  struct incoming {
    std::vector<std::uint32_t> buffers;
    std::uint32_t first = 0, free = 0;

    void give(std::uint32_t buffer) {
      const std::size_t end = first + free++;
      buffers[end < buffers.size() ? end : end - buffers.size()] = buffer;
    }
    std::uint32_t take() {
      const std::uint32_t buffer = buffers[first];
      if (++first == buffers.size()) first = 0;
      --free;
      return buffer;
    }
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

  void take(const cell& c, std::span<const op_channels> ops, std::array<op_slots, 2>& slots) {
    for (std::size_t k = 0; k < ops.size(); ++k) {
      op_slots& to = slots[k];
      const op o = c[k];
      stage_slots& of = slots_of(o.chunk, o.micro);
      if (ops[k].input != no_slot) {
        to.input = of.input[o.pass != pass::forward];
        if (to.input == no_slot) require_valid(s_);  // throws: a cycle within the rank, which ordering does not see
      }
      const bool forward = o.pass == pass::forward, again = again_ && recomputes(o.pass);
      if (forward || again) of.activation = activations_.take();
      to.activation = of.activation;
      if (again_ && forward && recomputed_(o)) to.kept_input = of.kept_input = kept_inputs_.take();
      if (again) to.kept_input = of.kept_input;
      if (yields_input_gradient(o.pass) && (all_full_ || s_.backward_of(o.stage) == stage_backward::full))
        of.context = contexts_.take();
      to.context = of.context;
    }
    for (std::size_t k = 0; k < ops.size(); ++k)
      if (ops[k].output < local_channel)
        slots[k].output = out_[ops[k].output].take();
      else if (ops[k].output == local_channel)
        slots[k].output = buffer_of(product_of(c[k])) = channel_buffers_ + local_.take();
  }

  void release(const cell& c, std::span<const op_channels> ops, const std::array<op_slots, 2>& slots) {
    for (std::size_t k = 0; k < ops.size(); ++k) {
      const op_slots& of = slots[k];
      if (ops[k].input < local_channel)
        in_[ops[k].input].give(of.input);
      else if (ops[k].input == local_channel)
        local_.give(of.input - channel_buffers_);
      const op o = c[k];
      const bool last = yields_weight_gradient(o.pass);
      if (last || (!all_full_ && s_.is_last(o)) || (again_ && o.pass == pass::forward && of.kept_input != no_slot))
        activations_.give(of.activation);
      if (again_ && recomputes(o.pass)) kept_inputs_.give(of.kept_input);
      if (last) contexts_.give(of.context);
    }
  }

  const schedule& s_;
  const message_routing& routing_;
  const ordering& order_;
  program& p_;
  std::vector<std::vector<std::uint16_t>> hosted_;  // by rank
  recomputed_ops recomputed_;
  bool again_ = recomputed_.any();                           // some op recomputes
  bool all_full_ = !s_.forward_only && s_.backward.empty();  // no stage is frozen
  std::vector<incoming> in_;                                 // by channel
  std::vector<outgoing> out_;                                // by channel

  // Of the rank:
  std::uint32_t next_buffer_ = 0, channel_buffers_ = 0, reductions_ = 0;
  number_pool activations_, contexts_, kept_inputs_, local_;
  std::vector<stage_slots> slots_of_;  // by chunk and micro-batch
};

}  // namespace pipesched::detail
