// SPDX-License-Identifier: MIT
// expected: make_trainer returns a trainer by value: a reference would be copied
#include <pipesched/execute/in_process.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t) { return {}; }
};
#ifdef RIGHT
trainer of(std::uint32_t);
#else
trainer& of(std::uint32_t);
#endif
void run(const pipesched::program& p) { pipesched::run_in_process(p, of); }
