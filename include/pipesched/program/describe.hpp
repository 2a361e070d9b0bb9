// SPDX-License-Identifier: MIT
#pragma once

// The place of a rank in a program and the message that it waits for, in the words of reports and errors.

#include <cstddef>
#include <cstdint>
#include <string>

#include "pipesched/core/notation.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched {

/// The message of a send or receive: "activation 2F2 from rank 2", "gradient 3B1 to rank 2".
inline std::string describe(const program& p, const action& message) {
  const channel& c = p.channels[message.channel];
  const bool receives = message.kind == action_kind::receive;
  return detail::concat({to_string(message.what), receives ? " from rank " : " to rank ", receives ? c.from : c.to});
}

/// A rank at one of its actions: "rank 3 at 3F2", "rank 3 at the weight gradient of stage 3", "rank 3 at the receive of
/// activation 2F2"; "rank 3 at its end" after the last one.
inline std::string describe(const program& p, std::uint32_t rank, std::size_t at) {
  const auto row = p.actions[rank];
  if (at >= row.size()) return detail::concat({"rank ", rank, " at its end"});
  const action& a = row[at];
  switch (a.kind) {
    case action_kind::compute: return detail::concat({"rank ", rank, " at ", to_string(p.schedule[rank][a.index])});
    case action_kind::accumulate: return detail::concat({"rank ", rank, " at the weight gradient of stage ", a.index});
    case action_kind::receive: return detail::concat({"rank ", rank, " at the receive of ", to_string(a.what)});
    case action_kind::send: break;
  }
  return detail::concat({"rank ", rank, " at the send of ", to_string(a.what)});
}

/// A rank that waits for one of its messages: "rank 3 at 3F2, which waits for activation 2F2 from rank 2".
inline std::string describe(const program& p, std::uint32_t rank, std::size_t at, const action& awaited) {
  return detail::concat({describe(p, rank, at), ", which waits for ", describe(p, awaited)});
}

}  // namespace pipesched
