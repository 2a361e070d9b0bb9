// SPDX-License-Identifier: MIT
// expected: the trainer has a member reduce that cannot be called as: void reduce\(pipesched::reduction\)
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
#ifdef RIGHT
  void reduce(pipesched::reduction) {}
#else
  void reduce(std::uint32_t, std::span<const std::byte>) {}
#endif
};
void run(const pipesched::program& p, std::vector<trainer>& trainers, pipesched::thread_world& world) {
  pipesched::run_all(p, trainers, world);
}
