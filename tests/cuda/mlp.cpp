// SPDX-License-Identifier: MIT
// Every op of the example's model, and every kernel, against its plain version on the host. Ends with 77 without a GPU.

#include "../../examples/cuda/mlp.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "reference.hpp"

namespace {

using namespace cuda_mlp;
using reference::matrix;

int failures = 0;

// Norm-wise: the largest difference is small beside the largest value.
template <typename Real>
void compare(const char* what, const std::vector<Real>& got, const matrix& expected) {
  double most = 0, difference = got.size() == expected.size() ? 0 : 1e300;
  for (std::size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
    most = std::max(most, std::abs(expected[i]));
    const double d = std::abs(static_cast<double>(got[i]) - expected[i]);
    difference = d <= difference ? difference : d;
  }
  const double allowed = sizeof(Real) == sizeof(float) ? 1e-5 : 1e-13;
  const bool right = difference <= allowed * most;  // false for NaN
  if (!right) ++failures;
  std::printf("%s%-16s %.1e of %.1e\n", right ? "" : "FAILED: ", what, difference, most);
}

matrix numbers(std::size_t n, std::uint64_t seed, double scale = 1) {
  matrix m(n);
  for (std::size_t i = 0; i < n; ++i) m[i] = random_number(seed, i) * scale;
  return m;
}
template <typename Real>
device_array<Real> on_device(const matrix& m) {
  const std::vector<Real> values(m.begin(), m.end());
  device_array<Real> a(m.size());
  check(cudaMemcpy(a.data(), values.data(), a.bytes().size(), cudaMemcpyDefault), "cudaMemcpy");
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // streams of ours do not wait for the default one
  return a;
}
// As the device has it: rounded.
template <typename Real>
matrix rounded(matrix m) {
  for (double& v : m) v = static_cast<Real>(v);
  return m;
}
matrix sum(matrix a, const matrix& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

template <typename Real>
void test(const mlp_sizes& s) {
  std::printf("%s, %d rows, %d to %d\n", sizeof(Real) == sizeof(float) ? "float" : "double", s.rows, s.width, s.hidden);
  const stream own;
  const blas math(own.handle());
  mlp<Real> stage(s, 3, own.handle());
  stage.zero_gradients(own.handle());
  const std::vector<Real> weights = stage.weights().to_host();
  const auto middle = weights.begin() + static_cast<std::ptrdiff_t>(s.matrix());
  const matrix up(weights.begin(), middle), down(middle, weights.end());
  compare("fill, up", std::vector<Real>(weights.begin(), middle),
          numbers(s.matrix(), seed_of(made::up, 3), unit / std::sqrt(s.width)));
  compare("fill, down", std::vector<Real>(middle, weights.end()),
          numbers(s.matrix(), seed_of(made::down, 3), unit / std::sqrt(0.425 * s.hidden)));

  const matrix x = rounded<Real>(numbers(s.narrow(), 101)), target = rounded<Real>(numbers(s.narrow(), 102));
  const reference::sizes sizes{static_cast<std::size_t>(s.rows), static_cast<std::size_t>(s.width),
                               static_cast<std::size_t>(s.hidden)};
  const auto expected = reference::forward(sizes, up, down, x);
  const auto loss = reference::mean_squared_error(expected.y, target);
  const auto gradients = reference::backward(sizes, up, down, x, expected, loss.dy);

  const auto x_there = on_device<Real>(x), target_there = on_device<Real>(target);
  const device_array<Real> h(s.wide()), g(s.wide()), y(s.narrow()), dy(s.narrow()), dg(s.wide()), dh(s.wide()),
      dx(s.narrow()), scratch(s.wide());
  const device_array<double> sums(loss_sums), loss_there(1);
  stage.forward_up(math, x_there.data(), h.data(), g.data());
  stage.forward_down(math, g.data(), y.data());
  mean_squared_error(y.data(), target_there.data(), dy.data(), s.narrow(), sums.data(), loss_there.data(),
                     own.handle());
  compare("h", h.to_host(), expected.h);
  compare("g", g.to_host(), expected.g);
  compare("y", y.to_host(), expected.y);
  compare("loss", std::vector<Real>(1, static_cast<Real>(loss_there.to_host()[0])), {loss.loss});
  compare("dy", dy.to_host(), loss.dy);

  stage.input_down(math, dy.data(), dg.data());
  stage.input_up(math, h.data(), dg.data(), dh.data(), dx.data());
  compare("dg", dg.to_host(), gradients.dg);
  compare("dh", dh.to_host(), gradients.dh);
  compare("dx", dx.to_host(), gradients.dx);
  stage.input_up(math, h.data(), dg.data(), dg.data(), nullptr);  // the gradient in place, and none of x
  compare("dh in place", dg.to_host(), gradients.dh);

  matrix both = gradients.up;
  both.insert(both.end(), gradients.down.begin(), gradients.down.end());
  for (const char* what : {"gradients", "added twice"}) {
    stage.weight_down(math, h.data(), dy.data(), scratch.data());
    stage.weight_up(math, x_there.data(), dh.data());
    compare(what, stage.gradients().to_host(), what[0] == 'g' ? both : sum(both, both));
  }
  add(x_there.data(), target_there.data(), s.narrow(), own.handle());
  compare("add", target_there.to_host(), sum(x, target));
  stage.zero_gradients(own.handle());
  compare("zero", stage.gradients().to_host(), matrix(2 * s.matrix()));
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: no CUDA device");
    return 77;
  }
  for (const mlp_sizes& s : {mlp_sizes{7, 12, 20}, mlp_sizes{1, 1, 1}, mlp_sizes{70, 33, 129}}) {
    test<float>(s);
    test<double>(s);
  }
  std::puts(failures == 0 ? "passed" : "FAILED");
  return failures == 0 ? 0 : 1;
}
