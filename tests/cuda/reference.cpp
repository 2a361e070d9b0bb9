// SPDX-License-Identifier: MIT
// The host's version of the model's stage against differences of the loss: no CUDA.

#include "reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

namespace {

using namespace cuda_mlp::reference;

constexpr sizes s{3, 4, 5};

matrix random_matrix(std::size_t n, std::mt19937_64& random) {
  matrix m(n);
  for (double& v : m) v = std::uniform_real_distribution(-1.0, 1.0)(random);
  return m;
}

// Largest difference between the gradient and that by two losses around each weight.
template <typename Loss>
double worst(matrix& of, const matrix& gradient, Loss&& loss) {
  const double step = 1e-5;
  double most = 0;
  for (std::size_t i = 0; i < of.size(); ++i) {
    const double there = of[i];
    of[i] = there + step;
    const double above = loss();
    of[i] = there - step;
    const double below = loss();
    of[i] = there;
    most = std::max(most, std::abs((above - below) / (2 * step) - gradient[i]));
  }
  return most;
}

}  // namespace

int main() {
  std::mt19937_64 random(1);
  matrix up = random_matrix(s.hidden * s.width, random), down = random_matrix(s.hidden * s.width, random);
  matrix x = random_matrix(s.rows * s.width, random);
  const matrix target = random_matrix(s.rows * s.width, random);
  const auto loss = [&] { return mean_squared_error(forward(s, up, down, x).y, target).loss; };
  const results made = forward(s, up, down, x);
  const gradients got = backward(s, up, down, x, made, mean_squared_error(made.y, target).dy);
  const double errors[] = {worst(x, got.dx, loss), worst(up, got.up, loss), worst(down, got.down, loss)};
  std::printf("largest difference: dx %.1e, up %.1e, down %.1e\n", errors[0], errors[1], errors[2]);
  // GELU at 1 is known from elsewhere.
  const bool known = std::abs(gelu(1) - 0.8413447460685429) < 1e-15 && gelu(0) == 0;
  const bool passed = known && std::all_of(errors, errors + 3, [](double e) { return e < 1e-9; });
  std::puts(passed ? "passed" : "FAILED");
  return passed ? 0 : 1;
}
