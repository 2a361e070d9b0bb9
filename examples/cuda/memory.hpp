// SPDX-License-Identifier: MIT
#pragma once

// Memory and streams that go with their owner.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "check.hpp"

namespace cuda_mlp {

namespace detail {

struct free_memory {
  void operator()(void* p) const { cudaFree(p); }
};
struct free_pinned {
  void operator()(void* p) const { cudaFreeHost(p); }
};
struct destroy_stream {
  void operator()(cudaStream_t s) const { cudaStreamDestroy(s); }
};

}  // namespace detail

/// An array in the memory of the current device, not initialized.
template <typename T>
class device_array {
 public:
  explicit device_array(std::size_t size) : size_(size) {
    void* made = nullptr;
    check(cudaMalloc(&made, size * sizeof(T)), "cudaMalloc");
    memory_.reset(static_cast<T*>(made));
  }
  T* data() const { return memory_.get(); }
  std::size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return std::as_writable_bytes(std::span(data(), size_)); }

  /// Waits for the device.
  std::vector<T> to_host() const {
    std::vector<T> values(size_);
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    check(cudaMemcpy(values.data(), data(), size_ * sizeof(T), cudaMemcpyDefault), "cudaMemcpy");
    return values;
  }

 private:
  std::unique_ptr<T, detail::free_memory> memory_;
  std::size_t size_;
};

/// The same in host memory that devices copy from and to without the host's help.
template <typename T>
class pinned_array {
 public:
  explicit pinned_array(std::size_t size) {
    void* made = nullptr;
    check(cudaMallocHost(&made, size * sizeof(T)), "cudaMallocHost");
    memory_.reset(static_cast<T*>(made));
  }
  T* data() const { return memory_.get(); }

 private:
  std::unique_ptr<T, detail::free_pinned> memory_;
};

/// A stream of the current device that the default stream does not wait for.
class stream {
 public:
  stream() {
    cudaStream_t made = nullptr;
    check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    stream_.reset(made);
  }
  cudaStream_t handle() const { return stream_.get(); }

 private:
  std::unique_ptr<CUstream_st, detail::destroy_stream> stream_;
};

}  // namespace cuda_mlp
