// SPDX-License-Identifier: MIT
// expected: a trainer needs: void forward\(pipesched::task\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
#ifdef RIGHT
  void forward(const pipesched::task&) {}
#else
  void forward(pipesched::task&) {}
#endif
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
