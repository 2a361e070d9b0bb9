// SPDX-License-Identifier: MIT
// expected: a trainer needs: std::span<std::byte> buffer\(pipesched::tensor_id, std::uint32_t\)
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
#ifdef RIGHT
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
#else
  std::span<std::byte> buffer(pipesched::tensor_id&, std::uint32_t) { return {}; }
#endif
};
void run(const pipesched::program& p, std::vector<trainer>& trainers, pipesched::thread_world& world) {
  pipesched::run_all(p, trainers, world);
}
