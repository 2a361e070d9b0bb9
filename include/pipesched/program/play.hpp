// SPDX-License-Identifier: MIT
#pragma once

// Plays a program under the strictest rules: a send ends only when its receive is posted, channels are first in, first out,
// and a buffer must be free before anything is put into it. What happens does not depend on who runs first: each rank's
// actions are fixed and nobody can choose, so one play tells of all.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/dependencies.hpp"
#include "pipesched/error.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::detail {

/// Watches a play and does nothing: what a listener may know.
struct silent_listener {
  void compute(std::uint32_t /*rank*/, std::size_t /*cell*/) {}
  void post_send(std::uint32_t /*channel*/, std::size_t /*number*/) {}
  void post_receive(std::uint32_t /*channel*/, std::size_t /*number*/) {}
  void arrived(std::uint32_t /*channel*/, std::size_t /*number*/) {}  // the receiver has seen that it is there
  void sent(std::uint32_t /*channel*/, std::size_t /*number*/) {}  // the sender has seen that its buffer is free again
};

template <typename Listener = silent_listener>
class player {
 public:
  /// Why a rank does not go on: it waits for a message that the other rank has not sent, or for one of its own to be
  /// received; or its next action is wrong.
  struct waiting {
    enum kind : std::uint8_t { no, for_arrival, for_sent, wrong } why = no;
    std::uint32_t channel = no_slot;
    std::uint32_t number = 0;  // of the message in the channel
  };

