// SPDX-License-Identifier: MIT
#pragma once

// Plays a program under the strictest rules: a send ends only when its receive is posted, channels are first in, first out, and a
// buffer must be free before anything is put into it. What happens does not depend on who runs first: each rank's actions are
// fixed and nobody can choose, so one play tells of all.

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

  /// Runs every rank as far as it gets. Calls `fault(rank, text)` for each rank whose next action is wrong; it goes no further.
  template <typename Fault>
  void run(Fault&& fault) {
    std::vector<std::uint32_t> runnable;
    for (std::size_t r = ranks_.size(); r-- > 0;) runnable.push_back(static_cast<std::uint32_t>(r));
    while (!runnable.empty()) {
      const std::uint32_t r = runnable.back();
      runnable.pop_back();
      if (ranks_[r].state.why == waiting::wrong) continue;
      const std::span<const action> row = p_.actions[r];
      for (std::size_t& at = ranks_[r].done; at < row.size(); ++at) {
        wrong_.clear();
        ranks_[r].state = {};
        step(r, row[at], runnable);
        if (!wrong_.empty()) {
          ranks_[r].state = {waiting::wrong, no_slot, 0};
          fault(r, std::move(wrong_));
        }
        if (ranks_[r].state.why != waiting::no) break;
      }
    }
  }

  std::size_t done(std::uint32_t r) const { return ranks_[r].done; }
  bool finished(std::uint32_t r) const { return done(r) == p_.actions[r].size(); }
  const waiting& state(std::uint32_t r) const { return ranks_[r].state; }
  std::size_t sends(std::size_t c) const { return channels_[c].sends.size(); }
  std::size_t receives(std::size_t c) const { return channels_[c].receives.size(); }
  message send(std::size_t c, std::size_t number) const { return channels_[c].sends[number]; }
  message receive(std::size_t c, std::size_t number) const { return channels_[c].receives[number]; }
  Listener& listener() { return listener_; }

 private:
  enum class content : std::uint8_t { nothing, receiving, held, sending };
  struct buffer {
    content state = content::nothing;
    message what{};
    std::uint32_t channel = no_slot;
    std::uint32_t number = 0;
  };
  struct channel_state {
    std::vector<message> sends, receives;  // posted
  };
  struct rank_state {
    std::size_t done = 0;
    waiting state{};
    std::vector<buffer> buffers, reductions;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> weights_sent;  // channel and number
  };

  bool matched(const buffer& b) const {
    const channel_state& c = channels_[b.channel];
    return b.number < c.sends.size() && b.number < c.receives.size();
  }

  void step(std::uint32_t r, const action& a, std::vector<std::uint32_t>& runnable) {
    switch (a.kind) {
      case action_kind::receive: return post(r, a, true, runnable);
      case action_kind::send: return post(r, a, false, runnable);
      case action_kind::compute: return compute(r, a);
      case action_kind::reduce: return reduce(r, a);
    }
    wrong_ = "an action of no kind";
  }

  void post(std::uint32_t r, const action& a, bool receives, std::vector<std::uint32_t>& runnable) {
    if (a.channel >= p_.channels.size()) {
      wrong_ = concat({"channel ", a.channel, " where there are ", p_.channels.size()});
      return;
    }
    const channel& c = p_.channels[a.channel];
    if ((receives ? c.to : c.from) != r) {
      wrong_ =
          concat({receives ? "receives from" : "sends into", " the channel from rank ", c.from, " to rank ", c.to});
      return;
    }
    channel_state& state = channels_[a.channel];
    std::vector<message>& mine = receives ? state.receives : state.sends;
    const std::vector<message>& other = receives ? state.sends : state.receives;
    const auto number = static_cast<std::uint32_t>(mine.size());
    if (a.what.what != payload::weights || receives) {
      buffer* b = buffer_of(r, a.what, a.buffer);
      if (!b) return;
      if (receives) {
        if (b->state != content::nothing) {
          wrong_ = concat({"receives ", to_string(a.what), " into buffer ", a.buffer, ", which has ",
                           to_string(b->what), " in it"});
          return;
        }
      } else if (b->state != content::held || b->what != a.what) {
        wrong_ = concat({"sends ", to_string(a.what), " from buffer ", a.buffer, ", which does not hold it"});
        return;
      }
      *b = {receives ? content::receiving : content::sending, a.what, a.channel, number};
    }
    if (number < other.size() && other[number] != a.what) {
      const message &sent = receives ? other[number] : a.what, &expected = receives ? a.what : other[number];
      wrong_ = concat({"message ", number, " from rank ", c.from, " to rank ", c.to, " is sent as ", to_string(sent),
                       " and received as ", to_string(expected)});
      return;
    }
    mine.push_back(a.what);
    if (a.what.what == payload::weights && !receives) ranks_[r].weights_sent.push_back({a.channel, number});
    receives ? listener_.post_receive(a.channel, number) : listener_.post_send(a.channel, number);
    if (number < other.size())  // whoever waits for it goes on
      for (const std::uint32_t rank : {std::uint32_t{c.from}, std::uint32_t{c.to}})
        if (const waiting& w = ranks_[rank].state; w.channel == a.channel && w.number == number)
          runnable.push_back(rank);
  }

  buffer* buffer_of(std::uint32_t r, message what, std::uint32_t number) {
    auto& pool = what.what == payload::weights ? ranks_[r].reductions : ranks_[r].buffers;
    if (number < pool.size()) return &pool[number];
    wrong_ = concat({"buffer ", number, " where there are ", pool.size()});
    return nullptr;
  }

  // Waits for what has been posted to come; says what is wrong if nothing that would come has been posted.
  bool arrived(std::uint32_t r, message what, std::uint32_t number) {
    buffer* b = buffer_of(r, what, number);
    if (!b) return false;
    if (b->state == content::nothing || b->state == content::sending || b->what != what) {
      wrong_ = concat({"expects ", to_string(what), " in buffer ", number, ", where ",
                       b->state == content::nothing ? "nothing" : to_string(b->what), " is"});
      return false;
    }
    if (b->state == content::held) return true;
    if (!matched(*b)) {
      ranks_[r].state = {waiting::for_arrival, b->channel, b->number};
      return false;
    }
    listener_.arrived(b->channel, b->number);
    b->state = content::held;
    return true;
  }

  bool free(std::uint32_t r, message what, std::uint32_t number) {
    buffer* b = buffer_of(r, what, number);
    if (!b) return false;
    if (b->state == content::nothing) return true;
    if (b->state != content::sending) {
      wrong_ =
          concat({"puts ", to_string(what), " into buffer ", number, ", which has ", to_string(b->what), " in it"});
      return false;
    }
    if (!matched(*b)) {
      ranks_[r].state = {waiting::for_sent, b->channel, b->number};
      return false;
    }
    listener_.sent(b->channel, b->number);
    b->state = content::nothing;
    return true;
  }

  static message message_of(tensor t) {
    return {t.gradient ? payload::gradient : payload::activation, t.stage, t.micro};
  }

  void compute(std::uint32_t r, const action& a) {
    if (a.index >= p_.schedule[r].size()) {
      wrong_ = concat({"cell ", a.index, " where there are ", p_.schedule[r].size()});
      return;
    }
    const cell& c = p_.schedule[r][a.index];
    const auto& slots = p_.slots[r][a.index];
    const std::uint32_t stages = p_.schedule.stages();
    for (std::size_t i = 0; i < c.size(); ++i)
      if (const auto in = input_of(c[i], stages); in && !arrived(r, message_of(*in), slots[i].input)) return;
    for (std::size_t i = 0; i < c.size(); ++i)
      if (const auto out = output_of(c[i], stages); out && !free(r, message_of(*out), slots[i].output)) return;
    std::vector<buffer>& buffers = ranks_[r].buffers;
    for (std::size_t i = 0; i < c.size(); ++i)
      if (input_of(c[i], stages)) buffers[slots[i].input].state = content::nothing;
    for (std::size_t i = 0; i < c.size(); ++i)
      if (const auto out = output_of(c[i], stages)) {
        buffer& b = buffers[slots[i].output];
        if (b.state != content::nothing) {
          wrong_ = concat({"puts two outputs into buffer ", slots[i].output});
          return;
        }
        b = {content::held, message_of(*out), no_slot, 0};
      }
    listener_.compute(r, a.index);
  }

  void reduce(std::uint32_t r, const action& a) {
    for (const auto& [channel, number] : ranks_[r].weights_sent)  // may not change before they have gone
      if (number >= channels_[channel].receives.size()) {
        ranks_[r].state = {waiting::for_sent, channel, number};
        return;
      }
    if (a.channel == no_slot || !arrived(r, a.what, a.buffer)) return;
    ranks_[r].reductions[a.buffer].state = content::nothing;
  }

  const program& p_;
  Listener listener_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> ranks_;
  std::string wrong_;
};

}  // namespace pipesched::detail
