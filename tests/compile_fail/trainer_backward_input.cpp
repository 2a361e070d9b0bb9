// SPDX-License-Identifier: MIT
// expected: the trainer has a member backward_input that cannot be called as: void backward_input\(pipesched::task\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
#ifdef RIGHT
  void backward_input(pipesched::task) {}
#else
  void backward_input(pipesched::op) {}
#endif
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
