// SPDX-License-Identifier: MIT
#pragma once

// Ranks of one process that hand messages to each other: what in_process.hpp (host memory) and peer.hpp (devices) share. A
// message moves once, from the sender's buffer into the receiver's, by whichever of the two posts second; no lock is taken.
// When a rank fails, leaves or stalls, all others are told why and end.
//
// How a message moves is the business of a mover, which has
//
//   posted(side, where)                       on the thread of the rank that posts, before the two meet
//   move(channel, entry, from, into, size, where)   by the second of the two, on its thread; entry: in the channel's ring
//   moved(side, where)                        on the thread of a rank that has waited for it
//
// `where()` is the rank and what it is at, for errors.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// One side of a message: the rank and its buffer. Buffers are counted from those of tensors on; behind them come those
/// that weight gradients are received into, then one for each that is sent.
struct message_side {
  std::uint32_t rank = 0, buffer = 0;
  std::byte* bytes = nullptr;
};

/// What a hub makes room for, counted from the actions.
struct transfer_counts {
  explicit transfer_counts(const program& p) : entries(p.channels.size(), 1), weights(p.actions.size(), 0) {
    for (std::uint32_t rank = 0; rank < p.actions.size(); ++rank) {
      std::vector<std::uint32_t> last_channel(p.pools[rank].buffers, no_slot);
      for (const action& a : p.actions[rank]) {
        if (!is_message(a)) continue;
        const bool tensor = !is_weight_gradient(a);
        if (tensor && last_channel[a.buffer] == a.channel) continue;  // waited for before it is posted again
        if (tensor) last_channel[a.buffer] = a.channel;
        ++entries[a.channel];
      }
      weights[rank] = weight_gradients_sent(p.actions[rank]);
    }
  }
  std::vector<std::size_t> entries;    ///< by channel: no fewer than its messages that are posted and have not moved
  std::vector<std::uint32_t> weights;  ///< by rank: the weight gradients it sends in a step
};

/// What the ranks of one process share.
template <typename Mover>
class basic_hub {
 public:
  /// @param time_limit  how long a rank waits for one message before it gives up, and all others with it
  /// @throws schedule_error unless the limit is above 0 and at most 1e9 seconds
  explicit basic_hub(const program& p, std::chrono::duration<double> time_limit = std::chrono::seconds(60),
                     Mover mover = {})
      : program_(p),
        time_limit_(detail::checked_time_limit(time_limit)),
        counts_(p),
        at_(p.actions.size()),
        mover_(std::move(mover)) {
    for (const std::size_t entries : counts_.entries) channels_.emplace_back(entries);
    for (std::size_t r = 0; r < p.actions.size(); ++r)
      ranks_.emplace_back(std::size_t{p.pools[r].buffers} + p.pools[r].reductions + counts_.weights[r]);
  }
  basic_hub(const basic_hub&) = delete;
  basic_hub& operator=(const basic_hub&) = delete;

  /// Stops all ranks. The first cause is the one that is told.
  void abort(std::uint32_t rank, const std::string& cause) { stop(rank, cause, state::aborted); }
  bool aborted() const { return state_.load(std::memory_order_acquire) != state::runs; }
  /// The rank, the op it was at, and the text. Waits, at most a second, where a rank has left with an exception and has not
  /// said which. @pre aborted()
  const std::string& cause() const {
    const auto start = std::chrono::steady_clock::now();
    while (state_.load(std::memory_order_acquire) == state::leaving) {
      std::this_thread::yield();
      if (std::chrono::steady_clock::now() - start < std::chrono::seconds(1)) continue;
      const std::lock_guard lock(mutex_);
      if (state_.load(std::memory_order_relaxed) == state::leaving) state_.store(state::aborted);
    }
    return cause_;
  }
  /// The rank that abort() was called for first. @pre aborted()
  std::uint32_t culprit() const { return culprit_; }

