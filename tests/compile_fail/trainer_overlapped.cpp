// SPDX-License-Identifier: MIT
// expected: the trainer has a member overlapped that cannot be called as: void overlapped\(pipesched::task, pipesched::task\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
#ifdef RIGHT
  void overlapped(pipesched::task, pipesched::task) {}
#else
  void overlapped(pipesched::task) {}
#endif
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
