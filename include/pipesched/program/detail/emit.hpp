// SPDX-License-Identifier: MIT
#pragma once

// Emission, the last pass of lower(): the actions of one rank, from the order of its receives and cells and from its slots.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/program/detail/ordering.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/detail/slots.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::detail {

class emission {
 public:
  emission(const message_routing& routing, const ordering& order, const slot_allocation& slots, program& p)
      : routing_(routing), order_(order), slots_(slots), p_(p), receives_(p.channels.size(), 0) {}

  /// @pre the slots of the rank are allocated
  void run(std::uint32_t rank) {
    next_action_ = p_.actions[rank].data();
    reductions_.clear();
    next_sent_gradient_ = p_.pools[rank].owned_buffers();
    messages_ = routing_.ops(rank).data();
    next_sent_after_ = 0;
    std::uint32_t cell = 0;
    for (const std::uint32_t step : order_.steps(rank))
      if (step == ordering::run_cell)
        emit({.kind = action_kind::compute, .index = cell});
      else if (step == ordering::send_outputs)
        emit_sends(rank, cell++);
      else
        emit_receive(step);
    exchange_gradients(rank);
  }

 private:
  void emit(const action& a) { *next_action_++ = a; }

  void emit_receive(std::uint32_t channel) {
    const message_id m{channel, receives_[channel]++};
    const std::uint32_t buffer = slots_.received_in(m);
    if (routing_.is_exchange(m)) reductions_.push_back({channel, buffer});
    emit({.kind = action_kind::receive,
          .what = routing_.messages(channel)[m.number],
          .channel = channel,
          .buffer = buffer});
  }
  void emit_sends(std::uint32_t rank, std::uint32_t cell) {
    const pipesched::cell& c = p_.schedule[rank][cell];
    for (std::size_t k = 0; k < c.size(); ++k)
      if (const std::uint32_t channel = (messages_++)->output.channel; channel != no_slot)
        emit({.kind = action_kind::send,
              .what = *output_of(c[k], p_.schedule.stages()),
              .channel = channel,
              .buffer = p_.slots[rank][cell][k].output});
    routing_.for_each_sent_after(rank, cell, next_sent_after_, [&](const gradient_exchange& e) { emit_send(e); });
  }
  void emit_send(const gradient_exchange& e) {
    const std::uint32_t channel = routing_.channel_between(e.from, e.to);
    emit({.kind = action_kind::send,
          .chunk = e.chunk,
          .what = {tensor_kind::weight_gradient, e.stage, 0},
          .channel = channel,
          .buffer = next_sent_gradient_++});
  }
  void emit_accumulate(const gradient_exchange& e) {
    action a{.kind = action_kind::accumulate,
             .chunk = e.own_chunk,
             .what = {tensor_kind::weight_gradient, e.stage, 0},
             .index = e.own};
    if (e.from == e.to) {
      a.other_chunk = e.chunk;
    } else {
      a.channel = routing_.channel_between(e.from, e.to);
      const auto received =
          std::find_if(reductions_.begin(), reductions_.end(), [&](const auto& of) { return of.first == a.channel; });
      received->first = no_slot;
      a.buffer = received->second;
    }
    emit(a);
  }
  void exchange_gradients(std::uint32_t rank) {
    for (const gradient_exchange& e : routing_.replicas(rank)) emit_accumulate(e);
    for (const gradient_exchange& e : routing_.tied(rank))
      if (e.from == rank && e.to != rank) emit_send(e);
    for (const gradient_exchange& e : routing_.tied(rank))
      if (e.to == rank) emit_accumulate(e);
  }

  const message_routing& routing_;
  const ordering& order_;
  const slot_allocation& slots_;
  program& p_;
  std::vector<std::uint32_t> receives_;  // by channel

  // Of the rank:
  action* next_action_ = nullptr;
  const op_messages* messages_ = nullptr;  // of the next cell
  std::size_t next_sent_after_ = 0;
  std::uint32_t next_sent_gradient_ = 0;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> reductions_;  // channel and buffer of received weight gradients
};

}  // namespace pipesched::detail
