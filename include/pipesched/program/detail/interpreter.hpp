// SPDX-License-Identifier: MIT
#pragma once

// The abstract interpreter of programs, under the strictest rules: a send ends only when its receive is posted, channels are
// FIFO, and a buffer must be free before it is written. The outcome does not depend on the interleaving (sequential ranks,
// FIFO channels, no choice), so one run proves all.

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/worklist.hpp"

namespace pipesched::detail {

/// An observer that does nothing. Other observers have the same functions. Of every action that a rank finishes it hears
/// once, in order; of messages before the action that waited for them.
struct null_observer {
  void compute(std::uint32_t /*rank*/, std::size_t /*cell*/) {}
  void accumulate(std::uint32_t /*rank*/) {}
  void post_send(std::uint32_t /*channel*/, std::size_t /*number*/) {}
  void post_receive(std::uint32_t /*channel*/, std::size_t /*number*/) {}
  void arrived(std::uint32_t /*channel*/, std::size_t /*number*/) {}  // the receiver needs it
  void sent(std::uint32_t /*channel*/, std::size_t /*number*/) {}     // the sender needs its buffer
};

template <typename Observer = null_observer>
class interpreter {
 public:
  /// The reason why a rank is blocked: a message has not arrived, one of its own has not been received, or its next action
  /// is wrong.
  struct waiting {
    enum kind : std::uint8_t { no, for_arrival, for_sent, wrong } why = no;
    std::uint32_t channel = no_slot;
    std::uint32_t number = 0;  // of the message in the channel
  };

  /// @pre all channels together have at most as many messages as there are actions
  explicit interpreter(const program& p, Observer observer = {})
      : p_(p),
        stages_(p.schedule.stages()),
        observer_(std::move(observer)),
        channels_(p.channels.size()),
        ranks_(p.actions.size()),
        runnable_(static_cast<std::uint32_t>(p.actions.size())) {
    for (std::size_t c = 0; c < channels_.size(); ++c) {
      channels_[c].from = p.channels[c].from, channels_[c].to = p.channels[c].to;
      channels_[c].posted.reserve(p.channels[c].messages);
    }
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      ranks_[r].actions = p.actions[r], ranks_[r].cells = p.schedule[r], ranks_[r].slots = p.slots[r];
      ranks_[r].buffers.resize(std::size_t{p.pools[r].buffers} + p.pools[r].reductions);
      ranks_[r].tensors = p.pools[r].buffers;
    }
  }

  /// Runs every rank until it ends or is blocked. Calls `fault(rank, text)` for each rank whose next action is wrong; that
  /// rank stops there.
  template <typename Fault>
  void run(Fault&& fault) {
    runnable_.run([&](std::uint32_t r) {
      rank_state& rank = ranks_[r];
      rank.state = {};
      std::size_t at = rank.done;
      while (at < rank.actions.size() && step(r, rank, rank.actions[at])) ++at;
      rank.done = at;
      if (wrong_.empty()) return;
      rank.state = {waiting::wrong, no_slot, 0};
      fault(r, std::exchange(wrong_, {}));
    });
  }

  /// Number of actions that a rank has finished.
  std::size_t done(std::uint32_t r) const { return ranks_[r].done; }
  bool finished(std::uint32_t r) const { return done(r) == ranks_[r].actions.size(); }
  const waiting& state(std::uint32_t r) const { return ranks_[r].state; }
  /// Numbers of sends and receives posted in a channel, and the tensor of a message that is posted on one side or both.
  std::size_t sends(std::size_t c) const { return channels_[c].sends; }
  std::size_t receives(std::size_t c) const { return channels_[c].receives; }
  tensor_id message(std::size_t c, std::size_t number) const { return channels_[c].posted[number]; }
  /// A tensor that a rank has received or produced but not used.
  std::optional<tensor_id> unused(std::uint32_t r) const {
    for (const buffer& b : ranks_[r].buffers)
      if (b.state == content::receiving || b.state == content::held) return b.what;
    return std::nullopt;
  }
  const Observer& observer() const { return observer_; }

 private:
  enum class content : std::uint8_t { nothing, receiving, held, sending };
  struct buffer {
    content state = content::nothing;
    tensor_id what{};
    std::uint32_t channel = no_slot, number = 0;
  };
  struct channel_state {
    std::vector<tensor_id> posted{};  // by the first of the two sides
    std::uint32_t sends = 0, receives = 0;
    std::uint16_t from = 0, to = 0;
    std::uint32_t awaited = no_slot, awaited_by = no_slot;  // the message that a rank waits for: one side lags, at most
  };
  struct rank_state {
    std::span<const action> actions{};
    std::span<const cell> cells{};
    std::span<const std::array<op_slots, 2>> slots{};
    std::size_t done = 0;
    waiting state{};
    std::uint32_t tensors = 0;  // buffers of activations and gradients; after them those of reductions
    std::vector<buffer> buffers{};
    std::vector<std::pair<std::uint32_t, std::uint32_t>> weight_gradients_sent{};  // channel and number
  };

