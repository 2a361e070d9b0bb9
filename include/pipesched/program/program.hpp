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
#include <cstdint>
#include <span>
#include <string>
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

struct action {
  action_kind kind = action_kind::compute;
  tensor_id what{};                 ///< received, sent or added
  std::uint32_t channel = no_slot;  ///< no_slot for compute, and for accumulate if the other stage is on this rank
  /// In the rank's buffers; for a received weight gradient in its reduction buffers, for a sent one no_slot.
  std::uint32_t buffer = no_slot;
  std::uint32_t index = 0;  ///< compute: the cell; accumulate: the stage whose weight gradient gets the other one added

  friend constexpr bool operator==(const action&, const action&) = default;
};

/// True for actions that post a message.
constexpr bool is_message(const action& a) noexcept {
  return a.kind == action_kind::receive || a.kind == action_kind::send;
}
/// True for actions on a weight gradient.
constexpr bool is_weight_gradient(const action& a) noexcept { return a.what.kind == tensor_kind::weight_gradient; }

/// The slots of one op. Tensors between stages of one rank also have a buffer.
struct op_slots {
  std::uint32_t activation = no_slot;  ///< kept from the start of F to the end of B or W
  std::uint32_t context = no_slot;     ///< kept from the start of I to the end of W; for a whole B while it runs
  std::uint32_t input =
      no_slot;  ///< the buffer that it reads; no_slot for the first stage's F and the last stage's B or I
  std::uint32_t output =
      no_slot;  ///< the buffer that it writes; no_slot for the last stage's F, the first stage's B or I, and W

  friend constexpr bool operator==(const op_slots&, const op_slots&) = default;
};

/// The number of slots of each kind that a rank needs.
struct pool_sizes {
  std::uint32_t activations = 0;  ///< the rank's peak of activations
  std::uint32_t contexts = 0;     ///< the rank's peak of pending W, and of B that run
  std::uint32_t buffers = 0;      ///< one message each: received, sent or between stages of the rank
  std::uint32_t reductions = 0;   ///< one received weight gradient each

  friend constexpr bool operator==(const pool_sizes&, const pool_sizes&) = default;
};

/// The result of lower(), which verify() proves. A plain value, like a schedule.
struct program {
  pipesched::schedule schedule;
  std::vector<channel> channels;
  rows<action> actions;                 ///< one row per rank
  rows<std::array<op_slots, 2>> slots;  ///< by rank and cell: of both ops
  std::vector<pool_sizes> pools;        ///< by rank

  friend bool operator==(const program&, const program&) = default;
};

/// Number of weight gradients that a rank sends, counted from its actions.
inline std::uint32_t weight_gradients_sent(std::span<const action> row) {
  return static_cast<std::uint32_t>(std::count_if(
      row.begin(), row.end(), [](const action& a) { return a.kind == action_kind::send && is_weight_gradient(a); }));
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
