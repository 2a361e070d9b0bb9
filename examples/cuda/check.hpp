// SPDX-License-Identifier: MIT
#pragma once

// A call of CUDA's or cuBLAS's that fails is an exception, with its name, what the library says and the line it is in.
//
//   check(cudaMemsetAsync(to, 0, size, stream), "cudaMemsetAsync");

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <source_location>
#include <stdexcept>
#include <string>

namespace cuda_mlp {

[[noreturn]] inline void fail(const char* call, const char* text, const std::source_location& where) {
  std::string file = where.file_name();
  file.erase(0, file.find_last_of('/') + 1);
  throw std::runtime_error(std::string(call) + ": " + text + " (" + file + ":" + std::to_string(where.line()) + ")");
}

/// @throws std::runtime_error
inline void check(cudaError_t status, const char* call, std::source_location where = std::source_location::current()) {
  if (status != cudaSuccess) fail(call, cudaGetErrorString(status), where);
}
inline void check(cublasStatus_t status, const char* call,
                  std::source_location where = std::source_location::current()) {
  if (status != CUBLAS_STATUS_SUCCESS) fail(call, cublasGetStatusString(status), where);
}

}  // namespace cuda_mlp
