// SPDX-License-Identifier: MIT
#pragma once

// From a schedule to a program: which messages go where, when receives are posted, and the slot of everything that is kept.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/program/wiring.hpp"
#include "pipesched/rows.hpp"
#include "pipesched/schedule.hpp"
#include "pipesched/verify.hpp"

namespace pipesched {

struct lower_options {
  /// Buffers of every channel on either side, 1 or more: a receive is posted as soon as one is free, and a rank may run
  /// ahead of its receiver by as many. A channel whose messages are not used in the order in which they come gets as many
  /// as that needs. With equal stages 1 costs 1F1B, zero bubble and DualPipe no time; interleaved families want up to 6,
  /// looped BFS as many as micro-batches.
  std::uint32_t depth = 4;
  /// Pairs of stages that share their weights, such as the embedding and the head. A stage is in one pair at most.
  std::vector<std::array<std::uint16_t, 2>> tied{};
};

namespace detail {

/// Numbers from 0 on, the last one given back first. Handed out in the order in which intervals begin, they are as few as
/// intervals overlap: the least there can be.
class number_pool {
 public:
  std::uint32_t take() {
    if (free_.empty()) return size_++;
    const std::uint32_t number = free_.back();
    free_.pop_back();
    return number;
  }
  void give(std::uint32_t number) { free_.push_back(number); }
  std::uint32_t size() const { return size_; }

 private:
  std::uint32_t size_ = 0;
  std::vector<std::uint32_t> free_;
};

/// The receives of a channel, as its receiver posts them: in the order in which the messages are sent, each as early as a
/// buffer is free; a weight gradient has a buffer of its own.
class receives {
 public:
  receives(std::span<const tensor_id> messages, std::uint32_t buffers)
      : messages_(messages), free_(buffers), buffers_(buffers) {}

  /// Posts the next one, if there is one and a buffer. One that is needed at once gets a new buffer where none is free.
  bool post(bool needed) {
    if (posted_ == messages_.size()) return false;
    if (messages_[posted_].kind != tensor_kind::weight_gradient) {
      if (free_ == 0 && !needed) return false;
      if (free_ == 0)
        ++buffers_;
      else
        --free_;
    }
    ++posted_;
    return true;
  }
  void give_back() { ++free_; }
  std::uint32_t posted() const { return posted_; }
  std::uint32_t buffers() const { return buffers_; }

 private:
  std::span<const tensor_id> messages_;
  std::uint32_t free_, buffers_, posted_ = 0;
};

/// Runs the cells of all ranks where a send ends only when its receive is posted, to find out which channels are too
/// shallow.
class depth_search {
 public:
  depth_search(const schedule& s, const wiring& w, const std::vector<channel>& channels)
      : s_(s), wiring_(w), channels_(channels), sent_(channels.size(), 0), ranks_(s.pp()) {
    for (std::uint32_t c = 0; c < channels.size(); ++c) {
      receives_.emplace_back(w.messages(c), channels[c].receive_buffers);
      while (receives_[c].post(false)) {
      }
    }
  }

  /// The channels into which ranks wait to send when no rank can go on: those of a circle among them. None if all ranks
  /// end.
  std::vector<std::uint32_t> too_shallow() {
    for (std::uint32_t rank = static_cast<std::uint32_t>(ranks_.size()); rank-- > 0;) runnable_.push_back(rank);
    while (!runnable_.empty()) {
      const std::uint32_t rank = runnable_.back();
      runnable_.pop_back();
      run(rank);
    }
    std::vector<std::uint32_t> channels;
    for (const rank_state& r : ranks_)
      if (r.waits == rank_state::to_send) channels.push_back(r.waits_for.channel);
    return channels;
  }

 private:
  struct rank_state {
    std::size_t next = 0, op = 0, next_leaving = 0;  // cell, and its first op
    enum { no, to_receive, to_send } waits = no;
    route waits_for;
  };

