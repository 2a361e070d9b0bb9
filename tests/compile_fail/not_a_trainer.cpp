// SPDX-License-Identifier: MIT
// expected: error: static.assert.*a trainer needs: void forward\(pipesched::task\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
#ifdef RIGHT
  void forward(pipesched::task) {}
#else
  int forward(pipesched::task) { return 0; }
#endif
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
