// SPDX-License-Identifier: MIT

#include "kernels.hpp"

#include <algorithm>

#include "check.hpp"

namespace cuda_mlp {

namespace {

constexpr unsigned threads = 256;  // of a block

// Calls work(i) for i from 0 to n - 1.
template <typename Work>
__global__ void each(std::size_t n, Work work) {
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < n;
       i += std::size_t{gridDim.x} * blockDim.x)
    work(i);
}

template <typename Work>
void launch(std::size_t n, cudaStream_t stream, const char* name, Work work) {
  const auto blocks = static_cast<unsigned>(std::min<std::size_t>((n + threads - 1) / threads, 4096));
  each<<<blocks, threads, 0, stream>>>(n, work);
  check(cudaGetLastError(), name);
}

// The sum over the threads of a block, in the first of them.
__device__ double block_sum(double own) {
  __shared__ double sums[threads];
  sums[threadIdx.x] = own;
  for (unsigned half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  return sums[0];
}

template <typename Real>
__global__ void sum_squares(const Real* y, const Real* target, Real* dy, std::size_t n, double* sums) {
  double sum = 0;
  for (std::size_t i = blockIdx.x * std::size_t{threads} + threadIdx.x; i < n; i += std::size_t{gridDim.x} * threads) {
    const double difference = static_cast<double>(y[i]) - static_cast<double>(target[i]);
    sum += difference * difference;
    dy[i] = static_cast<Real>(2 * difference / static_cast<double>(n));
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void sum_up(const double* sums, std::size_t n, double* loss) {
  const double sum = block_sum(sums[threadIdx.x]);
  if (threadIdx.x == 0) *loss = sum / static_cast<double>(n);
}
static_assert(loss_sums == threads);

}  // namespace

template <typename Real>
void fill(Real* to, std::size_t n, std::uint64_t seed, double scale, cudaStream_t stream) {
  launch(n, stream, "fill",
         [=] __device__(std::size_t i) { to[i] = static_cast<Real>(random_number(seed, i) * scale); });
}

template <typename Real>
void add(const Real* from, Real* to, std::size_t n, cudaStream_t stream) {
  launch(n, stream, "add", [=] __device__(std::size_t i) { to[i] += from[i]; });
}

template <typename Real>
void gelu(const Real* h, Real* g, std::size_t n, cudaStream_t stream) {
  launch(n, stream, "gelu", [=] __device__(std::size_t i) {
    const Real x = h[i];
    g[i] = x * (1 + erf(x * Real(0.70710678118654752))) / 2;
  });
}

template <typename Real>
void gelu_gradient(const Real* h, const Real* dg, Real* dh, std::size_t n, cudaStream_t stream) {
  launch(n, stream, "gelu_gradient", [=] __device__(std::size_t i) {
    const Real x = h[i];
    const Real below = (1 + erf(x * Real(0.70710678118654752))) / 2;   // the normal distribution up to x
    const Real density = exp(-x * x / 2) * Real(0.39894228040143268);  // and at x
    dh[i] = dg[i] * (below + x * density);
  });
}

template <typename Real>
void mean_squared_error(const Real* y, const Real* target, Real* dy, std::size_t n, double* sums, double* loss,
                        cudaStream_t stream) {
  sum_squares<<<loss_sums, threads, 0, stream>>>(y, target, dy, n, sums);
  check(cudaGetLastError(), "sum_squares");
  sum_up<<<1, threads, 0, stream>>>(sums, n, loss);
  check(cudaGetLastError(), "sum_up");
}

}  // namespace cuda_mlp

#include "kernels_instances.hpp"
