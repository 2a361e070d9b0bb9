// SPDX-License-Identifier: MIT
#pragma once

// Ranks as threads of one process, with messages in its memory.
//
//   pipesched::thread_world world(program.schedule.pp());
//   pipesched::run_all(program, trainers, world, {.steps = 100});

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pipesched/execute/transport.hpp"
#include "pipesched/execute/world.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched {

/// Copies by memcpy.
struct host_copy_engine {
  static constexpr bool orders = false;  // what has moved is there
  void prepare(const program&, const std::vector<std::size_t>&) {}
  template <typename Where>
  void posted(message_side, const Where&) {}
  template <typename Where>
  void move(std::uint32_t, std::size_t, message_side from, message_side into, std::size_t size, const Where&) {
    std::memcpy(into.bytes, from.bytes, size);
  }
};

using thread_transport = world_transport<host_copy_engine>;
static_assert(transport<thread_transport>);

/// The ranks of a process, for run_all().
class thread_world : public basic_world<host_copy_engine> {
 public:
  using transport_type = thread_transport;
  explicit thread_world(std::size_t ranks, std::chrono::duration<double> time_limit = std::chrono::seconds(60))
      : basic_world(ranks, time_limit, {}) {}
};

}  // namespace pipesched
