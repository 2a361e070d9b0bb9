// SPDX-License-Identifier: MIT
// expected: a trainer needs: void forward\(pipesched::task\)
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
struct trainer {
#ifdef RIGHT
  void forward(const pipesched::task&) {}
#else
  void forward(pipesched::task&) {}
#endif
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
};
void run(const pipesched::program& p, std::vector<trainer>& trainers, pipesched::thread_world& world) {
  pipesched::run_all(p, trainers, world);
}
