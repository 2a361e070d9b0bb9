// SPDX-License-Identifier: MIT
#pragma once

// Programs: a schedule with its communication. Each rank has a row of actions, and every activation, context and buffer has
// the number of a slot. All numbers are known before the first step, so a trainer allocates once and addresses never change.
//
//   action      meaning
//   receive     posts a receive of the channel's next message into a buffer; does not wait
//   compute     waits for the inputs of a cell and for the buffers of its outputs, then runs the cell
//   send        posts a send of the channel's next message from a buffer; does not wait
//   accumulate  waits for a weight gradient of another rank, or takes one of this rank, and adds it
//
// A channel is a directed pair of ranks. Its messages are FIFO and have no tags, as in NCCL.

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

/// "activation 3F12", "gradient 3B12", "weight gradient of stage 3".
inline std::string to_string(tensor_id m) {
  if (m.kind == tensor_kind::weight_gradient) return detail::concat({"weight gradient of stage ", m.stage});
  const bool activation = m.kind == tensor_kind::activation;
  return detail::concat({activation ? "activation " : "gradient ", m.stage, activation ? "F" : "B", m.micro});
}

/// All messages from one rank to another, in FIFO order.
struct channel {
  std::uint16_t from = 0, to = 0;
  std::uint32_t messages = 0;
  std::uint32_t receive_buffers = 0;  ///< at `to`: messages that it can hold before it uses them
  std::uint32_t send_buffers = 0;     ///< at `from`: messages that it can hold before they are received

  friend constexpr bool operator==(const channel&, const channel&) = default;
};

/// No slot, buffer or channel.
inline constexpr std::uint32_t no_slot = ~std::uint32_t{0};

enum class action_kind : std::uint8_t { receive, compute, send, accumulate };

/// The resource that runs an action. The order within a lane is that of the program, between lanes that of the waits.
enum class lane : std::uint8_t { compute, send, receive };
constexpr lane lane_of(action_kind k) noexcept {
  return k == action_kind::send ? lane::send : k == action_kind::receive ? lane::receive : lane::compute;
}

struct action {
  action_kind kind = action_kind::compute;
  std::uint8_t chunk = 0;           ///< of the weight gradient that is sent, or that gets another one added
  std::uint8_t other_chunk = 0;     ///< accumulate without a channel: of the weight gradient that is added
  tensor_id what{};                 ///< received, sent or added
  std::uint32_t channel = no_slot;  ///< no_slot for compute, and for accumulate if both gradients are on this rank
  std::uint32_t buffer = no_slot;   ///< of the message; no_slot where there is no channel
  std::uint32_t index = 0;  ///< compute: the cell; accumulate: the stage whose weight gradient gets the other added

  friend constexpr bool operator==(const action&, const action&) = default;
};

/// True for actions that post a message.
constexpr bool is_message(const action& a) noexcept { return lane_of(a.kind) != lane::compute; }
/// True for actions on a weight gradient.
constexpr bool is_weight_gradient(const action& a) noexcept { return a.what.kind == tensor_kind::weight_gradient; }

/// The slots of one op. Tensors between stages of one rank also have a buffer.
struct op_slots {
  /// Kept from the start of F to the end of B or W. If it is recomputed: while F runs, and from the start of R, RB or RI.
  std::uint32_t activation = no_slot;
  std::uint32_t context = no_slot;  ///< kept from the start of I to the end of W; for a whole B while it runs
  /// The input from which recomputation starts: kept from the start of F to the end of R, RB or RI; no_slot if nothing is
  /// recomputed.
  std::uint32_t kept_input = no_slot;
  /// The buffer that it reads; no_slot for the first stage's F, the last stage's B or I, R, and W.
  std::uint32_t input = no_slot;
  /// The buffer that it writes; no_slot for the last stage's F, the first trained stage's B or I, R, and W.
  std::uint32_t output = no_slot;

  friend constexpr bool operator==(const op_slots&, const op_slots&) = default;
};

/// The kinds of slots of a rank.
enum class pool : std::uint8_t {
  activation,    ///< as many as the rank's peak of activations
  context,       ///< as many as the rank's peak of pending W, and of B that run
  kept_input,    ///< as many as the rank's peak of activations that are not kept and will be recomputed
  tensor,        ///< one activation or gradient each: received, sent or between stages of the rank
  reduction,     ///< one received weight gradient each
  sent_gradient  ///< the trainer's own memory: one for each weight gradient that is sent
};
inline constexpr std::array<std::string_view, 6> pool_names = {"activation", "context",   "kept input",
                                                               "tensor",     "reduction", "sent gradient"};

/// The number of slots of each kind that a rank needs: `sizes[pool::activation]`.
///
/// Buffers have one row of numbers: tensors first, then reductions, then sent gradients.
struct pool_sizes {
  std::array<std::uint32_t, pool_names.size()> sizes{};

