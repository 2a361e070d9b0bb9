// SPDX-License-Identifier: MIT
// expected: the trainer has a member backward that cannot be called as: void backward\(pipesched::task\)
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
struct trainer {
  void forward(pipesched::task) {}
#ifdef RIGHT
  void backward(pipesched::task) {}
#else
  void backward(pipesched::task, int) {}
#endif
  void backward_input(pipesched::task) {}
  void backward_weight(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
};
void run(const pipesched::program& p, std::vector<trainer>& trainers, pipesched::thread_world& world) {
  pipesched::run_all(p, trainers, world);
}
