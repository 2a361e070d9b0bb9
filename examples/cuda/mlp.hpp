// SPDX-License-Identifier: MIT
#pragma once

// A stage of the model: two linear layers without bias, a GELU between them. Matrices are dense, row by row; a row of
// x, h, g or y is a token.
//
//   h = x up^T, g = gelu(h), y = g down^T           up: hidden x width, down: width x hidden
//   dg = dy down, dh = dg * gelu'(h), dx = dh up    backward_input
//   d(down) += dy^T g, d(up) += dh^T x              backward_weight, at any time after
//
// Every function puts its work into the stream of the `blas` it is given.
// Source: github.com/deepseek-ai/DualPipe, examples.

#include <cublas_v2.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "check.hpp"
#include "kernels.hpp"
#include "memory.hpp"

namespace cuda_mlp {

struct mlp_sizes {
  int rows = 3 * 256;  ///< tokens of a micro-batch: three sequences
  int width = 512, hidden = 2048;

  std::size_t narrow() const { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(width); }
  std::size_t wide() const { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(hidden); }
  /// Of one layer. A stage has two.
  std::size_t matrix() const { return static_cast<std::size_t>(width) * static_cast<std::size_t>(hidden); }
};

/// cuBLAS, bound to one stream of the current device.
class blas {
 public:
  explicit blas(cudaStream_t stream) : stream_(stream), workspace_(std::size_t{32} << 20) {
    cublasHandle_t made = nullptr;
    check(cublasCreate(&made), "cublasCreate");
    handle_.reset(made);
    check(cublasSetStream(made, stream), "cublasSetStream");
    // After the stream, which would reset it. With memory of its own a product can be captured and always comes out the
    // same.
    check(cublasSetWorkspace(made, workspace_.data(), workspace_.size()), "cublasSetWorkspace");
    check(cublasSetMathMode(made, CUBLAS_DEFAULT_MATH), "cublasSetMathMode");  // no TF32
    check(cublasSetAtomicsMode(made, CUBLAS_ATOMICS_NOT_ALLOWED), "cublasSetAtomicsMode");
  }
  cudaStream_t stream() const { return stream_; }

  enum side { plain, transposed };

  /// c = a b, or c += a b if `more`; c is rows x columns. `transposed`: the matrix is stored the other way round.
  template <typename Real>
  void multiply(const Real* a, side of_a, const Real* b, side of_b, Real* c, int rows, int columns, int inner,
                bool more = false) const {
    // cuBLAS has matrices column by column, so it sees each transposed: c^T = b^T a^T.
    const Real one = 1, kept = more ? 1 : 0;
    const auto op = [](side s) { return s == transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
    const int row_of_a = of_a == transposed ? rows : inner, row_of_b = of_b == transposed ? inner : columns;
    if constexpr (sizeof(Real) == sizeof(float))
      check(cublasSgemm(handle_.get(), op(of_b), op(of_a), columns, rows, inner, &one, b, row_of_b, a, row_of_a, &kept,
                        c, columns),
            "cublasSgemm");
    else
      check(cublasDgemm(handle_.get(), op(of_b), op(of_a), columns, rows, inner, &one, b, row_of_b, a, row_of_a, &kept,
                        c, columns),
            "cublasDgemm");
  }

 private:
  struct destroy {
    void operator()(cublasHandle_t h) const { cublasDestroy(h); }
  };
  cudaStream_t stream_;
  device_array<std::byte> workspace_;
  std::unique_ptr<cublasContext, destroy> handle_;
};

/// Matrices that every rank makes for itself, from the number of a micro-batch or of a stage.
enum class made : std::uint64_t { input, target, up, down };
constexpr std::uint64_t seed_of(made what, std::size_t number) {
  return std::uint64_t{number} * 4 + static_cast<std::uint64_t>(what) + 1;
}
/// Scale of uniform numbers with standard deviation 1.
inline const double unit = std::sqrt(3.0);

template <typename Real>
class mlp {
 public:
  /// Its weights depend on its number alone.
  mlp(const mlp_sizes& s, std::size_t stage, cudaStream_t stream)
      : s_(s), weights_(2 * s.matrix()), gradients_(2 * s.matrix()) {
    // As large on the way out as on the way in: the mean of gelu(h)^2 is 0.425.
    fill(up(weights_), s.matrix(), seed_of(made::up, stage), unit / std::sqrt(s.width), stream);
    fill(down(weights_), s.matrix(), seed_of(made::down, stage), unit / std::sqrt(0.425 * s.hidden), stream);
  }

  /// Forward, first half.
  void forward_up(const blas& b, const Real* x, Real* h, Real* g) const {
    b.multiply(x, blas::plain, up(weights_), blas::transposed, h, s_.rows, s_.hidden, s_.width);
    gelu(h, g, s_.wide(), b.stream());
  }
  /// Forward, second half.
  void forward_down(const blas& b, const Real* g, Real* y) const {
    b.multiply(g, blas::plain, down(weights_), blas::transposed, y, s_.rows, s_.width, s_.hidden);
  }

  /// Gradient of the input, first half.
  void input_down(const blas& b, const Real* dy, Real* dg) const {
    b.multiply(dy, blas::plain, down(weights_), blas::plain, dg, s_.rows, s_.hidden, s_.width);
  }
  /// Gradient of the input, second half. dx may be null: no stage needs that of the first one.
  void input_up(const blas& b, const Real* h, const Real* dg, Real* dh, Real* dx) const {
    gelu_gradient(h, dg, dh, s_.wide(), b.stream());
    if (dx != nullptr) b.multiply(dh, blas::plain, up(weights_), blas::plain, dx, s_.rows, s_.width, s_.hidden);
  }

  /// Adds to the gradient of `down`; makes g once more.
  void weight_down(const blas& b, const Real* h, const Real* dy, Real* g) {
    gelu(h, g, s_.wide(), b.stream());
    b.multiply(dy, blas::transposed, g, blas::plain, down(gradients_), s_.width, s_.hidden, s_.rows, true);
  }
  /// Adds to the gradient of `up`.
  void weight_up(const blas& b, const Real* x, const Real* dh) {
    b.multiply(dh, blas::transposed, x, blas::plain, up(gradients_), s_.hidden, s_.width, s_.rows, true);
  }

  void zero_gradients(cudaStream_t stream) {
    check(cudaMemsetAsync(gradients_.data(), 0, gradients_.bytes().size(), stream), "cudaMemsetAsync");
  }
  /// Those of `up`, then those of `down`.
  const device_array<Real>& weights() const { return weights_; }
  const device_array<Real>& gradients() const { return gradients_; }

 private:
  Real* up(const device_array<Real>& of) const { return of.data(); }
  Real* down(const device_array<Real>& of) const { return of.data() + s_.matrix(); }

  mlp_sizes s_;
  device_array<Real> weights_, gradients_;
};

}  // namespace cuda_mlp
