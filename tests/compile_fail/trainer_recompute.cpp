// SPDX-License-Identifier: MIT
// expected: the trainer has a member recompute that cannot be called as: void recompute\(pipesched::task\)
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
#ifdef RIGHT
  void recompute(pipesched::task) {}
#else
  void recompute(std::uint32_t) {}
#endif
};
void run(const pipesched::program& p, std::vector<trainer>& trainers, pipesched::thread_world& world) {
  pipesched::run_all(p, trainers, world);
}
