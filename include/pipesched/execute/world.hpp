// SPDX-License-Identifier: MIT
#pragma once

// The state that the ranks of one process share, whether their messages are in host memory (thread_transport.hpp) or on devices
// (device/peer_transport.hpp). A message moves once, from the sender's buffer into the receiver's, by whichever of the two
// posts second. No lock is taken. When a rank fails, leaves or stalls, all others hear why and end.
//
// A copy engine moves the bytes. It has
//
//   prepare(program, in_flight)                       in_flight: by channel, the most messages that are posted and not moved
//   posted(side, where)                               on the thread of the rank that posts, before the two meet
//   move(channel, entry, from, into, size, where)     on the thread of the second of the two; entry: in the channel's ring
//   moved(side, where)                                on the thread of a rank that has waited for it, if the engine `orders`
//
// `where()` is the rank and its action, for errors.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/execute/failure.hpp"
#include "pipesched/execute/transport.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// One side of a message.
struct message_side {
  std::uint32_t rank = 0, buffer = 0;
  std::byte* bytes = nullptr;
};

template <typename CopyEngine>
class world_transport;

/// The ranks of one process.
template <typename CopyEngine>
class basic_world {
 public:
  /// @param time_limit  how long a rank waits for one message before it fails, and all others with it. Not counted while a rank
  /// that has a transport is between steps
  /// @throws schedule_error unless there is a rank, and the limit is above 0 and at most 1e9 seconds
  basic_world(std::size_t ranks, std::chrono::duration<double> time_limit, CopyEngine engine)
      : time_limit_(detail::checked_time_limit(time_limit)), at_(ranks), engine_(std::move(engine)) {
    if (ranks == 0) throw schedule_error("a world has at least 1 rank; got 0");
  }
  basic_world(const basic_world&) = delete;
  basic_world& operator=(const basic_world&) = delete;

  /// Makes room for the messages of a program; run_all() calls it. @pre no step runs; the program outlives its steps
  /// @throws schedule_error for a program with another number of ranks; pipeline_aborted after a failure
  void prepare(const program& p) {
    if (p.actions.size() != at_.size())
      throw schedule_error(detail::concat({"a program of ", detail::count_text(p.actions.size(), "rank"),
                                           " needs a world of as many; this one has ", at_.size()}));
    if (aborted()) give_up();
    program_ = &p;
    const std::vector<std::size_t> in_flight = messages_in_flight(p);
    channels_.clear(), buffers_.clear();
    for (const std::size_t entries : in_flight) channels_.emplace_back(entries);
    for (const pool_sizes& pools : p.pools) buffers_.push_back(std::make_unique<buffer[]>(pools.buffers()));
    for (position& at : at_) at.action.store(no_slot);
    engine_.prepare(p, in_flight);
  }
  /// The program need not live any longer; run_all() calls it.
  void forget_program() { program_ = nullptr; }
  std::size_t size() const { return at_.size(); }

  /// Stops all ranks. The first cause is kept.
  void abort(std::uint32_t rank, std::string_view cause) {
    cause_.set(detail::concat({place(rank), ": ", cause}), rank);
  }
  bool aborted() const { return cause_.is_known(); }
  /// The rank, its op, and the text. Waits, at most a second, where a rank has left with an exception whose text is not
  /// known yet. @pre aborted()
  const std::string& cause() const { return cause_.text(std::chrono::seconds(1)); }
  /// The rank that failed first. @pre aborted()
  std::uint32_t culprit() const { return cause_.by(); }

  /// The place of every rank, and the message it waits for if it waits for one.
  std::string positions() const {
    std::string text;
    for (std::uint32_t rank = 0; rank < at_.size(); ++rank) text += place(rank) + "\n";
    return text;
  }

  CopyEngine& engine() { return engine_; }
  std::chrono::duration<double> time_limit() const { return time_limit_; }

 private:
  friend class world_transport<CopyEngine>;

  // One buffer: how many messages were posted, and how many of them are done.
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
  // The action of a rank; one on a cache line.
  struct alignas(64) position {
    std::atomic<std::uint32_t> action{no_slot};  // no_slot: before its step
  };

