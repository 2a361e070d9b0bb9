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

/// An observer that does nothing. Other observers have the same functions, which are called once for every action that a rank
/// finishes, in order; moved() before the action that waited for the message, on either side.
struct null_observer {
  void compute(std::uint32_t /*rank*/, std::size_t /*cell*/) {}
  void accumulate(std::uint32_t /*rank*/) {}
  void post(std::uint32_t /*rank*/, std::uint32_t /*channel*/, std::size_t /*number*/) {}
  void moved(std::uint32_t /*rank*/, std::uint32_t /*channel*/, std::size_t /*number*/, tensor_id) {}
};

template <typename Observer = null_observer>
class interpreter {
 public:
  /// The reason why a rank is blocked: a message has not arrived, one of its own has not been received, or its next action
  /// is wrong.
  struct waiting {
    enum kind : std::uint8_t { no, for_arrival, for_sent, wrong } why = no;
    std::uint32_t channel = no_slot;
    tensor_id what{};  // in the message
  };

  explicit interpreter(const program& p, Observer observer = {})
      : p_(p),
        chain_(p.schedule.chain()),
        observer_(std::move(observer)),
        channels_(p.channels.size()),
        ranks_(p.actions.size()),
        runnable_(static_cast<std::uint32_t>(p.actions.size())) {
    for (std::size_t c = 0; c < channels_.size(); ++c)
      channels_[c].from = p.channels[c].from, channels_[c].to = p.channels[c].to;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      ranks_[r].number = static_cast<std::uint32_t>(r);
      ranks_[r].actions = p.actions[r], ranks_[r].cells = p.schedule[r], ranks_[r].slots = p.slots[r];
      ranks_[r].buffers.resize(p.pools[r].buffers());
      ranks_[r].sizes = p.pools[r];
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
      while (at < rank.actions.size() && step(rank, rank.actions[at])) prefetch(rank.actions, ++at + 12);
      rank.done = at;
      if (wrong_.empty()) return;
      rank.state = {waiting::wrong, no_slot, {}};
      fault(r, std::exchange(wrong_, {}));
    });
  }

  /// Number of actions that a rank has finished.
  std::size_t done(std::uint32_t r) const { return ranks_[r].done; }
  bool finished(std::uint32_t r) const { return done(r) == ranks_[r].actions.size(); }
  const waiting& state(std::uint32_t r) const { return ranks_[r].state; }
  /// Numbers of sends and receives posted in a channel, and the tensor of the first message that is posted on one side only.
  std::size_t sends(std::size_t c) const { return channels_[c].sends; }
  std::size_t receives(std::size_t c) const { return channels_[c].receives; }
  tensor_id unmatched(std::size_t c) const { return channels_[c].first->what; }
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
    bool matched = false;  // both sides of its message are posted
    bool awaited = false;  // its rank waits for that
    tensor_id what{};
    std::uint32_t channel = no_slot, number = 0;
    buffer* next = nullptr;  // of the same channel and side, posted later
  };
  struct channel_state {
    std::uint32_t sends = 0, receives = 0;
    std::uint16_t from = 0, to = 0;
    buffer *first = nullptr, *last = nullptr;  // of the messages that only one of the two sides has posted
  };
  struct rank_state {
    std::uint32_t number = 0;
    std::span<const action> actions{};
    std::span<const cell> cells{};
    std::span<const std::array<op_slots, 2>> slots{};
    std::size_t done = 0;
    waiting state{};
    pool_sizes sizes{};
    std::vector<buffer> buffers{};
  };

  // The cells and slots that a rank needs some cells later.
  static void prefetch_after(const rank_state& rank, std::size_t cell) {
    prefetch(rank.cells, cell + 4);
    prefetch(rank.slots, cell + 4);
  }

  bool step(rank_state& rank, const action& a) {
    switch (a.kind) {
      case action_kind::receive: return post<true>(rank, a);
      case action_kind::send: return post<false>(rank, a);
      case action_kind::compute: return compute(rank, a);
      case action_kind::accumulate: return accumulate(rank, a);
    }
    return wrong({"an action of unknown kind; expected receive, compute, send or accumulate"});
  }

  template <bool Receives>
  bool post(rank_state& rank, const action& a) {
    if (a.channel >= channels_.size() ||
        (Receives ? channels_[a.channel].to : channels_[a.channel].from) != rank.number)
      return not_its_channel(a);
    channel_state& c = channels_[a.channel];
    const bool second = Receives ? c.receives < c.sends : c.sends < c.receives;
    if (second && c.first->what != a.what) return mismatch(a, c);
    buffer* b = buffer_to_post<Receives>(rank, a);
    if (!b) return false;
    const std::uint32_t number = Receives ? c.receives++ : c.sends++;
    *b = buffer{.state = Receives ? content::receiving : content::sending,
                .matched = second,
                .what = a.what,
                .channel = a.channel,
                .number = number};
    observer_.post(rank.number, a.channel, number);
    second ? match_first(c, Receives ? c.from : c.to) : append(c, *b);
    return true;
  }

  // The first message that only the other side had posted is posted on both.
  void match_first(channel_state& c, std::uint32_t other) {
    buffer& b = *std::exchange(c.first, c.first->next);
    b.matched = true;
    if (b.awaited) runnable_.wake(other);
  }
  static void append(channel_state& c, buffer& b) {
    (c.first ? c.last->next : c.first) = &b;
    c.last = &b;
  }

  // The buffer of a message, which must be free for a receive and hold the tensor for a send; null if it is wrong.
  template <bool Receives>
  buffer* buffer_to_post(rank_state& rank, const action& a) {
    if (!Receives && is_weight_gradient(a)) return sent_gradient_to_post(rank, a);
    buffer* b = buffer_of(rank, a.what, a.buffer);
    if (!b) return nullptr;
    const bool ready = Receives ? b->state == content::nothing : b->state == content::held && b->what == a.what;
    if (ready) return b;
    Receives ? not_free("receives ", a.what, " into buffer ", a.buffer, *b) : not_held(a);
    return nullptr;
  }

  buffer* sent_gradient_to_post(rank_state& rank, const action& a) {
    const std::uint32_t first = rank.sizes.owned_buffers();
    if (a.buffer < first || a.buffer >= rank.buffers.size()) {
      no_buffer(a.what, a.buffer, first, rank.buffers.size());
      return nullptr;
    }
    buffer& b = rank.buffers[a.buffer];
    if (b.state == content::nothing) return &b;
    not_free("sends ", a.what, " from buffer ", a.buffer, b);
    return nullptr;
  }

  bool compute(rank_state& rank, const action& a) {
    if (a.index >= rank.cells.size())
      return wrong({"runs cell ", a.index, "; expected one of ", rank.cells.size(), " cells"});
    const cell& c = rank.cells[a.index];
    const std::array<op_slots, 2>& slots = rank.slots[a.index];
    prefetch_after(rank, a.index);
    const std::size_t ops = c.size();
    for (std::size_t i = 0; i < ops; ++i)
      if (!input_ready(rank, c[i], slots[i].input)) return false;
    for (std::size_t i = 0; i < ops; ++i)
      if (!output_free(rank, c[i], slots[i].output)) return false;
    for (std::size_t i = 0; i < ops; ++i)
      if (slots[i].input != no_slot) rank.buffers[slots[i].input].state = content::nothing;
    for (std::size_t i = 0; i < ops; ++i)
      if (const std::uint32_t to = slots[i].output; to != no_slot) {
        if (rank.buffers[to].state != content::nothing) return wrong({"writes two outputs to buffer ", to});
        rank.buffers[to].state = content::held;
        rank.buffers[to].what = product_of(c[i]);
      }
    observer_.compute(rank.number, a.index);
    return true;
  }

  bool accumulate(rank_state& rank, const action& a) {
    for (std::size_t n = rank.sizes.owned_buffers(); n < rank.buffers.size(); ++n) {
      buffer& b = rank.buffers[n];  // may not change before it is received
      if (b.state != content::sending) continue;
      if (!matched(rank, waiting::for_sent, b)) return false;
      observer_.moved(rank.number, b.channel, b.number, b.what);
    }
    if (a.channel != no_slot) {
      if (!arrived(rank, a.what, a.buffer)) return false;
      buffer& b = rank.buffers[a.buffer];
      if (b.channel != a.channel) return other_channel(a, b);
      b.state = content::nothing;
    }
    observer_.accumulate(rank.number);
    return true;
  }

  bool input_ready(rank_state& rank, op o, std::uint32_t number) {
    if (has_input(o, chain_)) return arrived(rank, source_of(o), number);
    return number == no_slot || needless(o);
  }
  bool output_free(rank_state& rank, op o, std::uint32_t number) {
    if (has_output(o, chain_)) return free(rank, product_of(o), number);
    return number == no_slot || needless(o);
  }

  // True if the tensor is in the buffer. Waits if its receive is posted; wrong if it is not.
  bool arrived(rank_state& rank, tensor_id what, std::uint32_t number) {
    buffer* b = buffer_of(rank, what, number);
    if (!b) return false;
    if (b->state == content::nothing || b->state == content::sending || b->what != what)
      return not_there(what, number, *b);
    if (b->state == content::held) return true;
    if (!matched(rank, waiting::for_arrival, *b)) return false;
    observer_.moved(rank.number, b->channel, b->number, what);
    b->state = content::held;
    return true;
  }

  // True if the buffer is free. Waits if its last message is being sent; wrong if it is in use otherwise.
  bool free(rank_state& rank, tensor_id what, std::uint32_t number) {
    buffer* b = buffer_of(rank, what, number);
    if (!b) return false;
    if (b->state == content::nothing) return true;
    if (b->state != content::sending) return not_free("writes ", what, " to buffer ", number, *b);
    if (!matched(rank, waiting::for_sent, *b)) return false;
    observer_.moved(rank.number, b->channel, b->number, b->what);
    b->state = content::nothing;
    return true;
  }

  // True if both sides of the buffer's message are posted. Otherwise the rank waits for the other side.
  static bool matched(rank_state& rank, typename waiting::kind why, buffer& b) {
    if (b.matched) return true;
    rank.state = {why, b.channel, b.what};
    b.awaited = true;
    return false;
  }

  buffer* buffer_of(rank_state& rank, tensor_id what, std::uint32_t number) {
    const bool reduces = what.kind == tensor_kind::weight_gradient;
    const std::uint32_t first = reduces ? rank.sizes[pool::tensor] : 0;
    const std::uint32_t end = reduces ? rank.sizes.owned_buffers() : rank.sizes[pool::tensor];
    if (number >= first && number < end) return &rank.buffers[number];
    no_buffer(what, number, first, end);
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
  [[gnu::cold]] bool mismatch(const action& a, const channel_state& c) {
    const tensor_id other = c.first->what;
    const bool receives = a.kind == action_kind::receive;
    return wrong({"message ", receives ? c.receives : c.sends, " from rank ", c.from, " to rank ", c.to, " is sent as ",
                  to_string(receives ? other : a.what), " and received as ", to_string(receives ? a.what : other)});
  }
  [[gnu::cold]] bool no_buffer(tensor_id what, std::uint32_t number, std::size_t first, std::size_t end) {
    if (number == no_slot) return wrong({"has no buffer for ", to_string(what)});
    if (first == end)
      return wrong({"uses buffer ", number, " for ", to_string(what), "; the rank has no such buffers"});
    return wrong({"uses buffer ", number, " for ", to_string(what), "; expected one of ", end - first, " buffers from ",
                  first, " on"});
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
  stage_chain chain_;
  Observer observer_;
  std::vector<channel_state> channels_;
  std::vector<rank_state> ranks_;
  worklist runnable_;
  std::string wrong_;  // the fault of the last step, if it was wrong
};

}  // namespace pipesched::detail