  /// @pre the channels have no more messages than there are actions
  explicit player(const program& p, Listener listener = {})
      : p_(p), listener_(std::move(listener)), channels_(p.channels.size()), ranks_(p.actions.count()) {
    for (std::size_t c = 0; c < channels_.size(); ++c) {
      channels_[c].sends.reserve(p.channels[c].messages), channels_[c].receives.reserve(p.channels[c].messages);
    }
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      ranks_[r].buffers.resize(p.pools[r].buffers);
      ranks_[r].reductions.resize(p.pools[r].reductions);
    }
  }

  /// Runs every rank as far as it gets. Calls `fault(rank, text)` for each rank whose next action is wrong; it goes no
  /// further.
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

  std::size_t done(std::uint32_t r) const { return ranks_[r].done; }
  bool finished(std::uint32_t r) const { return done(r) == p_.actions[r].size(); }
  const waiting& state(std::uint32_t r) const { return ranks_[r].state; }
  std::size_t sends(std::size_t c) const { return channels_[c].sends.size(); }
  std::size_t receives(std::size_t c) const { return channels_[c].receives.size(); }
  tensor_id send(std::size_t c, std::size_t number) const { return channels_[c].sends[number]; }
  tensor_id receive(std::size_t c, std::size_t number) const { return channels_[c].receives[number]; }
  Listener& listener() { return listener_; }

 private:
  enum class content : std::uint8_t { nothing, receiving, held, sending };
  struct buffer {
    content state = content::nothing;
    tensor_id what{};
    std::uint32_t channel = no_slot;
    std::uint32_t number = 0;
  };
  struct channel_state {
    std::vector<tensor_id> sends, receives;  // posted
  };
  struct rank_state {
    std::size_t done = 0;
    waiting state{};
    std::vector<buffer> buffers, reductions;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> weight_gradients_sent;  // channel and number
  };

  bool matched(std::uint32_t channel, std::uint32_t number) const {
    const channel_state& c = channels_[channel];
    return number < c.sends.size() && number < c.receives.size();
  }
  // These are what a step returns when it could not be taken.
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
      case action_kind::accumulate: return reduce(rank, a);
    }
    return wrong("an action of no kind");
  }

  template <bool Receives>
  bool post(std::uint32_t r, rank_state& rank, const action& a) {
    if (a.channel >= p_.channels.size())
      return wrong(concat({"channel ", a.channel, " where there are ", p_.channels.size()}));
    const channel& c = p_.channels[a.channel];
    if ((Receives ? c.to : c.from) != r)
      return wrong(
          concat({Receives ? "receives from" : "sends into", " the channel from rank ", c.from, " to rank ", c.to}));
    channel_state& state = channels_[a.channel];
    std::vector<tensor_id>& mine = Receives ? state.receives : state.sends;
    const std::vector<tensor_id>& other = Receives ? state.sends : state.receives;
    const auto number = static_cast<std::uint32_t>(mine.size());
    if (number < other.size() && other[number] != a.what)
      return wrong(concat({"message ", number, " from rank ", c.from, " to rank ", c.to, " is sent as ",
                           to_string(Receives ? other[number] : a.what), " and received as ",
                           to_string(Receives ? a.what : other[number])}));
    if (Receives || a.what.kind != tensor_kind::weight_gradient) {
      buffer* b = buffer_of(rank, a.what, a.buffer);
      if (!b) return false;
      if (Receives && b->state != content::nothing)
        return wrong(concat(
            {"receives ", to_string(a.what), " into buffer ", a.buffer, ", which has ", to_string(b->what), " in it"}));
      if (!Receives && (b->state != content::held || b->what != a.what))
        return wrong(concat({"sends ", to_string(a.what), " from buffer ", a.buffer, ", which does not hold it"}));
      *b = {Receives ? content::receiving : content::sending, a.what, a.channel, number};
    } else {
      rank.weight_gradients_sent.push_back({a.channel, number});
    }
    mine.push_back(a.what);
    if constexpr (Receives)
      listener_.post_receive(a.channel, number);
    else
      listener_.post_send(a.channel, number);
    if (number < other.size())  // whoever waits for it goes on
      for (const std::uint32_t side : {std::uint32_t{c.from}, std::uint32_t{c.to}})
        if (const waiting& w = ranks_[side].state; w.channel == a.channel && w.number == number)
          runnable_.push_back(side);
    return true;
  }

  buffer* buffer_of(rank_state& rank, tensor_id what, std::uint32_t number) {
    auto& pool = what.kind == tensor_kind::weight_gradient ? rank.reductions : rank.buffers;
    if (number < pool.size()) return &pool[number];
    wrong_ = concat({"buffer ", number, " where there are ", pool.size()});
    return nullptr;
  }

  // Is it there? Waits if it has been posted, and is wrong if nothing that would bring it has been.
  bool arrived(rank_state& rank, tensor_id what, std::uint32_t number) {
    buffer* b = buffer_of(rank, what, number);
    if (!b) return false;
    if (b->state == content::nothing || b->state == content::sending || b->what != what)
      return wrong(concat({"expects ", to_string(what), " in buffer ", number, ", where ",
                           b->state == content::nothing ? "nothing" : to_string(b->what), " is"}));
    if (b->state == content::held) return true;
    if (!matched(b->channel, b->number)) return waits(rank, waiting::for_arrival, *b);
    listener_.arrived(b->channel, b->number);
    b->state = content::held;
    return true;
  }

  // Is the buffer free? Waits if it is being sent from, and is wrong if it is in use otherwise.
  bool free(rank_state& rank, tensor_id what, std::uint32_t number) {
    buffer* b = buffer_of(rank, what, number);
    if (!b) return false;
    if (b->state == content::nothing) return true;
    if (b->state != content::sending)
      return wrong(
          concat({"puts ", to_string(what), " into buffer ", number, ", which has ", to_string(b->what), " in it"}));
    if (!matched(b->channel, b->number)) return waits(rank, waiting::for_sent, *b);
    listener_.sent(b->channel, b->number);
    b->state = content::nothing;
    return true;
  }

  bool compute(std::uint32_t r, rank_state& rank, const action& a) {
    if (a.index >= p_.schedule[r].size())
      return wrong(concat({"cell ", a.index, " where there are ", p_.schedule[r].size()}));
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
        if (b.state != content::nothing) return wrong(concat({"puts two outputs into buffer ", slots[i].output}));
        b = {content::held, *out[i], no_slot, 0};
      }
    listener_.compute(r, a.index);
    return true;
  }

  bool needless(op o) { return wrong(concat({to_string(o), " has a buffer that it does not need"})); }

  bool reduce(rank_state& rank, const action& a) {
    for (const auto& [channel, number] : rank.weight_gradients_sent)  // may not change before they have gone
      if (!matched(channel, number)) {
        rank.state = {waiting::for_sent, channel, number};
        return false;
      }
    if (a.channel == no_slot) return true;
    if (!arrived(rank, a.what, a.buffer)) return false;
    rank.reductions[a.buffer].state = content::nothing;
    return true;
  }

  const program& p_;
  Listener listener_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> ranks_;
  std::vector<std::uint32_t> runnable_;
  std::string wrong_;  // what is, where something is
};

}  // namespace pipesched::detail