  bool step(std::uint32_t r, rank_state& rank, const action& a) {
    switch (a.kind) {
      case action_kind::receive: return post<true>(r, rank, a);
      case action_kind::send: return post<false>(r, rank, a);
      case action_kind::compute: return compute(r, rank, a);
      case action_kind::accumulate: return accumulate(r, rank, a);
    }
    return wrong({"an action of unknown kind; expected receive, compute, send or accumulate"});
  }

  template <bool Receives>
  bool post(std::uint32_t r, rank_state& rank, const action& a) {
    if (a.channel >= channels_.size() || (Receives ? channels_[a.channel].to : channels_[a.channel].from) != r)
      return not_its_channel(a);
    channel_state& c = channels_[a.channel];
    std::uint32_t& mine = Receives ? c.receives : c.sends;
    const std::uint32_t number = mine;
    const bool second = number < (Receives ? c.sends : c.receives);
    if (second && c.posted[number] != a.what) return mismatch(a, c, number);
    if (!occupy<Receives>(rank, a, number)) return false;
    ++mine;
    if (!second) c.posted.push_back(a.what);
    if constexpr (Receives)
      observer_.post_receive(a.channel, number);
    else
      observer_.post_send(a.channel, number);
    if (second && c.awaited == number) runnable_.wake(c.awaited_by);
    return true;
  }

  // Marks the buffer of a message that is posted. A weight gradient is sent from the trainer's own memory.
  template <bool Receives>
  bool occupy(rank_state& rank, const action& a, std::uint32_t number) {
    if (!Receives && is_weight_gradient(a)) {
      rank.weight_gradients_sent.push_back({a.channel, number});
      return true;
    }
    buffer* b = buffer_of(rank, a.what, a.buffer);
    if (!b) return false;
    if (Receives && b->state != content::nothing) return not_free("receives ", a.what, " into buffer ", a.buffer, *b);
    if (!Receives && (b->state != content::held || b->what != a.what)) return not_held(a);
    *b = {Receives ? content::receiving : content::sending, a.what, a.channel, number};
    return true;
  }

  bool compute(std::uint32_t r, rank_state& rank, const action& a) {
    if (a.index >= rank.cells.size())
      return wrong({"runs cell ", a.index, "; expected one of ", rank.cells.size(), " cells"});
    const cell& c = rank.cells[a.index];
    const std::array<op_slots, 2>& slots = rank.slots[a.index];
    const std::size_t ops = c.size();
    for (std::size_t i = 0; i < ops; ++i)
      if (!input_ready(r, rank, c[i], slots[i].input)) return false;
    for (std::size_t i = 0; i < ops; ++i)
      if (!output_free(r, rank, c[i], slots[i].output)) return false;
    for (std::size_t i = 0; i < ops; ++i)
      if (slots[i].input != no_slot) rank.buffers[slots[i].input].state = content::nothing;
    for (std::size_t i = 0; i < ops; ++i)
      if (const std::uint32_t to = slots[i].output; to != no_slot) {
        if (rank.buffers[to].state != content::nothing) return wrong({"writes two outputs to buffer ", to});
        rank.buffers[to] = {content::held, *output_of(c[i], stages_), no_slot, 0};
      }
    observer_.compute(r, a.index);
    return true;
  }

  bool accumulate(std::uint32_t r, rank_state& rank, const action& a) {
    for (const auto& [channel, number] : rank.weight_gradients_sent) {  // may not change before they are received
      if (!matched(r, rank, waiting::for_sent, channel, number)) return false;
      observer_.sent(channel, number);
    }
    if (a.channel != no_slot) {
      if (!arrived(r, rank, a.what, a.buffer)) return false;
      buffer& b = rank.buffers[rank.tensors + a.buffer];
      if (b.channel != a.channel) return other_channel(a, b);
      b.state = content::nothing;
    }
    observer_.accumulate(r);
    return true;
  }

  bool input_ready(std::uint32_t r, rank_state& rank, op o, std::uint32_t number) {
    if (const auto in = input_of(o, stages_)) return arrived(r, rank, *in, number);
    return number == no_slot || needless(o);
  }
  bool output_free(std::uint32_t r, rank_state& rank, op o, std::uint32_t number) {
    if (const auto out = output_of(o, stages_)) return free(r, rank, *out, number);
    return number == no_slot || needless(o);
  }