  /// Where every rank is, and the message it waits for if it waits for one.
  std::string positions() const {
    std::string text;
    for (std::uint32_t rank = 0; rank < at_.size(); ++rank)
      text += detail::concat({"rank ", rank, " at ", place(rank), "\n"});
    return text;
  }

  Mover& mover() { return mover_; }
  std::chrono::duration<double> time_limit() const { return time_limit_; }

 private:
  template <typename>
  friend class basic_in_process;

  // One message buffer, on either side: how many posts there were, and how many of them are done.
  struct buffer {
    std::atomic<std::uint32_t> posted{0};  // by its own rank; others read it for reports
    std::atomic<std::uint32_t> done{0};
    std::uint32_t seen = 0;  // by its own rank, of those done
  };
  struct post {
    message_side from{}, into{};
    std::size_t sent = 0, expected = 0;
    tensor_id leaves{}, comes{};
    std::atomic<std::uint8_t> sides{0};  // 1 from the sender, 2 from the receiver
  };
  struct channel_state {
    explicit channel_state(std::size_t entries) : posts(std::make_unique<post[]>(entries)), size(entries) {}
    std::unique_ptr<post[]> posts;
    std::size_t size;
    alignas(64) std::size_t sends = 0;
    alignas(64) std::size_t receives = 0;
  };
  struct rank_state {
    explicit rank_state(std::size_t size) : buffers(std::make_unique<buffer[]>(size)) {}
    std::unique_ptr<buffer[]> buffers;
  };
  // The action that a rank is at; one on a cache line.
  struct alignas(64) position {
    std::atomic<std::uint32_t> action{no_slot};  // no_slot: before its step
  };

  // leaving: a rank's side has gone with an exception, whose text its thread may still tell.
  enum class state : std::uint8_t { runs, leaving, aborted };
  void stop(std::uint32_t rank, const std::string& cause, state then) {
    const std::lock_guard lock(mutex_);
    const state now = state_.load(std::memory_order_relaxed);
    if (now == state::aborted || (now == state::leaving && (then == now || rank != culprit_))) return;
    cause_ = detail::concat({"rank ", rank, " at ", place(rank), ": ", cause});
    culprit_ = rank;
    state_.store(then, std::memory_order_release);
  }

  std::string place(std::uint32_t rank) const {
    const auto row = program_.actions[rank];
    const std::uint32_t n = at_[rank].action.load(std::memory_order_relaxed);
    if (n == no_slot) return "its start";
    const auto waited_for = awaited(rank, n);
    const std::string waits = waited_for == nullptr ? "" : ", which waits for " + describe(*waited_for);
    return (n >= row.size() ? "its end" : detail::place_of(program_, rank, row[n])) + waits;
  }
  std::string describe(const action& a) const {
    const channel& c = program_.channels[a.channel];
    const bool receives = a.kind == action_kind::receive;
    return detail::concat({to_string(a.what), receives ? " from rank " : " to rank ", receives ? c.from : c.to});
  }
  // What was posted before action `n` and is waited for there.
  const action* awaited(std::uint32_t rank, std::uint32_t n) const {
    const auto row = program_.actions[rank];
    const pool_sizes& pools = program_.pools[rank];
    const auto pending = [&](std::uint32_t number) {
      const buffer& b = ranks_[rank].buffers[number];
      return b.done.load(std::memory_order_relaxed) != b.posted.load(std::memory_order_relaxed);
    };
    const auto needs = [&](const action& a, std::uint32_t number) {
      const bool weights = is_weight_gradient(a);
      if (n >= row.size()) return true;
      if (row[n].kind == action_kind::accumulate)
        return weights && (a.kind == action_kind::send || a.buffer == row[n].buffer);
      if (row[n].kind != action_kind::compute || weights) return false;
      const auto& slots = program_.slots[rank][row[n].index];
      return std::any_of(slots.begin(), slots.end(),
                         [&](const op_slots& s) { return s.input == number || s.output == number; });
    };
    std::uint32_t sent = 0;
    const action* last = nullptr;
    for (const action& a : row.first(std::min<std::size_t>(n, row.size()))) {
      if (!is_message(a)) continue;
      std::uint32_t number = a.buffer;
      if (is_weight_gradient(a))
        number = pools.buffers + (a.kind == action_kind::receive ? a.buffer : pools.reductions + sent++);
      if (needs(a, number) && pending(number)) last = &a;
    }
    return last;
  }

