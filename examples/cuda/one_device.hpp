// SPDX-License-Identifier: MIT
#pragma once

// The same step without any schedule: what all of them must come to.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mlp.hpp"

namespace cuda_mlp {

template <typename Real>
struct step_results {
  std::vector<double> losses;                // by micro-batch
  std::vector<std::vector<Real>> gradients;  // by stage
};

/// One micro-batch after the other, through all stages and back, on the current device.
template <typename Real>
step_results<Real> on_one_device(std::size_t stages, std::size_t micro, const mlp_sizes& s) {
  const stream own;
  const blas math(own.handle());
  std::vector<mlp<Real>> model;
  std::vector<device_array<Real>> x, h;
  for (std::size_t stage = 0; stage < stages; ++stage) {
    model.emplace_back(s, stage, own.handle());
    model.back().zero_gradients(own.handle());
    x.emplace_back(s.narrow()), h.emplace_back(s.wide());
  }
  x.emplace_back(s.narrow());  // what the last one makes
  const device_array<Real> g(s.wide()), dh(s.wide()), target(s.narrow());
  device_array<Real> dy(s.narrow()), dx(s.narrow());
  const device_array<double> sums(loss_sums), losses(micro);

  for (std::size_t m = 0; m < micro; ++m) {
    fill(x[0].data(), s.narrow(), seed_of(made::input, m), unit, own.handle());
    fill(target.data(), s.narrow(), seed_of(made::target, m), unit, own.handle());
    for (std::size_t stage = 0; stage < stages; ++stage) {
      model[stage].forward_up(math, x[stage].data(), h[stage].data(), g.data());
      model[stage].forward_down(math, g.data(), x[stage + 1].data());
    }
    mean_squared_error(x[stages].data(), target.data(), dy.data(), s.narrow(), sums.data(), losses.data() + m,
                       own.handle());
    for (std::size_t stage = stages; stage-- > 0;) {
      model[stage].weight_down(math, h[stage].data(), dy.data(), g.data());
      model[stage].input_down(math, dy.data(), g.data());
      model[stage].input_up(math, h[stage].data(), g.data(), dh.data(), dx.data());
      model[stage].weight_up(math, x[stage].data(), dh.data());
      std::swap(dy, dx);
    }
  }
  step_results<Real> results{losses.to_host(), {}};
  for (const mlp<Real>& stage : model) results.gradients.push_back(stage.gradients().to_host());
  return results;
}

}  // namespace cuda_mlp
