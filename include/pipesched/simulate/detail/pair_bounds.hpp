// SPDX-License-Identifier: MIT
#pragma once

// Bounds of one rank by the number of its overlapped pairs. A pair saves time, but an F that starts before the rank's first
// backward is in no pair with one, and the rank idles until that backward can start.
//
// Of the rank: k forwards start before its first backward, p pairs hold an F and a backward, j of them a B. The makespan is
// at least the largest of some sums, each linear in j and convex in p and in k; the bound is their least over k, p and j.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/simulate/detail/pair_sums.hpp"

namespace pipesched::detail {

class pair_bounds {
 public:
  struct result {
    double makespan = 0;
    std::size_t forwards = 0, pairs = 0, max_pairs = 0;  // k, p, and the most pairs for this k
    std::string_view reason{};
  };

  constexpr pair_bounds(const rank_frame& frame, std::vector<pair_sum> sums, std::size_t forwards,
                        std::size_t gradients)
      : frame_(frame), sums_(std::move(sums)), forwards_(forwards), gradients_(gradients) {}

  /// The least makespan, or some number that is at most `enough` if it is not larger than that.
  constexpr result least(double enough) {
    best_ = {.makespan = std::numeric_limits<double>::infinity()};
    enough_ = enough;
    const std::size_t first = std::min(frame_.min_forwards, forwards_), last = std::min(frame_.max_forwards, forwards_);
    if (last == forwards_ || last == frame_.full) look_at(last, last);
    const std::size_t end = std::min(last + 1, std::min(forwards_, frame_.full));
    if (first < end) search(first, end - 1);
    if (best_.makespan > enough) best_.reason = reason();
    return best_;
  }

  /// The fewest pairs with which the rank may end in time.
  constexpr std::size_t least_pairs(double makespan) {
    const std::size_t last = std::min(frame_.max_forwards, forwards_);
    std::size_t least = std::numeric_limits<std::size_t>::max();
    if (last == forwards_ || last == frame_.full) least = least_pairs(makespan, last);
    const std::size_t end = std::min(last + 1, std::min(forwards_, frame_.full));
    if (end > 0) least = std::min(least, least_pairs(makespan, end - 1));  // the sums are no less for fewer forwards
    return least;
  }

 private:
  // For k forwards before the first backward. None if the rank cannot end in time.
  constexpr std::size_t least_pairs(double makespan, std::size_t forwards) {
    const std::size_t best = least_over_pairs(forwards, 0).pairs;
    const auto in_time = [&](std::size_t p) { return at(forwards, p) <= makespan * (1 + 1e-9); };
    if (!in_time(best)) return std::numeric_limits<std::size_t>::max();
    std::size_t low = 0, high = best;
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (in_time(middle))
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }

  struct line {
    double at_0 = 0, slope = 0;  // by j
  };

  // Takes the best k of a range. A k allows no more pairs than the first, and the sums are no less than at the last.
  constexpr void search(std::size_t first, std::size_t last) {
    if (first > last || best_.makespan <= enough_) return;
    if (first == last) return look_at(first, first);
    if (least_over_pairs(last, first).makespan >= best_.makespan) return;
    const std::size_t middle = first + (last - first) / 2;
    search(middle + 1, last), search(first, middle);
  }
  constexpr void look_at(std::size_t forwards, std::size_t unpaired) {
    const result found = least_over_pairs(forwards, unpaired);
    if (found.makespan < best_.makespan) best_ = found;
  }

  constexpr std::size_t max_pairs(std::size_t unpaired) const {
    std::size_t most = std::min(forwards_ - unpaired, gradients_ - std::min(gradients_, frame_.min_gradients));
    for (const pair_sum& s : sums_) most = std::min(most, s.saved_by_pairs.size() - 1);
    return most;
  }

  // Bisection: the sums are convex in p.
  constexpr result least_over_pairs(std::size_t forwards, std::size_t unpaired) {
    const std::size_t most = max_pairs(unpaired);
    std::size_t low = 0, high = most;
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (at(forwards, middle) <= at(forwards, middle + 1))
        high = middle;
      else
        low = middle + 1;
    }
    return {at(forwards, low), forwards, low, most};
  }

  // The least over 0 <= j <= p of the largest line: where the highest falling and the highest rising one meet. Each step
  // takes the line that is highest there in place of one of the two, and its value is never above the least.
  constexpr double at(std::size_t forwards, std::size_t pairs) {
    lines_.clear();
    for (const pair_sum& s : sums_)
      lines_.push_back({s.at(frame_, forwards, forwards_, gradients_, pairs), -s.saved_by_B});
    const auto highest = [&](double j) {
      const auto top = std::max_element(lines_.begin(), lines_.end(), [j](const line& a, const line& b) {
        return std::pair(a.at_0 + j * a.slope, a.slope) < std::pair(b.at_0 + j * b.slope, b.slope);
      });
      top_ = static_cast<std::size_t>(top - lines_.begin());
      return *top;
    };
    const auto most = static_cast<double>(pairs);
    line falling = highest(0);
    if (falling.slope >= 0 || pairs == 0) return falling.at_0;
    line rising = highest(most);
    if (rising.slope <= 0) return rising.at_0 + most * rising.slope;
    double value = 0;
    for (int step = 0; step < 64; ++step) {
      const double j = (falling.at_0 - rising.at_0) / (rising.slope - falling.slope);
      value = falling.at_0 + j * falling.slope;
      const line top = highest(j);
      if (top.at_0 + j * top.slope <= value * (1 + 1e-13) || top.slope == 0) {
        value = std::max(value, top.slope == 0 ? top.at_0 : 0);
        break;
      }
      (top.slope < 0 ? falling : rising) = top;
    }
    return value * (1 - 1e-14);
  }

  // The sum that is largest for the best k and p.
  constexpr std::string_view reason() {
    at(best_.forwards, best_.pairs);
    const pair_sum& s = sums_[top_];
    const bool left = s.from_last_forward(frame_, best_.forwards, forwards_, gradients_, best_.pairs) >
                      s.start_of(frame_, best_.forwards) + s.tail;
    if (s.weights.forwards >= 0.5) return "forwards of the rank, its pairs, and what follows its last forward";
    if (left) return "work of the rank until its last forward, its pairs, and what follows";
    if (s.weights.gradients >= 0.5) return "forwards and gradients of the rank, its pairs, and their tail";
    return "all work of the rank and its pairs";
  }

  rank_frame frame_;
  std::vector<pair_sum> sums_;
  std::size_t forwards_, gradients_;
  result best_;
  double enough_ = 0;
  std::vector<line> lines_;
  std::size_t top_ = 0;  // the last sum that was highest
};

}  // namespace pipesched::detail