  const program& program_;
  std::chrono::duration<double> time_limit_;
  transfer_counts counts_;
  std::vector<position> at_;
  std::deque<channel_state> channels_;
  std::deque<rank_state> ranks_;
  mutable std::atomic<state> state_{state::runs};
  mutable std::mutex mutex_;  // of cause_ until the state is aborted, and not on the way of messages
  std::string cause_;
  std::uint32_t culprit_ = 0;
  Mover mover_;
};

/// One rank's side of a hub. @pre the trainers' buffers outlive all ranks' steps: another rank may be copying from them
template <typename Mover>
class basic_in_process {
 public:
  /// @throws schedule_error if the program has no such rank
  basic_in_process(basic_hub<Mover>& hub, std::uint32_t rank)
      : hub_(hub),
        rank_(detail::checked_rank(hub.program_, rank)),
        data_(hub.program_.pools[rank].buffers),
        reductions_(hub.program_.pools[rank].reductions),
        sends_(hub.counts_.weights[rank]),
        buffers_(hub.ranks_[rank].buffers.get()) {}

  basic_in_process(const basic_in_process&) = delete;
  basic_in_process& operator=(const basic_in_process&) = delete;
  /// A rank that leaves in the middle of a step, or with an exception, tells the others. They are given the exception's text
  /// if its thread calls abort() of the hub within a second.
  ~basic_in_process() {
    using state = typename basic_hub<Mover>::state;
    try {
      if (std::uncaught_exceptions() > exceptions_)
        hub_.stop(rank_, "it left with an exception", state::leaving);
      else if (!finished_)
        hub_.abort(rank_, "it left before the end of its step");
    } catch (...) {  // no memory for a text
    }
  }

  std::uint32_t rank() const { return rank_; }

  void at(std::uint32_t action) {
    hub_.at_[rank_].action.store(action, std::memory_order_relaxed);
    finished_ = false;
  }

