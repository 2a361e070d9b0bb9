// SPDX-License-Identifier: MIT
#pragma once

// A model in whole numbers, so that GPU and host agree to the bit in any order of summing: a stage mixes its input with its own
// number, the gradient of its weights is a sum of mixtures modulo 2^64. Kernels wait for a time that depends on the op, so that
// a missing event shows.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <pipesched/execute/trainer.hpp>
#include <pipesched/program/program.hpp>

namespace hash_model {

using number = unsigned long long;

inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(status));
}

__host__ __device__ inline number mix(number x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}
__host__ __device__ inline number input(number micro, number i) { return mix(micro << 32 | i); }
__host__ __device__ inline number forward(number stage, number x) { return mix(x + stage * 0x9e3779b97f4a7c15u); }
__host__ __device__ inline number backward(number x, number dy) { return mix(dy ^ mix(x)); }
__host__ __device__ inline number weight(number x, number dy) { return mix(dy + 3 * x); }

__device__ inline void dawdle(unsigned cycles) {
  const long long until = clock64() + cycles;
  while (clock64() < until) {
  }
}

// Of x: null for the first stage; of y: null for the last one, whose output goes into `outputs`.
__global__ void forward_kernel(number stage, number micro, const number* x, number* y, number* kept, number* outputs,
                               unsigned n, unsigned cycles) {
  dawdle(cycles);
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    const number in = x != nullptr ? x[i] : input(micro, i), out = forward(stage, in);
    if (kept != nullptr) kept[i] = in, kept[n + i] = out;
    if (y != nullptr) y[i] = out;
    if (outputs != nullptr) outputs[i] = out;
  }
}
// Of dy: null for the last stage, whose gradient is its output; of dx: null for the first one. I: due takes dy. B: gradient.
__global__ void backward_kernel(const number* dy, number* dx, const number* kept, number* due, number* gradient,
                                unsigned n, unsigned cycles) {
  dawdle(cycles);
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    const number d = dy != nullptr ? dy[i] : kept[n + i];
    if (dx != nullptr) dx[i] = backward(kept[i], d);
    if (due != nullptr) due[i] = d;
    if (gradient != nullptr) gradient[i] += weight(kept[i], d);
  }
}
__global__ void weight_kernel(const number* kept, const number* due, number* gradient, unsigned n, unsigned cycles) {
  dawdle(cycles);
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    gradient[i] += weight(kept[i], due[i]);
}
__global__ void add_kernel(number* to, const number* other, unsigned n) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) to[i] += other[i];
}

struct results {
  std::vector<std::vector<number>> outputs;    // by micro-batch
  std::vector<std::vector<number>> gradients;  // by stage
};

inline results on_host(std::uint32_t stages, std::uint32_t micro, unsigned n) {
  results r{std::vector(micro, std::vector<number>(n)), std::vector(stages, std::vector<number>(n))};
  std::vector<number> x(stages + 1);
  for (std::uint32_t m = 0; m < micro; ++m)
    for (unsigned i = 0; i < n; ++i) {
      x[0] = input(m, i);
      for (std::uint32_t s = 0; s < stages; ++s) x[s + 1] = forward(s, x[s]);
      number d = r.outputs[m][i] = x[stages];
      for (std::uint32_t s = stages; s-- > 0;) {
        r.gradients[s][i] += weight(x[s], d);
        d = backward(x[s], d);
      }
    }
  return r;
}

struct device_memory {
  explicit device_memory(std::size_t numbers) {
    check(cudaMalloc(&data, std::max<std::size_t>(1, numbers) * sizeof(number)), "cudaMalloc");
    check(cudaMemset(data, 0, std::max<std::size_t>(1, numbers) * sizeof(number)), "cudaMemset");
  }
  ~device_memory() { cudaFree(data); }
  device_memory(const device_memory&) = delete;
  device_memory& operator=(const device_memory&) = delete;
  number* data = nullptr;
};

