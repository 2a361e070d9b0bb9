// SPDX-License-Identifier: MIT
#pragma once

// A coordinator whose processes are threads of one process.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/execute/transport.hpp"
#include "pipesched/launch/coordinator.hpp"

namespace pipesched::tests {

struct thread_job {
  explicit thread_job(std::uint32_t n) : processes(n) {}

  std::uint32_t processes;
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<std::string> failure;
  std::map<std::uint32_t, std::string> places;  // of those that wait
  std::map<std::uint32_t, bool> between_steps;
  std::chrono::steady_clock::time_point last_pause{};
  std::string given;
  std::uint64_t arrived = 0;
  std::map<std::pair<std::uint64_t, std::uint32_t>, std::vector<parcel>> parcels;  // by round and receiver
};

class thread_coordinator : public coordinator {
 public:
  thread_coordinator(thread_job& all, std::uint32_t process) : all_(all), process_(process) {}

  std::uint32_t rank() const override { return process_; }
  std::uint32_t size() const override { return all_.processes; }
  std::string report_failure(std::string_view cause) override {
    const std::lock_guard lock(all_.mutex);
    return fail(cause);
  }
  void report_position(std::string_view place, progress_state state) override {
    const std::lock_guard lock(all_.mutex);
    note_pause();
    const bool waits = state == progress_state::waits || state == progress_state::stalled;
    all_.places[process_] = waits ? "\n" + std::string(place) : "";
    all_.between_steps[process_] = state == progress_state::between_steps;
    if (state == progress_state::stalled && !note_pause()) fail(nothing_moved(place));
  }
  std::chrono::steady_clock::time_point last_pause() override {
    const std::lock_guard lock(all_.mutex);
    note_pause();
    return all_.last_pause;
  }
  std::optional<std::string> failure() override {
    const std::lock_guard lock(all_.mutex);
    return all_.failure;
  }
  std::string broadcast(std::string_view mine) override {
    std::unique_lock lock(all_.mutex);
    if (process_ == 0) all_.given = std::string(mine);
    const std::uint64_t all_here = (all_.arrived++ / all_.processes + 1) * all_.processes;
    all_.changed.notify_all();
    all_.changed.wait(lock, [&] { return all_.arrived >= all_here || all_.failure; });
    if (all_.arrived < all_here) throw pipeline_aborted("aborted: " + *all_.failure);
    return all_.given;
  }
  std::vector<parcel> exchange(std::span<const parcel> mine) override {
    const std::uint64_t round = round_++;
    {
      const std::lock_guard lock(all_.mutex);
      for (const parcel& p : mine) all_.parcels[{round, p.rank}].push_back({process_, p.text});
    }
    broadcast("");
    const std::lock_guard lock(all_.mutex);
    std::vector<parcel> received = std::move(all_.parcels[{round, process_}]);
    std::ranges::stable_sort(received, {}, &parcel::rank);
    return received;
  }

 private:
  // True if a process is between steps.
  bool note_pause() {
    const bool any = std::ranges::any_of(all_.between_steps, [](const auto& of) { return of.second; });
    if (any) all_.last_pause = std::chrono::steady_clock::now();
    return any;
  }
  std::string fail(std::string_view cause) {
    if (!all_.failure) {
      all_.failure = std::string(cause);
      for (const auto& [process, place] : all_.places) *all_.failure += place;
    }
    all_.changed.notify_all();
    return *all_.failure;
  }

  thread_job& all_;
  std::uint32_t process_;
  std::uint64_t round_ = 0;
};

}  // namespace pipesched::tests
