// SPDX-License-Identifier: MIT
#pragma once

// The makespan of a schedule when durations of cells vary at random: every cell takes longer by a random share, in many
// random steps.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched {

struct noise_options {
  double noise = 0.05;         ///< the largest share: 0.05 makes a cell up to 5 % longer; 0 or more
  std::uint32_t draws = 1000;  ///< random steps: 1 to max_draws
  std::uint64_t seed = 1;
  /// Called after each draw with their number; false: stop with the draws so far.
  std::function<bool(std::uint32_t)> progress{};
};

inline constexpr std::uint32_t max_draws = 10'000'000;

/// Makespans under noise.
struct noisy_makespan {
  noise_options options{};  ///< with the number of draws made, without progress
  double exact = 0;         ///< without noise; no draw is shorter
  double mean = 0;
  double standard_deviation = 0;  ///< with draws - 1 in the denominator; 0 of one draw
  double percentile_5 = 0, median = 0,
         percentile_95 = 0;   ///< the least makespan that so many percent of the draws do not exceed
  std::vector<double> draws;  ///< all makespans, in order
};

namespace detail {

// The share of a cell in one draw: uniform from 0 to noise, by the passes, stages and micro-batches of its ops alone.
constexpr double noise_share(std::uint64_t draw, const cell& c, double noise) noexcept {
  const auto key = [](op o) {
    return static_cast<std::uint64_t>(o.pass) << 48 | std::uint64_t{o.stage} << 32 | o.micro;
  };
  std::uint64_t first = key(c[0]), second = c.overlapped() ? key(c[1]) : 0;
  if (c.overlapped() && second < first) std::swap(first, second);
  return noise * random_numbers(random_numbers(draw ^ first).next() ^ second).unit();
}

// A cost model whose cells take longer by their shares; their outputs leave as much later.
template <typename Costs>
class noisy_costs {
 public:
  constexpr noisy_costs(const Costs& costs, double noise) : costs_(costs), noise_(noise) {}

  std::uint64_t draw = 0;

  constexpr double duration(const cell& c, std::uint32_t rank) const {
    return duration_of(costs_, rank, c) * (1 + noise_share(draw, c, noise_));
  }
  constexpr double duration(const cell& c) const { return duration(c, 0); }
  constexpr double release(const cell& c, std::size_t i, std::uint32_t rank) const {
    return release_of(costs_, rank, c, i) * (1 + noise_share(draw, c, noise_));
  }
  constexpr double transfer(std::uint32_t from, std::uint32_t to, tensor_id t) const {
    return costs_.transfer(from, to, t);
  }
  constexpr link_busy busy(std::uint32_t from, std::uint32_t to, tensor_id t) const {
    return busy_of(costs_, from, to, t);
  }
  constexpr bool keeps_ranks_busy() const { return may_be_busy(costs_); }

 private:
  const Costs& costs_;
  double noise_;
};

inline void require_noise(const noise_options& o) {
  if (!(o.noise >= 0 && o.noise <= std::numeric_limits<double>::max()))
    throw schedule_error(concat(
        {"noise is a share such as 0.05, finite and not negative; got ", o.noise, o.noise < 0 ? ", nearest 0" : ""}));
  if (o.draws == 0 || o.draws > max_draws)
    throw schedule_error(
        concat({"noise takes 1 to ", max_draws, " draws; got ", o.draws, ", nearest ", o.draws == 0 ? 1u : max_draws}));
}

// The least number that at least that share of the sorted numbers do not exceed. @pre not empty
inline double percentile(const std::vector<double>& sorted, double share) {
  const auto n = static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[n == 0 ? 0 : n - 1];
}

inline void summarize(noisy_makespan& result) {
  const auto n = static_cast<double>(result.draws.size());
  result.mean = result.exact;
  for (const double makespan : result.draws) result.mean += (makespan - result.exact) / n;
  double squares = 0;
  for (const double makespan : result.draws) squares += (makespan - result.mean) * (makespan - result.mean);
  if (n > 1) result.standard_deviation = std::sqrt(squares / (n - 1));
  std::vector<double> sorted = result.draws;
  std::sort(sorted.begin(), sorted.end());
  result.percentile_5 = percentile(sorted, 0.05);
  result.median = percentile(sorted, 0.5);
  result.percentile_95 = percentile(sorted, 0.95);
}

}  // namespace detail

/// Simulates a schedule again and again, in each draw with every cell longer by a share of its own, uniform from 0 to
/// `noise`: kernels take longer than their best, not shorter, "up to 5 % longer" has one meaning, and no function is needed whose
/// last bit differs between platforms. Transfers stay exact.
///
/// Common random numbers: a share depends on the seed, the draw, and the passes, stages and micro-batches of the cell's ops. In
/// draw d two schedules have the same share for a cell that both have, whatever its place, so compare them draw by draw.
/// The first draws of a longer run are those of a shorter one.
///
/// Each draw is linear in the number of ops and allocates nothing.
/// @pre verify(s) @throws schedule_error for noise that is negative, infinite or NaN, for no draw or more than max_draws, and as
/// simulate() does for costs
template <cost_model Costs>
noisy_makespan simulate_noise(const schedule& s, const Costs& costs, const noise_options& options, verified_t) {
  detail::require_noise(options);
  noisy_makespan result{.options = options, .draws = {}};
  result.options.progress = nullptr;
  timeline t = simulate(s, costs, verified);
  result.exact = detail::last_end(t);
  result.draws.reserve(options.draws);
  detail::noisy_costs<Costs> noisy(costs, options.noise);
  detail::simulation again(t, noisy);
  detail::random_numbers draws(options.seed);
  for (std::uint32_t n = 0; n < options.draws; ++n) {
    noisy.draw = draws.next();
    again.run();
    result.draws.push_back(detail::last_end(t));
    if (options.progress && !options.progress(n + 1)) break;
  }
  result.options.draws = static_cast<std::uint32_t>(result.draws.size());
  detail::summarize(result);
  return result;
}

/// The same for a schedule that has not been verified.
/// @throws schedule_error also if it is not valid, with the first violation and the number of others
template <cost_model Costs>
noisy_makespan simulate_noise(const schedule& s, const Costs& costs, const noise_options& options = {}) {
  require_valid(s);
  return simulate_noise(s, costs, options, verified);
}

}  // namespace pipesched
