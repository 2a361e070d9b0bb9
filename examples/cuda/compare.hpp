// SPDX-License-Identifier: MIT
#pragma once

// The losses and gradients of a rank beside those of one device.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <pipesched/program/program.hpp>
#include <vector>

#include "one_device.hpp"
#include "trainer.hpp"

namespace cuda_mlp {

inline constexpr double tolerance = 1e-6;

/// The larger one; what is no number is larger than all.
inline double worse(double a, double b) { return std::isnan(a) || b <= a ? a : b; }

struct errors {
  double losses = 0, gradients = 0;  // relative: to the loss, to the largest of a stage's gradients
  bool passed() const { return losses <= tolerance && gradients <= tolerance; }
};

inline errors worse(const errors& a, const errors& b) {
  return {worse(a.losses, b.losses), worse(a.gradients, b.gradients)};
}

template <typename Real>
errors compare(const pipesched::program& p, std::uint32_t rank, trainer<Real>& of, const step_results<Real>& expected) {
  errors worst;
  const pipesched::placement& where = p.schedule.placement;
  const std::vector<double> losses = of.losses();
  for (std::uint32_t m = 0; m < p.schedule.micro; ++m)
    if (where.rank_of(p.schedule.stages() - 1, m) == rank)
      worst.losses = worse(worst.losses, std::abs(losses[m] - expected.losses[m]) / expected.losses[m]);
  for (const std::uint16_t stage : where.stages_of(rank)) {
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
