// SPDX-License-Identifier: MIT
#pragma once

// The progress of several searches as that of one.

#include <algorithm>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <utility>

#include "pipesched/plan/divide.hpp"
#include "pipesched/plan/plan.hpp"

namespace pipesched::detail {

// Adds up the work of several searches, of which each reports its own.
class shared_progress {
 public:
  /// @param lower_bound  of what all of them look for; nothing: each looks for something else
  shared_progress(const std::function<bool(const plan_progress&)>& report, std::optional<double> lower_bound)
      : report_(report), lower_bound_(lower_bound) {}

  bool stopped() const {
    const std::scoped_lock lock(mutex_);
    return stopped_;
  }
  void charge(double evaluations) { evaluations_ += evaluations; }
  double evaluations() const { return evaluations_; }

  // The function for one search.
  std::function<bool(const plan_progress&)> of_search() {
    if (!report_) return {};
    return [this, last = 0.0](const plan_progress& p) mutable {
      return report(p.evaluations - std::exchange(last, p.evaluations), p.makespan, p.lower_bound);
    };
  }
  // The function for one division, whose best partition may not fit.
  std::function<bool(const divide_progress&)> of_division() {
    if (!report_) return {};
    return [this, last = 0.0](const divide_progress& p) mutable {
      return report(p.evaluations - std::exchange(last, p.evaluations), std::numeric_limits<double>::infinity(), 0);
    };
  }
  void found(double makespan) {
    const std::scoped_lock lock(mutex_);
    makespan_ = std::min(makespan_, makespan);
  }

 private:
  bool report(double evaluations, double makespan, double lower_bound) {
    const std::scoped_lock lock(mutex_);
    shown_ += evaluations;
    makespan_ = lower_bound_ ? std::min(makespan_, makespan) : makespan;
    if (!stopped_)
      stopped_ =
          !report_({.evaluations = shown_, .makespan = makespan_, .lower_bound = lower_bound_.value_or(lower_bound)});
    return !stopped_;
  }

  const std::function<bool(const plan_progress&)>& report_;
  std::optional<double> lower_bound_;
  double evaluations_ = 0, shown_ = 0, makespan_ = std::numeric_limits<double>::infinity();
  bool stopped_ = false;
  mutable std::mutex mutex_;
};

}  // namespace pipesched::detail
