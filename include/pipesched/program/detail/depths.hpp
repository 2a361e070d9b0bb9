// SPDX-License-Identifier: MIT
#pragma once

// Channel depths, the second pass of lower(): enough buffers per channel that ranks never wait in a cycle.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::detail {

/// The receives of one channel. The receiver posts them in the order in which the messages are sent, each as soon as a
/// buffer is free. Weight gradients have buffers of their own.
class receive_window {
 public:
  receive_window(std::span<const tensor_id> messages, std::uint32_t buffers)
      : messages_(messages), free_(buffers), buffers_(buffers) {}

  /// Posts the next receive. Returns false if all are posted or no buffer is free; a message that is `needed` at once gets
  /// a new buffer.
  bool post(bool needed) {
    if (posted_ == messages_.size()) return false;
    if (messages_[posted_].kind != tensor_kind::weight_gradient) {
      if (free_ == 0 && !needed) return false;
      if (free_ == 0)
        ++buffers_;
      else
        --free_;
    }
    ++posted_;
    return true;
  }
  void give_back() { ++free_; }
  std::uint32_t posted() const { return posted_; }
  std::uint32_t buffers() const { return buffers_; }

 private:
  std::span<const tensor_id> messages_;
  std::uint32_t free_, buffers_, posted_ = 0;
};

/// Runs the cells of all ranks with sends that end only when their receives are posted, to find channels with too few
/// buffers.
class depth_search {
 public:
  depth_search(const schedule& s, const message_routing& routing, const std::vector<channel>& channels)
      : s_(s), routing_(routing), channels_(channels), sent_(channels.size(), 0), ranks_(s.pp()) {
    for (std::uint32_t c = 0; c < channels.size(); ++c) {
      windows_.emplace_back(routing.messages(c), channels[c].receive_buffers);
      while (windows_[c].post(false)) {
      }
    }
  }

  /// The channels that block a sender when no rank can run, among them those of a cycle. Empty if all ranks end.
  std::vector<std::uint32_t> too_shallow() {
    for (std::uint32_t rank = static_cast<std::uint32_t>(ranks_.size()); rank-- > 0;) runnable_.push_back(rank);
    while (!runnable_.empty()) {
      const std::uint32_t rank = runnable_.back();
      runnable_.pop_back();
      run(rank);
    }
    std::vector<std::uint32_t> channels;
    for (const rank_state& r : ranks_)
      if (r.blocked == block::on_send) channels.push_back(r.message.channel);
    return channels;
  }

 private:
  enum class block : std::uint8_t { no, on_receive, on_send };
  struct rank_state {
    std::size_t next = 0, op = 0, next_sent_after = 0;  // cell, its first op, position in the weight gradients
    block blocked = block::no;
    message_id message;  // that blocks the rank
  };
  using messages = std::span<const op_messages>;

  void run(std::uint32_t r) {
    rank_state& rank = ranks_[r];
    rank.blocked = block::no;
    const std::span<const cell> row = s_[r];
    for (; rank.next < row.size(); ++rank.next) {
      const messages ops = routing_.ops(r).subspan(rank.op, row[rank.next].size());
      post_needed(ops);
      if (lacks_input(rank, ops) || lacks_buffer(rank, ops)) return;
      give_inputs_back(ops);
      for (const op_messages& op : ops)
        if (op.output.is_remote()) send(op.output.channel);
      routing_.for_each_sent_after(r, rank.next, rank.next_sent_after,
                                   [&](const gradient_exchange& e) { send(routing_.channel_between(e.from, e.to)); });
      rank.op += ops.size();
    }
  }

  void post_needed(messages ops) {
    for (const op_messages& op : ops)
      if (op.input.is_remote())
        while (windows_[op.input.channel].posted() <= op.input.number) post(op.input.channel, true);
  }
  bool lacks_input(rank_state& rank, messages ops) const {
    for (const op_messages& op : ops)
      if (op.input.is_remote() && sent_[op.input.channel] <= op.input.number) {
        rank.blocked = block::on_receive;
        rank.message = op.input;
        return true;
      }
    return false;
  }
  bool lacks_buffer(rank_state& rank, messages ops) const {
    for (const op_messages& op : ops) {
      if (!op.output.is_remote()) continue;
      const message_id last = last_in_buffer(op.output);
      if (!last.exists() || windows_[last.channel].posted() > last.number) continue;
      rank.blocked = block::on_send;
      rank.message = last;
      return true;
    }
    return false;
  }
  void give_inputs_back(messages ops) {
    for (const op_messages& op : ops) {
      if (!op.input.is_remote()) continue;
      windows_[op.input.channel].give_back();
      while (post(op.input.channel, false)) {
      }
    }
  }

  // The message that had the same send buffer before this one, if there was one.
  message_id last_in_buffer(message_id to) const {
    const std::uint32_t buffers = channels_[to.channel].send_buffers;
    while (to.number >= buffers) {
      to.number -= buffers;
      if (routing_.messages(to.channel)[to.number].kind != tensor_kind::weight_gradient) return to;
    }
    return {};
  }
  bool post(std::uint32_t channel, bool needed) {
    if (!windows_[channel].post(needed)) return false;
    wake(channels_[channel].from, block::on_send, {channel, windows_[channel].posted() - 1});
    return true;
  }
  void send(std::uint32_t channel) { wake(channels_[channel].to, block::on_receive, {channel, sent_[channel]++}); }
  void wake(std::uint32_t rank, block why, message_id message) {
    if (ranks_[rank].blocked == why && ranks_[rank].message == message) runnable_.push_back(rank);
  }

  const schedule& s_;
  const message_routing& routing_;
  const std::vector<channel>& channels_;
  std::vector<receive_window> windows_;  // by channel
  std::vector<std::uint32_t> sent_;      // by channel
  std::vector<rank_state> ranks_;
  std::vector<std::uint32_t> runnable_;
};

/// Sets the buffers of all channels: `depth`, fewer for channels with fewer messages, and more where ranks would wait in a
/// cycle.
inline void set_depths(std::vector<channel>& channels, const schedule& s, const message_routing& routing,
                       std::uint32_t depth) {
  std::vector<std::uint64_t> depths(channels.size(), depth);
  for (bool enough = false; !enough;) {
    for (std::uint32_t c = 0; c < depths.size(); ++c) {
      channel& of = channels[c];
      const std::uint32_t tensors = routing.tensors(c);
      of.receive_buffers = static_cast<std::uint32_t>(std::min<std::uint64_t>(depths[c], tensors));
      of.send_buffers = std::max(of.receive_buffers, std::min(routing.min_send_buffers(c), tensors));
    }
    enough = true;
    for (const std::uint32_t c : depth_search(s, routing, channels).too_shallow()) {
      depths[c] += channels[c].send_buffers;
      enough = false;
    }
  }
}

}  // namespace pipesched::detail