  void run(std::uint32_t r) {
    rank_state& rank = ranks_[r];
    rank.waits = rank_state::no;
    const std::span<const cell> row = s_[r];
    for (; rank.next < row.size(); ++rank.next) {
      const std::span<const routes> ops = wiring_.ops(r).subspan(rank.op, row[rank.next].size());
      for (const routes& op : ops)
        if (op.input.crosses())
          while (receives_[op.input.channel].posted() <= op.input.number) post(op.input.channel, true);
      for (const routes& op : ops)
        if (op.input.crosses() && sent_[op.input.channel] <= op.input.number)
          return wait(rank, rank_state::to_receive, op.input);
      for (const routes& op : ops)
        if (op.output.crosses())
          if (const route last = last_in_buffer(op.output);
              last.exists() && receives_[last.channel].posted() <= last.number)
            return wait(rank, rank_state::to_send, last);
      for (const routes& op : ops)
        if (op.input.crosses()) {
          receives_[op.input.channel].give_back();
          while (post(op.input.channel, false)) {
          }
        }
      for (const routes& op : ops)
        if (op.output.crosses()) send(op.output.channel);
      wiring_.for_each_leaving(r, rank.next, rank.next_leaving,
                               [&](const exchange& e) { send(wiring_.channel_between(e.from, e.to)); });
      rank.op += ops.size();
    }
  }
  void wait(rank_state& rank, decltype(rank_state::waits) why, route what) {
    rank.waits = why;
    rank.waits_for = what;
  }
  // The message before this one in its send buffer, or none.
  route last_in_buffer(route to) const {
    const std::uint32_t buffers = channels_[to.channel].send_buffers;
    while (to.number >= buffers) {
      to.number -= buffers;
      if (wiring_.messages(to.channel)[to.number].kind != tensor_kind::weight_gradient) return to;
    }
    return {};
  }
  bool post(std::uint32_t channel, bool needed) {
    if (!receives_[channel].post(needed)) return false;
    wake(channels_[channel].from, rank_state::to_send, {channel, receives_[channel].posted() - 1});
    return true;
  }
  void send(std::uint32_t channel) { wake(channels_[channel].to, rank_state::to_receive, {channel, sent_[channel]++}); }
  void wake(std::uint32_t rank, decltype(rank_state::waits) why, route what) {
    const rank_state& r = ranks_[rank];
    if (r.waits == why && r.waits_for.channel == what.channel && r.waits_for.number == what.number)
      runnable_.push_back(rank);
  }

  const schedule& s_;
  const wiring& wiring_;
  const std::vector<channel>& channels_;
  std::vector<receives> receives_;   // by channel
  std::vector<std::uint32_t> sent_;  // likewise
  std::vector<rank_state> ranks_;
  std::vector<std::uint32_t> runnable_;
};

class lowering {
 public:
  lowering(const schedule& s, const lower_options& options)
      : s_(s), wiring_(s, options.tied), hosted_(hosted_stages(s)) {
    p_ = {.schedule = s,
          .channels = wiring_.channels(),
          .actions = rows<action>::for_overwrite(wiring_.actions()),
          .slots = rows<std::array<op_slots, 2>>::for_overwrite_like(s.cells),
          .pools = std::vector<pool_sizes>(s.pp())};
    find_depths(options.depth);
    for (std::uint32_t c = 0; c < p_.channels.size(); ++c)
      in_.emplace_back(wiring_.messages(c), p_.channels[c].receive_buffers);
    first_send_buffer_.resize(p_.channels.size());
  }

  program run() {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) lower_rank(rank);
    return std::move(p_);
  }

 private:
  // As many as asked for, and more where ranks would wait in a circle.
  void find_depths(std::uint32_t depth) {
    std::vector<std::uint64_t> depths(p_.channels.size(), depth);
    for (bool enough = false; !enough;) {
      for (std::uint32_t c = 0; c < depths.size(); ++c) {
        channel& of = p_.channels[c];
        const std::uint32_t tensors = wiring_.tensors(c);
        of.receive_buffers = static_cast<std::uint32_t>(std::min<std::uint64_t>(depths[c], tensors));
        of.send_buffers = std::max(of.receive_buffers, std::min(wiring_.least_send_buffers(c), tensors));
      }
      enough = true;
      for (const std::uint32_t c : depth_search(s_, wiring_, p_.channels).too_shallow()) {
        depths[c] += p_.channels[c].send_buffers;
        enough = false;
      }
    }
  }

