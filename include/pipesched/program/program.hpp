// SPDX-License-Identifier: MIT
#pragma once

// A schedule with its communication: for every rank the actions it takes, in order, and the number of the slot for
// everything that must be kept. All of it is known before the first step, so a trainer allocates once and addresses never
// change.
//
//   action    meaning
//   receive   posts a receive of the next message of a channel into a buffer; does not wait
//   compute   waits for the inputs of a cell and for the buffers of its outputs, and runs it
//   send      posts a send of the next message of a channel from a buffer; does not wait
//   accumulate  waits for the weight gradient of another rank, or takes one of this rank, and adds it
//
// A channel is a directed edge between two ranks: messages leave and arrive in one order, without tags, as NCCL has it.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pipesched/dependencies.hpp"
#include "pipesched/error.hpp"
#include "pipesched/op.hpp"
#include "pipesched/rows.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// "activation 3F12", "gradient 3B12", "weight gradient of stage 3".
inline std::string to_string(tensor_id m) {
  if (m.kind == tensor_kind::weight_gradient) return detail::concat({"weight gradient of stage ", m.stage});
  const bool activation = m.kind == tensor_kind::activation;
  return detail::concat({activation ? "activation " : "gradient ", m.stage, activation ? "F" : "B", m.micro});
}

/// All messages from one rank to another, first in, first out.
struct channel {
  std::uint16_t from = 0, to = 0;
  std::uint32_t messages = 0;
  std::uint32_t receive_buffers = 0;  ///< of `to`: how many messages it can have before it has used them
  std::uint32_t send_buffers = 0;     ///< of `from`: how many it can have made before they have been received

  friend constexpr bool operator==(const channel&, const channel&) = default;
};

/// No slot, buffer or channel.
inline constexpr std::uint32_t no_slot = ~std::uint32_t{0};

enum class action_kind : std::uint8_t { receive, compute, send, accumulate };

struct action {
  action_kind kind = action_kind::compute;
  tensor_id what{};                 ///< received, sent, or reduced
  std::uint32_t channel = no_slot;  ///< of a receive or send, and of a reduce unless the other stage is on this rank
  std::uint32_t buffer =
      no_slot;              ///< of this rank; of a weight gradient: of its reduction buffers, no_slot where it is sent
  std::uint32_t index = 0;  ///< the cell that is run; the stage whose weight gradient takes the other one

  friend constexpr bool operator==(const action&, const action&) = default;
};

/// Does it post a message, and of weight gradients?
constexpr bool is_message(const action& a) noexcept {
  return a.kind == action_kind::receive || a.kind == action_kind::send;
}
constexpr bool is_weight_gradient(const action& a) noexcept { return a.what.kind == tensor_kind::weight_gradient; }

/// The slots of one op. What a stage hands to another on the same rank goes through a buffer, too.
struct op_slots {
  std::uint32_t activation = no_slot;  ///< what F keeps until the end of B or W
  std::uint32_t context = no_slot;     ///< what I keeps for W; a whole B has one while it runs, for its own two halves
  std::uint32_t input = no_slot;       ///< the buffer it reads; none for the first stage's F and the last one's B or I
  std::uint32_t output = no_slot;  ///< the buffer it fills; none for the last stage's F, the first one's B or I, and W

  friend constexpr bool operator==(const op_slots&, const op_slots&) = default;
};

/// How many of each a rank needs.
struct pool_sizes {
  std::uint32_t activations = 0;  ///< the rank's peak of activations
  std::uint32_t contexts = 0;     ///< the rank's peak of pending W, plus B's own while a B runs
  std::uint32_t buffers = 0;      ///< of one message each: to receive into, to send from, to hand over
  std::uint32_t reductions = 0;   ///< of one stage's weights each

  friend constexpr bool operator==(const pool_sizes&, const pool_sizes&) = default;
};

/// What lower() makes of a schedule, and check() proves. A plain value, like a schedule.
struct program {
  pipesched::schedule schedule;
  std::vector<channel> channels;
  rows<action> actions;                 ///< a row a rank
  rows<std::array<op_slots, 2>> slots;  ///< of both ops of every cell
  std::vector<pool_sizes> pools;        ///< of every rank

  friend bool operator==(const program&, const program&) = default;
};

/// How many weight gradients a rank sends, by its actions.
inline std::uint32_t weight_gradients_sent(std::span<const action> row) {
  return static_cast<std::uint32_t>(std::count_if(
      row.begin(), row.end(), [](const action& a) { return a.kind == action_kind::send && is_weight_gradient(a); }));
}

/// A number that programs which differ in what ranks must agree on, actions and cells, hardly ever share.
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

/// The stages that each rank holds, by chunk; by rank. Linear in stages and ranks, where stages_of() for each rank is not.
inline std::vector<std::vector<std::uint16_t>> hosted_stages(const schedule& s) {
  std::vector<std::vector<std::uint16_t>> hosted(s.pp());
  for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica)
    for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
      hosted[s.placement.rank_of_stage(replica)[stage]].push_back(static_cast<std::uint16_t>(stage));
  return hosted;
}

}  // namespace detail

}  // namespace pipesched
