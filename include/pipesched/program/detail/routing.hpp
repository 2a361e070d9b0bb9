// SPDX-License-Identifier: MIT
#pragma once

// Message routing, the first pass of lower(): the messages of every channel, in order, before buffers are numbered.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::detail {

/// The passes that read or make tensors of neighbouring stages.
inline constexpr std::array passes_with_tensors = {pass::forward, pass::backward, pass::backward_input,
                                                   pass::recompute_backward, pass::recompute_backward_input};

/// The channel of a tensor that stays on its rank.
inline constexpr std::uint32_t local_channel = no_slot - 1;

/// The channels of what an op reads and writes: local_channel if that stays on its rank, no_slot if there is nothing.
struct op_channels {
  std::uint32_t input = no_slot, output = no_slot;
};

/// Rank `to` receives the weight gradient of `stage` from rank `from` and adds it to that of its `own` stage.
struct gradient_exchange {
  std::uint32_t from, to;
  std::uint16_t stage, own;
  std::uint8_t chunk, own_chunk;  // of `stage` at `from`, of `own` at `to`
  std::uint16_t round = 0;        // of tied stages: what is sent is the sum of all rounds before
};

class message_routing {
 public:
  message_routing(const schedule& s, const std::vector<std::vector<std::uint16_t>>& tied)
      : s_(s),
        channels_of_(s.pp()),
        channels_at_(s.pp()),
        first_stage_(s.pp() + 1, 0),
        numbers_(std::size_t{2} * s.stages() * s.micro, no_slot),
        sent_after_(s.pp()),
        replicas_(s.pp()),
        tied_(s.pp()) {
    find_exchanges(tied);
    find_neighbours();
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) route_outputs(rank);
    for (std::size_t c = 0; c < channels_.size(); ++c)
      channels_[c].messages = static_cast<std::uint32_t>(messages_[c].size());
  }

  /// All channels with their numbers of messages; their buffers are not set yet.
  const std::vector<channel>& channels() const { return channels_; }
  std::span<const tensor_id> messages(std::uint32_t channel) const { return messages_[channel]; }
  /// Number of activations and gradients in a channel.
  std::uint32_t tensors(std::uint32_t channel) const { return channels_[channel].messages - exchanges_[channel]; }
  /// Number of the first weight gradient in a channel; no_slot if it has none.
  std::uint32_t first_exchange(std::uint32_t channel) const { return first_exchange_[channel]; }
  /// 2 if a cell sends two messages into the channel, else 1.
  std::uint32_t min_send_buffers(std::uint32_t channel) const { return min_send_buffers_[channel]; }
  op_channels channels_of(std::uint32_t rank, op o) const { return route(rank, o.chunk, o.pass).channels; }
  /// The number of an op's input in its channel. @pre it comes from another rank
  std::uint32_t number_of_input(std::uint32_t rank, op o) const {
    return numbers_[route(rank, o.chunk, o.pass).inputs + o.micro];
  }

  /// Calls `f(exchange)` for the weight gradients that a rank sends after a cell. Cells are asked for in order; `next` is
  /// 0 before the first one and holds the position between calls.
  template <typename F>
  void for_each_sent_after(std::uint32_t rank, std::size_t cell, std::size_t& next, F&& f) const {
    for (; next < sent_after_[rank].size() && sent_after_[rank][next].cell == cell; ++next)
      f(sent_after_[rank][next].what);
  }
  /// The weight gradients that a rank adds to those of its replicas, in the order in which the other ranks send them.
  const std::vector<gradient_exchange>& replicas(std::uint32_t rank) const { return replicas_[rank]; }
  /// The weight gradients of tied stages that a rank sends or adds, after those of all replicas.
  const std::vector<gradient_exchange>& tied(std::uint32_t rank) const { return tied_[rank]; }

  /// Number of weight gradients that a rank sends.
  std::uint32_t sent_gradients(std::uint32_t rank) const {
    std::size_t sent = sent_after_[rank].size();
    for (const gradient_exchange& e : tied_[rank]) sent += e.from == rank && e.to != rank;
    return static_cast<std::uint32_t>(sent);
  }

  /// The channels into and out of a rank, in ascending order.
  const std::vector<std::uint32_t>& channels_at(std::uint32_t rank) const { return channels_at_[rank]; }
  std::uint32_t channel_between(std::uint32_t from, std::uint32_t to) const {
    for (const auto& [rank, channel] : channels_of_[from])
      if (rank == to) return channel;
    return no_slot;
  }

  /// Number of actions of every rank.
  std::vector<std::size_t> actions() const {
    std::vector<std::size_t> counts;
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      counts.push_back(s_[rank].size() + replicas_[rank].size());
      for (const gradient_exchange& e : tied_[rank]) counts.back() += e.to == rank;
    }
    for (const channel& c : channels_) counts[c.from] += c.messages, counts[c.to] += c.messages;
    return counts;
  }

 private:
  struct outgoing {
    std::size_t cell;  // after which it can be sent
    gradient_exchange what;
  };

  // The messages of all micro-batches of a stage's replica, for one pass.
  struct op_route {
    op_channels channels;
    std::size_t inputs = 0;  // their numbers, by micro-batch: a place in numbers_
  };
  static constexpr std::uint32_t unknown = no_slot - 2;  // a channel before its first message

  op_route& route(std::uint32_t rank, std::uint8_t chunk, pass p) {
    return routes_[first_stage_[rank] + chunk][static_cast<std::size_t>(p)];
  }
  const op_route& route(std::uint32_t rank, std::uint8_t chunk, pass p) const {
    return routes_[first_stage_[rank] + chunk][static_cast<std::size_t>(p)];
  }

  std::size_t place_of_number(tensor_id t) const {
    const std::size_t kind = t.kind == tensor_kind::gradient ? s_.stages() : 0;
    return (kind + t.stage) * s_.micro + t.micro;
  }

  // The tensors that every op has. Their channels are not known yet.
  void find_neighbours() {
    const std::uint32_t stages = s_.stages(), replicas = s_.placement.replicas();
    const stage_chain chain = s_.chain();
    for (std::uint32_t replica = 0; replica < replicas; ++replica)
      for (const std::uint16_t rank : s_.placement.rank_of_stage(replica)) ++first_stage_[rank + 1u];
    std::partial_sum(first_stage_.begin(), first_stage_.end(), first_stage_.begin());
    routes_.resize(std::size_t{replicas} * stages);
    for (std::uint32_t replica = 0; replica < replicas; ++replica)
      for (std::uint32_t stage = 0; stage < stages; ++stage)
        for (const pass p : passes_with_tensors) {
          const op o{.pass = p, .stage = static_cast<std::uint16_t>(stage)};
          op_route& r = route(home(o.stage, replica), chunk_of(o.stage, replica), p);
          if (has_output(o, chain)) r.channels.output = unknown;
          if (has_input(o, chain)) r.channels.input = unknown, r.inputs = place_of_number(source_of(o));
        }
  }

  void route_outputs(std::uint32_t rank) {
    const std::span<const cell> row = s_[rank];
    const auto* const routes = routes_.data() + first_stage_[rank];
    std::size_t next = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      std::uint32_t first_channel = no_slot;  // of the cell's outputs
      for (const op o : row[i]) {
        const std::uint32_t& channel = routes[o.chunk][static_cast<std::size_t>(o.pass)].channels.output;
        if (channel == unknown) connect(rank, o);
        if (channel >= local_channel) continue;
        if (channel == first_channel) min_send_buffers_[channel] = 2;
        first_channel = channel;
        const tensor_id out = product_of(o);
        numbers_[place_of_number(out)] = enqueue(channel, out);
      }
      for_each_sent_after(rank, i, next, [&](const gradient_exchange& e) { enqueue_exchange(e); });
    }
    for (const gradient_exchange& e : tied_[rank])
      if (e.from == rank && e.to != rank) enqueue_exchange(e);
  }
  // Sets the channel between an op and the one that uses its output, of whatever pass both are.
  void connect(std::uint32_t rank, op o) {
    const std::uint16_t user = receiver_of(product_of(o));
    const std::uint32_t replica = s_.placement.replica_of(o.micro), peer = home(user, replica);
    const std::uint32_t channel = peer == rank ? local_channel : open_channel(rank, peer);
    for (const pass p : passes_with_tensors)
      if ((p == pass::forward) == (o.pass == pass::forward)) {
        route(rank, o.chunk, p).channels.output = channel;
        route(peer, chunk_of(user, replica), p).channels.input = channel;
      }
  }

  std::uint32_t open_channel(std::uint32_t from, std::uint32_t to) {
    if (const std::uint32_t channel = channel_between(from, to); channel != no_slot) return channel;
    const auto channel = static_cast<std::uint32_t>(channels_.size());
    channels_.push_back({.from = static_cast<std::uint16_t>(from), .to = static_cast<std::uint16_t>(to)});
    channels_of_[from].push_back({to, channel});
    channels_at_[from].push_back(channel), channels_at_[to].push_back(channel);
    messages_.emplace_back().reserve(std::min<std::size_t>(s_.micro, s_[from].size()));  // right for most families
    min_send_buffers_.push_back(1), exchanges_.push_back(0), first_exchange_.push_back(no_slot);
    return channel;
  }
  std::uint32_t enqueue(std::uint32_t channel, tensor_id m) {
    messages_[channel].push_back(m);
    return static_cast<std::uint32_t>(messages_[channel].size() - 1);
  }
  void enqueue_exchange(const gradient_exchange& e) {
    const std::uint32_t channel = open_channel(e.from, e.to);
    const std::uint32_t number = enqueue(channel, {tensor_kind::weight_gradient, e.stage, 0});
    if (exchanges_[channel]++ == 0) first_exchange_[channel] = number;
  }

  std::uint32_t home(std::uint16_t stage, std::uint32_t replica) const {
    return s_.placement.rank_of_stage(replica)[stage];
  }
  std::uint8_t chunk_of(std::uint16_t stage, std::uint32_t replica) const {
    return s_.placement.chunk_of(stage, s_.placement.replica_begin(replica));
  }
  // The chunk of a stage on a rank that holds it.
  std::uint8_t chunk_on(std::uint32_t rank, std::uint16_t stage) const {
    return chunk_of(stage, home(stage, 0) == rank ? 0 : 1);
  }
  bool hosts(std::uint32_t rank, std::uint16_t stage) const {
    for (std::uint32_t replica = 0; replica < s_.placement.replicas(); ++replica)
      if (home(stage, replica) == rank) return true;
    return false;
  }

  // Gradients of replicas are sent as soon as the last W or B of the stage has run, those of tied stages after all replicas.
  void find_exchanges(const std::vector<std::vector<std::uint16_t>>& tied) {
    if (s_.forward_only) return;
    if (s_.placement.replicas() == 2)
      for (std::uint32_t number = 0; number < s_.stages(); ++number) {  // 65536 stages do not end a 16-bit loop
        const auto stage = static_cast<std::uint16_t>(number);
        if (s_.backward_of(stage) != stage_backward::full) continue;
        const std::uint32_t a = home(stage, 0), b = home(stage, 1);
        const std::uint8_t of_a = chunk_of(stage, 0), of_b = chunk_of(stage, 1);
        if (a == b) {
          replicas_[a].push_back({a, a, stage, stage, of_b, of_a});
          continue;
        }
        for (const gradient_exchange& e :
             {gradient_exchange{a, b, stage, stage, of_a, of_b}, gradient_exchange{b, a, stage, stage, of_b, of_a}}) {
          sent_after_[e.from].push_back({last_backward(e.from, stage), e});
          replicas_[e.to].push_back(e);
        }
      }
    for (auto& of : sent_after_)
      std::stable_sort(of.begin(), of.end(), [](const outgoing& x, const outgoing& y) { return x.cell < y.cell; });
    for (auto& of : replicas_)
      std::stable_sort(of.begin(), of.end(), [&](const gradient_exchange& x, const gradient_exchange& y) {
        return std::pair(x.from, last_backward(x.from, x.stage)) < std::pair(y.from, last_backward(y.from, y.stage));
      });
    for (const auto& group : tied)
      for (std::size_t n = 1; n < group.size(); ++n) tie(std::span(group).first(n), group[n]);
    for (auto& of : tied_)
      std::stable_sort(of.begin(), of.end(),
                       [](const gradient_exchange& x, const gradient_exchange& y) { return x.round < y.round; });
  }
  // One round of a group: each holder of an earlier stage has the sum of all earlier ones by now and needs the gradient of
  // `own`; each holder of `own` needs the sum. So all add up in the same order, and their sums are equal to the bit. Each rank
  // sends to a rank of its own if there are enough of them.
  void tie(std::span<const std::uint16_t> earlier, std::uint16_t own) {
    struct holder {
      std::uint32_t rank;
      std::uint16_t stage;
      bool operator==(const holder&) const = default;
    };
    const auto round = static_cast<std::uint16_t>(earlier.size() - 1);
    std::vector<holder> with_earlier, with_own, with_both;
    const auto once = [](std::vector<holder>& to, holder h) {
      if (std::find(to.begin(), to.end(), h) == to.end()) to.push_back(h);
    };
    for (std::uint32_t replica = 0; replica < s_.placement.replicas(); ++replica) {
      for (const std::uint16_t stage : earlier)
        once(hosts(home(stage, replica), own) ? with_both : with_earlier, {home(stage, replica), stage});
      const std::uint32_t rank = home(own, replica);
      if (std::none_of(earlier.begin(), earlier.end(), [&](std::uint16_t stage) { return hosts(rank, stage); }))
        once(with_own, {rank, own});
    }
    for (const auto& [rank, stage] : with_both)
      tied_[rank].push_back({rank, rank, own, stage, chunk_on(rank, own), chunk_on(rank, stage), round});
    const auto of = [&](const std::vector<holder>& holders, std::size_t i, std::optional<std::uint16_t> stage) {
      holder h = holders.empty() ? with_both[0] : holders[std::min(i, holders.size() - 1)];
      h.stage = stage.value_or(h.stage);
      return h;
    };
    const auto send = [&](holder from, holder to) {
      const gradient_exchange e{
          from.rank, to.rank, from.stage, to.stage, chunk_on(from.rank, from.stage), chunk_on(to.rank, to.stage),
          round};
      tied_[e.from].push_back(e);
      tied_[e.to].push_back(e);
    };
    for (std::size_t i = 0; i < std::max(with_earlier.size(), with_own.size()); ++i) {
      if (i < with_own.size()) send(of(with_earlier, i, std::nullopt), with_own[i]);
      if (i < with_earlier.size()) send(of(with_own, i, own), with_earlier[i]);
    }
  }
  std::size_t last_backward(std::uint32_t rank, std::uint16_t stage) const {
    std::size_t i = s_[rank].size();
    while (i-- > 0)
      for (op o : s_[rank][i])
        if (o.stage == stage && yields_weight_gradient(o.pass)) return i;
    return 0;
  }

  const schedule& s_;
  std::vector<channel> channels_;
  std::vector<std::vector<std::pair<std::uint32_t, std::uint32_t>>> channels_of_;  // by sender: receiver, channel
  std::vector<std::vector<std::uint32_t>> channels_at_;                            // by rank
  std::vector<std::vector<tensor_id>> messages_;                                   // by channel
  std::vector<std::uint32_t> min_send_buffers_, exchanges_, first_exchange_;       // by channel
  std::vector<std::size_t> first_stage_;                                           // by rank: in routes_
  std::vector<std::array<op_route, std::size(pass_table)>> routes_;                // by rank, chunk and pass
  std::vector<std::uint32_t> numbers_;                           // of messages, by kind, stage and micro-batch
  std::vector<std::vector<outgoing>> sent_after_;                // by sender, in order of cells
  std::vector<std::vector<gradient_exchange>> replicas_, tied_;  // by receiver; by sender and receiver
};

}  // namespace pipesched::detail
