// SPDX-License-Identifier: MIT
#pragma once

// Emission, the last pass of lower(): the actions of one rank in their order, and its slots.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/program/detail/depths.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/detail/slots.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::detail {

/// A receive is posted as soon as a buffer of its channel is free, at the latest before the cell that needs its message.
class emission {
 public:
  emission(const message_routing& routing, const depth_trial& depths, program& p)
      : routing_(routing), slots_(routing, depths, p), p_(p) {}

  void run(std::uint32_t rank) {
    slots_.start(rank);
    next_action_ = p_.actions[rank].data();
    next_sent_gradient_ = 0;
    reductions_.clear(), gradients_.clear();
    for (const std::uint32_t c : routing_.channels_at(rank))
      if (p_.channels[c].to == rank) emit_receives(c);
    run_cells(rank);
    exchange_gradients(rank);
    slots_.finish(rank);
    // Weight gradients have the buffers after those of tensors, which are counted only now.
    const pool_sizes& pools = p_.pools[rank];
    for (action* a : gradients_)
      a->buffer += a->kind == action_kind::send ? pools.owned_buffers() : pools[pool::tensor];
  }

 private:
  void run_cells(std::uint32_t rank) {
    const std::span<const cell> row = p_.schedule[rank];
    const std::span<std::array<op_slots, 2>> slots = p_.slots[rank];
    const rank_needs all = routing_.needs(rank);
    std::span<const sent_exchange> next = routing_.sent_after(rank);
    for (std::uint32_t i = 0; i < row.size(); ++i) {
      const auto both = all[row[i]];
      const std::span needs(both.data(), row[i].size());
      slots_.run_cell(row[i], needs, slots[i], [this](std::uint32_t channel) { return emit_receive(channel, true); });
      emit({.kind = action_kind::compute, .index = i});
      for (const op_needs* of : needs)
        if (of->input < local_channel) emit_receives(of->input);
      for (std::size_t k = 0; k < needs.size(); ++k)
        if (const std::uint32_t channel = needs[k]->output; channel < local_channel)
          emit({.kind = action_kind::send,
                .what = product_of(row[i][k]),
                .channel = channel,
                .buffer = slots[i][k].output});
      for (; !next.empty() && next[0].cell == i; next = next.subspan(1)) emit_send(next[0].what);
    }
  }

  void emit(const action& a) { *next_action_++ = a; }
  void emit_gradient(const action& a) {
    gradients_.push_back(next_action_);
    emit(a);
  }

  // The receives of all messages for which there is a buffer.
  void emit_receives(std::uint32_t channel) {
    while (emit_receive(channel)) {
    }
  }
  bool emit_receive(std::uint32_t channel, bool new_buffer = false) {
    const auto next = slots_.receive(channel, new_buffer);
    if (!next) return false;
    if (next->what.kind == tensor_kind::weight_gradient) {
      reductions_.push_back({channel, next->buffer});
      gradients_.push_back(next_action_);
    }
    emit({.kind = action_kind::receive, .what = next->what, .channel = channel, .buffer = next->buffer});
    return true;
  }
  void emit_send(const gradient_exchange& e) {
    const std::uint32_t channel = routing_.channel_between(e.from, e.to);
    slots_.pass_over(channel);
    emit_gradient({.kind = action_kind::send,
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
      return emit(a);
    }
    a.channel = routing_.channel_between(e.from, e.to);
    const auto received =
        std::find_if(reductions_.begin(), reductions_.end(), [&](const auto& of) { return of.first == a.channel; });
    received->first = no_slot;
    a.buffer = received->second;
    emit_gradient(a);
  }
  void exchange_gradients(std::uint32_t rank) {
    for (const gradient_exchange& e : routing_.replicas(rank)) emit_accumulate(e);
    const std::vector<gradient_exchange>& tied = routing_.tied(rank);
    std::uint16_t rounds = 0;
    for (const gradient_exchange& e : tied) rounds = std::max<std::uint16_t>(rounds, e.round + 1u);
    for (std::uint16_t round = 0; round < rounds; ++round) {
      for (const gradient_exchange& e : tied)
        if (e.round == round && e.from == rank && e.to != rank) emit_send(e);
      for (const gradient_exchange& e : tied)
        if (e.round == round && e.to == rank) emit_accumulate(e);
    }
  }

  const message_routing& routing_;
  slot_allocation slots_;
  program& p_;

  // Of the rank:
  action* next_action_ = nullptr;
  std::uint32_t next_sent_gradient_ = 0;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> reductions_;  // channel and number of received weight gradients
  std::vector<action*> gradients_;                                   // with a weight gradient in a buffer
};

}  // namespace pipesched::detail
