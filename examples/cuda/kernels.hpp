// SPDX-License-Identifier: MIT
#pragma once

// The kernels of the example, as plain functions for float and double. Each puts its work into a stream and returns;
// none allocates or waits. The pointers are of device memory.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define CUDA_MLP_EVERYWHERE __host__ __device__
#else
#define CUDA_MLP_EVERYWHERE
#endif

namespace cuda_mlp {

/// The i-th number of a seed, even in [-1, 1): the same on host and device, whichever other numbers are asked for.
/// Source: Steele, Lea, Flood 2014, SplitMix64.
CUDA_MLP_EVERYWHERE inline double random_number(std::uint64_t seed, std::uint64_t i) {
  std::uint64_t x = (seed << 40) + (i + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return static_cast<double>((x ^ x >> 31) >> 11) * 0x1p-52 - 1;
}

/// to[i] = random_number(seed, i) * scale
template <typename Real>
void fill(Real* to, std::size_t n, std::uint64_t seed, double scale, cudaStream_t stream);

/// to[i] += from[i]
template <typename Real>
void add(const Real* from, Real* to, std::size_t n, cudaStream_t stream);

/// g = h (1 + erf(h / sqrt 2)) / 2
template <typename Real>
void gelu(const Real* h, Real* g, std::size_t n, cudaStream_t stream);

/// dh = dg * gelu'(h)
template <typename Real>
void gelu_gradient(const Real* h, const Real* dg, Real* dh, std::size_t n, cudaStream_t stream);

/// The number of partial sums that mean_squared_error() needs memory for.
inline constexpr unsigned loss_sums = 256;

/// *loss = sum of (y - target)^2 / n, always summed in the same order; dy is its gradient.
template <typename Real>
void mean_squared_error(const Real* y, const Real* target, Real* dy, std::size_t n, double* sums, double* loss,
                        cudaStream_t stream);

}  // namespace cuda_mlp
