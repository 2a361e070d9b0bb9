// SPDX-License-Identifier: MIT
#pragma once

// A transport moves the messages of one rank. The library has some: threads of a process, MPI, GPUs of a process, NCCL.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "pipesched/execute/failure.hpp"
#include "pipesched/program/describe.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched {

/// Every transport has these functions.
///
///   post_receive(action, bytes), post_send(action, bytes)   start a message; do not wait
///   wait(n)        until the last message posted with buffer n has been received or sent; returns at once if none was posted
///   on_action(n)   the rank is at action n
///   finish()       the end of a step: until everything posted has been received or sent
///
/// A buffer has one message at a time: it is waited for before it is posted again, and until then its bytes stay where they
/// are. The other rank of a message is p.channels[action.channel].from or .to, and both sides post those of a channel in the
/// same order, so they need no tags. All calls come from the thread that runs the rank.
///
/// Those that wait throw pipeline_aborted once another rank has failed. run() calls these, too, of a transport that has them:
///
///   prepare(program, memory)   before the steps of this program; memory(action) is where a message is sent from or received
///   meet() -> time point       collective: the time at which all ranks are here, by this rank's clock
///   leave()                    collective: after the last step. @throws pipeline_aborted if a rank has failed
///   rank()                     the rank that it is for, which is checked
///   is_done(n)                 whether wait(n) would return at once: needed where one thread runs all ranks
///   abort(cause)               this rank has failed: all ranks end. The cause is without rank and place, which are those of
///                              the last on_action(): describe(p, rank, n)
///
/// and of transports of devices, where wait() orders the rank's stream after the message and returns at once:
///
///   select_device()                the rank's device becomes that of this thread
///   synchronize()                  until the device is through with the step
///   start_clock(), begin_cell(i), end_cell(i), read_clock(intervals)   measure cells, in seconds since start_clock()
///   capture(enqueue) -> graph      what enqueue() does as a graph, whose launch() does it again
template <typename T>
concept transport = requires(T& t, const action& a, const std::span<std::byte> bytes,
                             const std::span<const std::byte> sent, const std::uint32_t n) {
  t.post_receive(a, bytes);
  t.post_send(a, sent);
  t.wait(n);
  t.on_action(n);
  t.finish();
};

namespace detail {

/// describe_waiting() of a rank that may have no program yet.
template <typename IsPending>
std::string place_of(const program* p, std::uint32_t rank, std::size_t at, IsPending&& is_pending) {
  if (p == nullptr) return concat({"rank ", rank, " at its start"});
  return describe_waiting(*p, rank, at, is_pending);
}

}  // namespace detail

}  // namespace pipesched
