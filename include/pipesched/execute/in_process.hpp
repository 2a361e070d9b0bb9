// SPDX-License-Identifier: MIT
#pragma once

// All ranks as threads of one process. A message is copied once, from the sender's buffer into the receiver's, by whichever
// of the two posts second; no lock is taken. When a rank fails, leaves or stalls, all others are told why and end.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/executor.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// What the ranks of one process share.
class in_process_hub {
 public:
  /// @param time_limit  how long a rank waits for one message before it gives up, and all others with it
  explicit in_process_hub(const program& p, std::chrono::duration<double> time_limit = std::chrono::seconds(60))
      : program_(p), time_limit_(time_limit), at_(p.actions.count()) {
    for (const channel& c : p.channels)
      channels_.emplace_back(std::size_t{c.receive_buffers} + c.send_buffers + p.schedule.stages() + 2);
    for (std::size_t r = 0; r < p.actions.count(); ++r)
      ranks_.emplace_back(p.pools[r].buffers + 2 * std::size_t{p.pools[r].reductions});
  }
  in_process_hub(const in_process_hub&) = delete;
  in_process_hub& operator=(const in_process_hub&) = delete;

  /// Stops all ranks. The first cause is the one that is told.
  void abort(std::uint32_t rank, const std::string& cause) {
    const std::lock_guard lock(mutex_);
    if (aborted_.load(std::memory_order_relaxed)) return;
    cause_ = detail::concat({"rank ", rank, " at ", place(rank), ": ", cause});
    aborted_.store(true, std::memory_order_release);
  }
  bool aborted() const { return aborted_.load(std::memory_order_acquire); }
  /// The rank, the op it was at, and the text. @pre aborted()
  const std::string& cause() const { return cause_; }

  /// Where every rank is, and the message it waits for if it waits for one.
  std::string positions() const {
    std::string text;
    for (std::uint32_t rank = 0; rank < at_.size(); ++rank)
      text += detail::concat({"rank ", rank, " at ", place(rank), "\n"});
    return text;
  }

 private:
  friend class in_process;

  // One message buffer, on either side: how many posts there were, and how many of them are done.
  struct buffer {
    std::atomic<std::uint32_t> posted{0};  // by its own rank; others read it for reports
    std::atomic<std::uint32_t> done{0};
  };
  struct post {
    const std::byte* from = nullptr;
    std::byte* into = nullptr;
    std::size_t sent = 0, expected = 0;
    std::atomic<std::uint32_t>*sender = nullptr, *receiver = nullptr;
    message leaves{}, comes{};
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
    std::atomic<std::uint32_t> action{0};
  };

  std::string place(std::uint32_t rank) const {
    const auto row = program_.actions[rank];
    const std::uint32_t n = at_[rank].action.load(std::memory_order_relaxed);
    const auto waited_for = awaited(rank, n);
    const std::string waits = waited_for == nullptr ? "" : ", which waits for " + describe(*waited_for);
    if (n >= row.size()) return "its end" + waits;
    if (row[n].kind == action_kind::compute) return to_string(program_.schedule[rank][row[n].index]) + waits;
    return detail::concat({row[n].kind == action_kind::receive ? "the receive of "
                           : row[n].kind == action_kind::send  ? "the send of "
                                                               : "the reduction of ",
                           to_string(row[n].what), waits});
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
      const bool weights = a.what.what == payload::weights;
      if (n >= row.size()) return true;
      if (row[n].kind == action_kind::reduce)
        return weights && (a.kind == action_kind::send || a.buffer == row[n].buffer);
      if (row[n].kind != action_kind::compute || weights) return false;
      const auto& slots = program_.slots[rank][row[n].index];
      return std::any_of(slots.begin(), slots.end(),
                         [&](const op_slots& s) { return s.input == number || s.output == number; });
    };
    std::uint32_t sent = 0;
    const action* last = nullptr;
    for (const action& a : row.first(std::min<std::size_t>(n, row.size()))) {
      if (a.kind != action_kind::receive && a.kind != action_kind::send) continue;
      std::uint32_t number = a.buffer;
      if (a.what.what == payload::weights)
        number =
            pools.buffers + (a.kind == action_kind::receive ? a.buffer : pools.reductions + sent++ % pools.reductions);
      if (needs(a, number) && pending(number)) last = &a;
    }
    return last;
  }

  const program& program_;
  std::chrono::duration<double> time_limit_;
  std::vector<position> at_;
  std::deque<channel_state> channels_;
  std::deque<rank_state> ranks_;
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;  // of cause_, and not on the way of messages
  std::string cause_;
};

