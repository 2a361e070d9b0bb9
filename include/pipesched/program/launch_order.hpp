// SPDX-License-Identifier: MIT
#pragma once

// Launch order: the order in which each rank starts its messages, for transports whose messages occupy a hardware queue
// until both sides have started, as NCCL's do. A program posts each receive as soon as its buffer is free, which suits
// transports that match messages on the host. On such a queue, an early receive can block the work that its sender needs.
//
// All messages have one global order: the time at which they can move in a simulated step (F = I = W = 1, B = 2). Every rank
// starts its messages in that order. The globally first incomplete message is therefore never queued after another one,
// whichever streams share a hardware queue: no deadlock.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/program/verify.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

/// The start of one message of a rank.
struct launch {
  std::uint32_t action = 0;        ///< number of the action that posts the message
  std::uint32_t issue_before = 0;  ///< number of the later action before which it starts; actions.size(): after all

  friend constexpr bool operator==(const launch&, const launch&) = default;
};

namespace detail {

// Finds the time of every message: the later of the times at which its two sides are posted. A rank posts a message when it
// gets to that action, and waits for messages where the program waits.
class message_times {
 public:
  explicit message_times(const program& p) : p_(p), channels_(p.channels.size()), ranks_(p.actions.size()) {
    for (std::uint32_t r = 0; r < ranks_.size(); ++r) {
      ranks_[r].of_buffer.resize(std::size_t{p.pools[r].buffers} + p.pools[r].reductions);
      ranks_[r].of_action.resize(p.actions[r].size(), 0);
      runnable_.push_back(r);
    }
    while (!runnable_.empty()) {
      const std::uint32_t r = runnable_.back();
      runnable_.pop_back();
      run(r);
    }
    for (std::uint32_t r = 0; r < ranks_.size(); ++r)
      if (ranks_[r].at != p.actions[r].size())
        throw schedule_error("cannot order the messages of a program that deadlocks; see verify()");
  }

  /// The launches of a rank.
  std::vector<launch> row(std::uint32_t rank) const {
    struct key {
      std::uint64_t time;
      std::uint32_t channel, number, action;
    };
    std::vector<key> keys;
    const std::span<const action> actions = p_.actions[rank];
    for (std::uint32_t n = 0; n < actions.size(); ++n) {
      if (!is_message(actions[n])) continue;
      const std::uint32_t channel = actions[n].channel;
      const auto number = static_cast<std::uint32_t>(ranks_[rank].of_action[n]);
      if (number >= matched(channel))
        throw schedule_error("cannot order a message that only one rank posts; see verify()");
      keys.push_back({time(channel, number), channel, number, n});
    }
    std::sort(keys.begin(), keys.end(), [](const key& a, const key& b) {
      return std::array<std::uint64_t, 3>{a.time, a.channel, a.number} <
             std::array<std::uint64_t, 3>{b.time, b.channel, b.number};
    });
    std::vector<launch> launches;
    std::uint32_t next = 0;
    for (const key& k : keys) {
      // Before the first action that starts at that time or later. The message is posted before that action.
      while (next < actions.size() && (is_message(actions[next]) || ranks_[rank].of_action[next] < k.time)) ++next;
      launches.push_back({k.action, next});
    }
    return launches;
  }

 private:
  struct message {
    std::uint32_t channel = no_slot, number = 0;
  };
  struct channel_state {
    std::vector<std::uint64_t> sends, receives;  // times at which they are posted
  };
  struct rank_state {
    std::uint32_t at = 0;
    std::uint64_t now = 0;
    message waits_for{};
    std::vector<message> of_buffer;        // the last one posted in each buffer, then in each reduction buffer
    std::vector<message> gradients;        // weight gradients sent
    std::vector<std::uint64_t> of_action;  // a message: its number in its channel; others: the time at which they start
  };

