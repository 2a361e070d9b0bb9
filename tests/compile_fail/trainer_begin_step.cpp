// SPDX-License-Identifier: MIT
// expected: the trainer has a member begin_step that cannot be called as: void begin_step\(std::size_t\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
#ifdef RIGHT
  void begin_step(std::size_t) {}
#else
  void begin_step() {}
#endif
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
