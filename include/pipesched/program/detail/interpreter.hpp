// SPDX-License-Identifier: MIT
#pragma once

// The abstract interpreter of programs, under the strictest rules: a send ends only when its receive is posted, channels are
// FIFO, and a buffer must be free before it is written. The outcome does not depend on the interleaving (sequential ranks,
// FIFO channels, no choice), so one run proves all.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// An observer that does nothing. Other observers have the same functions.
struct null_observer {
  void compute(std::uint32_t /*rank*/, std::size_t /*cell*/) {}
  void post_send(std::uint32_t /*channel*/, std::size_t /*number*/) {}
  void post_receive(std::uint32_t /*channel*/, std::size_t /*number*/) {}
  void arrived(std::uint32_t /*channel*/, std::size_t /*number*/) {}  // the receiver has used it
  void sent(std::uint32_t /*channel*/, std::size_t /*number*/) {}     // the sender has reused its buffer
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
      : p_(p), observer_(std::move(observer)), channels_(p.channels.size()), ranks_(p.actions.size()) {
    for (std::size_t c = 0; c < channels_.size(); ++c) {
      channels_[c].posted.reserve(p.channels[c].messages);
    }
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      ranks_[r].buffers.resize(p.pools[r].buffers);
      ranks_[r].reductions.resize(p.pools[r].reductions);
    }
  }

  /// Runs every rank until it ends or is blocked. Calls `fault(rank, text)` for each rank whose next action is wrong; that
  /// rank stops there.
  template <typename Fault>
  void run(Fault&& fault) {
    for (std::size_t r = ranks_.size(); r-- > 0;) runnable_.push_back(static_cast<std::uint32_t>(r));
    while (!runnable_.empty()) {
      const std::uint32_t r = runnable_.back();
      runnable_.pop_back();
      rank_state& rank = ranks_[r];
      if (rank.state.why == waiting::wrong) continue;
      rank.state = {};
      const std::span<const action> row = p_.actions[r];
      std::size_t at = rank.done;
      while (at < row.size() && step(r, rank, row[at])) ++at;
      rank.done = at;
      if (wrong_.empty()) continue;
      rank.state = {waiting::wrong, no_slot, 0};
      fault(r, std::exchange(wrong_, {}));
    }
  }

  /// Number of actions that a rank has finished.
  std::size_t done(std::uint32_t r) const { return ranks_[r].done; }
  bool finished(std::uint32_t r) const { return done(r) == p_.actions[r].size(); }
  const waiting& state(std::uint32_t r) const { return ranks_[r].state; }
  /// Numbers of sends and receives posted in a channel, and the tensor of a message that is posted on one side or both.
  std::size_t sends(std::size_t c) const { return channels_[c].sends; }
  std::size_t receives(std::size_t c) const { return channels_[c].receives; }
  tensor_id message(std::size_t c, std::size_t number) const { return channels_[c].posted[number]; }
  /// A tensor that a rank has received or produced but not used.
  std::optional<tensor_id> unused(std::uint32_t r) const {
    for (const auto* pool : {&ranks_[r].buffers, &ranks_[r].reductions})
      for (const buffer& b : *pool)
        if (b.state == content::receiving || b.state == content::held) return b.what;
    return std::nullopt;
  }
  Observer& observer() { return observer_; }

 private:
  enum class content : std::uint8_t { nothing, receiving, held, sending };
  struct buffer {
    content state = content::nothing;
    tensor_id what{};
    std::uint32_t channel = no_slot;
    std::uint32_t number = 0;
  };
  struct channel_state {
    std::vector<tensor_id> posted;  // by the first of the two sides
    std::uint32_t sends = 0, receives = 0;
  };
  struct rank_state {
    std::size_t done = 0;
    waiting state{};
    std::vector<buffer> buffers, reductions;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> weight_gradients_sent;  // channel and number
  };

  bool matched(std::uint32_t channel, std::uint32_t number) const {
    const channel_state& c = channels_[channel];
    return number < c.sends && number < c.receives;
  }
  // Return values of a step that cannot be taken.
  bool wrong(std::string text) {
    wrong_ = std::move(text);
    return false;
  }
  static bool waits(rank_state& rank, typename waiting::kind why, const buffer& b) {
    rank.state = {why, b.channel, b.number};
    return false;
  }

  bool step(std::uint32_t r, rank_state& rank, const action& a) {
    switch (a.kind) {
      case action_kind::receive: return post<true>(r, rank, a);
      case action_kind::send: return post<false>(r, rank, a);
      case action_kind::compute: return compute(r, rank, a);
      case action_kind::accumulate: return accumulate(rank, a);
    }
    return wrong("an action of unknown kind; expected receive, compute, send or accumulate");
  }

  template <bool Receives>
  bool post(std::uint32_t r, rank_state& rank, const action& a) {
    if (a.channel >= p_.channels.size())
      return wrong(concat({"uses channel ", a.channel, "; expected one of ", p_.channels.size(), " channels"}));
    const channel& c = p_.channels[a.channel];
    if ((Receives ? c.to : c.from) != r)
      return wrong(concat({Receives ? "receives from" : "sends into", " the channel from rank ", c.from, " to rank ",
                           c.to, "; expected a channel of its own"}));
    channel_state& state = channels_[a.channel];
    std::uint32_t& mine = Receives ? state.receives : state.sends;
    const std::uint32_t number = mine;
    const bool second = number < (Receives ? state.sends : state.receives);
    if (second && state.posted[number] != a.what) {
      const tensor_id other = state.posted[number];
      return wrong(
          concat({"message ", number, " from rank ", c.from, " to rank ", c.to, " is sent as ",
                  to_string(Receives ? other : a.what), " and received as ", to_string(Receives ? a.what : other)}));
    }
    if (!occupy<Receives>(rank, a, number)) return false;
    ++mine;
    if (!second) state.posted.push_back(a.what);
    if constexpr (Receives)
      observer_.post_receive(a.channel, number);
    else
      observer_.post_send(a.channel, number);
    if (second) wake(c, a.channel, number);
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
    if (Receives && b->state != content::nothing)
      return wrong(concat(
          {"receives ", to_string(a.what), " into buffer ", a.buffer, ", which still holds ", to_string(b->what)}));
    if (!Receives && (b->state != content::held || b->what != a.what))
      return wrong(concat({"sends ", to_string(a.what), " from buffer ", a.buffer, ", which does not hold it"}));
    *b = {Receives ? content::receiving : content::sending, a.what, a.channel, number};
    return true;
  }

  // Resumes the ranks that wait for a message of which both sides are posted.
  void wake(const channel& c, std::uint32_t channel, std::uint32_t number) {
    for (const std::uint32_t rank : {std::uint32_t{c.from}, std::uint32_t{c.to}})
      if (const waiting& w = ranks_[rank].state; w.channel == channel && w.number == number) runnable_.push_back(rank);
  }

  buffer* buffer_of(rank_state& rank, tensor_id what, std::uint32_t number) {
    auto& pool = what.kind == tensor_kind::weight_gradient ? rank.reductions : rank.buffers;
    if (number < pool.size()) return &pool[number];
    wrong(no_buffer(what, number, pool.size()));
    return nullptr;
  }
  // Texts of faults in functions of their own, so that the usual cases can be inlined.
  static std::string no_buffer(tensor_id what, std::uint32_t number, std::size_t buffers) {
    if (number == no_slot) return concat({"has no buffer for ", to_string(what)});
    return concat({"uses buffer ", number, "; expected one of ", buffers, " buffers"});
  }
  static std::string not_arrived(tensor_id what, std::uint32_t number, const buffer& b) {
    const std::string found = b.state == content::nothing ? "is empty" : "holds " + to_string(b.what);
    return concat({"needs ", to_string(what), " in buffer ", number, ", which ", found});
  }
  static std::string not_free(tensor_id what, std::uint32_t number, const buffer& b) {
    return concat({"writes ", to_string(what), " to buffer ", number, ", which still holds ", to_string(b.what)});
  }

  // True if the tensor is in the buffer. Waits if its receive is posted; wrong if it is not.
  bool arrived(rank_state& rank, tensor_id what, std::uint32_t number) {
    buffer* b = buffer_of(rank, what, number);
    if (!b) return false;
    if (b->state == content::nothing || b->state == content::sending || b->what != what)
      return wrong(not_arrived(what, number, *b));
    if (b->state == content::held) return true;
    if (!matched(b->channel, b->number)) return waits(rank, waiting::for_arrival, *b);
    observer_.arrived(b->channel, b->number);
    b->state = content::held;
    return true;
  }

  // True if the buffer is free. Waits if its last message is being sent; wrong if it is in use otherwise.
  bool free(rank_state& rank, tensor_id what, std::uint32_t number) {
    buffer* b = buffer_of(rank, what, number);
    if (!b) return false;
    if (b->state == content::nothing) return true;
    if (b->state != content::sending) return wrong(not_free(what, number, *b));
    if (!matched(b->channel, b->number)) return waits(rank, waiting::for_sent, *b);
    observer_.sent(b->channel, b->number);
    b->state = content::nothing;
    return true;
  }

  bool compute(std::uint32_t r, rank_state& rank, const action& a) {
    if (a.index >= p_.schedule[r].size())
      return wrong(concat({"runs cell ", a.index, "; expected one of ", p_.schedule[r].size(), " cells"}));
    const cell& c = p_.schedule[r][a.index];
    const auto& slots = p_.slots[r][a.index];
    const std::uint32_t stages = p_.schedule.stages();
    std::array<std::optional<tensor_id>, 2> in, out;
    const std::size_t ops = c.size();
    for (std::size_t i = 0; i < ops; ++i) {
      in[i] = input_of(c[i], stages), out[i] = output_of(c[i], stages);
      if (!in[i] && slots[i].input != no_slot) return needless(c[i]);
      if (in[i] && !arrived(rank, *in[i], slots[i].input)) return false;
    }
    for (std::size_t i = 0; i < ops; ++i) {
      if (!out[i] && slots[i].output != no_slot) return needless(c[i]);
      if (out[i] && !free(rank, *out[i], slots[i].output)) return false;
    }
    for (std::size_t i = 0; i < ops; ++i)
      if (in[i]) rank.buffers[slots[i].input].state = content::nothing;
    for (std::size_t i = 0; i < ops; ++i)
      if (out[i]) {
        buffer& b = rank.buffers[slots[i].output];
        if (b.state != content::nothing) return wrong(concat({"writes two outputs to buffer ", slots[i].output}));
        b = {content::held, *out[i], no_slot, 0};
      }
    observer_.compute(r, a.index);
    return true;
  }

  bool needless(op o) { return wrong(concat({to_string(o), " has a buffer that it does not need"})); }

  bool accumulate(rank_state& rank, const action& a) {
    for (const auto& [channel, number] : rank.weight_gradients_sent)  // may not change before they are received
      if (!matched(channel, number)) {
        rank.state = {waiting::for_sent, channel, number};
        return false;
      }
    if (a.channel == no_slot) return true;
    if (!arrived(rank, a.what, a.buffer)) return false;
    buffer& b = rank.reductions[a.buffer];
    if (b.channel != a.channel)
      return wrong(concat({"adds ", to_string(a.what), " of channel ", a.channel, "; expected channel ", b.channel}));
    b.state = content::nothing;
    return true;
  }

  const program& p_;
  Observer observer_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> ranks_;
  std::vector<std::uint32_t> runnable_;
  std::string wrong_;  // the fault of the last step, if it was wrong
};

}  // namespace pipesched::detail