  void post_receive(const action& a, std::span<std::byte> bytes) {
    const std::uint32_t n = is_weight_gradient(a) ? data_ + a.buffer : a.buffer;
    const message_side side = post(n, bytes.data());
    auto& c = hub_.channels_[a.channel];
    const std::size_t entry = c.receives++ % c.size;
    auto& p = c.posts[entry];
    p.into = side, p.expected = bytes.size(), p.comes = a.what;
    meet(p, 2, a.channel, entry);
  }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    const bool weights = is_weight_gradient(a);
    const std::uint32_t n = weights ? data_ + reductions_ + weights_++ % sends_ : a.buffer;
    const message_side side = post(n, const_cast<std::byte*>(bytes.data()));  // only read
    auto& c = hub_.channels_[a.channel];
    const std::size_t entry = c.sends++ % c.size;
    auto& p = c.posts[entry];
    p.from = side, p.sent = bytes.size(), p.leaves = a.what;
    meet(p, 1, a.channel, entry);
  }
  void wait_received(std::uint32_t n, bool weights) { wait(weights ? data_ + n : n); }
  void wait_sent(std::uint32_t n) { wait(n); }
  void wait_weights_sent() {
    for (std::uint32_t n = 0; n < sends_; ++n) wait(data_ + reductions_ + n);
  }
  void finish() {
    at(static_cast<std::uint32_t>(hub_.program_.actions[rank_].size()));
    for (std::uint32_t n = 0; n < data_ + reductions_ + sends_; ++n) wait(n);
    finished_ = true;
  }

  /// Would the action wait for another rank? For one thread that runs all ranks by turns.
  bool waits(const action& a) const {
    const auto pending = [&](std::uint32_t n) {
      return n != no_slot && buffers_[n].done.load(std::memory_order_acquire) != posted(buffers_[n]);
    };
    if (a.kind == action_kind::compute) {
      const auto& slots = hub_.program_.slots[rank_][a.index];
      return std::any_of(slots.begin(), slots.end(),
                         [&](const op_slots& s) { return pending(s.input) || pending(s.output); });
    }
    if (a.kind != action_kind::accumulate) return false;
    for (std::uint32_t n = 0; n < sends_; ++n)
      if (pending(data_ + reductions_ + n)) return true;
    return a.channel != no_slot && pending(data_ + a.buffer);
  }
  /// Would finish()?
  bool finish_waits() const {
    for (std::uint32_t n = 0; n < data_ + reductions_ + sends_; ++n)
      if (buffers_[n].done.load(std::memory_order_acquire) != posted(buffers_[n])) return true;
    return false;
  }

 protected:
  /// Until `done()`, at most the time limit, and only as long as no rank has failed.
  template <typename Done>
  void wait_until(Done&& done, std::string_view what) {
    const auto start = std::chrono::steady_clock::now();
    for (std::uint64_t round = 0; !done(); ++round) {
      if (hub_.aborted()) give_up();
      if (round < 64) continue;
      std::this_thread::yield();
      if (round % 64 == 0 && std::chrono::steady_clock::now() - start > hub_.time_limit_) {
        hub_.abort(rank_, detail::concat({what, " within the time limit\n", hub_.positions()}));
        give_up();
      }
    }
  }
  auto where() const {
    return [this] { return detail::concat({"rank ", rank_, " at ", hub_.place(rank_)}); };
  }
  Mover& mover() const { return hub_.mover_; }

 private:
  using buffer = typename basic_hub<Mover>::buffer;

  static std::uint32_t posted(const buffer& b) { return b.posted.load(std::memory_order_relaxed); }

  message_side post(std::uint32_t n, std::byte* bytes) {
    const message_side side{rank_, n, bytes};
    buffers_[n].posted.store(posted(buffers_[n]) + 1, std::memory_order_relaxed);
    mover().posted(side, where());
    return side;
  }

  // The second of two posts moves.
  void meet(typename basic_hub<Mover>::post& p, std::uint8_t sides, std::uint32_t channel, std::size_t entry) {
    if (p.sides.fetch_or(sides, std::memory_order_acq_rel) == 0) return;
    if (p.leaves != p.comes) {
      hub_.abort(rank_, detail::concat({to_string(p.leaves), " meets the receive of ", to_string(p.comes)}));
      give_up();
    }
    if (p.sent != p.expected) {
      hub_.abort(rank_, detail::concat({to_string(p.leaves), " has ", p.sent, " bytes where it leaves and ", p.expected,
                                        " where it comes"}));
      give_up();
    }
    mover().move(channel, entry, p.from, p.into, p.sent, where());
    const message_side from = p.from, into = p.into;
    p.sides.store(0, std::memory_order_relaxed);  // seen by whoever uses it next, through `done`
    for (const message_side& side : {from, into})
      hub_.ranks_[side.rank].buffers[side.buffer].done.fetch_add(1, std::memory_order_release);
  }

  void wait(std::uint32_t n) {
    buffer& b = buffers_[n];
    if (b.done.load(std::memory_order_acquire) != posted(b))
      wait_until([&] { return b.done.load(std::memory_order_acquire) == posted(b); }, "nothing came");
    if constexpr (Mover::orders) {
      if (b.seen == posted(b)) return;
      b.seen = posted(b);
      mover().moved({rank_, n, nullptr}, where());
    }
  }
  [[noreturn]] void give_up() const { throw pipeline_aborted("aborted by " + hub_.cause()); }

  basic_hub<Mover>& hub_;
  std::uint32_t rank_, data_, reductions_, sends_;  // sends_: of weight gradients, in a step
  buffer* buffers_;
  std::uint32_t weights_ = 0;  // sent so far
  bool finished_ = true;
  int exceptions_ = std::uncaught_exceptions();
};

}  // namespace pipesched
