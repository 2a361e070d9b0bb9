// SPDX-License-Identifier: MIT
#pragma once

// A library that sends from device to device: NCCL (nccl.hpp), its relatives (RCCL, MCCL), or a fake for tests.

#include <concepts>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "pipesched/support/error.hpp"

namespace pipesched {

/// How the messages of one channel are sent.
///
/// A message holds thread blocks (CTAs) of the device from its start to its end: NCCL gives one of 1 to 64 MiB half of max_ctas,
/// and a longer one all of it. Left to itself it takes 16 of a Hopper GPU's 132 over NVLink, and 2 over the network or PCIe. The
/// receiver has 9.2 MiB of buffers for each CTA of the limit over NVLink: 294 MiB per channel without a limit, 74 MiB with 8,
/// 18 MiB with 2. Computed from NCCL 2.28.9 (ncclTopoComputeP2pChannels, addP2pToPlan, p2pRecvSetup), not measured.
struct channel_options {
  int stream_priority = -100;  ///< of its stream on either side, less is more urgent; the nearest that the device has
  int min_ctas = 0;            ///< 0: the library chooses
  int max_ctas = 8;            ///< 0: the library chooses; else no less than min_ctas
};

/// All functions but the last two return a status. After connect() none of them waits for the other rank, except for the
/// first message of a channel, which connects the two.
///
///   make_id(id)                     a text by which two ranks find each other
///   connect(id, end, options, name, c, goes_on)   a communicator of two: end 0 sends, end 1 receives. Waits for the other
///                                   rank, and gives up once goes_on() is false. `name` outlives the process
///   send(c, from, size, stream), receive(c, into, size, stream)
///   state(c)                        whether a message in progress has failed
///   register_memory(c, memory, size, handle), deregister_memory(c, handle)   memory that messages are sent from or received into
///   close(c)                        the end of a communicator without messages in progress, by an abort if need be. It may wait
///                                   for the other rank, perhaps for ever
///   abort(c)                        ends its messages and the communicator. May be called while another thread sends. Waits
///                                   until the device has ended them, and for graphs that hold some: perhaps for ever
///   refuses_capture()               why a step cannot be captured into a graph; empty if it can
template <typename L, typename Stream>
concept message_library = std::copyable<L> &&
    requires(L& l, typename L::status status, typename L::communicator c, const channel_options& options, Stream stream,
             const std::string& name, std::string& id, const std::function<bool()>& goes_on, const void* from,
             void* memory, std::size_t size, int end) {
  { L::prefix } -> std::convertible_to<std::string_view>;
  { l.succeeded(status) } -> std::same_as<bool>;
  { l.text(status) } -> std::convertible_to<std::string>;
  { l.make_id(id) } -> std::same_as<typename L::status>;
  { l.connect(id, end, options, name, c, goes_on) } -> std::same_as<typename L::status>;
  { l.send(c, from, size, stream) } -> std::same_as<typename L::status>;
  { l.receive(c, memory, size, stream) } -> std::same_as<typename L::status>;
  { l.state(c) } -> std::same_as<typename L::status>;
  { l.register_memory(c, memory, size, memory) } -> std::same_as<typename L::status>;
  { l.deregister_memory(c, memory) } -> std::same_as<typename L::status>;
  { l.close(c) } -> std::same_as<void>;
  { l.abort(c) } -> std::same_as<void>;
  { l.refuses_capture() } -> std::convertible_to<std::string>;
};

namespace detail {

/// @param what  "the channel from rank 0 to rank 1". @throws schedule_error for limits below 0, or a lower one above the upper
inline void require_ctas(const channel_options& options, std::string_view what) {
  if (options.min_ctas < 0 || options.max_ctas < 0)
    throw schedule_error(concat({"min_ctas and max_ctas of ", what, " are at least 0 (the library chooses); got ",
                                 options.min_ctas, " and ", options.max_ctas}));
  if (options.max_ctas > 0 && options.min_ctas > options.max_ctas)
    throw schedule_error(concat(
        {"min_ctas of ", what, " is at most max_ctas, which is ", options.max_ctas, "; got ", options.min_ctas}));
}

}  // namespace detail

}  // namespace pipesched
