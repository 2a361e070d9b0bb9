// SPDX-License-Identifier: MIT
#pragma once

// In which order a rank starts its messages, for transports whose messages hold a queue of the device until both sides are
// there, as NCCL's do. The actions of a program post receives as early as a buffer is free, which suits transports that
// match messages on the host; started as early, they may stand in front of the very work that the sender waits for.
//
// Here all messages have one order, that of the time at which they can move in a simulated step (F = I = W = 1, B = 2),
// and every rank starts its own in that order. So whichever streams share a queue, even if a device has only one, in which
// everything waits for what was put into it before, the first message of all that has not moved has nothing in front of it:
// nothing waits in a circle.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/rows.hpp"

namespace pipesched {

/// A message of a rank: the action that posts it, and the one right before which it is started, which is a later one, or
/// the number of actions: behind them all.
struct launch {
  std::uint32_t action = 0, before = 0;

  friend constexpr bool operator==(const launch&, const launch&) = default;
};

namespace detail {

// Finds the time of every message: the later of the two at which its sides are posted. A rank posts when it has come
// there, and waits for messages where the program has it wait.
class message_times {
 public:
  explicit message_times(const program& p) : p_(p), channels_(p.channels.size()), ranks_(p.actions.count()) {
    for (std::uint32_t r = 0; r < ranks_.size(); ++r) {
      ranks_[r].of_buffer.resize(std::size_t{p.pools[r].buffers} + p.pools[r].reductions);
      ranks_[r].starts.resize(p.actions[r].size(), 0);
      runnable_.push_back(r);
    }
    while (!runnable_.empty()) {
      const std::uint32_t r = runnable_.back();
      runnable_.pop_back();
      run(r);
    }
    for (std::uint32_t r = 0; r < ranks_.size(); ++r)
      if (ranks_[r].at != p.actions[r].size())
        throw schedule_error("a program that does not come to its end has no order of messages; check() says why");
  }

  /// The launches of a rank.
  std::vector<launch> row(std::uint32_t rank) const {
    struct key {
      std::uint64_t time;
      std::uint32_t channel, number, action;
    };
    std::vector<key> keys;
    std::vector<std::uint32_t> numbers(p_.channels.size(), 0);
    const std::span<const action> actions = p_.actions[rank];
    for (std::uint32_t n = 0; n < actions.size(); ++n) {
      if (!is_message(actions[n])) continue;
      const std::uint32_t channel = actions[n].channel, number = numbers[channel]++;
      if (number >= matched(channel)) throw schedule_error("a message has no other side; check() says which");
      keys.push_back({time(channel, number), channel, number, n});
    }
    std::sort(keys.begin(), keys.end(), [](const key& a, const key& b) {
      return std::array<std::uint64_t, 3>{a.time, a.channel, a.number} <
             std::array<std::uint64_t, 3>{b.time, b.channel, b.number};
    });
    std::vector<launch> launches;
    std::uint32_t before = 0;
    for (const key& k : keys) {
      // Ahead of whatever starts then or later; that was posted after the message was.
      while (before < actions.size() && (is_message(actions[before]) || ranks_[rank].starts[before] < k.time)) ++before;
      launches.push_back({k.action, before});
    }
    return launches;
  }

 private:
  struct side {
    std::uint32_t channel = no_slot, number = 0;
  };
  struct channel_state {
    std::vector<std::uint64_t> sends, receives;  // when they were posted
  };
  struct rank_state {
    std::uint32_t at = 0;
    std::uint64_t now = 0;
    side waits_for{};
    std::vector<side> of_buffer;  // what was last posted; then those of reduction buffers
    std::vector<side> weights;    // sent
    std::vector<std::uint64_t> starts;
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
    const bool receives = a.kind == action_kind::receive, weights = is_weight_gradient(a);
    channel_state& c = channels_[a.channel];
    auto& mine = receives ? c.receives : c.sends;
    const side posted{a.channel, static_cast<std::uint32_t>(mine.size())};
    mine.push_back(rank.now);
    if (weights && !receives)
      rank.weights.push_back(posted);
    else
      rank.of_buffer[weights ? p_.pools[r].buffers + a.buffer : a.buffer] = posted;
    const std::uint32_t other = receives ? p_.channels[a.channel].from : p_.channels[a.channel].to;
    const side& awaited = ranks_[other].waits_for;
    if (awaited.channel == posted.channel && awaited.number == posted.number) runnable_.push_back(other);
  }

  // False if it waits for a message of which one side is missing.
  bool start(std::uint32_t r, rank_state& rank, const action& a) {
    std::uint64_t when = rank.now;
    const auto there = [&](const side& s) {
      if (s.channel == no_slot) return true;
      if (s.number >= matched(s.channel)) {
        rank.waits_for = s;
        return false;
      }
      when = std::max(when, time(s.channel, s.number));
      return true;
    };
    if (a.kind == action_kind::compute) {
      for (const op_slots& s : p_.slots[r][a.index])
        for (const std::uint32_t n : {s.input, s.output})
          if (n != no_slot && !there(rank.of_buffer[n])) return false;
    } else {
      for (const side& s : rank.weights)
        if (!there(s)) return false;
      if (a.channel != no_slot && !there(rank.of_buffer[p_.pools[r].buffers + a.buffer])) return false;
    }
    rank.starts[rank.at] = when;
    rank.now = when + (a.kind == action_kind::compute ? duration(p_.schedule[r][a.index]) : 1);
    return true;
  }

  const program& p_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> ranks_;
  std::vector<std::uint32_t> runnable_;
};

}  // namespace detail

/// For every rank the order in which it starts its messages, in which `before` never falls. Sender and receiver, and any two
/// ranks, have the messages that they share in one order, whatever their channels.
/// @throws schedule_error if the program does not come to its end. @pre check(p) is true. n log n in the messages of a rank
inline rows<launch> launch_order(const program& p) {
  const detail::message_times times(p);
  rows<launch> order;
  for (std::uint32_t rank = 0; rank < p.actions.count(); ++rank) order.append(times.row(rank));
  return order;
}
/// Of one rank alone; the simulated step is of all.
inline std::vector<launch> launch_order(const program& p, std::uint32_t rank) {
  return detail::message_times(p).row(rank);
}

}  // namespace pipesched
