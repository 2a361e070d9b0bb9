// SPDX-License-Identifier: MIT
// The headers in a file of nvcc's: a user's trainer may be one.

#include <pipesched/device/cuda.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/program/verify.hpp>
#include <pipesched/program/lower.hpp>

namespace {

__global__ void add_one(float* x) { x[threadIdx.x] += 1; }

struct trainer {
  cudaStream_t stream;
  float* memory;
  void run() { add_one<<<1, 32, 0, stream>>>(memory); }
  void forward(pipesched::task) { run(); }
  void backward(pipesched::task) { run(); }
  std::span<std::byte> buffer(std::uint32_t n) {
    return {reinterpret_cast<std::byte*>(memory) + 128 * std::size_t{n}, 128};
  }
};

}  // namespace

void run(const pipesched::program& p, std::vector<pipesched::cuda::rank> ranks, float* memory) {
  pipesched::cuda::peer_hub hub({}, p, std::move(ranks));
  pipesched::run_on_peers(p, hub, [&](std::uint32_t, pipesched::cuda::peer_transport& transport) {
    return trainer{transport.compute(), memory};
  });
}