  // True if the tensor is in the buffer. Waits if its receive is posted; wrong if it is not.
  bool arrived(std::uint32_t r, rank_state& rank, tensor_id what, std::uint32_t number) {
    buffer* b = buffer_of(rank, what, number);
    if (!b) return false;
    if (b->state == content::nothing || b->state == content::sending || b->what != what)
      return not_there(what, number, *b);
    if (b->state == content::held) return true;
    if (!matched(r, rank, waiting::for_arrival, b->channel, b->number)) return false;
    observer_.arrived(b->channel, b->number);
    b->state = content::held;
    return true;
  }

  // True if the buffer is free. Waits if its last message is being sent; wrong if it is in use otherwise.
  bool free(std::uint32_t r, rank_state& rank, tensor_id what, std::uint32_t number) {
    buffer* b = buffer_of(rank, what, number);
    if (!b) return false;
    if (b->state == content::nothing) return true;
    if (b->state != content::sending) return not_free("writes ", what, " to buffer ", number, *b);
    if (!matched(r, rank, waiting::for_sent, b->channel, b->number)) return false;
    observer_.sent(b->channel, b->number);
    b->state = content::nothing;
    return true;
  }

  // True if both sides of a message are posted. Otherwise the rank waits for the other side.
  bool matched(std::uint32_t r, rank_state& rank, typename waiting::kind why, std::uint32_t channel,
               std::uint32_t number) {
    channel_state& c = channels_[channel];
    if (number < c.sends && number < c.receives) return true;
    rank.state = {why, channel, number};
    c.awaited = number, c.awaited_by = r;
    return false;
  }

  buffer* buffer_of(rank_state& rank, tensor_id what, std::uint32_t number) {
    const bool reduces = what.kind == tensor_kind::weight_gradient;
    const std::size_t size = reduces ? rank.buffers.size() - rank.tensors : rank.tensors;
    if (number < size) return &rank.buffers[reduces ? rank.tensors + number : number];
    no_buffer(what, number, size);
    return nullptr;
  }

  // Faults. All of them return false, as a step that cannot be taken, and keep out of the way of those that can.
  [[gnu::cold]] bool wrong(std::initializer_list<piece> text) {
    wrong_ = concat(text);
    return false;
  }
  [[gnu::cold]] bool not_its_channel(const action& a) {
    if (a.channel >= p_.channels.size())
      return wrong({"uses channel ", a.channel, "; expected one of ", p_.channels.size(), " channels"});
    const channel& c = p_.channels[a.channel];
    return wrong({a.kind == action_kind::receive ? "receives from" : "sends into", " the channel from rank ", c.from,
                  " to rank ", c.to, "; expected a channel of its own"});
  }
  [[gnu::cold]] bool mismatch(const action& a, const channel_state& c, std::uint32_t number) {
    const tensor_id other = c.posted[number];
    const bool receives = a.kind == action_kind::receive;
    return wrong({"message ", number, " from rank ", c.from, " to rank ", c.to, " is sent as ",
                  to_string(receives ? other : a.what), " and received as ", to_string(receives ? a.what : other)});
  }
  [[gnu::cold]] bool no_buffer(tensor_id what, std::uint32_t number, std::size_t buffers) {
    if (number == no_slot) return wrong({"has no buffer for ", to_string(what)});
    return wrong({"uses buffer ", number, "; expected one of ", buffers, " buffers"});
  }
  [[gnu::cold]] bool not_there(tensor_id what, std::uint32_t number, const buffer& b) {
    const std::string found = b.state == content::nothing ? "is empty" : "holds " + to_string(b.what);
    return wrong({"needs ", to_string(what), " in buffer ", number, ", which ", found});
  }
  [[gnu::cold]] bool not_held(const action& a) {
    return wrong({"sends ", to_string(a.what), " from buffer ", a.buffer, ", which does not hold it"});
  }
  [[gnu::cold]] bool not_free(const char* verb, tensor_id what, const char* where, std::uint32_t number,
                              const buffer& b) {
    return wrong({verb, to_string(what), where, number, ", which still holds ", to_string(b.what)});
  }
  [[gnu::cold]] bool other_channel(const action& a, const buffer& b) {
    return wrong({"adds ", to_string(a.what), " of channel ", a.channel, "; expected channel ", b.channel});
  }
  [[gnu::cold]] bool needless(op o) { return wrong({to_string(o), " has a buffer that it does not need"}); }

  const program& p_;
  std::uint32_t stages_;
  Observer observer_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> ranks_;
  worklist runnable_;
  std::string wrong_;  // the fault of the last step, if it was wrong
};

}  // namespace pipesched::detail
