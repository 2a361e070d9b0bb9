// SPDX-License-Identifier: MIT
#pragma once

// The place of a rank in a program and the message that it waits for, in the words of reports and errors.

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>

#include "pipesched/core/notation.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched {

/// The message of a send or receive: "activation 2F2 from rank 2", "gradient 3B1 to rank 2".
/// @throws schedule_error for an action without a channel of the program
inline std::string describe(const program& p, const action& message) {
  if (!is_message(message) || message.channel >= p.channels.size())
    throw schedule_error("describe() takes a send or receive of the program; got an action without a channel of it");
  const channel& c = p.channels[message.channel];
  const bool receives = message.kind == action_kind::receive;
  return detail::concat({to_string(message.what), receives ? " from rank " : " to rank ", receives ? c.from : c.to});
}

/// A rank at one of its actions: "rank 3 at 3F2", "rank 3 at the weight gradient of stage 3", "rank 3 at the receive of
/// activation 2F2"; "rank 3 at its end" after the last one, and "rank 3 at its start" for no_slot.
/// @throws schedule_error if the program has no such rank, here and below
std::string describe(const program& p, std::integral auto rank, std::integral auto number) {
  detail::require_rank(p, rank);
  const auto at = static_cast<std::size_t>(number);
  const auto row = p.actions[rank];
  if (at >= row.size()) return detail::concat({"rank ", rank, at == no_slot ? " at its start" : " at its end"});
  const action& a = row[at];
  switch (a.kind) {
    case action_kind::compute:
      return a.index < p.schedule[rank].size()
                 ? detail::concat({"rank ", rank, " at ", to_string(p.schedule[rank][a.index])})
                 : detail::concat({"rank ", rank, " at cell ", a.index});
    case action_kind::accumulate: return detail::concat({"rank ", rank, " at the weight gradient of stage ", a.index});
    case action_kind::receive: return detail::concat({"rank ", rank, " at the receive of ", to_string(a.what)});
    case action_kind::send: break;
  }
  return detail::concat({"rank ", rank, " at the send of ", to_string(a.what)});
}

/// A rank that waits for one of its messages: "rank 3 at 3F2, which waits for activation 2F2 from rank 2".
std::string describe(const program& p, std::integral auto rank, std::integral auto at, const action& awaited) {
  return detail::concat({describe(p, rank, at), ", which waits for ", describe(p, awaited)});
}

/// Calls `f(buffer)` for each buffer with a message that the cell needs.
template <typename F>
void for_each_awaited(const std::array<op_slots, 2>& cell, F&& f) {
  for (const op_slots& s : cell) {
    if (s.input != no_slot) f(s.input);
    if (s.output != no_slot) f(s.output);
  }
}
/// Calls `f(buffer)` for the buffers whose messages an action waits for. Before a weight gradient changes, all that the rank
/// has sent must have gone. @pre verify(p)
template <typename F>
void for_each_awaited(const program& p, std::integral auto rank, const action& a, F&& f) {
  if (a.kind == action_kind::compute) {
    for_each_awaited(p.slots[rank][a.index], f);
  } else if (a.kind == action_kind::accumulate) {
    const pool_sizes& pools = p.pools[static_cast<std::size_t>(rank)];
    for (std::uint32_t n = pools.owned_buffers(); n < pools.buffers(); ++n) f(n);
    if (a.buffer != no_slot) f(a.buffer);
  }
}

/// As describe(p, rank, at), with the message that the rank waits for, if it waits for one.
/// @param is_pending  of a buffer: whether its last message is still in progress. Linear in `at`.
template <typename IsPending>
std::string describe_waiting(const program& p, std::integral auto rank, std::integral auto number,
                             IsPending&& is_pending) {
  detail::require_rank(p, rank);
  const auto at = static_cast<std::size_t>(number);
  const auto row = p.actions[rank];
  std::uint32_t awaited = no_slot;  // a buffer
  const auto consider = [&](std::uint32_t buffer) {
    if (awaited == no_slot && is_pending(buffer)) awaited = buffer;
  };
  if (at < row.size())
    for_each_awaited(p, rank, row[at], consider);
  else if (at != no_slot)
    for (std::uint32_t n = 0; n < p.pools[static_cast<std::size_t>(rank)].buffers(); ++n) consider(n);
  if (awaited != no_slot)
    for (std::size_t i = std::min(at, row.size()); i-- > 0;)
      if (is_message(row[i]) && row[i].buffer == awaited) return describe(p, rank, at, row[i]);
  return describe(p, rank, at);
}

}  // namespace pipesched
