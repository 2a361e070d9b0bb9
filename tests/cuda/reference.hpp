// SPDX-License-Identifier: MIT
#pragma once

// The model's stage once more, on the host, in the plainest way and in double: what mlp.hpp is tested against.

#include <cmath>
#include <cstddef>
#include <vector>

namespace cuda_mlp::reference {

using matrix = std::vector<double>;  // row by row

struct sizes {
  std::size_t rows, width, hidden;
};

inline double gelu(double h) { return h * (1 + std::erf(h / std::sqrt(2.0))) / 2; }
inline double gelu_gradient(double h) {
  const double pi = std::acos(-1.0);
  return (1 + std::erf(h / std::sqrt(2.0))) / 2 + h * std::exp(-h * h / 2) / std::sqrt(2 * pi);
}

struct results {
  matrix h, g, y;
};
/// up: hidden x width; down: width x hidden
inline results forward(const sizes& s, const matrix& up, const matrix& down, const matrix& x) {
  results r{matrix(s.rows * s.hidden), matrix(s.rows * s.hidden), matrix(s.rows * s.width)};
  for (std::size_t t = 0; t < s.rows; ++t)
    for (std::size_t j = 0; j < s.hidden; ++j) {
      for (std::size_t i = 0; i < s.width; ++i) r.h[t * s.hidden + j] += x[t * s.width + i] * up[j * s.width + i];
      r.g[t * s.hidden + j] = gelu(r.h[t * s.hidden + j]);
    }
  for (std::size_t t = 0; t < s.rows; ++t)
    for (std::size_t i = 0; i < s.width; ++i)
      for (std::size_t j = 0; j < s.hidden; ++j) r.y[t * s.width + i] += r.g[t * s.hidden + j] * down[i * s.hidden + j];
  return r;
}

struct gradients {
  matrix dg, dh, dx, up, down;
};
inline gradients backward(const sizes& s, const matrix& up, const matrix& down, const matrix& x, const results& made,
                          const matrix& dy) {
  gradients r{matrix(s.rows * s.hidden), matrix(s.rows * s.hidden), matrix(s.rows * s.width), matrix(up.size()),
              matrix(down.size())};
  for (std::size_t t = 0; t < s.rows; ++t)
    for (std::size_t j = 0; j < s.hidden; ++j) {
      const std::size_t at = t * s.hidden + j;
      for (std::size_t i = 0; i < s.width; ++i) r.dg[at] += dy[t * s.width + i] * down[i * s.hidden + j];
      r.dh[at] = r.dg[at] * gelu_gradient(made.h[at]);
      for (std::size_t i = 0; i < s.width; ++i) {
        r.dx[t * s.width + i] += r.dh[at] * up[j * s.width + i];
        r.up[j * s.width + i] += r.dh[at] * x[t * s.width + i];
        r.down[i * s.hidden + j] += dy[t * s.width + i] * made.g[at];
      }
    }
  return r;
}

struct loss_and_gradient {
  double loss;
  matrix dy;
};
inline loss_and_gradient mean_squared_error(const matrix& y, const matrix& target) {
  loss_and_gradient r{0, matrix(y.size())};
  for (std::size_t i = 0; i < y.size(); ++i) {
    r.loss += (y[i] - target[i]) * (y[i] - target[i]) / static_cast<double>(y.size());
    r.dy[i] = 2 * (y[i] - target[i]) / static_cast<double>(y.size());
  }
  return r;
}

}  // namespace cuda_mlp::reference
