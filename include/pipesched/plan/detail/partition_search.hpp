// SPDX-License-Identifier: MIT
#pragma once

// Local search over partitions: descent by moving one layer from a stage to another, from several starts and from places
// near the best.

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/plan/detail/rank_work.hpp"
#include "pipesched/program/fits.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/schedule_class.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched::detail {

class partition_search {
 public:
  /// The schedule for the costs of a partition.
  using maker = std::function<schedule(const stage_costs&)>;

  /// @param anew  the schedule depends on the costs. All references must outlive this.
  partition_search(const model& m, const stage_sums& sums, const placement& where, maker make, bool anew)
      : m_(m), sums_(sums), where_(where), make_(std::move(make)), anew_(anew) {
    memory_ = memory_limits(m, where.ranks());
  }

  void run(std::uint64_t evaluations, std::uint64_t seed) {
    budget_ = price * evaluations;
    random_numbers random(seed);
    best_ = uniform_partition(m_, where_.stages());
    best_score_ = *evaluate(best_, {});
    uniform_makespan_ = best_score_.makespan;
    descend(best_, best_score_);
    start(balanced());
    while (!spent() && sums_.layers().size() > 1 && where_.stages() > 1) start(near(best_, random));
  }

  const partition& best() const { return best_; }
  double makespan() const { return best_score_.makespan; }
  double uniform_makespan() const { return uniform_makespan_; }
  bool fits() const { return best_score_.excess == 0; }
  std::uint64_t evaluations() const { return evaluations_; }

 private:
  static constexpr std::uint64_t price = 8;  // of an evaluation; that of a bound is 1

  // The smaller the better. The work is the squares of the ranks' work: it leads across plains of equal makespan.
  struct score {
    double excess = 0, makespan = 0, work = 0;  // excess: bytes beyond the ranks' memory
    friend constexpr auto operator<=>(const score&, const score&) = default;
  };

  bool spent() const { return spent_ >= budget_; }

  // Nothing for a partition that is certainly worse than another with that score.
  std::optional<score> evaluate(const partition& p, const std::optional<score>& than) {
    const stage_costs costs = sums_(p);
    if (than && than->excess == 0) {
      ++spent_;
      if (lower_bound(where_, times_->schedule.micro, costs, class_).makespan > than->makespan) return std::nullopt;
    }
    if (!times_ || anew_) {
      times_ = simulate(make_(costs), costs);
      class_ = schedule_class_of(times_->schedule);
    } else {
      simulate_again(*times_, costs);
    }
    spent_ += price, ++evaluations_;
    return score{.excess = excess(costs), .makespan = last_end(*times_), .work = squares_of_work(where_, costs)};
  }

  double excess(const stage_costs& costs) {
    if (memory_.empty()) return 0;
    if (!program_ || anew_) program_ = lower(times_->schedule, {}, verified);
    const memory_report m = pipesched::fits(*program_, costs);
    double bytes = 0;
    for (std::size_t r = 0; r < memory_.size(); ++r) bytes += std::max(0.0, m.ranks[r].total() - memory_[r]);
    return bytes;
  }

  void start(const partition& p) {
    if (spent()) return;
    const score s = *evaluate(p, {});
    descend(p, s);
  }
  // Takes each step that is better, until no step is.
  void descend(partition p, score now) {
    const std::size_t stages = p.stages();
    std::size_t since = 0;  // steps tried since the last one that was taken
    for (std::size_t step = 0; since < stages * stages && !spent(); step = (step + 1) % (stages * stages), ++since) {
      std::uint32_t &from = p.layers[step / stages], &to = p.layers[step % stages];
      if (&from == &to || from == 0) continue;
      --from, ++to;
      const std::optional<score> there = evaluate(p, now);
      if (there && *there < now)
        now = *there, since = 0;
      else
        ++from, --to;
    }
    if (now < best_score_) best_ = std::move(p), best_score_ = now;
  }

  // Each stage ends where the work in front comes nearest to its part of all work.
  partition balanced() const {
    std::vector<double> work{0};
    for (const layer& l : sums_.layers()) work.push_back(work.back() + l.forward + l.backward_times().whole);
    partition p;
    std::size_t begin = 0;
    for (std::size_t s = 1; s <= where_.stages(); ++s) {
      const double part = work.back() * static_cast<double>(s) / static_cast<double>(where_.stages());
      std::size_t end = s == where_.stages() ? work.size() - 1 : begin;
      while (end + 1 < work.size() && work[end + 1] - part < part - work[end]) ++end;
      p.layers.push_back(static_cast<std::uint32_t>(end - begin));
      begin = end;
    }
    return p;
  }
  static partition near(partition p, random_numbers& random) {
    for (std::size_t moves = 1 + random.below(4); moves > 0;) {
      std::uint32_t &from = p.layers[random.below(p.stages())], &to = p.layers[random.below(p.stages())];
      if (&from == &to || from == 0) continue;
      --from, ++to, --moves;
    }
    return p;
  }

  const model& m_;
  const stage_sums& sums_;
  const placement& where_;
  maker make_;
  bool anew_;
  std::vector<double> memory_;  // by rank; empty: no limits

  std::optional<timeline> times_;              // of the partition looked at last
  std::optional<pipesched::program> program_;  // of its schedule, where memory is limited
  schedule_class class_;
  std::uint64_t budget_ = 0, spent_ = 0, evaluations_ = 0;
  partition best_;
  score best_score_;
  double uniform_makespan_ = 0;
};

}  // namespace pipesched::detail
