// SPDX-License-Identifier: MIT
#pragma once

// The same step without a schedule, on one device, and the comparison of a rank with it.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <pipesched/program/program.hpp>
#include <utility>
#include <vector>

#include "mlp.hpp"
#include "trainer.hpp"

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
  x.emplace_back(s.narrow());  // the output of the last one
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

inline constexpr double tolerance = 1e-6;

/// The larger one; NaN counts as larger than every number.
inline double worse(double a, double b) { return std::isnan(a) || b <= a ? a : b; }

struct errors {
  double losses = 0, gradients = 0;  // relative: to the loss, to the largest of a stage's gradients
  bool passed() const { return losses <= tolerance && gradients <= tolerance; }
};

inline errors worse(const errors& a, const errors& b) {
  return {worse(a.losses, b.losses), worse(a.gradients, b.gradients)};
}

template <typename Real>
errors compare(const pipesched::program& p, const trainer<Real>& of, const step_results<Real>& expected) {
  errors worst;
  const pipesched::placement& where = p.schedule.placement;
  const std::vector<double> losses = of.losses();
  for (std::uint32_t m = 0; m < p.schedule.micro; ++m)
    if (where.rank_of(p.schedule.stages() - 1, m) == of.rank())
      worst.losses = worse(worst.losses, std::abs(losses[m] - expected.losses[m]) / expected.losses[m]);
  for (const std::uint16_t stage : where.stages_of(of.rank())) {
    const std::vector<Real> got = of.gradients_of(stage), &right = expected.gradients[stage];
    double most = 0, difference = 0;
    for (std::size_t i = 0; i < right.size(); ++i) {
      most = worse(most, std::abs(static_cast<double>(right[i])));
      difference = worse(difference, std::abs(static_cast<double>(got[i]) - static_cast<double>(right[i])));
    }
    worst.gradients = worse(worst.gradients, difference / most);
  }
  return worst;
}

}  // namespace cuda_mlp
