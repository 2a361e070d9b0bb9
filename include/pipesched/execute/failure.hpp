// SPDX-License-Identifier: MIT
#pragma once

// The end of a job in which something fails: the first cause, how a rank leaves, and waits that have a limit. All transports and
// coordinators share these.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "pipesched/support/error.hpp"

namespace pipesched {

/// On every rank but the one that failed first: which one that was, where, and why.
struct pipeline_aborted : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

/// The time limit itself. @throws schedule_error unless it is above 0 and at most 1e9 seconds
inline std::chrono::duration<double> checked_time_limit(std::chrono::duration<double> limit) {
  if (!(limit.count() > 0 && limit.count() <= 1e9))
    throw schedule_error(concat({"a time limit is above 0 and at most 1e9 seconds; got ", limit.count()}));
  return limit;
}

/// The longest wait for ranks of which one is between steps: time for a validation or a checkpoint.
inline constexpr std::chrono::duration<double> longest_pause = std::chrono::hours(1);

/// Polls `done` until it returns true or the limit has passed, at least once. False if the limit has passed.
/// @param sleeps  whether to sleep for 50 us between polls after the first millisecond; otherwise they only yield
/// @param pauses  while it returns true, as while a rank is between steps, no time counts; then the limit begins anew
/// @param longest  the most time in all but the limit, so that a rank that never comes back ends the wait, too
template <typename Done, typename Pauses>
bool wait_within(std::chrono::duration<double> limit, Done&& done, bool sleeps, Pauses&& pauses,
                 std::chrono::duration<double> longest = longest_pause) {
  const auto begin = std::chrono::steady_clock::now();
  auto start = begin;
  for (std::uint64_t round = 1; !done(); ++round) {
    if (round < 64) continue;
    const auto now = std::chrono::steady_clock::now();
    if (now - begin <= longest && pauses()) start = now;
    if (now - start > limit) return false;
    if (sleeps && now - begin > std::chrono::milliseconds(1))
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    else
      std::this_thread::yield();
  }
  return true;
}

template <typename Done>
bool wait_within(std::chrono::duration<double> limit, Done&& done, bool sleeps = true) {
  return wait_within(limit, done, sleeps, [] { return false; });
}

/// The first cause of a failure; later ones change nothing. Any thread may call all functions.
class first_cause {
 public:
  /// Takes a text unless there is one. @param by  who fails: it may replace its own claim. True if the text is taken
  bool set(std::string text, std::uint32_t by = 0) { return put(std::move(text), by, state::final); }
  /// The same for a text that is about to be replaced by set().
  bool claim(std::string text, std::uint32_t by = 0) { return put(std::move(text), by, state::claimed); }

  /// True once there is a text. Takes no lock.
  bool is_known() const { return state_.load(std::memory_order_acquire) != state::none; }
  bool is_final() const { return state_.load(std::memory_order_acquire) == state::final; }
  /// The text, from now on final. Waits for the replacement of one that is only claimed, at most so long. @pre is_known()
  const std::string& text(std::chrono::duration<double> limit = {}) const {
    wait_within(limit, [this] { return is_final(); });
    const std::lock_guard lock(mutex_);
    state_.store(state::final);
    return text_;
  }
  /// Nothing if there is no text. Waits for none.
  std::optional<std::string> get() const { return is_known() ? std::optional(text()) : std::nullopt; }
  /// Who failed. @pre is_known()
  std::uint32_t by() const { return by_.load(); }

 private:
  enum class state : std::uint8_t { none, claimed, final };

  bool put(std::string text, std::uint32_t by, state then) {
    const std::lock_guard lock(mutex_);
    const state now = state_.load(std::memory_order_relaxed);
    if (now != state::none && !(now == state::claimed && then == state::final && by_ == by)) return false;
    text_ = std::move(text), by_ = by;
    state_.store(then, std::memory_order_release);
    return true;
  }

  mutable std::mutex mutex_;  // of the text until it is final
  mutable std::atomic<state> state_{state::none};
  std::atomic<std::uint32_t> by_{0};
  std::string text_;
};

/// How a rank leaves, for the destructor of its transport.
class departure {
 public:
  bool in_step = false;
  bool is_thrown() const { return std::uncaught_exceptions() > exceptions_; }
  /// Empty if the rank leaves between its steps, without an exception.
  std::string_view cause() const {
    return is_thrown() ? "it left with an exception" : in_step ? "it left before the end of its step" : "";
  }

 private:
  int exceptions_ = std::uncaught_exceptions();
};

}  // namespace detail

}  // namespace pipesched