  // What a rank knows of a channel into it.
  struct incoming {
    incoming(std::span<const tensor_id> messages, std::uint32_t buffers)
        : receives(messages, buffers), buffer_of(messages.size(), no_slot) {}
    detail::receives receives;
    std::vector<std::uint32_t> free{};        // buffers, of which the last is taken next
    std::vector<std::uint32_t> buffer_of;     // by message
    std::vector<std::uint32_t> reductions{};  // those of weight gradients, in order
    std::size_t reduced = 0;
  };

  void lower_rank(std::uint32_t rank) {
    const std::span<const cell> row = s_[rank];
    const routes* of_op = wiring_.ops(rank).data();
    const auto slots = p_.slots[rank];
    action* next_action = p_.actions[rank].data();
    std::uint32_t buffers = 0, reductions = 0;
    std::vector<std::uint32_t> channels_in;
    for (const std::uint32_t c : wiring_.channels_at(rank))
      if (p_.channels[c].to == rank) {
        channels_in.push_back(c);
        for (std::uint32_t i = p_.channels[c].receive_buffers; i-- > 0;) in_[c].free.push_back(buffers + i);
        buffers += p_.channels[c].receive_buffers;
      } else {
        first_send_buffer_[c] = buffers;
        buffers += p_.channels[c].send_buffers;
      }

    const auto post = [&](std::uint32_t channel, bool needed) {
      incoming& from = in_[channel];
      const std::uint32_t number = from.receives.posted();
      if (!from.receives.post(needed)) return false;
      const tensor_id m = wiring_.messages(channel)[number];
      std::uint32_t buffer = no_slot;
      if (m.kind == tensor_kind::weight_gradient) {
        from.reductions.push_back(buffer = reductions++);
      } else if (from.free.empty()) {
        buffer = buffers++;
      } else {
        buffer = from.free.back();
        from.free.pop_back();
      }
      from.buffer_of[number] = buffer;
      *next_action++ = {action_kind::receive, m, channel, buffer, 0};
      return true;
    };
    const auto send_weights = [&](const exchange& e) {
      *next_action++ = {action_kind::send,
                        {tensor_kind::weight_gradient, e.stage, 0},
                        wiring_.channel_between(e.from, e.to),
                        no_slot,
                        0};
    };

    // Slots that are taken by one op and given back by another of the same stage and micro-batch.
    number_pool activations, contexts, local;
    const auto at = [&](op o) { return std::size_t{o.chunk} * s_.micro + o.micro; };
    std::vector<std::uint32_t> activation_of(hosted_[rank].size() * s_.micro, no_slot);
    std::vector<std::uint32_t> context_of(activation_of), local_buffer(wiring_.local(rank));

    for (const std::uint32_t c : channels_in)
      while (post(c, false)) {
      }
    std::size_t next_leaving = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const cell& c = row[i];
      const std::span<const routes> routed(of_op, c.size());
      of_op += c.size();
      slots[i] = {};
      for (std::size_t k = 0; k < routed.size(); ++k) {
        op_slots& of = slots[i][k];
        if (const route in = routed[k].input; in.crosses()) {
          while (in_[in.channel].receives.posted() <= in.number) post(in.channel, true);
          of.input = in_[in.channel].buffer_of[in.number];
        } else if (in.exists()) {
          of.input = local_buffer[in.number];
        }
        if (c[k].pass == pass::forward) activation_of[at(c[k])] = activations.take();
        if (c[k].pass == pass::backward_input) context_of[at(c[k])] = contexts.take();
        of.activation = activation_of[at(c[k])];
        if (c[k].pass == pass::backward_input || c[k].pass == pass::backward_weight) of.context = context_of[at(c[k])];
      }
      for (std::size_t k = 0; k < routed.size(); ++k)
        if (const route out = routed[k].output; out.crosses())
          slots[i][k].output = first_send_buffer_[out.channel] + out.number % p_.channels[out.channel].send_buffers;
        else if (out.exists())
          slots[i][k].output = local_buffer[out.number] = local.take();
      *next_action++ = {action_kind::compute, {}, no_slot, no_slot, static_cast<std::uint32_t>(i)};

      for (std::size_t k = 0; k < routed.size(); ++k) {
        if (const route in = routed[k].input; in.crosses()) {
          in_[in.channel].free.push_back(slots[i][k].input);
          in_[in.channel].receives.give_back();
          while (post(in.channel, false)) {
          }
        } else if (in.exists()) {
          local.give(slots[i][k].input);
        }
        if (s_.forward_only || yields_weight_gradient(c[k].pass)) activations.give(slots[i][k].activation);
        if (c[k].pass == pass::backward_weight) contexts.give(slots[i][k].context);
      }
      for (std::size_t k = 0; k < routed.size(); ++k)
        if (const route out = routed[k].output; out.crosses())
          *next_action++ = {action_kind::send, wiring_.messages(out.channel)[out.number], out.channel,
                            slots[i][k].output, 0};
      wiring_.for_each_leaving(rank, i, next_leaving, send_weights);
    }

