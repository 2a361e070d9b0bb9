// SPDX-License-Identifier: MIT
#pragma once

// Launch order: the order in which each rank starts its messages, for transports whose messages occupy a hardware queue
// until both sides have started, as NCCL's do. A program posts each receive as soon as its buffer is free, which suits
// transports that match messages on the host. On such a queue, an early receive can block the work that its sender needs.
//
// All messages have one global order: the time at which they can move in a simulated step, then channel and number. Every
// rank starts its messages in that order. The globally first incomplete message is therefore never queued after another
// one, whichever streams share a hardware queue: no deadlock. It is also never queued after work that needs a later
// message, because in the simulation every action takes some time, at least one unit in the last place of a double.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/uniform_costs.hpp"
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
template <typename Costs>
std::vector<launch> launches_of(const program& p, const message_times<Costs>& times, std::uint32_t rank) {
  struct key {
    double time;
    std::uint32_t channel, number, action;
  };
  std::vector<key> keys;
  std::vector<std::uint32_t> numbers(p.channels.size(), 0);
  const std::span<const action> actions = p.actions[rank];
  for (std::uint32_t n = 0; n < actions.size(); ++n) {
    if (!is_message(actions[n])) continue;
    const std::uint32_t channel = actions[n].channel, number = numbers[channel]++;
    keys.push_back({times.time(channel, number), channel, number, n});
  }
  std::sort(keys.begin(), keys.end(), [](const key& a, const key& b) {
    return std::tie(a.time, a.channel, a.number) < std::tie(b.time, b.channel, b.number);
  });
  std::vector<launch> launches;
  std::uint32_t next = 0;
  const double* start = times.starts(rank).data();
  for (const key& k : keys) {
    // Before the first action that starts at that time or later. The message is posted before that action.
    for (; next < actions.size() && (is_message(actions[next]) || *start < k.time); ++next)
      if (!is_message(actions[next])) ++start;
    launches.push_back({k.action, next});
  }
  return launches;
}

}  // namespace detail

/// As launch_order(p, costs), for callers who have verified the program. @pre verify(p) is true
template <cost_model Costs>
rows<launch> launch_order(const program& p, const Costs& costs, verified_t) {
  const detail::message_times times(p, costs);
  rows<launch> order;
  for (std::uint32_t rank = 0; rank < p.actions.size(); ++rank) order.append(detail::launches_of(p, times, rank));
  return order;
}
inline rows<launch> launch_order(const program& p, verified_t) { return launch_order(p, uniform_costs{}, verified); }
/// The order in which each rank starts its messages; `issue_before` never decreases. Any two ranks have the messages that
/// they share in the same order, whatever their channels. Costs change the order, never that property: every rank must use
/// the same.
/// @throws schedule_error if verify() does not prove the program, or for costs as simulate() does
/// n log n in the number of messages of a rank.
template <cost_model Costs = uniform_costs>
rows<launch> launch_order(const program& p, const Costs& costs = {}) {
  require_valid(p);
  return launch_order(p, costs, verified);
}

/// As launch_order(p, rank, costs), for callers who have verified the program. @pre verify(p) is true
template <cost_model Costs>
std::vector<launch> launch_order(const program& p, std::integral auto rank, const Costs& costs, verified_t) {
  detail::require_rank(p, rank);
  return detail::launches_of(p, detail::message_times(p, costs), static_cast<std::uint32_t>(rank));
}
std::vector<launch> launch_order(const program& p, std::integral auto rank, verified_t) {
  return launch_order(p, rank, uniform_costs{}, verified);
}
/// The launch order of one rank. It still simulates the step of all ranks.
/// @throws schedule_error as above, and if the program has no such rank
template <cost_model Costs = uniform_costs>
std::vector<launch> launch_order(const program& p, std::integral auto rank, const Costs& costs = {}) {
  require_valid(p);
  return launch_order(p, rank, costs, verified);
}

}  // namespace pipesched
