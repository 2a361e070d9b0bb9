// SPDX-License-Identifier: MIT
#pragma once

// A coordinator over a key-value store of the user's: PMIx, c10d's TCPStore, etcd, Redis. Three functions are enough. The store
// does not notice a process that is lost: give it heartbeats, or let the launcher end the job.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/execute/failure.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/launch/detail/texts.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The functions of a store. Threads may call them concurrently.
struct key_value_store {
  std::function<void(const std::string& key, const std::string& value)> set;
  std::function<std::string(const std::string& key)> get;  ///< @pre the key is set
  /// True once the key is set, false after the limit.
  std::function<bool(const std::string& key, std::chrono::duration<double> limit)> wait;
};

/// Every exchange takes a few keys per process; process 0 collects and distributes.
class store_coordinator : public coordinator {
 public:
  /// @param prefix  of all keys; no other job of the store has the same. @throws schedule_error unless rank < size and the
  /// limit is above 0 and at most 1e9 seconds
  store_coordinator(key_value_store store, std::uint32_t rank, std::uint32_t size,
                    std::chrono::duration<double> time_limit = std::chrono::minutes(30),
                    std::string prefix = "pipesched")
      : store_(std::move(store)),
        rank_(rank),
        size_(size),
        limit_(detail::checked_time_limit(time_limit)),
        prefix_(std::move(prefix)) {
    require_process(rank);
  }

  std::uint32_t rank() const override { return rank_; }
  std::uint32_t size() const override { return size_; }

  std::vector<parcel> exchange(std::span<const parcel> mine) override {
    const std::string round = std::to_string(rounds_++);
    for (const parcel& p : mine) require_process(p.rank);
    store_.set(key({round, "from", rank_}), detail::pack(mine));
    if (rank_ == 0) distribute(round);
    return parcels_of(await(key({round, "to", rank_})));
  }

  std::string report_failure(std::string_view cause) override {
    const std::string failed = key({"failure"});
    if (!failure_.is_known() && !store_.wait(failed, {})) store_.set(failed, std::string(cause));
    if (!failure_.is_known()) failure_.set(store_.get(failed));  // of two at the same time the later one
    return failure_.text();
  }
  /// A job that is stalled fails, whether or not a process is between steps: positions are not passed.
  void report_position(std::string_view position, progress_state state) override {
    if (state == progress_state::stalled) report_failure(nothing_moved(position));
  }
  std::optional<std::string> failure() override {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (!failure_.is_known() && now - asked_ > std::chrono::milliseconds(200)) {
      asked_ = now;
      if (store_.wait(key({"failure"}), {})) failure_.set(store_.get(key({"failure"})));
    }
    return failure_.get();
  }

 private:
  std::string key(std::initializer_list<detail::piece> parts) const {
    std::string text = prefix_;
    for (const detail::piece& part : parts) detail::append(text, {"/", part});
    return text;
  }
  // The value of a key, once it is set. @throws pipeline_aborted if a process fails, or after the time limit
  std::string await(const std::string& what) {
    const auto start = std::chrono::steady_clock::now();
    while (!store_.wait(what, std::min<std::chrono::duration<double>>(limit_, std::chrono::milliseconds(500)))) {
      if (std::chrono::steady_clock::now() - start > limit_) fail_late();
      require_going();
    }
    return store_.get(what);
  }
  void distribute(const std::string& round) {
    std::vector<std::vector<parcel>> to(size_);
    for (std::uint32_t r = 0; r < size_; ++r)
      for (parcel& p : parcels_of(await(key({round, "from", r})))) to.at(p.rank).push_back({r, std::move(p.text)});
    for (std::uint32_t r = 0; r < size_; ++r) store_.set(key({round, "to", r}), detail::pack(to[r]));
  }
  static std::vector<parcel> parcels_of(const std::string& text) {
    auto parcels = detail::unpack(text);
    if (!parcels) throw pipeline_aborted("aborted: a key of this job has a value of another program");
    return *std::move(parcels);
  }

  key_value_store store_;
  std::uint32_t rank_, size_;
  std::chrono::duration<double> limit_;
  std::string prefix_;
  std::uint64_t rounds_ = 0;
  detail::first_cause failure_;
  std::mutex mutex_;  // of the time
  std::chrono::steady_clock::time_point asked_{};
};

}  // namespace pipesched
