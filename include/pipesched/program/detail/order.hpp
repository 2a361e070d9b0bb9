// SPDX-License-Identifier: MIT
#pragma once

// Order, the third pass of lower(): the actions of a rank, one after the other. Each is passed on as soon as it is known.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/program/detail/depths.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::detail {

/// A receive is posted as soon as a buffer of its channel is free, at the latest before the cell that needs its message, which
/// then gets a new buffer. A send follows its cell; weight gradients are added after all cells.
class action_order {
 public:
  /// @param channels  with the buffers that they have at first
  action_order(const schedule& s, const message_routing& routing, const depth_trial& depths,
               const std::vector<channel>& channels)
      : s_(s), routing_(routing), depths_(depths), channels_(channels), incoming_(channels.size()) {}

  /// Calls `next.start(rank)`, then one of these for each action of the rank, then `next.finish(rank)`:
  ///
  ///   next.receive(channel, tensor, new_buffer)   new_buffer: none of the channel's own is free
  ///   next.receive_gradient(channel, tensor)
  ///   next.compute(index, cell, needs)
  ///   next.send(channel, tensor, index, k)        the output of the cell's op k
  ///   next.send_gradient(channel, exchange)
  ///   next.accumulate(channel, exchange)          no_slot for the gradient of a stage of this rank
  template <typename Next>
  void run(std::uint32_t rank, Next& next) {
    next.start(rank);
    has_urgent_ = false;
    for (const std::uint32_t c : routing_.channels_at(rank))
      if (channels_[c].to == rank) {
        incoming_[c] = {.messages = routing_.messages(c), .free = channels_[c].receive_buffers};
        has_urgent_ = has_urgent_ || depths_.receive_buffers(c) > channels_[c].receive_buffers;
        receive_all(c, next);
      }
    run_cells(rank, next);
    exchange_gradients(rank, next);
    next.finish(rank);
  }

 private:
  // A channel at its receiver.
  struct incoming {
    std::span<const tensor_id> messages{};  // to be received
    std::uint32_t free = 0;                 // buffers
    std::uint32_t tensors = 0;              // activations and gradients received
  };

  template <typename Next>
  void run_cells(std::uint32_t rank, Next& next) {
    const std::span<const cell> row = s_[rank];
    const rank_needs all = routing_.needs(rank);
    std::span<const sent_exchange> exchanges = routing_.sent_after(rank);
    for (std::uint32_t i = 0; i < row.size(); ++i) {
      const auto both = all[row[i]];
      const std::span needs(both.data(), row[i].size());
      for (std::size_t k = 0; has_urgent_ && k < needs.size(); ++k) receive_input(*needs[k], row[i][k], next);
      next.compute(i, row[i], needs);
      for (const op_needs* of : needs)
        if (of->input < local_channel) {
          ++incoming_[of->input].free;
          receive_all(of->input, next);
        }
      for (std::size_t k = 0; k < needs.size(); ++k)
        if (needs[k]->output < local_channel) next.send(needs[k]->output, product_of(row[i][k]), i, k);
      for (; !exchanges.empty() && exchanges[0].cell == i; exchanges = exchanges.subspan(1))
        send(exchanges[0].what, next);
    }
  }

  // The messages up to the one that an op needs.
  template <typename Next>
  void receive_input(const op_needs& needs, op o, Next& next) {
    if (needs.input >= local_channel) return;
    incoming& in = incoming_[needs.input];
    for (const std::uint32_t number = routing_.number_of_input(needs, o); in.tensors <= number && !in.messages.empty();)
      receive(needs.input, in, next);
  }
  // All messages for which there is a buffer. Weight gradients have buffers of their own.
  template <typename Next>
  void receive_all(std::uint32_t channel, Next& next) {
    incoming& in = incoming_[channel];
    while (!in.messages.empty() && (in.free > 0 || in.messages[0].kind == tensor_kind::weight_gradient))
      receive(channel, in, next);
  }
  template <typename Next>
  void receive(std::uint32_t channel, incoming& in, Next& next) {
    const tensor_id what = in.messages[0];
    in.messages = in.messages.subspan(1);
    if (what.kind == tensor_kind::weight_gradient) return next.receive_gradient(channel, what);
    ++in.tensors;
    const bool new_buffer = in.free == 0;
    if (!new_buffer) --in.free;
    next.receive(channel, what, new_buffer);
  }

  template <typename Next>
  void exchange_gradients(std::uint32_t rank, Next& next) {
    for (const gradient_exchange& e : routing_.replicas(rank)) accumulate(e, next);
    const std::vector<gradient_exchange>& tied = routing_.tied(rank);
    std::uint16_t rounds = 0;
    for (const gradient_exchange& e : tied) rounds = std::max<std::uint16_t>(rounds, e.round + 1u);
    for (std::uint16_t round = 0; round < rounds; ++round) {
      for (const gradient_exchange& e : tied)
        if (e.round == round && e.from == rank && e.to != rank) send(e, next);
      for (const gradient_exchange& e : tied)
        if (e.round == round && e.to == rank) accumulate(e, next);
    }
  }
  template <typename Next>
  void send(const gradient_exchange& e, Next& next) {
    next.send_gradient(routing_.channel_between(e.from, e.to), e);
  }
  template <typename Next>
  void accumulate(const gradient_exchange& e, Next& next) {
    next.accumulate(e.from == e.to ? no_slot : routing_.channel_between(e.from, e.to), e);
  }

  const schedule& s_;
  const message_routing& routing_;
  const depth_trial& depths_;
  const std::vector<channel>& channels_;
  std::vector<incoming> incoming_;  // by channel
  bool has_urgent_ = false;         // the rank needs some messages when no buffer of theirs is free
};

}  // namespace pipesched::detail
