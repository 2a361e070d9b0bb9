// SPDX-License-Identifier: MIT
// expected: the trainer has a member weight_gradient that cannot be called as: std::span<std::byte> weight_gradient\(std::uint16_t\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
#ifdef RIGHT
  std::span<std::byte> weight_gradient(std::uint16_t) { return {}; }
#else
  std::span<const std::byte> weight_gradient(std::uint16_t) { return {}; }
#endif
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
