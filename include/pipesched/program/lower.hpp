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

#include "pipesched/dependencies.hpp"
#include "pipesched/error.hpp"
#include "pipesched/program/play.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/schedule.hpp"
#include "pipesched/verify.hpp"

namespace pipesched {

struct lower_options {
  /// Buffers of every channel on either side, 1 or more: a receive is posted as soon as one is free, and a rank may run ahead of
  /// its receiver by as many. A channel whose messages are not used in the order in which they come gets as many as that needs.
  /// With equal stages 1 costs 1F1B, zero bubble and DualPipe no time; interleaved families want up to 6, looped BFS as many as
  /// micro-batches.
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

class lowering {
 public:
  lowering(const schedule& s, const lower_options& options) : s_(s), options_(options), place_(s, place{}) {
    find_exchanges();
    lay_out_channels();
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      actions_.push_back(s_[rank].size() + replicas_[rank].size());
      for (const exchange& e : tied_[rank]) actions_.back() += e.to == rank;
    }
    for (const channel& c : channels_) actions_[c.from] += c.messages, actions_[c.to] += c.messages;
  }

  /// With buffers of this depth. `deeper[c]` more on channel c.
  program run(const std::vector<std::uint32_t>& deeper) {
    program p{.schedule = s_,
              .channels = channels_,
              .actions = rows<action>::for_overwrite(actions_),
              .slots = rows<std::array<op_slots, 2>>::for_overwrite_like(s_.cells),
              .pools = std::vector<pool_sizes>(s_.pp())};
    for (std::size_t c = 0; c < p.channels.size(); ++c) {
      channel& of = p.channels[c];
      of.receive_buffers = std::min(options_.depth + (c < deeper.size() ? deeper[c] : 0), tensors_[c]);
      of.send_buffers = std::max(of.receive_buffers, std::min(least_send_buffers_[c], tensors_[c]));
    }
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) lower_rank(p, rank);
    return p;
  }

 private:
  // Where a tensor goes: its channel and its number there. A local one: its buffer.
  struct place {
    std::uint32_t channel = no_slot, number = no_slot;
  };
  // Rank `to` adds the weight gradient that `from` has of `stage` to that of its `own` stage.
  struct exchange {
    std::uint32_t from, to;
    std::uint16_t stage, own;
  };
  struct outgoing {
    std::size_t cell;  // after which it can leave
    exchange what;
  };

  // The channel, a new one if there is none yet.
  std::uint32_t channel_between(std::uint32_t from, std::uint32_t to) {
    for (const auto& [rank, channel] : channels_of_[from])
      if (rank == to) return channel;
    const auto channel = static_cast<std::uint32_t>(channels_.size());
    channels_.push_back({.from = static_cast<std::uint16_t>(from), .to = static_cast<std::uint16_t>(to)});
    channels_of_[from].push_back({to, channel});
    messages_.emplace_back();
    least_send_buffers_.push_back(1), tensors_.push_back(0);
    return channel;
  }
  void enqueue(std::uint32_t channel, message m) {
    messages_[channel].push_back(m);
    tensors_[channel] += m.what != payload::weights;
    channels_[channel].messages = static_cast<std::uint32_t>(messages_[channel].size());
  }

  std::uint32_t home(std::uint16_t stage, std::uint32_t replica) const {
    return s_.placement.rank_of_stage(replica)[stage];
  }

