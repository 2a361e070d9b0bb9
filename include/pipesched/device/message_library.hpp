// SPDX-License-Identifier: MIT
#pragma once

// What edges.hpp asks of a library that sends from device to device: the seam between NCCL (nccl.hpp), its relatives (RCCL,
// MCCL) and a fake for tests.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// How the messages of one channel are sent.
///
/// The limits are those of the channel's communicator: thread blocks (CTAs) on the device, which a message holds while it
/// waits and moves. NCCL gives a message of 1 MiB or more half of its limit. Left to itself it takes 16 of a Hopper GPU's 132
/// over NVLink, and 2 over the network or PCIe; the receiver has 9.2 MiB of buffers for each of twice as many CTAs over NVLink:
/// 294 MiB per channel, 74 MiB with max_ctas = 8, 18 MiB with 2. Computed from NCCL 2.28.9 for 24 channels
/// (ncclTopoComputeP2pChannels, addP2pToPlan, p2pRecvSetup), not measured.
struct edge_options {
  int stream_priority = -100;  ///< of its stream on either side, less is more urgent; the nearest that the device has
  int min_ctas = 0;            ///< 0: the library chooses
  int max_ctas = 0;            ///< 0: the library chooses; else no less than min_ctas
};

/// Calls return a status, which may say that what was called goes on by itself: then state() tells when it has ended. What
/// is split off is asked for through its parent first, and is there when the parent's has ended.
///
///   rank_in(parent, r), size_of(parent, n)
///   split(parent, color, key, options, name, child)   collective: a new communicator for all with this color, ordered by
///                                                     key; none for a color below 0
///   state(communicator, of)                           of what goes on, or that it has failed
///   send(c, peer, from, size, stream), receive(c, peer, into, size, stream)
///   enlist(c, memory, size, handle), dismiss(c, handle)   memory that messages are sent from or received into
///   finalize(c), destroy(c)                           the end of a communicator
///   abort(all)                                        of many, whose messages may wait for each other: waits until those
///                                                     have ended, and perhaps for graphs that hold some
///   refuses_capture()                                 why a step cannot be captured into a graph; empty if it can
template <typename L, typename Stream>
concept message_library = std::copyable<L> &&
    requires(L& l, typename L::status status, typename L::communicator c, const edge_options& options, Stream stream,
             const std::string& name, std::span<const typename L::communicator> all, const void* from, void* memory,
             std::size_t size, int n) {
  { L::prefix } -> std::convertible_to<std::string_view>;
  { l.succeeded(status) } -> std::same_as<bool>;
  { l.in_progress(status) } -> std::same_as<bool>;
  { l.text(status) } -> std::convertible_to<std::string>;
  { l.rank_in(c, n) } -> std::same_as<typename L::status>;
  { l.size_of(c, n) } -> std::same_as<typename L::status>;
  { l.split(c, n, n, options, name, c) } -> std::same_as<typename L::status>;
  { l.state(c, status) } -> std::same_as<typename L::status>;
  { l.send(c, n, from, size, stream) } -> std::same_as<typename L::status>;
  { l.receive(c, n, memory, size, stream) } -> std::same_as<typename L::status>;
  { l.enlist(c, memory, size, memory) } -> std::same_as<typename L::status>;
  { l.dismiss(c, memory) } -> std::same_as<typename L::status>;
  { l.finalize(c) } -> std::same_as<typename L::status>;
  { l.destroy(c) } -> std::same_as<typename L::status>;
  { l.abort(all) } -> std::same_as<void>;
  { l.refuses_capture() } -> std::convertible_to<std::string>;
};

namespace detail {

/// @param what  "the channel from rank 0 to rank 1". @throws schedule_error for limits below 0, or of which the lower one is above
inline void check_ctas(const edge_options& options, std::string_view what) {
  if (options.min_ctas < 0 || options.max_ctas < 0)
    throw schedule_error(concat({"min_ctas and max_ctas of ", what, " are at least 0 (the library chooses); got ",
                                 options.min_ctas, " and ", options.max_ctas}));
  if (options.max_ctas > 0 && options.min_ctas > options.max_ctas)
    throw schedule_error(concat(
        {"min_ctas of ", what, " is at most max_ctas, which is ", options.max_ctas, "; got ", options.min_ctas}));
}

/// In which of the rounds in which communicators are split each channel gets its own: in no round a rank has two, so that a
/// split makes many at once, and there are fewer than twice as many rounds as the busiest rank has channels.
inline std::vector<std::uint32_t> split_rounds(std::span<const channel> channels, std::size_t ranks) {
  std::vector<std::vector<bool>> busy(ranks);  // by rank and round
  std::vector<std::uint32_t> rounds;
  for (const channel& c : channels) {
    std::uint32_t round = 0;
    const auto taken = [&](std::uint32_t rank) { return round < busy[rank].size() && busy[rank][round]; };
    while (taken(c.from) || taken(c.to)) ++round;
    for (const std::uint32_t rank : {std::uint32_t{c.from}, std::uint32_t{c.to}}) {
      busy[rank].resize(std::max<std::size_t>(busy[rank].size(), round + 1));
      busy[rank][round] = true;
    }
    rounds.push_back(round);
  }
  return rounds;
}
inline std::uint32_t count_rounds(std::span<const std::uint32_t> rounds) {
  return rounds.empty() ? 0 : *std::max_element(rounds.begin(), rounds.end()) + 1;
}

}  // namespace detail

}  // namespace pipesched
