// SPDX-License-Identifier: MIT
#pragma once

// Emission, the last pass of lower(): the slots and actions of one rank, from the order of its receives and cells.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
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
  emission(const message_routing& routing, const ordering& order, program& p)
      : routing_(routing), order_(order), slots_(routing, order, p), p_(p) {
    for (std::uint32_t c = 0; c < p.channels.size(); ++c) next_received_.push_back(routing.messages(c).data());
  }

  void run(std::uint32_t rank) {
    slots_.start(rank);
    row_ = p_.schedule[rank], slots_of_row_ = p_.slots[rank];
    next_action_ = p_.actions[rank].data();
    next_sent_after_ = next_sent_gradient_ = 0;
    reductions_.clear(), gradients_.clear();
    std::uint32_t cell = 0;
    const std::span<const std::uint32_t> steps = order_.steps(rank);
    for (auto step = steps.begin(); step != steps.end();) {
      if (*step < ordering::run_cell) {
        emit_receive(*step++);
        continue;
      }
      std::array<op_channels, 2> channels;
      for (std::size_t k = 0; k < row_[cell].size(); ++k) channels[k] = routing_.channels_of(rank, row_[cell][k]);
      slots_.run_cell(row_[cell], {channels.data(), row_[cell].size()}, slots_of_row_[cell]);
      emit({.kind = action_kind::compute, .index = cell});
      for (std::uint32_t receives = *step++ - ordering::run_cell; receives > 0; --receives) emit_receive(*step++);
      emit_sends(rank, cell++, channels);
    }
    exchange_gradients(rank);
    slots_.finish(rank);
    // Weight gradients have the buffers after those of tensors, which are counted only now.
    const pool_sizes& pools = p_.pools[rank];
    for (action* a : gradients_)
      a->buffer += a->kind == action_kind::send ? pools.owned_buffers() : pools[pool::tensor];
  }

 private:
  void emit(const action& a) { *next_action_++ = a; }
  void emit_gradient(const action& a) {
    gradients_.push_back(next_action_);
    emit(a);
  }

  void emit_receive(std::uint32_t channel) {
    const tensor_id what = *next_received_[channel]++;
    const std::uint32_t buffer = slots_.receive(channel, what);
    if (what.kind == tensor_kind::weight_gradient) {
      reductions_.push_back({channel, buffer});
      gradients_.push_back(next_action_);
    }
    emit({.kind = action_kind::receive, .what = what, .channel = channel, .buffer = buffer});
  }
  void emit_sends(std::uint32_t rank, std::uint32_t cell, const std::array<op_channels, 2>& channels) {
    const pipesched::cell& c = row_[cell];
    for (std::size_t k = 0; k < c.size(); ++k)
      if (const std::uint32_t channel = channels[k].output; channel < local_channel)
        emit({.kind = action_kind::send,
              .what = product_of(c[k]),
              .channel = channel,
              .buffer = slots_of_row_[cell][k].output});
    routing_.for_each_sent_after(rank, cell, next_sent_after_, [&](const gradient_exchange& e) { emit_send(e); });
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
  const ordering& order_;
  slot_allocation slots_;
  program& p_;
  std::vector<const tensor_id*> next_received_;  // by channel

  // Of the rank:
  std::span<const cell> row_;
  std::span<std::array<op_slots, 2>> slots_of_row_;
  action* next_action_ = nullptr;
  std::size_t next_sent_after_ = 0;
  std::uint32_t next_sent_gradient_ = 0;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> reductions_;  // channel and number of received weight gradients
  std::vector<action*> gradients_;                                   // with a weight gradient in a buffer
};

}  // namespace pipesched::detail
