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
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/program/detail/message_times.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/program/verify.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

/// The start of one message of a rank.
struct launch {
  std::uint32_t action = 0;        ///< number of the action that posts the message
  std::uint32_t issue_before = 0;  ///< number of the later action before which it starts; actions.size(): after all

  friend constexpr bool operator==(const launch&, const launch&) = default;
};

namespace detail {

// The launches of a rank.
inline std::vector<launch> launches_of(const program& p, const message_times& times, std::uint32_t rank) {
  struct key {
    std::uint64_t time;
    std::uint32_t channel, number, action;
  };
  std::vector<key> keys;
  const std::span<const action> actions = p.actions[rank];
  const std::span<const std::uint64_t> of = times.of_actions(rank);
  for (std::uint32_t n = 0; n < actions.size(); ++n)
    if (is_message(actions[n]))
      keys.push_back({times.time(actions[n].channel, of[n]), actions[n].channel, static_cast<std::uint32_t>(of[n]), n});
  std::sort(keys.begin(), keys.end(), [](const key& a, const key& b) {
    return std::array<std::uint64_t, 3>{a.time, a.channel, a.number} <
           std::array<std::uint64_t, 3>{b.time, b.channel, b.number};
  });
  std::vector<launch> launches;
  std::uint32_t next = 0;
  for (const key& k : keys) {
    // Before the first action that starts at that time or later. The message is posted before that action.
    while (next < actions.size() && (is_message(actions[next]) || of[next] < k.time)) ++next;
    launches.push_back({k.action, next});
  }
  return launches;
}

}  // namespace detail

/// As launch_order(p), for callers who have verified the program. @pre verify(p) is true
inline rows<launch> launch_order(const program& p, verified_t) {
  const detail::message_times times(p);
  rows<launch> order;
  for (std::uint32_t rank = 0; rank < p.actions.size(); ++rank) order.append(detail::launches_of(p, times, rank));
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
  return detail::launches_of(p, detail::message_times(p), rank);
}
/// The launch order of one rank. It still simulates the step of all ranks.
inline std::vector<launch> launch_order(const program& p, std::uint32_t rank) {
  require_valid(p);
  return launch_order(p, rank, verified);
}

}  // namespace pipesched