/// One rank's side of a hub. @pre the trainers' buffers outlive all ranks' steps: another rank may be copying from them
class in_process {
 public:
  in_process(in_process_hub& hub, std::uint32_t rank)
      : hub_(hub),
        rank_(rank),
        data_(hub.program_.pools[rank].buffers),
        reductions_(hub.program_.pools[rank].reductions),
        buffers_(hub.ranks_[rank].buffers.get()) {}

  in_process(const in_process&) = delete;
  in_process& operator=(const in_process&) = delete;
  /// A rank that leaves in the middle of a step would keep the others waiting.
  ~in_process() {
    if (!finished_ && std::uncaught_exceptions() == exceptions_)
      hub_.abort(rank_, "it left before the end of its step");
  }

  void at(std::uint32_t action) {
    hub_.at_[rank_].action.store(action, std::memory_order_relaxed);
    finished_ = false;
  }

  void post_receive(const action& a, std::span<std::byte> bytes) {
    auto& b = buffers_[a.what.what == payload::weights ? data_ + a.buffer : a.buffer];
    b.posted.store(posted(b) + 1, std::memory_order_relaxed);
    auto& c = hub_.channels_[a.channel];
    auto& p = c.posts[c.receives++ % c.size];
    p.into = bytes.data(), p.expected = bytes.size(), p.receiver = &b.done, p.comes = a.what;
    meet(p, 2);
  }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    auto& b = buffers_[a.what.what == payload::weights ? data_ + reductions_ + weights_++ % reductions_ : a.buffer];
    b.posted.store(posted(b) + 1, std::memory_order_relaxed);
    auto& c = hub_.channels_[a.channel];
    auto& p = c.posts[c.sends++ % c.size];
    p.from = bytes.data(), p.sent = bytes.size(), p.sender = &b.done, p.leaves = a.what;
    meet(p, 1);
  }
  void wait_received(std::uint32_t n, bool weights) { wait(buffers_[weights ? data_ + n : n]); }
  void wait_sent(std::uint32_t n) { wait(buffers_[n]); }
  void wait_weights_sent() {
    for (std::uint32_t n = 0; n < reductions_; ++n) wait(buffers_[data_ + reductions_ + n]);
  }
  void finish() {
    at(static_cast<std::uint32_t>(hub_.program_.actions[rank_].size()));
    for (std::uint32_t n = 0; n < data_ + 2 * reductions_; ++n) wait(buffers_[n]);
    finished_ = true;
  }

 private:
  using buffer = in_process_hub::buffer;

  static std::uint32_t posted(const buffer& b) { return b.posted.load(std::memory_order_relaxed); }

  // The second of two posts copies.
  void meet(in_process_hub::post& p, std::uint8_t side) {
    if (p.sides.fetch_or(side, std::memory_order_acq_rel) == 0) return;
    if (p.leaves != p.comes) {
      hub_.abort(rank_, detail::concat({to_string(p.leaves), " meets the receive of ", to_string(p.comes)}));
      give_up();
    }
    if (p.sent != p.expected) {
      hub_.abort(rank_, detail::concat({to_string(p.leaves), " has ", p.sent, " bytes where it leaves and ", p.expected,
                                        " where it comes"}));
      give_up();
    }
    if (p.sent > 0) std::memcpy(p.into, p.from, p.sent);
    std::atomic<std::uint32_t>*sender = p.sender, *receiver = p.receiver;
    p.sides.store(0, std::memory_order_relaxed);  // seen by whoever uses it next, through `done`
    sender->fetch_add(1, std::memory_order_release);
    receiver->fetch_add(1, std::memory_order_release);
  }

  void wait(const buffer& b) {
    if (b.done.load(std::memory_order_acquire) == posted(b)) return;
    wait_long(b);
  }
  void wait_long(const buffer& b) {
    const auto start = std::chrono::steady_clock::now();
    for (std::uint64_t round = 0; b.done.load(std::memory_order_acquire) != posted(b); ++round) {
      if (hub_.aborted()) give_up();
      if (round < 64) continue;
      std::this_thread::yield();
      if (round % 64 == 0 && std::chrono::steady_clock::now() - start > hub_.time_limit_) {
        hub_.abort(rank_, "nothing came within the time limit\n" + hub_.positions());
        give_up();
      }
    }
  }
  [[noreturn]] void give_up() const { throw pipeline_aborted("aborted by " + hub_.cause()); }

  in_process_hub& hub_;
  std::uint32_t rank_, data_, reductions_;
  buffer* buffers_;
  std::uint32_t weights_ = 0;  // sent so far
  bool finished_ = true;
  int exceptions_ = std::uncaught_exceptions();
};

