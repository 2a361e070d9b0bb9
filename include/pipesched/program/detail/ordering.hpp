// SPDX-License-Identifier: MIT
#pragma once

// Depths and order, the second and third pass of lower(). The ranks run their cells with sends that end only when their
// receives are posted. That finds channels with too few buffers, and the place of every receive among the cells.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/rows.hpp"
#include "pipesched/support/worklist.hpp"

namespace pipesched::detail {

/// Runs the cells of all ranks. It runs before there are actions, and on half as much data; so it shares the worklist with
/// the interpreter of programs, and no more.
///
/// The receiver posts the receives of a channel in the order in which the messages are sent, each as soon as a buffer is
/// free. A message that a cell needs at once gets a new buffer. Weight gradients have buffers of their own.
class ordering {
 public:
  /// @param channels  with the buffers that they have at first
  ordering(const schedule& s, const message_routing& routing, const std::vector<channel>& channels)
      : s_(s), routing_(routing), ranks_(s.pp()), runnable_(s.pp()) {
    std::vector<std::size_t> lengths;
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) lengths.push_back(s[rank].size());
    for (const channel& c : channels) lengths[c.to] += c.messages;
    steps_ = rows<std::uint32_t>::for_overwrite(lengths);
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) ranks_[rank].next_step = steps_[rank].data();
    for (std::uint32_t c = 0; c < channels.size(); ++c) {
      const channel& of = channels[c];
      channels_.push_back({.messages = routing.messages(c),
                           .first_exchange = routing.first_exchange(c),
                           .from = of.from,
                           .to = of.to,
                           .free = of.receive_buffers,
                           .receive_buffers = of.receive_buffers,
                           .send_buffers = of.send_buffers});
      post_free(c);
    }
    runnable_.run([this](std::uint32_t rank) { run(rank); });
  }

  /// The order of a rank: a receive has the number of its channel, a cell is run_cell + the number of receives between it
  /// and the sends of its outputs.
  static constexpr std::uint32_t run_cell = 1u << 31;
  std::span<const std::uint32_t> steps(std::uint32_t rank) const { return steps_[rank]; }
  /// The buffers of a channel with those for messages that were needed at once.
  std::uint32_t receive_buffers(std::uint32_t channel) const { return channels_[channel].receive_buffers; }

  /// True if every rank ran all its cells. Otherwise, and if no channel is too shallow, the schedule has a cycle of several
  /// ranks. Cycles within one rank are not looked for.
  bool finished() const {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      if (ranks_[rank].done != s_[rank].size()) return false;
    return true;
  }
  /// The channels that block a sender when no rank can run, among them those of a cycle. Empty if all ranks end.
  std::vector<std::uint32_t> too_shallow() const {
    std::vector<std::uint32_t> channels;
    for (const rank_state& r : ranks_)
      if (r.blocked_by != no_slot) channels.push_back(r.blocked_by);
    return channels;
  }

 private:
  struct alignas(64) channel_state {  // in one cache line
    std::span<const tensor_id> messages;
    std::uint32_t first_exchange;  // all messages before it are activations and gradients
    std::uint16_t from, to;
    std::uint32_t free, receive_buffers, send_buffers;
    std::uint32_t sent = 0, posted = 0;
    std::uint32_t awaited_by_receiver = no_slot, awaited_by_sender = no_slot;  // the message to be sent, to be posted
  };
  struct rank_state {
    std::size_t done = 0, next_sent_after = 0;  // cells run; a position in the exchanges
    std::uint32_t* next_step = nullptr;
    std::uint32_t blocked_by = no_slot;  // the channel in which a message could not be sent
  };
  struct op_messages : op_channels {
    std::uint32_t number;  // of the input, if it comes from another rank
  };
  using messages = std::span<const op_messages>;

  op_messages messages_of(std::uint32_t rank, op o) const {
    const op_channels channels = routing_.channels_of(rank, o);
    return {channels, channels.input < local_channel ? routing_.number_of_input(rank, o) : no_slot};
  }

  void run(std::uint32_t r) {
    rank_state& rank = ranks_[r];
    rank.blocked_by = no_slot;
    const std::span<const cell> row = s_[r];
    for (; rank.done < row.size(); ++rank.done) {
      std::array<op_messages, 2> of_cell;
      const messages ops(of_cell.data(), row[rank.done].size());
      for (std::size_t k = 0; k < ops.size(); ++k) of_cell[k] = messages_of(r, row[rank.done][k]);
      if (lacks_input(ops) || lacks_buffer(rank, ops)) break;
      std::uint32_t& step = *rank.next_step++;
      give_inputs_back(ops);
      step = run_cell + static_cast<std::uint32_t>(rank.next_step - &step - 1);
      for (const op_messages& op : ops)
        if (op.output < local_channel) send(op.output);
      routing_.for_each_sent_after(r, rank.done, rank.next_sent_after,
                                   [&](const gradient_exchange& e) { send(routing_.channel_between(e.from, e.to)); });
    }
  }

  // Posts the receives of all inputs that are not posted yet. True if one of the inputs has not been sent.
  bool lacks_input(messages ops) {
    bool lacks = false;
    for (const op_messages& op : ops) {
      if (op.input >= local_channel) continue;
      channel_state& c = channels_[op.input];
      while (c.posted <= op.number) post_needed(op.input);
      if (lacks || c.sent > op.number) continue;
      c.awaited_by_receiver = op.number;
      lacks = true;
    }
    return lacks;
  }
  void post_needed(std::uint32_t channel) {
    channel_state& c = channels_[channel];
    if (is_tensor(c, c.posted)) c.free > 0 ? --c.free : ++c.receive_buffers;
    post(channel);
  }
  bool lacks_buffer(rank_state& rank, messages ops) {
    for (const op_messages& op : ops) {
      if (op.output >= local_channel) continue;
      channel_state& c = channels_[op.output];
      const std::uint32_t number = c.sent + (&op != ops.data() && op.output == ops[0].output);
      if (number < c.send_buffers + c.posted) continue;
      const auto last = last_in_buffer(c, number);
      if (!last || *last < c.posted) continue;
      c.awaited_by_sender = *last;
      rank.blocked_by = op.output;
      return true;
    }
    return false;
  }
  // The message that had the same send buffer before this one, if there was one.
  static std::optional<std::uint32_t> last_in_buffer(const channel_state& c, std::uint32_t number) {
    while (number >= c.send_buffers) {
      number -= c.send_buffers;
      if (is_tensor(c, number)) return number;
    }
    return std::nullopt;
  }
  void give_inputs_back(messages ops) {
    for (const op_messages& op : ops)
      if (op.input < local_channel) {
        ++channels_[op.input].free;
        post_free(op.input);
      }
  }

  static bool is_tensor(const channel_state& c, std::uint32_t number) {
    return number < c.first_exchange || c.messages[number].kind != tensor_kind::weight_gradient;
  }
  // Posts all receives that have a buffer.
  void post_free(std::uint32_t channel) {
    for (channel_state& c = channels_[channel]; c.posted < c.messages.size(); post(channel))
      if (is_tensor(c, c.posted)) {
        if (c.free == 0) return;
        --c.free;
      }
  }
  void post(std::uint32_t channel) {
    channel_state& c = channels_[channel];
    *ranks_[c.to].next_step++ = channel;
    if (c.awaited_by_sender == c.posted++) runnable_.wake(c.from);
  }
  void send(std::uint32_t channel) {
    channel_state& c = channels_[channel];
    if (c.awaited_by_receiver == c.sent++) runnable_.wake(c.to);
  }

  const schedule& s_;
  const message_routing& routing_;
  rows<std::uint32_t> steps_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> ranks_;
  worklist runnable_;
};

/// Sets the buffers of all channels, `depth` or fewer for channels with fewer messages, and orders the receives. Channels
/// get more buffers until ranks do not wait in a cycle.
inline ordering set_depths_and_order(std::vector<channel>& channels, const schedule& s, const message_routing& routing,
                                     std::uint32_t depth) {
  std::vector<std::uint64_t> depths(channels.size(), depth);
  while (true) {
    for (std::uint32_t c = 0; c < depths.size(); ++c) {
      channel& of = channels[c];
      const std::uint32_t tensors = routing.tensors(c);
      of.receive_buffers = static_cast<std::uint32_t>(std::min<std::uint64_t>(depths[c], tensors));
      of.send_buffers = std::max(of.receive_buffers, std::min(routing.min_send_buffers(c), tensors));
    }
    ordering order(s, routing, channels);
    const std::vector<std::uint32_t> too_shallow = order.too_shallow();
    if (too_shallow.empty()) return order;
    for (const std::uint32_t c : too_shallow) depths[c] += channels[c].send_buffers;
  }
}

}  // namespace pipesched::detail
