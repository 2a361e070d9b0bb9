// SPDX-License-Identifier: MIT
#pragma once

// A trainer of whose hooks one takes longer than a time limit.

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <thread>

namespace pipesched::tests {

inline constexpr std::chrono::milliseconds shorter_than_hooks{400}, long_hook{1000};

template <typename Trainer>
struct slow_hooks : Trainer {
  std::string slow_at{};  ///< the slow one: begin_step, end_step, or a name given to reach()

  void reach(std::string_view hook) const {
    if (slow_at == hook) std::this_thread::sleep_for(long_hook);
  }
  void begin_step(std::size_t) const { reach("begin_step"); }
  void end_step(std::size_t) const { reach("end_step"); }
};

}  // namespace pipesched::tests
