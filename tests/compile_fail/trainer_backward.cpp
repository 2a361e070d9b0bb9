// SPDX-License-Identifier: MIT
// expected: the trainer has a member backward that cannot be called as: void backward\(pipesched::task\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
  void forward(pipesched::task) {}
#ifdef RIGHT
  void backward(pipesched::task) {}
#else
  void backward(pipesched::task, int) {}
#endif
  void backward_input(pipesched::task) {}
  void backward_weight(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
