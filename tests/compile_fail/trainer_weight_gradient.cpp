// SPDX-License-Identifier: MIT
// expected: the trainer has a member weight_gradient that cannot be called as: std::span<std::byte> weight_gradient\(std::uint32_t\)
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
#ifdef RIGHT
  std::span<std::byte> weight_gradient(std::uint32_t) { return {}; }
#else
  std::span<const std::byte> weight_gradient(std::uint32_t) { return {}; }
#endif
};
void run(const pipesched::program& p, std::vector<trainer>& trainers, pipesched::thread_world& world) {
  pipesched::run_all(p, trainers, world);
}
