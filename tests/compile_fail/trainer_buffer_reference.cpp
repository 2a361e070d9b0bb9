// SPDX-License-Identifier: MIT
// expected: a trainer needs: std::span<std::byte> buffer\(std::uint32_t\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
#ifdef RIGHT
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
#else
  std::span<std::byte> buffer(std::uint32_t&) { return {}; }
#endif
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
