// SPDX-License-Identifier: MIT
#pragma once

// The least times of one layer over the stages that it may be on, for lower bounds of all partitions.

#include <algorithm>

namespace pipesched::detail {

/// Least times of a layer: of the op alone on the chain of a micro-batch, and what the layer adds to the work of its rank, which is
/// negative where its pairs save more than it lasts.
struct least_times {
  double forward = 0, gradient = 0, work = 0, work_before_weights = 0;
  double whole = 0, weight = 0;  // B and W alone, of a stage that has both

  friend least_times operator+(least_times a, const least_times& b) {
    a.forward += b.forward, a.gradient += b.gradient, a.work += b.work;
    a.work_before_weights += b.work_before_weights;
    return a;
  }
  static least_times least(least_times a, const least_times& b) {
    a.forward = std::min(a.forward, b.forward), a.gradient = std::min(a.gradient, b.gradient);
    a.work = std::min(a.work, b.work);
    a.work_before_weights = std::min(a.work_before_weights, b.work_before_weights);
    return a;
  }
};

}  // namespace pipesched::detail
