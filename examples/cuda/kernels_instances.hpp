// SPDX-License-Identifier: MIT

// The types that the functions of kernels.hpp are there for: included at the end of a file that defines them.

namespace cuda_mlp {

template void fill(float*, std::size_t, std::uint64_t, double, cudaStream_t);
template void fill(double*, std::size_t, std::uint64_t, double, cudaStream_t);
template void add(const float*, float*, std::size_t, cudaStream_t);
template void add(const double*, double*, std::size_t, cudaStream_t);
template void gelu(const float*, float*, std::size_t, cudaStream_t);
template void gelu(const double*, double*, std::size_t, cudaStream_t);
template void gelu_gradient(const float*, const float*, float*, std::size_t, cudaStream_t);
template void gelu_gradient(const double*, const double*, double*, std::size_t, cudaStream_t);
template void mean_squared_error(const float*, const float*, float*, std::size_t, double*, double*, cudaStream_t);
template void mean_squared_error(const double*, const double*, double*, std::size_t, double*, double*, cudaStream_t);

}  // namespace cuda_mlp
