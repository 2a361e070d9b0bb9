// SPDX-License-Identifier: MIT
#pragma once

// A notice board whose processes are threads of one process.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/launch/notice_board.hpp"

namespace pipesched::tests {

struct thread_boards {
  explicit thread_boards(std::uint32_t n) : processes(n) {}

  std::uint32_t processes;
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<std::string> failure;
  std::map<std::uint32_t, std::string> places;
  std::string given;
  std::uint64_t arrived = 0;
};

class thread_board : public notice_board {
 public:
  thread_board(thread_boards& all, std::uint32_t process) : all_(all), process_(process) {}

  std::uint32_t process() const override { return process_; }
  std::uint32_t processes() const override { return all_.processes; }
  std::string tell_failure(std::string_view cause) override {
    const std::lock_guard lock(all_.mutex);
    if (!all_.failure) {
      all_.failure = std::string(cause);
      for (const auto& [process, place] : all_.places) *all_.failure += place;
    }
    all_.changed.notify_all();
    return *all_.failure;
  }
  void tell_place(std::string_view place, bool stands_still) override {
    const std::lock_guard lock(all_.mutex);
    all_.places[process_] = stands_still ? "\n" + std::string(place) : "";
  }
  std::optional<std::string> failure() override {
    const std::lock_guard lock(all_.mutex);
    return all_.failure;
  }
  std::string share(std::string_view mine) override {
    std::unique_lock lock(all_.mutex);
    if (process_ == 0) all_.given = std::string(mine);
    const std::uint64_t all_here = (all_.arrived++ / all_.processes + 1) * all_.processes;
    all_.changed.notify_all();
    all_.changed.wait(lock, [&] { return all_.arrived >= all_here || all_.failure; });
    if (all_.arrived < all_here) throw pipeline_aborted("aborted: " + *all_.failure);
    return all_.given;
  }
  std::vector<std::string> gather(std::string_view) override { throw std::logic_error("no test gathers over this"); }

 private:
  thread_boards& all_;
  std::uint32_t process_;
};

}  // namespace pipesched::tests