  constexpr std::uint32_t& operator[](pool p) noexcept { return sizes[static_cast<std::size_t>(p)]; }
  constexpr std::uint32_t operator[](pool p) const noexcept { return sizes[static_cast<std::size_t>(p)]; }

  /// Number of buffers for which a trainer has memory: tensors and reductions.
  constexpr std::uint32_t owned_buffers() const noexcept { return (*this)[pool::tensor] + (*this)[pool::reduction]; }
  /// Number of all buffers.
  constexpr std::uint32_t buffers() const noexcept { return owned_buffers() + (*this)[pool::sent_gradient]; }

  friend constexpr bool operator==(const pool_sizes&, const pool_sizes&) = default;
};

/// The larger of each size: for a trainer that runs two programs.
constexpr pool_sizes larger(pool_sizes a, const pool_sizes& b) noexcept {
  for (std::size_t i = 0; i < pool_names.size(); ++i) {
    const pool p = static_cast<pool>(i);
    a[p] = std::max(a[p], b[p]);
  }
  return a;
}

/// The result of lower(), which verify() proves. A plain value, like a schedule.
struct program {
  pipesched::schedule schedule;
  std::vector<channel> channels;
  rows<action> actions;                 ///< one row per rank
  rows<std::array<op_slots, 2>> slots;  ///< by rank and cell: of both ops
  std::vector<pool_sizes> pools;        ///< by rank

  friend bool operator==(const program&, const program&) = default;
};

namespace detail {

/// @throws schedule_error unless the program has that rank
inline void require_rank(const program& p, std::integral auto number) {
  const std::size_t ranks = p.actions.size();
  const bool is_negative = std::cmp_less(number, 0);
  if (is_negative || std::cmp_greater_equal(number, ranks))
    throw schedule_error(ranks == 0 ? concat({"a program of 0 ranks; got rank ", number})
                                    : concat({"a program of ", count_text(ranks, "rank"), " has ranks 0 to ", ranks - 1,
                                              "; got rank ", number, ", nearest ", is_negative ? 0 : ranks - 1}));
}

// Calls `f(buffer, tensor)` for every tensor that a buffer of the rank ever holds.
template <typename F>
void for_each_held(const program& p, std::size_t rank, F&& f) {
  const stage_chain chain = p.schedule.chain();
  for (const action& a : p.actions[rank]) {
    if (a.kind == action_kind::receive) f(a.buffer, a.what);
    if (a.kind != action_kind::compute) continue;
    const cell& c = p.schedule[rank][a.index];
    for (std::size_t i = 0; i < c.size(); ++i)
      if (const auto made = output_of(c[i], chain)) f(p.slots[rank][a.index][i].output, *made);
  }
}

}  // namespace detail

/// Bytes that each buffer of a rank needs, by its number: `bytes_of(message)` of the largest message that it ever holds, 0 for
/// sent gradients. Stages may differ in their sizes. Linear in the number of actions.
/// @throws schedule_error if the program has no such rank
template <typename BytesOf>
std::vector<std::size_t> buffer_bytes(const program& p, std::integral auto number, BytesOf&& bytes_of) {
  detail::require_rank(p, number);
  const auto rank = static_cast<std::size_t>(number);
  std::vector<std::size_t> bytes(p.pools[rank].buffers(), 0);
  detail::for_each_held(p, rank, [&](std::uint32_t buffer, tensor_id message) {
    bytes[buffer] = std::max<std::size_t>(bytes[buffer], bytes_of(message));
  });
  return bytes;
}

/// 64-bit hash of cells and actions, to detect ranks that run different programs.
inline std::uint64_t fingerprint(const program& p) {
  std::uint64_t hash = p.schedule.pp();
  const auto add = [&](std::uint64_t value) { hash = (hash ^ value) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29; };
  for (const action& a : p.actions.all()) {
    add(std::uint64_t{a.what.stage} << 48 | static_cast<std::uint64_t>(a.kind) << 40 | a.what.micro);
    add(std::uint64_t{a.channel} << 32 | static_cast<std::uint64_t>(a.what.kind));
  }
  for (const cell& c : p.schedule.cells.all())
    for (const op o : c) add(std::uint64_t{o.stage} << 48 | static_cast<std::uint64_t>(o.pass) << 40 | o.micro);
  return hash;
}

namespace detail {

/// The stages of every rank, by chunk. Linear in stages and ranks, unlike placement::stages_of() for every rank.
inline std::vector<std::vector<std::uint16_t>> hosted_stages(const schedule& s) {
  std::vector<std::vector<std::uint16_t>> hosted(s.pp());
  for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica)
    for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
      hosted[s.placement.rank_of_stage(replica)[stage]].push_back(static_cast<std::uint16_t>(stage));
  return hosted;
}

}  // namespace detail

}  // namespace pipesched
