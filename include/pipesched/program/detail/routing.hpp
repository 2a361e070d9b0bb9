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
#include "pipesched/support/worklist.hpp"

namespace pipesched::detail {

/// The channel of a tensor that stays on its rank.
inline constexpr std::uint32_t local_channel = no_slot - 1;

/// Needs that all ops of a rank's chunk and one pass share. The channels of what they read and write are local_channel if
/// that stays on its rank, no_slot if there is nothing.
struct op_needs {
  std::uint32_t input = no_slot, output = no_slot;
  std::size_t inputs = 0, outputs = 0;                   // places of the numbers of micro-batch 0
  bool takes_activation = false, takes_context = false;  // slots, before it runs
  bool frees_activation = false, frees_context = false;  // after it
};

/// The needs of a rank's ops.
class rank_needs {
 public:
  using by_pass = std::array<op_needs, std::size(pass_table)>;
  explicit rank_needs(const by_pass* chunks) : chunks_(chunks) {}
  /// Of both ops of a cell. A second op that the cell does not have needs nothing.
  std::array<const op_needs*, 2> operator[](const cell& c) const { return {&of(c[0]), &of(c[1])}; }

 private:
  const op_needs& of(op o) const { return chunks_[o.chunk][static_cast<std::size_t>(o.pass)]; }

