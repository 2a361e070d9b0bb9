// SPDX-License-Identifier: MIT
#pragma once

// How far one rank of a channel_transport has come: its thread, which puts a step into streams, and its device, which counts
// the messages of every channel that have moved. Written by the rank's thread and the device, read by the watchdog, which
// calls no function of the device.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/device/handle.hpp"
#include "pipesched/device/runtime.hpp"
#include "pipesched/program/describe.hpp"
#include "pipesched/program/launch_order.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// @throws schedule_error unless these start every message of a rank once, after the action that posts it and before the one
/// that waits for it, and those of a channel in their order. Whether all ranks have one order is not seen here
inline void require_launches(const program& p, std::uint32_t rank, std::span<const launch> launches) {
  const std::span<const action> row = p.actions[rank];
  const auto refuse = [&](std::initializer_list<piece> fault) {
    throw schedule_error(concat({"the launch order of rank ", rank, " ", concat(fault),
                                 "; launch_order(program, rank) ", "returns one that fits"}));
  };
  const auto messages = static_cast<std::size_t>(std::ranges::count_if(row, is_message));
  if (launches.size() != messages)
    refuse({"has ", count_text(launches.size(), "launch"), " for ", count_text(messages, "message")});
  std::vector<std::uint32_t> last(p.channels.size(), no_slot), starts(row.size(), 0);  // by channel; by action
  std::uint32_t before = 0;
  for (const launch& l : launches) {
    if (l.action >= row.size() || !is_message(row[l.action]))
      refuse({"names action ", l.action, ", which is not a message"});
    const action& a = row[l.action];
    if (std::uint32_t& previous = last[a.channel]; previous != no_slot && previous >= l.action)
      refuse({"has ", describe(p, a), " twice, or after a later message of its channel"});
    const std::uint32_t earliest = std::max(before, l.action + 1);
    if (l.issue_before < earliest || l.issue_before > row.size())
      refuse({"starts ", describe(p, a), " before action ", l.issue_before, ", not ", earliest, " to ", row.size()});
    last[a.channel] = l.action, starts[l.action] = before = l.issue_before;
  }
  std::vector<std::uint32_t> posts(p.pools[rank].buffers(), no_slot);  // by buffer: its last message
  for (std::uint32_t n = 0; n < row.size(); ++n) {
    if (is_message(row[n])) posts[row[n].buffer] = n;
    for_each_awaited(p, rank, row[n], [&](std::uint32_t buffer) {
      if (posts[buffer] != no_slot && starts[posts[buffer]] > n)
        refuse({"starts ", describe(p, row[posts[buffer]]), " before action ", starts[posts[buffer]],
                ", though action ", n, " waits for it"});
    });
  }
}

template <device_runtime R>
class channel_progress {
 public:
  /// captures: nothing that is put into streams is run.
  enum class phase : std::uint8_t { between_steps, connects, captures, runs };
  /// Nothing moves as long as it is the same.
  struct position {
    std::uint64_t step = 0, moved = 0;
    std::uint32_t at = no_slot;
    friend bool operator==(const position&, const position&) = default;
  };

  channel_progress(R runtime, std::uint32_t rank) : runtime_(std::move(runtime)), rank_(rank) {}

  /// @throws device_error; schedule_error for launches that do not fit the program
  void prepare(const program& p, std::vector<launch> launches, int device, const auto& where) {
    require_launches(p, rank_, launches);
    device_counters<R> counters(runtime_, device, p.channels.size(), where);
    const std::lock_guard lock(mutex_);
    program_ = &p, launches_ = std::move(launches), counters_ = std::move(counters);
    numbers_.clear();
    std::vector<std::uint32_t> next(p.channels.size(), 0);
    for (const launch& l : launches_) numbers_.push_back(next[row()[l.action].channel]++);
    at(no_slot), started(0);
  }

  const std::vector<launch>& launches() const { return launches_; }
  /// The number of a launch's message in its channel.
  std::uint32_t number(std::uint32_t launch) const { return numbers_[launch]; }
  std::uint32_t* counter(std::uint32_t channel) const { return counters_.at(channel); }

  /// Leaves the counters to a device that may still write to them.
  void leak_counters() noexcept { counters_.leak(); }

  void set_phase(phase now) { phase_.store(now, std::memory_order_relaxed); }
  phase current_phase() const { return phase_.load(std::memory_order_relaxed); }
  /// A step begins. @param count  its messages that have been started: all in a graph
  void begin(std::uint32_t count) {
    started(count);
    advance();
    if (current_phase() == phase::captures) return;
    counters_.reset();
    set_phase(phase::runs);
  }
  void advance() { steps_.fetch_add(1, std::memory_order_release); }
  void at(std::uint32_t action) { at_.store(action, std::memory_order_relaxed); }
  std::uint32_t at() const { return at_.load(std::memory_order_relaxed); }
  void started(std::uint32_t count) { started_.store(count, std::memory_order_release); }
  std::uint32_t started() const { return started_.load(std::memory_order_acquire); }

  position now() const {
    const std::lock_guard lock(mutex_);
    return {steps_.load(std::memory_order_acquire), counters_.sum(), at()};
  }
  /// "rank 3 at 3F2". For the rank's thread.
  std::string host_place() const {
    if (program_ == nullptr) return concat({"rank ", rank_, " at its start"});
    return describe(*program_, rank_, at());
  }
  /// The same of the device, with the message that it waits for; of the host if all messages have moved.
  std::string device_place() const {
    const std::lock_guard lock(mutex_);
    const std::uint32_t count = current_phase() == phase::captures ? 0 : started();
    for (std::uint32_t i = 0; i < count; ++i) {
      const action& a = row()[launches_[i].action];
      if (counters_.value(a.channel) > numbers_[i]) continue;
      std::size_t waits_at = launches_[i].issue_before;
      while (waits_at < row().size() && is_message(row()[waits_at])) ++waits_at;
      return describe(*program_, rank_, waits_at, a);
    }
    return host_place();
  }

 private:
  std::span<const action> row() const { return program_->actions[rank_]; }

  R runtime_;
  std::uint32_t rank_;
  mutable std::mutex mutex_;  // of all down to counters_, which change between steps alone
  const program* program_ = nullptr;
  std::vector<launch> launches_;
  std::vector<std::uint32_t> numbers_;  // by launch
  device_counters<R> counters_;         // by channel
  std::atomic<phase> phase_{phase::between_steps};
  std::atomic<std::uint32_t> at_{no_slot}, started_{0};
  std::atomic<std::uint64_t> steps_{0};
};

}  // namespace pipesched::detail