  void lay_out_channels() {
    channels_of_.assign(s_.pp(), {});
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      std::size_t next = 0;
      for (std::size_t i = 0; i < s_[rank].size(); ++i) {
        std::uint32_t first_channel = no_slot;  // of the cell's outputs
        for (op o : s_[rank][i])
          if (const auto out = output_of(o, s_.stages())) {
            const std::uint32_t to = s_.placement.rank_of(receiver_of(*out), out->micro);
            if (to == rank) continue;
            const std::uint32_t channel = channel_between(rank, to);
            if (channel == first_channel) least_send_buffers_[channel] = 2;
            first_channel = channel;
            place_[*out] = {channel, channels_[channel].messages};
            enqueue(channel, message_of(*out));
          }
        for (; next < leaving_[rank].size() && leaving_[rank][next].cell == i; ++next)
          enqueue_exchange(leaving_[rank][next].what);
      }
      for (const exchange& e : tied_[rank])
        if (e.from == rank && e.to != rank) enqueue_exchange(e);
    }
  }
  void enqueue_exchange(const exchange& e) { enqueue(channel_between(e.from, e.to), {payload::weights, e.stage, 0}); }

  // Replicas of a stage are exchanged as soon as its last W or B has run, stages with tied weights after all replicas.
  void find_exchanges() {
    leaving_.assign(s_.pp(), {}), replicas_.assign(s_.pp(), {}), tied_.assign(s_.pp(), {});
    if (s_.forward_only) return;
    if (s_.placement.replicas() == 2)
      for (std::uint16_t stage = 0; stage < s_.stages(); ++stage) {
        const std::uint32_t a = home(stage, 0), b = home(stage, 1);
        if (a == b) continue;
        for (const exchange& e : {exchange{a, b, stage, stage}, exchange{b, a, stage, stage}}) {
          leaving_[e.from].push_back({last_backward(e.from, stage), e});
          replicas_[e.to].push_back(e);
        }
      }
    for (auto& of : leaving_)
      std::stable_sort(of.begin(), of.end(), [](const outgoing& x, const outgoing& y) { return x.cell < y.cell; });
    const auto hosts = [&](std::uint32_t rank, std::uint16_t stage) {
      for (std::uint32_t replica = 0; replica < s_.placement.replicas(); ++replica)
        if (home(stage, replica) == rank) return true;
      return false;
    };
    for (const auto& [x, y] : options_.tied)
      for (std::uint32_t replica = 0; replica < s_.placement.replicas(); ++replica) {
        const std::uint32_t a = home(x, replica), b = home(y, replica);
        if (hosts(a, y)) {  // has both
          if (replica == 0 || a != home(x, 0)) tied_[a].push_back({a, a, y, x});
          continue;
        }
        for (const exchange& e : {exchange{a, b, x, y}, exchange{b, a, y, x}}) {
          tied_[e.from].push_back(e);
          tied_[e.to].push_back(e);
        }
      }
  }
  std::size_t last_backward(std::uint32_t rank, std::uint16_t stage) const {
    std::size_t i = s_[rank].size();
    while (i-- > 0)
      for (op o : s_[rank][i])
        if (o.stage == stage && yields_weight_gradient(o.pass)) return i;
    return 0;
  }

  // What a rank knows of a channel into it.
  struct incoming {
    std::uint32_t channel;
    std::uint32_t posted = 0;                // messages with a receive
    std::vector<std::uint32_t> free{};       // buffers
    std::vector<std::uint32_t> buffer_of{};  // by message
  };

  void lower_rank(program& p, std::uint32_t rank) {
    action* next_action = p.actions[rank].data();
    const auto slots = p.slots[rank];
    std::fill(slots.begin(), slots.end(), std::array<op_slots, 2>{});
    std::uint32_t buffers = 0, reductions = 0;
    std::vector<incoming> in;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> send_buffers;  // of channels out of it: the first buffer
    for (std::uint32_t c = 0; c < p.channels.size(); ++c) {
      if (p.channels[c].to == rank) {
        in.push_back({.channel = c});
        in.back().buffer_of.resize(p.channels[c].messages, no_slot);
        for (std::uint32_t i = p.channels[c].receive_buffers; i-- > 0;) in.back().free.push_back(buffers + i);
        buffers += p.channels[c].receive_buffers;
      } else if (p.channels[c].from == rank) {
        send_buffers.push_back({c, buffers});
        buffers += p.channels[c].send_buffers;
      }
    }
    std::vector<std::vector<std::uint32_t>> reduction_buffers(
        p.channels.size());                               // of posted weight gradients, in order
    const auto post = [&](incoming& from, bool needed) {  // the next receive; whether there is one and a buffer
      const auto& queue = messages_[from.channel];
      if (from.posted == queue.size()) return false;
      const message m = queue[from.posted];
      std::uint32_t buffer = no_slot;
      if (m.what == payload::weights) {
        buffer = reductions++;
        reduction_buffers[from.channel].push_back(buffer);
      } else {
        if (from.free.empty() && !needed) return false;
        if (from.free.empty()) {
          from.free.push_back(buffers++);
          ++p.channels[from.channel].receive_buffers;
        }
        buffer = from.free.back();
        from.free.pop_back();
      }
      from.buffer_of[from.posted++] = buffer;
      *next_action++ = {action_kind::receive, m, from.channel, buffer, 0};
      return true;
    };
    const auto find_in = [&](std::uint32_t channel) -> incoming& {
      return *std::find_if(in.begin(), in.end(), [&](const incoming& i) { return i.channel == channel; });
    };
    const auto send_buffer = [&](place to) {
      const auto at =
          std::find_if(send_buffers.begin(), send_buffers.end(), [&](const auto& b) { return b.first == to.channel; });
      return at->second + to.number % p.channels[to.channel].send_buffers;
    };
    const auto send_weights = [&](const exchange& e) {
      *next_action++ = {action_kind::send, {payload::weights, e.stage, 0}, channel_between(e.from, e.to), no_slot, 0};
    };

    // Slots that are taken by one op and given back by another of the same stage and micro-batch.
    number_pool activations, contexts, local;
    std::vector<std::uint16_t> hosted = s_.placement.stages_of(rank);
    const auto at = [&](op o) { return std::size_t{o.chunk} * s_.micro + o.micro; };
    std::vector<std::uint32_t> activation_of(hosted.size() * s_.micro, no_slot), context_of(activation_of);

    for (incoming& from : in)
      while (post(from, false)) {
      }
    std::size_t next_leaving = 0;
    for (std::size_t i = 0; i < s_[rank].size(); ++i) {
      const cell& c = s_[rank][i];
      for (std::size_t k = 0; k < c.size(); ++k) {
        op_slots& of = slots[i][k];
        if (const auto input = input_of(c[k], s_.stages())) {
          const place from = place_[*input];
          if (from.channel != no_slot) {
            incoming& channel = find_in(from.channel);
            while (channel.posted <= from.number) post(channel, true);
            of.input = channel.buffer_of[from.number];
          } else {
            of.input = from.number;
          }
        }
        if (c[k].pass == pass::forward) activation_of[at(c[k])] = activations.take();
        if (c[k].pass == pass::backward_input) context_of[at(c[k])] = contexts.take();
        of.activation = activation_of[at(c[k])];
        if (c[k].pass == pass::backward_input || c[k].pass == pass::backward_weight) of.weights = context_of[at(c[k])];
      }
      for (std::size_t k = 0; k < c.size(); ++k)
        if (const auto output = output_of(c[k], s_.stages())) {
          place& to = place_[*output];
          if (to.channel == no_slot) to.number = local.take();
          slots[i][k].output = to.channel == no_slot ? to.number : send_buffer(to);
        }
      *next_action++ = {action_kind::compute, {}, no_slot, no_slot, static_cast<std::uint32_t>(i)};

      for (std::size_t k = 0; k < c.size(); ++k) {
        if (const auto input = input_of(c[k], s_.stages())) {
          const place from = place_[*input];
          if (from.channel == no_slot) {
            local.give(from.number);
          } else {
            incoming& channel = find_in(from.channel);
            channel.free.push_back(slots[i][k].input);
            while (post(channel, false)) {
            }
          }
        }
        if (s_.forward_only || yields_weight_gradient(c[k].pass)) activations.give(slots[i][k].activation);
        if (c[k].pass == pass::backward_weight) contexts.give(slots[i][k].weights);
      }
      for (std::size_t k = 0; k < c.size(); ++k)
        if (const auto output = output_of(c[k], s_.stages()); output && place_[*output].channel != no_slot)
          *next_action++ = {action_kind::send, message_of(*output), place_[*output].channel, slots[i][k].output, 0};
      for (; next_leaving < leaving_[rank].size() && leaving_[rank][next_leaving].cell == i; ++next_leaving)
        send_weights(leaving_[rank][next_leaving].what);
    }

    // All receives are posted by now, but for weight gradients behind nothing else.
    for (incoming& from : in)
      while (post(from, false)) {
      }
    std::vector<std::size_t> taken(p.channels.size(), 0);
    const auto reduce = [&](const exchange& e) {
      action a{action_kind::reduce, {payload::weights, e.stage, 0}, no_slot, no_slot, e.own};
      if (e.from != e.to) {
        a.channel = channel_between(e.from, e.to);
        a.buffer = reduction_buffers[a.channel][taken[a.channel]++];
      }
      *next_action++ = a;
    };
    for (const exchange& e : ordered(replicas_[rank])) reduce(e);
    for (const exchange& e : tied_[rank])
      if (e.from == rank && e.to != rank) send_weights(e);
    for (const exchange& e : tied_[rank])
      if (e.to == rank) reduce(e);

    // Local buffers come behind the others.
    for (std::size_t i = 0; local.size() > 0 && i < slots.size(); ++i)
      for (std::size_t k = 0; k < s_[rank][i].size(); ++k) {
        const op o = s_[rank][i][k];
        if (const auto input = input_of(o, s_.stages()); input && place_[*input].channel == no_slot)
          slots[i][k].input += buffers;
        if (const auto output = output_of(o, s_.stages()); output && place_[*output].channel == no_slot)
          slots[i][k].output += buffers;
      }
    p.pools[rank] = {activations.size(), contexts.size(), buffers + local.size(), reductions};
  }

  // In the order in which the other ranks send them.
  std::vector<exchange> ordered(const std::vector<exchange>& all) const {
    std::vector<exchange> sorted = all;
    std::stable_sort(sorted.begin(), sorted.end(), [&](const exchange& x, const exchange& y) {
      return x.from == y.from && last_backward(x.from, x.stage) < last_backward(y.from, y.stage);
    });
    return sorted;
  }

  const schedule& s_;
  const lower_options& options_;
  tensor_table<place> place_;
  std::vector<channel> channels_;                                                  // their buffers are set by run()
  std::vector<std::size_t> actions_;                                               // how many each rank has
  std::vector<std::vector<std::pair<std::uint32_t, std::uint32_t>>> channels_of_;  // by sender: receiver, channel
  std::vector<std::vector<message>> messages_;                                     // by channel
  std::vector<std::uint32_t> least_send_buffers_, tensors_;                        // likewise; messages but for weights
  std::vector<std::vector<outgoing>> leaving_;                                     // by sender, by cell
  std::vector<std::vector<exchange>> replicas_, tied_;                             // by receiver; by either
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

/// The program of a valid schedule. Receives are posted as early as a buffer is free, so no message keeps another one waiting; if
/// the buffers are so few that ranks would wait for each other in a circle, those channels get more.
/// @throws schedule_error when the schedule is not valid, depth is 0, or a tied stage does not exist or is tied twice. Linear in the number of ops.
inline program lower(const schedule& s, const lower_options& options = {}) {
  if (const report r = verify(s, 1); !r)
    throw schedule_error("a schedule that is not valid cannot be lowered: " + to_string(r));
  if (options.depth < 1) throw schedule_error("lower() takes a depth of at least 1; got 0, nearest 1");
  detail::check_tied(s, options.tied);
  detail::lowering all(s, options);
  for (std::vector<std::uint32_t> deeper;;) {
    program p = all.run(deeper);
    detail::player<> play(p);
    play.run([](std::uint32_t, const std::string&) {});
    deeper.resize(p.channels.size(), 0);
    bool stuck = false;
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
      const auto& state = play.state(rank);
      if (play.finished(rank) || state.why != detail::player<>::waiting::for_sent) continue;
      stuck = true;
      deeper[state.channel] += p.channels[state.channel].send_buffers;
    }
    if (!stuck) return p;
  }
}

}  // namespace pipesched
