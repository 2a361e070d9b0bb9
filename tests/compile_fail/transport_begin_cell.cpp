// SPDX-License-Identifier: MIT
// expected: the transport has a member begin_cell that cannot be called as: void begin_cell\(std::uint32_t\)
#include <pipesched/execute/executor.hpp>
#include <pipesched/execute/recording.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
};
struct timed : pipesched::recording_transport {
#ifdef RIGHT
  void begin_cell(std::uint32_t) {}
#else
  void begin_cell(std::uint32_t, double) {}
#endif
};
void run(const pipesched::program& p, trainer& t, timed& transport) { pipesched::execute(p, 0, t, transport); }
