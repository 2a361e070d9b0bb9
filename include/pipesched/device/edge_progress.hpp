// SPDX-License-Identifier: MIT
#pragma once

// How far one rank of an edge_transport has come: the host, which puts a step into streams, and the device, by the messages
// that have moved. Written by the rank's own thread, read by the one that looks after it.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/device/device.hpp"
#include "pipesched/program/launch_order.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

template <device_runtime R>
class edge_progress {
 public:
  /// Nothing moves as long as it is the same.
  struct position {
    std::uint64_t step = 0;
    std::uint32_t at = no_slot, moved = 0;
    bool operator==(const position& o) const { return step == o.step && at == o.at && moved == o.moved; }
  };

  /// @param process  for reports of a rank that is not known yet
  edge_progress(R runtime, const program& p, std::uint32_t process)
      : runtime_(std::move(runtime)), p_(p), process_(process) {}

  void set_rank(std::uint32_t rank) {
    rank_ = rank;
    launches_ = launch_order(p_, rank);
  }
  /// An event for every message of a step, so that it can be told which have moved. @throws device_error
  void make_events(int device) {
    for (std::size_t i = 0; i < launches_.size(); ++i)
      moved_.push_back(make_event(runtime_, device, false, [this] { return host_place(); }));
  }
  std::uint32_t rank() const { return rank_; }
  std::span<const action> row() const { return p_.actions[rank_]; }
  const std::vector<launch>& launches() const { return launches_; }
  typename R::event moved(std::uint32_t i) const { return moved_[i].handle(); }

  void begin() {
    started_.store(0, std::memory_order_relaxed);
    steps_.fetch_add(1, std::memory_order_release);
    busy_.store(true, std::memory_order_relaxed);
  }
  void at(std::uint32_t action) { at_.store(action, std::memory_order_relaxed); }
  std::uint32_t at() const { return at_.load(std::memory_order_relaxed); }
  /// So many messages have been started.
  void started(std::uint32_t count) {
    if (!capturing_) started_.store(count, std::memory_order_release);
  }
  /// In a step, whose end has not been seen?
  void set_busy(bool is) { busy_.store(is, std::memory_order_relaxed); }
  bool busy() const { return busy_.load(std::memory_order_relaxed); }
  /// Events that are captured may not be asked for: while one is, and until the next step that is not, nothing is.
  void set_capturing(bool is) {
    const std::lock_guard lock(mutex_);
    capturing_ = is;
    started_ = 0;
  }

  /// Where it is now. @param last  where it was before
  position now(const position& last = {}) const {
    position p{steps_.load(std::memory_order_acquire), at(), 0};
    p.moved = count_moved(p.step == last.step ? last.moved : 0);
    return p;
  }
  /// "rank 3 at 3F2".
  std::string host_place() const {
    if (rank_ == no_slot) return concat({"process ", process_, " at its start"});
    return concat({"rank ", rank_, " at ", at() == no_slot ? "its start" : name_of(at())});
  }
  /// The same of the device, with the message it waits for if it waits for one; of the host if all has moved.
  std::string device_place() const {
    const std::uint32_t moved = count_moved(0);
    if (moved >= started_.load(std::memory_order_acquire)) return host_place();
    const action& a = row()[launches_[moved].action];
    const channel& c = p_.channels[a.channel];
    const bool receives = a.kind == action_kind::receive;
    return concat({"rank ", rank_, " at ", name_of(launches_[moved].issue_before), ", which waits for ",
                   to_string(a.what), receives ? " from rank " : " to rank ", receives ? c.from : c.to});
  }

 private:
  // How many messages of the step have moved, in their order; so many have for certain.
  std::uint32_t count_moved(std::uint32_t certain) const {
    const std::lock_guard lock(mutex_);
    const std::uint32_t started = started_.load(std::memory_order_acquire);
    R runtime = runtime_;
    for (std::uint32_t i = certain; i < started; ++i)
      if (bool done = false; !runtime.succeeded(runtime.query(moved(i), done)) || !done) return i;
    return std::max(certain, started);
  }
  std::string name_of(std::uint32_t n) const {
    while (n < row().size() && is_message(row()[n])) ++n;
    if (n >= row().size()) return "its end";
    if (row()[n].kind == action_kind::compute) return to_string(p_.schedule[rank_][row()[n].index]);
    return "the reduction of " + to_string(row()[n].what);
  }

  R runtime_;
  const program& p_;
  std::uint32_t process_, rank_ = no_slot;
  std::vector<launch> launches_;
  std::vector<device_handle<R, typename R::event>> moved_;  // by launch
  std::atomic<bool> busy_{false}, capturing_{false};
  std::atomic<std::uint32_t> at_{no_slot}, started_{0};
  std::atomic<std::uint64_t> steps_{0};
  mutable std::mutex mutex_;  // of what is asked of the events
};

}  // namespace pipesched::detail
