// SPDX-License-Identifier: MIT
// expected: the transport has a member meet that cannot be called as: std::chrono::steady_clock::time_point meet\(\)
#include <pipesched/execute/recording_transport.hpp>
#include <pipesched/execute/run.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
};
struct other_transport : pipesched::recording_transport {
#ifdef RIGHT
  std::chrono::steady_clock::time_point meet() { return {}; }
#else
  void meet() {}
#endif
};
void run(const pipesched::program& p, trainer& t, other_transport& transport) { pipesched::run(p, 0, t, transport); }
