// SPDX-License-Identifier: MIT
#pragma once

// Depths, the second pass of lower(). The ranks run their cells with sends that end only when their receives are posted.
// That finds channels with too few buffers, and schedules with a cycle of several ranks.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/worklist.hpp"

namespace pipesched::detail {

/// Runs the cells of all ranks. The interpreter of programs cannot do that here, as there are no actions and slots yet; both run
/// their ranks by one worklist.
///
/// The receiver posts the receives of a channel in the order in which the messages are sent, each as soon as a buffer is
/// free. A message that a cell needs at once gets a new buffer. Weight gradients have buffers of their own. So the numbers
/// of activations and gradients sent and posted are the whole state of a channel.
class depth_trial {
 public:
  /// @param channels  with the buffers that they have at first
  depth_trial(const schedule& s, const message_routing& routing, const std::vector<channel>& channels)
      : s_(s), routing_(routing), ranks_(s.pp()), runnable_(s.pp()) {
    for (const channel& c : channels)
      channels_.push_back({.posted = c.receive_buffers,
                           .receive_buffers = c.receive_buffers,
                           .send_buffers = c.send_buffers,
                           .from = c.from,
                           .to = c.to});
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) ranks_[rank].exchanges = routing.sent_after(rank);
    runnable_.run([this](std::uint32_t rank) { run(rank); });
  }

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
    std::uint32_t sent = 0, posted;   // activations and gradients; those that the receiver posts
    std::uint32_t exchanged = 0;      // weight gradients sent
    std::uint32_t receive_buffers, send_buffers;
    std::uint16_t from, to;
    std::uint32_t awaited_by_receiver = no_slot, awaited_by_sender = no_slot;  // the one to be sent, to be posted
  };
  struct rank_state {
    std::size_t done = 0;                        // cells run
    std::span<const sent_exchange> exchanges{};  // after the cells to come
    std::uint32_t blocked_by = no_slot;          // the channel in which a message could not be sent
  };

  using needs_of_cell = std::span<const op_needs* const>;

  void run(std::uint32_t r) {
    rank_state& rank = ranks_[r];
    rank.blocked_by = no_slot;
    const std::span<const cell> row = s_[r];
    const rank_needs all = routing_.needs(r);
    for (; rank.done < row.size(); ++rank.done) {
      prefetch(row, rank.done + 4);
      const cell& c = row[rank.done];
      const auto both = all[c];
      const needs_of_cell needs(both.data(), c.size());
      if (lacks_input(needs, c) || lacks_buffer(rank, needs)) return;
      for (const op_needs* of : needs) {
        if (of->input < local_channel) use(channels_[of->input]);
        if (of->output < local_channel) send(channels_[of->output]);
      }
      for (std::span<const sent_exchange>& next = rank.exchanges; !next.empty() && next[0].cell == rank.done;
           next = next.subspan(1))
        ++channels_[routing_.channel_between(r, next[0].what.to)].exchanged;
    }
  }

  // Posts the receives of all inputs that are not posted yet. True if one of the inputs has not been sent.
  bool lacks_input(needs_of_cell needs, const cell& ops) {
    bool lacks = false;
    for (std::size_t k = 0; k < needs.size(); ++k) {
      if (needs[k]->input >= local_channel) continue;
      channel_state& c = channels_[needs[k]->input];
      const std::uint32_t number = routing_.number_of_input(*needs[k], ops[k]);
      if (number >= c.posted) {
        c.receive_buffers += number + 1 - c.posted;
        post_to(c, number + 1);
      }
      if (lacks || number < c.sent) continue;
      c.awaited_by_receiver = number;
      lacks = true;
    }
    return lacks;
  }
  bool lacks_buffer(rank_state& rank, needs_of_cell needs) {
    for (const op_needs* const& of : needs) {
      if (of->output >= local_channel) continue;
      channel_state& c = channels_[of->output];
      const bool is_second = &of != needs.data() && of->output == needs[0]->output;
      const std::uint32_t number = c.sent + c.exchanged + is_second;
      if (number < c.send_buffers + c.posted) continue;
      const auto last = last_in_buffer(routing_.exchanges(of->output), number, c.send_buffers);
      if (!last || *last < c.posted) continue;
      c.awaited_by_sender = *last;
      rank.blocked_by = of->output;
      return true;
    }
    return false;
  }
  // The activation or gradient that had the same send buffer before a message, if there was one: its number among them.
  static std::optional<std::uint32_t> last_in_buffer(std::span<const std::uint32_t> exchanges, std::uint32_t message,
                                                     std::uint32_t send_buffers) {
    while (message >= send_buffers) {
      message -= send_buffers;
      const auto next = std::lower_bound(exchanges.begin(), exchanges.end(), message);
      if (next == exchanges.end() || *next != message)
        return message - static_cast<std::uint32_t>(next - exchanges.begin());
    }
    return std::nullopt;
  }

  // The cell frees the buffer of its input.
  void use(channel_state& c) { post_to(c, c.posted + 1); }
  void post_to(channel_state& c, std::uint32_t posted) {
    c.posted = posted;
    if (c.awaited_by_sender < posted) {
      c.awaited_by_sender = no_slot;
      runnable_.wake(c.from);
    }
  }
  void send(channel_state& c) {
    if (c.awaited_by_receiver == c.sent++) runnable_.wake(c.to);
  }

  const schedule& s_;
  const message_routing& routing_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> ranks_;
  worklist runnable_;
};

/// Sets the buffers of all channels, `depth` or fewer for channels with fewer messages. Channels get more buffers until
/// ranks do not wait in a cycle.
inline depth_trial set_depths(std::vector<channel>& channels, const schedule& s, const message_routing& routing,
                              std::int64_t depth) {
  std::vector<std::uint64_t> depths(channels.size(), static_cast<std::uint64_t>(depth));
  while (true) {
    for (std::uint32_t c = 0; c < depths.size(); ++c) {
      channel& of = channels[c];
      const std::uint32_t tensors = routing.tensors(c);
      of.receive_buffers = static_cast<std::uint32_t>(std::min<std::uint64_t>(depths[c], tensors));
      of.send_buffers = std::max(of.receive_buffers, std::min(routing.min_send_buffers(c), tensors));
    }
    depth_trial trial(s, routing, channels);
    const std::vector<std::uint32_t> too_shallow = trial.too_shallow();
    if (too_shallow.empty()) return trial;
    for (const std::uint32_t c : too_shallow) depths[c] += channels[c].send_buffers;
  }
}

}  // namespace pipesched::detail
