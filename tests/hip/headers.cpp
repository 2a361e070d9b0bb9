// SPDX-License-Identifier: MIT
// The headers for HIP, with a trainer that uses them. Compiled and linked; no AMD GPU has run it.

#include <cstdio>
#include <pipesched/device/hip.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/program/lower.hpp>

namespace {

struct trainer {
  hipStream_t stream;
  std::byte* memory;
  void run() { static_cast<void>(hipMemsetAsync(memory, 1, 128, stream)); }
  void forward(pipesched::task) { run(); }
  void backward(pipesched::task) { run(); }
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t n) { return {memory + 128 * std::size_t{n}, 128}; }
};

void run(const pipesched::program& p, const std::vector<pipesched::hip::rank>& ranks, std::byte* memory) {
  std::vector<trainer> trainers;
  for (const pipesched::hip::rank& r : ranks) trainers.push_back({r.compute, memory});
  pipesched::hip::peer_world world({}, ranks);
  run_all(p, trainers, world, {.steps = 2, .graph = true});
}

}  // namespace

int main() {
  int devices = 0;
  if (hipGetDeviceCount(&devices) != hipSuccess || devices < 2) {
    std::puts("skipped: two AMD GPUs are needed");
    return 77;
  }
  const pipesched::program p = pipesched::lower(pipesched::make_1f1b_schedule({.pp = 2, .micro = 4}));
  std::vector<pipesched::hip::rank> ranks(2);
  std::byte* memory = nullptr;
  if (hipMalloc(reinterpret_cast<void**>(&memory), 1 << 20) != hipSuccess) return 1;
  for (int device = 0; device < 2; ++device) {
    ranks[static_cast<std::size_t>(device)].device = device;
    if (pipesched::hip::runtime::make_stream(device, 0, ranks[static_cast<std::size_t>(device)].compute) != hipSuccess)
      return 1;
  }
  run(p, ranks, memory);
}