  // By channel, an upper bound of its messages that are posted and have not moved: a buffer is waited for before it is posted
  // again.
  static std::vector<std::size_t> messages_in_flight(const program& p) {
    std::vector<std::size_t> counts(p.channels.size(), 1);
    for (std::uint32_t rank = 0; rank < p.actions.size(); ++rank) {
      std::vector<std::uint32_t> last_channel(p.pools[rank].buffers(), no_slot);
      for (const action& a : p.actions[rank])
        if (is_message(a) && std::exchange(last_channel[a.buffer], a.channel) != a.channel) ++counts[a.channel];
    }
    return counts;
  }

  [[noreturn]] void give_up() const { throw pipeline_aborted("aborted by " + cause()); }
  std::string place(std::uint32_t rank) const {
    const auto is_pending = [&](std::uint32_t n) {
      const buffer& b = buffers_[rank][n];
      return b.done.load(std::memory_order_relaxed) != b.posted.load(std::memory_order_relaxed);
    };
    return detail::place_of(program_, rank, at_[rank].action.load(std::memory_order_relaxed), is_pending);
  }

  std::chrono::duration<double> time_limit_;
  const program* program_ = nullptr;
  std::vector<position> at_;  // by rank
  std::deque<channel_state> channels_;
  std::vector<std::unique_ptr<buffer[]>> buffers_;  // by rank
  std::atomic<std::uint32_t> arrived_{0}, meetings_{0};
  std::atomic<std::uint32_t> between_steps_{0};  // how many ranks
  std::chrono::steady_clock::time_point met_{};  // of the last meeting
  detail::first_cause cause_;
  CopyEngine engine_;
};

/// One rank's transport. @pre world.prepare() was called for its program; the trainers' buffers outlive all ranks' steps:
/// another rank may be copying from them
template <typename CopyEngine>
class world_transport {
 public:
  using world = basic_world<CopyEngine>;

  /// @throws schedule_error if the world has no such rank
  world_transport(world& all, std::size_t rank) : world_(all), rank_(static_cast<std::uint32_t>(rank)) {
    if (rank >= all.size())
      throw schedule_error(detail::concat({"a world of ", detail::count_text(all.size(), "rank"), " has ranks 0 to ",
                                           all.size() - 1, "; got rank ", rank}));
    set_between_steps(true);
  }
  world_transport(const world_transport&) = delete;
  world_transport& operator=(const world_transport&) = delete;
  /// A rank that leaves in the middle of a step stops the others.
  ~world_transport() {
    try {
      const std::string_view cause = departure_.cause();
      if (departure_.is_thrown())  // its thread may still report the text
        world_.cause_.claim(detail::concat({world_.place(rank_), ": ", cause}), rank_);
      else if (!cause.empty())
        world_.abort(rank_, cause);
    } catch (...) {  // no memory for a text
    }
    set_between_steps(false);
  }

  std::uint32_t rank() const { return rank_; }