  const by_pass* chunks_;
};

/// Rank `to` receives the weight gradient of `stage` from rank `from` and adds it to that of its `own` stage.
struct gradient_exchange {
  std::uint32_t from, to;
  std::uint16_t stage, own;
  std::uint8_t chunk, own_chunk;  // of `stage` at `from`, of `own` at `to`
  std::uint16_t round = 0;        // of tied stages: what is sent is the sum of all rounds before
};
/// A weight gradient that is sent after a cell.
struct sent_exchange {
  std::size_t cell;
  gradient_exchange what;
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
    find_needs();
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) route_outputs(rank);
    for (std::size_t c = 0; c < channels_.size(); ++c)
      channels_[c].messages = static_cast<std::uint32_t>(contents_[c].messages.size());
  }

  /// All channels with their numbers of messages; their buffers are not set yet.
  const std::vector<channel>& channels() const { return channels_; }
  std::span<const tensor_id> messages(std::uint32_t channel) const { return contents_[channel].messages; }
  /// Number of activations and gradients in a channel.
  std::uint32_t tensors(std::uint32_t channel) const { return contents_[channel].tensors; }
  /// The weight gradients among the messages of a channel: their numbers, ascending.
  std::span<const std::uint32_t> exchanges(std::uint32_t channel) const { return contents_[channel].exchanges; }
  /// 2 if a cell sends two messages into the channel, else 1.
  std::uint32_t min_send_buffers(std::uint32_t channel) const { return contents_[channel].min_send_buffers; }
  rank_needs needs(std::uint32_t rank) const { return rank_needs(needs_.data() + first_stage_[rank]); }
  /// The number of an op's input among the activations and gradients of its channel. @pre it comes from another rank
  std::uint32_t number_of_input(const op_needs& needs, op o) const {
    prefetch(std::span(numbers_), needs.inputs + o.micro + 16);
    return numbers_[needs.inputs + o.micro];
  }
  /// True if an op recomputes.
  bool recomputes() const { return recomputes_; }

  /// The weight gradients that a rank sends after its cells, in their order.
  std::span<const sent_exchange> sent_after(std::uint32_t rank) const { return sent_after_[rank]; }
  /// The weight gradients that a rank adds to those of its replicas, in the order in which the other ranks send them.
  const std::vector<gradient_exchange>& replicas(std::uint32_t rank) const { return replicas_[rank]; }
  /// The weight gradients of tied stages that a rank sends or adds, after those of all replicas.
  const std::vector<gradient_exchange>& tied(std::uint32_t rank) const { return tied_[rank]; }

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
  struct contents {
    std::vector<tensor_id> messages{};
    std::vector<std::uint32_t> exchanges{};
    std::uint32_t tensors = 0, min_send_buffers = 1;
  };
  static constexpr std::uint32_t unknown = no_slot - 2;  // a channel before its first message

  // The place of the number of micro-batch 0.
  std::size_t place_of_numbers(tensor_id t) const {
    const std::size_t kind = t.kind == tensor_kind::gradient ? s_.stages() : 0;
    return (kind + t.stage) * s_.micro;
  }

  rank_needs::by_pass& needs_of(std::uint16_t stage, std::uint32_t replica) {
    return needs_[first_stage_[home(stage, replica)] + chunk_of(stage, replica)];
  }

  // The tensors and slots of every op. Channels are not known yet.
  void find_needs() {
    const std::uint32_t stages = s_.stages(), replicas = s_.placement.replicas();
    const stage_chain chain = s_.chain();
    for (std::uint32_t replica = 0; replica < replicas; ++replica)
      for (const std::uint16_t rank : s_.placement.rank_of_stage(replica)) ++first_stage_[rank + 1u];
    std::partial_sum(first_stage_.begin(), first_stage_.end(), first_stage_.begin());
    needs_.resize(std::size_t{replicas} * stages);
    for (std::uint32_t replica = 0; replica < replicas; ++replica)
      for (std::uint32_t stage = 0; stage < stages; ++stage)
        for (std::size_t n = 1; n < std::size(pass_table); ++n) {
          const op o{.pass = static_cast<pass>(n), .stage = static_cast<std::uint16_t>(stage)};
          op_needs& needs = needs_of(o.stage, replica)[n];
          if (has_output(o, chain)) needs.output = unknown, needs.outputs = place_of_numbers(product_of(o));
          if (has_input(o, chain)) needs.input = unknown, needs.inputs = place_of_numbers(source_of(o));
          needs.takes_activation = o.pass == pass::forward || pipesched::recomputes(o.pass);
          needs.takes_context = yields_input_gradient(o.pass) && s_.backward_of(stage) == stage_backward::full;
          needs.frees_activation = s_.is_last(o);
          needs.frees_context = yields_weight_gradient(o.pass);
        }
  }

  void route_outputs(std::uint32_t rank) {
    const std::span<const cell> row = s_[rank];
    const rank_needs all = needs(rank);
    std::span<const sent_exchange> next = sent_after_[rank];
    for (std::size_t i = 0; i < row.size(); ++i) {
      const auto needs = all[row[i]];
      for (std::size_t k = 0; k < row[i].size(); ++k) {
        const op o = row[i][k];
        recomputes_ = recomputes_ || pipesched::recomputes(o.pass);
        if (needs[k]->output == unknown) connect(rank, o);
        const std::uint32_t channel = needs[k]->output;
        if (channel >= local_channel) continue;
        contents& of = contents_[channel];
        if (k > 0 && channel == needs[0]->output) of.min_send_buffers = 2;
        of.messages.push_back(product_of(o));
        numbers_[needs[k]->outputs + o.micro] = of.tensors++;
      }
      for (; !next.empty() && next[0].cell == i; next = next.subspan(1)) enqueue(next[0].what);
    }
    for (const gradient_exchange& e : tied_[rank])
      if (e.from == rank && e.to != rank) enqueue(e);
  }
  // Sets the channel between an op and the one that uses its output, of whatever pass both are.
  void connect(std::uint32_t rank, op o) {
    const std::uint16_t user = receiver_of(product_of(o));
    const std::uint32_t replica = s_.placement.replica_of(o.micro), peer = home(user, replica);
    const std::uint32_t channel = peer == rank ? local_channel : open_channel(rank, peer);
    for (std::size_t n = 1; n < std::size(pass_table); ++n) {
      if ((static_cast<pass>(n) == pass::forward) != (o.pass == pass::forward)) continue;
      if (std::uint32_t& output = needs_of(o.stage, replica)[n].output; output != no_slot) output = channel;
      if (std::uint32_t& input = needs_of(user, replica)[n].input; input != no_slot) input = channel;
    }
  }

  std::uint32_t open_channel(std::uint32_t from, std::uint32_t to) {
    if (const std::uint32_t channel = channel_between(from, to); channel != no_slot) return channel;
    const auto channel = static_cast<std::uint32_t>(channels_.size());
    channels_.push_back({.from = static_cast<std::uint16_t>(from), .to = static_cast<std::uint16_t>(to)});
    channels_of_[from].push_back({to, channel});
    channels_at_[from].push_back(channel), channels_at_[to].push_back(channel);
    contents_.emplace_back().messages.reserve(std::min<std::size_t>(s_.micro, s_[from].size()));  // for most families
    return channel;
  }
  void enqueue(const gradient_exchange& e) {
    contents& of = contents_[open_channel(e.from, e.to)];
    of.exchanges.push_back(static_cast<std::uint32_t>(of.messages.size()));
    of.messages.push_back({tensor_kind::weight_gradient, e.stage, 0});
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
      std::stable_sort(of.begin(), of.end(),
                       [](const sent_exchange& x, const sent_exchange& y) { return x.cell < y.cell; });
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
  std::vector<contents> contents_;                                                 // by channel
  std::vector<std::size_t> first_stage_;                                           // by rank: in needs_
  std::vector<rank_needs::by_pass> needs_;                                         // by rank and chunk
  std::vector<std::uint32_t> numbers_;  // of tensors, by kind, stage and micro-batch
  bool recomputes_ = false;
  std::vector<std::vector<sent_exchange>> sent_after_;           // by sender, in order of cells
  std::vector<std::vector<gradient_exchange>> replicas_, tied_;  // by receiver; by sender and receiver
};

}  // namespace pipesched::detail