  std::size_t matched(std::uint32_t channel) const {
    return std::min(channels_[channel].sends.size(), channels_[channel].receives.size());
  }
  std::uint64_t time(std::uint32_t channel, std::uint32_t number) const {
    return std::max(channels_[channel].sends[number], channels_[channel].receives[number]);
  }
  static std::uint64_t duration(const cell& c) {
    std::uint64_t sum = 0;
    for (const op o : c) sum += o.pass == pass::backward ? 2 : 1;
    return sum;
  }

  void run(std::uint32_t r) {
    rank_state& rank = ranks_[r];
    rank.waits_for = {};
    for (const auto row = p_.actions[r]; rank.at < row.size(); ++rank.at) {
      const action& a = row[rank.at];
      if (is_message(a))
        post(r, rank, a);
      else if (!start(r, rank, a))
        return;
    }
  }

  void post(std::uint32_t r, rank_state& rank, const action& a) {
    const bool receives = a.kind == action_kind::receive, gradient = is_weight_gradient(a);
    channel_state& c = channels_[a.channel];
    auto& mine = receives ? c.receives : c.sends;
    const message posted{a.channel, static_cast<std::uint32_t>(mine.size())};
    mine.push_back(rank.now);
    rank.of_action[rank.at] = posted.number;
    if (gradient && !receives)
      rank.gradients.push_back(posted);
    else
      rank.of_buffer[gradient ? p_.pools[r].buffers + a.buffer : a.buffer] = posted;
    const std::uint32_t other = receives ? p_.channels[a.channel].from : p_.channels[a.channel].to;
    const message& awaited = ranks_[other].waits_for;
    if (awaited.channel == posted.channel && awaited.number == posted.number) runnable_.push_back(other);
  }

  // False if the action waits for a message that is not posted on both sides.
  bool start(std::uint32_t r, rank_state& rank, const action& a) {
    std::uint64_t when = rank.now;
    const auto complete = [&](const message& m) {
      if (m.channel == no_slot) return true;
      if (m.number >= matched(m.channel)) {
        rank.waits_for = m;
        return false;
      }
      when = std::max(when, time(m.channel, m.number));
      return true;
    };
    if (a.kind == action_kind::compute) {
      for (const op_slots& s : p_.slots[r][a.index])
        for (const std::uint32_t n : {s.input, s.output})
          if (n != no_slot && !complete(rank.of_buffer[n])) return false;
    } else {
      for (const message& m : rank.gradients)
        if (!complete(m)) return false;
      if (a.channel != no_slot && !complete(rank.of_buffer[p_.pools[r].buffers + a.buffer])) return false;
    }
    rank.of_action[rank.at] = when;
    rank.now = when + (a.kind == action_kind::compute ? duration(p_.schedule[r][a.index]) : 1);
    return true;
  }

  const program& p_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> ranks_;
  std::vector<std::uint32_t> runnable_;
};

}  // namespace detail

/// As launch_order(p), for callers who have verified the program. @pre verify(p) is true
inline rows<launch> launch_order(const program& p, verified_t) {
  const detail::message_times times(p);
  rows<launch> order;
  for (std::uint32_t rank = 0; rank < p.actions.size(); ++rank) order.append(times.row(rank));
  return order;
}
/// The order in which each rank starts its messages; `issue_before` never decreases. Any two ranks have the messages that
/// they share in the same order, whatever their channels.
/// @throws schedule_error if verify() does not prove the program
/// n log n in the number of messages of a rank.
inline rows<launch> launch_order(const program& p) {
  require_valid(p);
  return launch_order(p, verified);
}

/// As launch_order(p, rank), for callers who have verified the program. @pre verify(p) is true
inline std::vector<launch> launch_order(const program& p, std::uint32_t rank, verified_t) {
  return detail::message_times(p).row(rank);
}
/// The launch order of one rank. It still simulates the step of all ranks.
inline std::vector<launch> launch_order(const program& p, std::uint32_t rank) {
  require_valid(p);
  return launch_order(p, rank, verified);
}

}  // namespace pipesched
