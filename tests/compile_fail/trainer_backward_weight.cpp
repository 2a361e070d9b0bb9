// SPDX-License-Identifier: MIT
// expected: the trainer has a member backward_weight that cannot be called as: void backward_weight\(pipesched::task\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
#ifdef RIGHT
  void backward_weight(pipesched::task) {}
#else
 private:
  void backward_weight(pipesched::task) {}
#endif
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
