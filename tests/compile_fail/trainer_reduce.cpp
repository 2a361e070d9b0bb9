// SPDX-License-Identifier: MIT
// expected: the trainer has a member reduce that cannot be called as: void reduce\(std::uint16_t, std::uint16_t, std::span<const std::byte>\)
#include <pipesched/execute/in_process.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
#ifdef RIGHT
  void reduce(std::uint16_t, std::uint16_t, std::span<const std::byte>) {}
#else
  void reduce(std::uint16_t, std::span<const std::byte>) {}
#endif
};
void run(const pipesched::program& p) {
  pipesched::run_in_process(p, [](std::uint32_t) { return trainer{}; });
}
