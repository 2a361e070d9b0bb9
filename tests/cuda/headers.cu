// SPDX-License-Identifier: MIT
// The headers in a file of nvcc's: a user's trainer may be one.

#include <pipesched/device/cuda.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/program/verify.hpp>

namespace {

__global__ void add_one(float* x) { x[threadIdx.x] += 1; }

struct trainer {
  cudaStream_t stream;
  float* memory;
  void run() { add_one<<<1, 32, 0, stream>>>(memory); }
  void forward(pipesched::task) { run(); }
  void backward(pipesched::task) { run(); }
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t n) {
    return {reinterpret_cast<std::byte*>(memory) + 128 * std::size_t{n}, 128};
  }
};

}  // namespace

void run(const pipesched::program& p, const std::vector<pipesched::cuda::rank>& ranks, float* memory) {
  std::vector<trainer> trainers;
  for (const pipesched::cuda::rank& r : ranks) trainers.push_back({r.compute, memory});
  pipesched::cuda::peer_world world({}, ranks);
  run_all(p, trainers, world, {.steps = 2, .graph = true});
}