  /// @throws schedule_error unless the world is prepared for this program
  template <typename Memory>
  void prepare(const program& p, const Memory&) {
    if (world_.program_ != &p) throw schedule_error("prepare the world for this program before its steps");
    buffers_ = {world_.buffers_[rank_].get(), p.pools[rank_].buffers()};
  }
  void on_action(std::uint32_t n) {
    departure_.in_step = true;
    set_between_steps(false);
    world_.at_[rank_].action.store(n, std::memory_order_relaxed);
    if (world_.aborted()) world_.give_up();
  }
  void post_receive(const action& a, std::span<std::byte> bytes) {
    const message_side side = post(a.buffer, bytes.data());
    auto& c = world_.channels_[a.channel];
    const std::size_t entry = c.receives++ % c.size;
    auto& p = c.posts[entry];
    p.into = side, p.expected = bytes.size(), p.comes = a.what;
    match(p, 2, a.channel, entry);
  }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    const message_side side = post(a.buffer, const_cast<std::byte*>(bytes.data()));  // only read
    auto& c = world_.channels_[a.channel];
    const std::size_t entry = c.sends++ % c.size;
    auto& p = c.posts[entry];
    p.from = side, p.sent = bytes.size(), p.leaves = a.what;
    match(p, 1, a.channel, entry);
  }
  void wait(std::uint32_t n) {
    buffer& b = buffers_[n];
    if (!is_done(n)) wait_until([&] { return is_done(n); }, "nothing came");
    if constexpr (CopyEngine::orders) {
      if (b.seen == posted(b)) return;
      b.seen = posted(b);
      engine().moved({rank_, n, nullptr}, where());
    }
  }
  /// True if wait() would return at once: for one thread that runs all ranks.
  bool is_done(std::uint32_t n) const {
    return buffers_[n].done.load(std::memory_order_acquire) == posted(buffers_[n]);
  }
  void finish() {
    const program& p = *world_.program_;
    on_action(static_cast<std::uint32_t>(p.actions[rank_].size()));
    for (std::uint32_t n = 0; n < buffers_.size(); ++n) wait(n);
    departure_.in_step = false;
    set_between_steps(true);
  }

  /// @throws pipeline_aborted if another rank has failed, or stalls in its step
  std::chrono::steady_clock::time_point meet() {
    set_between_steps(false);
    const std::uint32_t before = world_.meetings_.load();
    if (world_.arrived_.fetch_add(1) + 1 == world_.size()) {
      world_.arrived_.store(0);
      world_.met_ = std::chrono::steady_clock::now();
      world_.meetings_.fetch_add(1);
    }
    wait_until([&] { return world_.meetings_.load() != before; }, "not all ranks came to the start of the step");
    set_between_steps(true);
    return world_.met_;
  }
  void abort(std::string_view cause) {
    world_.abort(rank_, cause);
    departure_.in_step = false;
  }

 protected:
  std::size_t cells() const { return world_.program_->schedule[rank_].size(); }
  /// Until `done()`, at most the time limit, and only as long as no rank has failed.
  /// @param on_others  what is waited for needs other ranks: no time counts while one is between steps
  template <typename Done>
  void wait_until(Done&& done, std::string_view what, bool on_others = true) {
    const auto ends = [&] {
      if (done()) return true;
      if (world_.aborted()) world_.give_up();
      return false;
    };
    const auto pauses = [&] { return on_others && world_.between_steps_.load(std::memory_order_relaxed) > 0; };
    if (!detail::wait_within(world_.time_limit_, ends, false, pauses))
      fail({what, " within the time limit\n", world_.positions()});
  }
  auto where() const {
    return [this] { return world_.place(rank_); };
  }
  CopyEngine& engine() const { return world_.engine_; }

 private:
  using buffer = typename world::buffer;

  void set_between_steps(bool is) {
    if (is == std::exchange(between_steps_, is)) return;
    is ? ++world_.between_steps_ : --world_.between_steps_;
  }
  static std::uint32_t posted(const buffer& b) { return b.posted.load(std::memory_order_relaxed); }

  message_side post(std::uint32_t n, std::byte* bytes) {
    const message_side side{rank_, n, bytes};
    buffers_[n].posted.store(posted(buffers_[n]) + 1, std::memory_order_relaxed);
    engine().posted(side, where());
    return side;
  }

  // The second of two posts moves.
  void match(typename world::post& p, std::uint8_t sides, std::uint32_t channel, std::size_t entry) {
    if (p.sides.fetch_or(sides, std::memory_order_acq_rel) == 0) return;
    if (p.leaves != p.comes) fail({to_string(p.leaves), " meets the receive of ", to_string(p.comes)});
    if (p.sent != p.expected)
      fail({to_string(p.leaves), " has ", p.sent, " bytes at its sender and ", p.expected, " at its receiver"});
    engine().move(channel, entry, p.from, p.into, p.sent, where());
    const message_side from = p.from, into = p.into;
    p.sides.store(0, std::memory_order_relaxed);  // seen by the rank that uses it next, through `done`
    for (const message_side& side : {from, into})
      world_.buffers_[side.rank][side.buffer].done.fetch_add(1, std::memory_order_release);
  }
  [[noreturn]] void fail(std::initializer_list<detail::piece> text) {
    world_.abort(rank_, detail::concat(text));
    world_.give_up();
  }

  world& world_;
  std::uint32_t rank_;
  std::span<buffer> buffers_{};
  bool between_steps_ = false;
  detail::departure departure_;
};

}  // namespace pipesched