static_assert(transport<in_process>);

/// Options of run_in_process().
struct run_options {
  bool record = false;                           ///< measure the timeline
  std::chrono::duration<double> time_limit{60};  ///< for one message
};

/// Runs one step with a thread a rank, each with the trainer that `make_trainer(rank)` makes there, and returns the
/// measured timeline, empty unless asked for. @throws what the first trainer that failed has thrown, once all threads have
/// ended; pipeline_aborted if it was a stall. @pre check(p) is true
template <typename MakeTrainer>
timeline run_in_process(const program& p, MakeTrainer&& make_trainer, const run_options& options = {}) {
  const auto ranks = static_cast<std::uint32_t>(p.actions.count());
  timeline measured{.schedule = p.schedule};
  if (options.record) measured.intervals = rows<interval>::for_overwrite_like(p.schedule.cells);
  in_process_hub hub(p, options.time_limit);
  using trainer_type = std::remove_cvref_t<std::invoke_result_t<MakeTrainer&, std::uint32_t>>;
  std::vector<std::unique_ptr<trainer_type>> trainers(ranks);  // until all threads have ended
  std::vector<std::exception_ptr> errors(ranks);
  std::atomic<std::uint32_t> first{ranks};  // the rank that failed first
  std::atomic<std::uint32_t> ready{0};
  std::chrono::steady_clock::time_point zero;
  const auto run = [&](std::uint32_t rank) {
    try {
      trainers[rank].reset(new trainer_type(make_trainer(rank)));
      if (ready.fetch_add(1) + 1 == ranks) {
        zero = std::chrono::steady_clock::now();
        ready.store(2 * ranks);
      }
      while (ready.load() < 2 * ranks && !hub.aborted()) std::this_thread::yield();
      in_process transport(hub, rank);
      execute(p, rank, *trainers[rank], transport, options.record ? measured[rank] : std::span<interval>(), zero);
    } catch (...) {
      errors[rank] = std::current_exception();
      std::string cause = "an exception of unknown type";
      try {
        throw;
      } catch (const std::exception& e) {
        cause = e.what();
      } catch (...) {
      }
      std::uint32_t nobody = ranks;
      first.compare_exchange_strong(nobody, rank);
      hub.abort(rank, cause);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (std::uint32_t rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  }
  if (first != ranks) std::rethrow_exception(errors[first]);
  return measured;
}

}  // namespace pipesched