class trainer {
 public:
  /// @param n  numbers a message. @param cycles  that a kernel waits at most
  trainer(const pipesched::program& p, std::uint32_t rank, cudaStream_t stream, unsigned n, unsigned cycles)
      : n_(n),
        cycles_(cycles),
        stages_(p.schedule.placement.stages_of(rank)),
        last_(static_cast<std::uint16_t>(p.schedule.stages() - 1)),
        trains_(!p.schedule.forward_only),
        stream_(stream),
        buffers_(std::size_t{p.pools[rank].owned_buffers()} * n),
        kept_(std::size_t{p.pools[rank][pipesched::pool::activation]} * 2 * n),
        due_(std::size_t{p.pools[rank][pipesched::pool::context]} * n),
        gradients_(stages_.size() * n),
        outputs_(std::size_t{p.schedule.micro} * n) {
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  void begin_step(std::size_t) {
    check(cudaMemsetAsync(gradients_.data, 0, stages_.size() * n_ * sizeof(number), stream_), "cudaMemsetAsync");
  }
  void forward(pipesched::task t) {
    const auto s = t.slots;
    forward_kernel<<<blocks, threads, 0, stream_>>>(
        t.what.stage, t.what.micro, buffer_at(s.input), buffer_at(s.output), trains_ ? kept_at(s) : nullptr,
        t.what.stage == last_ ? outputs_.data + t.what.micro * n_ : nullptr, n_, cycles_of(t));
    check(cudaGetLastError(), "forward");
  }
  void backward(pipesched::task t) { run_backward(t, stream_, nullptr, gradient_at(t.what.chunk)); }
  void backward_input(pipesched::task t) {
    run_backward(t, stream_, due_.data + std::size_t{t.slots.context} * n_, nullptr);
  }
  void backward_weight(pipesched::task t) {
    weight_kernel<<<blocks, threads, 0, stream_>>>(kept_at(t.slots), due_.data + std::size_t{t.slots.context} * n_,
                                                   gradient_at(t.what.chunk), n_, cycles_of(t));
    check(cudaGetLastError(), "backward_weight");
  }

  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t n) { return bytes(buffer_at(n)); }
  std::span<std::byte> weight_gradient(std::uint32_t chunk) { return bytes(gradient_at(chunk)); }
  // No family has two stages with the same weights on one rank.
  void reduce(pipesched::reduction r) {
    add_kernel<<<blocks, threads, 0, stream_>>>(gradient_at(r.chunk), buffer_at(r.buffer), n_);
    check(cudaGetLastError(), "reduce");
  }

  /// Compares the gradients with the expected ones; returns "" or the difference. @pre the device is through
  std::string difference(const results& expected) const {
    std::vector<number> got(n_);
    for (std::size_t chunk = 0; trains_ && chunk < stages_.size(); ++chunk) {
      read(got, gradients_.data + chunk * n_);
      for (unsigned i = 0; i < n_; ++i)
        if (got[i] != expected.gradients[stages_[chunk]][i])
          return "gradient of stage " + std::to_string(stages_[chunk]) + ", number " + std::to_string(i);
    }
    return {};
  }
  /// The same for a micro-batch's output. @pre the last stage of that micro-batch is here
  std::string difference_of_output(const results& expected, std::uint32_t micro) const {
    std::vector<number> got(n_);
    read(got, outputs_.data + std::size_t{micro} * n_);
    return got == expected.outputs[micro] ? "" : "output of micro-batch " + std::to_string(micro);
  }

 private:
  static constexpr unsigned blocks = 4, threads = 128;

  void run_backward(pipesched::task t, cudaStream_t stream, number* due, number* gradient) {
    backward_kernel<<<blocks, threads, 0, stream>>>(buffer_at(t.slots.input), buffer_at(t.slots.output),
                                                    kept_at(t.slots), due, gradient, n_, cycles_of(t));
    check(cudaGetLastError(), "backward");
  }
  void read(std::vector<number>& to, const number* from) const {
    check(cudaMemcpy(to.data(), from, n_ * sizeof(number), cudaMemcpyDeviceToHost), "cudaMemcpy");
  }
  number* buffer_at(std::uint32_t n) const {
    return n == pipesched::no_slot ? nullptr : buffers_.data + std::size_t{n} * n_;
  }
  number* kept_at(const pipesched::op_slots& s) const { return kept_.data + std::size_t{s.activation} * 2 * n_; }
  number* gradient_at(std::uint32_t chunk) const { return gradients_.data + std::size_t{chunk} * n_; }
  unsigned cycles_of(pipesched::task t) const {
    const number place = t.what.stage * 131u + t.what.micro * 17u + static_cast<number>(t.what.pass);
    return cycles_ == 0 ? 0 : static_cast<unsigned>(mix(place) % cycles_);
  }
  std::span<std::byte> bytes(number* at) const { return {reinterpret_cast<std::byte*>(at), n_ * sizeof(number)}; }

  unsigned n_, cycles_;
  std::vector<std::uint16_t> stages_;
  std::uint16_t last_;
  bool trains_;
  cudaStream_t stream_;
  device_memory buffers_, kept_, due_, gradients_, outputs_;
};

}  // namespace hash_model
