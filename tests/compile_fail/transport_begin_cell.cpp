// SPDX-License-Identifier: MIT
// expected: the transport has a member begin_cell that cannot be called as: void begin_cell\(std::uint32_t\)
#include <pipesched/execute/recording_transport.hpp>
#include <pipesched/execute/run.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
};
struct other_transport : pipesched::recording_transport {
#ifdef RIGHT
  void begin_cell(std::uint32_t) {}
#else
  void begin_cell(std::uint32_t, double) {}
#endif
};
void run(const pipesched::program& p, trainer& t, other_transport& transport) { pipesched::run(p, 0, t, transport); }