    // All receives are posted by now, but for weight gradients behind nothing else.
    for (const std::uint32_t c : channels_in) {
      while (post(c, false)) {
      }
      p_.channels[c].receive_buffers = in_[c].receives.buffers();
    }
    const auto reduce = [&](const exchange& e) {
      action a{action_kind::accumulate, {tensor_kind::weight_gradient, e.stage, 0}, no_slot, no_slot, e.own};
      if (e.from != e.to) {
        a.channel = wiring_.channel_between(e.from, e.to);
        a.buffer = in_[a.channel].reductions[in_[a.channel].reduced++];
      }
      *next_action++ = a;
    };
    for (const exchange& e : wiring_.replicas(rank)) reduce(e);
    for (const exchange& e : wiring_.tied(rank))
      if (e.from == rank && e.to != rank) send_weights(e);
    for (const exchange& e : wiring_.tied(rank))
      if (e.to == rank) reduce(e);

    // Local buffers come behind the others.
    of_op = wiring_.ops(rank).data();
    for (std::size_t i = 0; local.size() > 0 && i < row.size(); ++i)
      for (std::size_t k = 0; k < row[i].size(); ++k) {
        const routes& of = *of_op++;
        if (of.input.exists() && !of.input.crosses()) slots[i][k].input += buffers;
        if (of.output.exists() && !of.output.crosses()) slots[i][k].output += buffers;
      }
    p_.pools[rank] = {activations.size(), contexts.size(), buffers + local.size(), reductions};
  }

  const schedule& s_;
  wiring wiring_;
  std::vector<std::vector<std::uint16_t>> hosted_;  // by rank
  program p_;
  std::vector<incoming> in_;                      // by channel
  std::vector<std::uint32_t> first_send_buffer_;  // likewise
};

inline void check_tied(const schedule& s, const std::vector<std::array<std::uint16_t, 2>>& tied) {
  std::vector<bool> taken(s.stages());
  for (const auto& pair : tied) {
    if (pair[0] == pair[1] || std::max(pair[0], pair[1]) >= s.stages())
      throw schedule_error(concat({"tied are two stages below ", s.stages(), "; got ", pair[0], " and ", pair[1]}));
    for (const std::uint16_t stage : pair) {
      if (taken[stage]) throw schedule_error(concat({"a stage is tied to one other; got two for stage ", stage}));
      taken[stage] = true;
    }
  }
}

}  // namespace detail

/// Lowers a verified schedule, as below, without verifying it again.
inline program lower(const schedule& s, const lower_options& options, verified_t) {
  if (options.depth < 1) throw schedule_error("lower() takes a depth of at least 1; got 0, nearest 1");
  detail::check_tied(s, options.tied);
  return detail::lowering(s, options).run();
}

/// The program of a schedule. Receives are posted as early as a buffer is free, so no message delays another one. If
/// ranks would wait for each other in a circle because channels have too few buffers, those channels get more.
/// @throws schedule_error when the schedule is not valid, depth is 0, or a tied stage does not exist or is tied twice.
/// Linear in the numbers of ops, stages and ranks, apart from the rounds that find depths for too shallow channels.
inline program lower(const schedule& s, const lower_options& options = {}) {
  require_valid(s);
  return lower(s, options, verified);
}

}  // namespace pipesched
