// SPDX-License-Identifier: MIT
#pragma once

// Lowering: from a schedule to a program, in passes.
//
//   route      the messages of every channel, in order              detail/routing.hpp
//   depths     the buffers of every channel                         detail/depths.hpp
//   order      the actions of every rank, in order                  detail/order.hpp
//   allocate   the slots of activations, contexts and buffers       detail/allocate.hpp
//   emit       the actions with their buffers                       detail/emit.hpp
//
// The last three run together, rank by rank: each passes an action on to the next, so nothing is stored between them.

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/program/detail/allocate.hpp"
#include "pipesched/program/detail/depths.hpp"
#include "pipesched/program/detail/emit.hpp"
#include "pipesched/program/detail/order.hpp"
#include "pipesched/program/detail/routing.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

struct lower_options {
  /// Buffers per channel at the sender and at the receiver, 1 or more. A receive is posted as soon as one is free, and a
  /// rank may run ahead of its receiver by as many messages. A channel whose messages are used out of order gets as many as
  /// that needs. With equal stages 1 costs no time for 1F1B, zero bubble and DualPipe; interleaved families need up to 6,
  /// looped BFS one per micro-batch.
  std::int64_t depth = 4;
  /// Groups of stages that share their weights, such as the embedding and the head: {{0, 7}}, {{0, 3, 7}}. A stage is in at
  /// most one group.
  std::vector<std::vector<std::int64_t>> tied{};
};

namespace detail {

// The groups, checked. @throws schedule_error
inline std::vector<std::vector<std::uint16_t>> tied_stages(const schedule& s,
                                                           const std::vector<std::vector<std::int64_t>>& tied) {
  std::vector<std::vector<std::uint16_t>> groups;
  std::vector<bool> taken(s.stages());
  for (const auto& group : tied) {
    if (group.size() < 2) throw schedule_error(concat({"a group of tied stages has at least 2; got ", group.size()}));
    groups.emplace_back();
    std::vector<std::uint32_t> on_rank(s.pp(), 0);
    for (const std::int64_t number : group) {
      if (number < 0 || number >= std::int64_t{s.stages()})
        throw schedule_error(concat({"tied stages are stages 0 to ", s.stages() - 1, "; got ", number, ", nearest ",
                                     number < 0 ? 0 : s.stages() - 1}));
      const auto stage = static_cast<std::uint16_t>(number);
      if (taken[stage])
        throw schedule_error(
            concat({"a stage is in at most one group of tied stages, once; got stage ", stage, " again"}));
      taken[stage] = true;
      if (!s.forward_only && s.backward_of(stage) != stage_backward::full)
        throw schedule_error(concat({"tied stages are trained; stage ", stage, " is frozen"}));
      if (s.placement.replicas() == 2 && s.placement.rank_of_stage(0)[stage] == s.placement.rank_of_stage(1)[stage])
        throw schedule_error(concat({"a stage with both replicas on one rank cannot be tied; got stage ", stage}));
      for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica)
        if (const std::uint16_t rank = s.placement.rank_of_stage(replica)[stage]; ++on_rank[rank] > 2)
          throw schedule_error(concat({"a rank holds at most 2 stages of a group of tied stages; rank ", rank,
                                       " holds a third, stage ", stage}));
      groups.back().push_back(stage);
    }
  }
  return groups;
}

}  // namespace detail

/// Lowers a schedule that the caller has verified, as lower(s, options). @pre verify(s) is true
inline program lower(const schedule& s, const lower_options& options, verified_t) {
  if (options.depth < 1)
    throw schedule_error(detail::concat({"lower() takes a depth of at least 1; got ", options.depth, ", nearest 1"}));
  const detail::message_routing route(s, detail::tied_stages(s, options.tied));
  program p{.schedule = s,
            .channels = route.channels(),
            .actions = rows<action>::for_overwrite(route.actions()),
            .slots = rows<std::array<op_slots, 2>>::for_overwrite_like(s.cells),
            .pools = std::vector<pool_sizes>(s.pp())};
  const detail::depth_trial depths = detail::set_depths(p.channels, s, route, options.depth);
  if (!depths.finished()) require_valid(s);  // throws: the schedule has a cycle of several ranks
  detail::action_order order(s, route, depths, p.channels);
  detail::emission emit(p);
  detail::slot_allocation allocate(route, depths, p, emit);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) order.run(rank, allocate);
  for (std::uint32_t c = 0; c < p.channels.size(); ++c) p.channels[c].receive_buffers = depths.receive_buffers(c);
  return p;
}

/// The program of a schedule. Receives are posted as soon as a buffer is free, so no message delays another one. If
/// `depth` is so small that ranks would wait for each other in a cycle, the channels concerned get more buffers.
/// @throws schedule_error if the schedule is not valid, depth is 0, or for tied stages that do not exist, are frozen,
/// in a group twice, or more than two of a group on one rank.
/// Linear in the numbers of ops, stages and ranks, times the number of rounds in which channels get more buffers.
inline program lower(const schedule& s, const lower_options& options = {}) {
  detail::require_empty(detail::verifier(s, 1).run_without_cycles());
  return lower(s, options,
               verified);  // finds cycles by itself: of several ranks by its depths, within one by its slots
}

}  // namespace pipesched
