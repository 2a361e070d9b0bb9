// SPDX-License-Identifier: MIT
#pragma once

// Emission, the last pass of lower(): writes the actions of the ranks, which know their slots by now.

#include <cstdint>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::detail {

/// Weight gradients have the buffers after those of tensors, which are counted only at the end of a rank: until then their
/// buffers are numbered from 0.
class emission {
 public:
  explicit emission(program& p) : p_(p) {}

  void start(std::uint32_t rank) {
    next_ = p_.actions[rank].data();
    gradients_.clear();
  }
  void receive(std::uint32_t channel, tensor_id what, std::uint32_t buffer) {
    put({.kind = action_kind::receive, .what = what, .channel = channel, .buffer = buffer});
  }
  void receive_gradient(std::uint32_t channel, tensor_id what, std::uint32_t buffer) {
    gradients_.push_back(next_);
    receive(channel, what, buffer);
  }
  void compute(std::uint32_t index) { put({.kind = action_kind::compute, .index = index}); }
  void send(std::uint32_t channel, tensor_id what, std::uint32_t buffer) {
    put({.kind = action_kind::send, .what = what, .channel = channel, .buffer = buffer});
  }
  void send_gradient(std::uint32_t channel, const gradient_exchange& e, std::uint32_t buffer) {
    gradients_.push_back(next_);
    put({.kind = action_kind::send,
         .chunk = e.chunk,
         .what = {tensor_kind::weight_gradient, e.stage, 0},
         .channel = channel,
         .buffer = buffer});
  }
  /// @param channel  no_slot, as the buffer, if the gradient is of a stage of this rank
  void accumulate(std::uint32_t channel, const gradient_exchange& e, std::uint32_t buffer) {
    if (channel != no_slot) gradients_.push_back(next_);
    put({.kind = action_kind::accumulate,
         .chunk = e.own_chunk,
         .other_chunk = channel == no_slot ? e.chunk : std::uint8_t{0},
         .what = {tensor_kind::weight_gradient, e.stage, 0},
         .channel = channel,
         .buffer = buffer,
         .index = e.own});
  }
  void finish(std::uint32_t rank) {
    const pool_sizes& pools = p_.pools[rank];
    for (action* a : gradients_)
      a->buffer += a->kind == action_kind::send ? pools.owned_buffers() : pools[pool::tensor];
  }

 private:
  void put(const action& a) { *next_++ = a; }

  program& p_;

  // Of the rank:
  action* next_ = nullptr;
  std::vector<action*> gradients_;  // with a weight gradient in a buffer
};

}  // namespace pipesched::detail
