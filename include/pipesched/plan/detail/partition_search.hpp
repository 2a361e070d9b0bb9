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
#include "pipesched/plan/detail/partition_bound.hpp"
#include "pipesched/plan/detail/partition_steps.hpp"
#include "pipesched/program/fits.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/simulate/detail/bounds.hpp"
#include "pipesched/simulate/detail/step_replay.hpp"
#include "pipesched/simulate/schedule_class.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched::detail {

class partition_search {
 public:
  /// The schedule for the costs of a partition.
  using maker = std::function<schedule(const stage_costs&)>;
  /// Takes the evaluations and the best makespan so far; false: stop.
  using reporter = std::function<bool(double, double)>;

  /// @param anew  the schedule depends on the costs. All references must outlive this.
  partition_search(const model& m, const stage_sums& sums, const placement& where, maker make, bool anew)
      : m_(m), sums_(sums), where_(where), make_(std::move(make)), anew_(anew) {
    memory_ = memory_limits(m, where.ranks());
  }

  void run(std::uint64_t evaluations, std::uint64_t seed, reporter report) {
    budget_ = price * evaluations, report_ = std::move(report);
    random_numbers random(seed);
    best_ = uniform_partition(m_, where_.stages());
    best_score_ = *evaluate(best_, {});
    uniform_makespan_ = best_score_.makespan, uniform_fits_ = best_score_.excess == 0;
    set_runs();
    if (is_at_bound()) return;
    if (partitions(evaluations) < evaluations) return try_all();
    descend(best_, best_score_);
    if (!is_at_bound()) start(balanced());
    while (!spent() && !is_at_bound() && has_moves() && sums_.layers().size() > 1) start(near(best_, random));
  }

  const partition& best() const { return best_; }
  double makespan() const { return best_score_.makespan; }
  double uniform_makespan() const { return uniform_makespan_; }
  bool uniform_fits() const { return uniform_fits_; }
  bool fits() const { return best_score_.excess == 0; }
  std::uint64_t evaluations() const { return evaluations_; }

 private:
  static constexpr std::uint64_t price = 8;  // of an evaluation; that of a bound is 1

  // The smaller the better. The work is the squares of the ranks' work: it leads across plains of equal makespan.
  struct score {
    double excess = 0, makespan = 0, work = 0;  // excess: bytes beyond the ranks' memory
    friend constexpr auto operator<=>(const score&, const score&) = default;
  };

  bool spent() const { return stopped_ || spent_ >= budget_; }
  // No partition is shorter, but for rounding. The bound is for the cells of one schedule.
  bool is_at_bound() const {
    return best_score_.excess == 0 && bound_ >= 0 &&
           lower_bound_result{.makespan = bound_}.gap(best_score_.makespan) == 0;
  }

  void set_runs() {
    runs_ = stage_runs(m_, where_.stages(), class_);
    for (std::size_t r = 0; r < runs_.size(); ++r)
      run_of_.insert(run_of_.end(), runs_[r].end_stage - runs_[r].first_stage, r);
    if (!anew_) bound_ = partition_bound(m_, times_->schedule, class_).bound();
  }
  bool keeps_runs(const partition& p) const {
    std::size_t layers = 0, s = 0;
    for (const stage_run& run : runs_) {
      for (; s < run.end_stage; ++s) layers += p.layers[s];
      if (layers != run.end_layer) return false;
    }
    return true;
  }
  bool has_moves() const {
    return std::any_of(runs_.begin(), runs_.end(), [](const stage_run& run) {
      return run.end_stage - run.first_stage > 1 && run.end_layer > run.first_layer;
    });
  }

  // Nothing for a partition that is certainly worse than another with that score.
  std::optional<score> evaluate(const partition& p, const std::optional<score>& than) {
    const stage_costs costs = sums_(p);
    if (than && than->excess == 0) {
      ++spent_;
      if (bound_of(costs) > than->makespan) return report(), std::nullopt;
    }
    const double makespan = makespan_of(costs);
    spent_ += price, ++evaluations_;
    // Worse whatever it needs, which takes longer to find out than the makespan.
    if (than && than->excess == 0 && makespan > than->makespan) return report(), std::nullopt;
    const score found{.excess = excess(costs), .makespan = makespan, .work = squares(costs)};
    least_ = evaluations_ == 1 ? found : std::min(least_, found);
    report();
    return found;
  }
  double makespan_of(const stage_costs& costs) {
    if (times_ && !anew_) return replay_->makespan(costs);
    schedule s = make_(costs);
    require_lengths(m_, s.micro);
    times_ = simulate(std::move(s), costs);
    look_at_schedule();
    if (!anew_) replay_.emplace(times_->schedule, costs.micro_batches_alike());
    return last_end(*times_);
  }
  void report() {
    stopped_ = stopped_ || !report_(static_cast<double>(spent_) / static_cast<double>(price), least_.makespan);
  }

  // Of all schedules with the cells of the one looked at last, which recompute what it recomputes if that is always the same.
  double bound_of(const stage_costs& costs) const {
    check_costs(costs, where_.stages(), where_.ranks(), times_->schedule.micro);
    bounds all(where_, times_->schedule.micro, costs, class_);
    if (class_.recompute && !anew_) all.add_recompute(times_->schedule);
    return all.best_of_work().makespan;
  }
  // The number of partitions, or `most` if there are as many or more.
  std::uint64_t partitions(std::uint64_t most) const {
    const double stages = where_.stages(), layers = static_cast<double>(sums_.layers().size());
    double number = 1;  // layers + stages - 1 over stages - 1
    for (double k = 1; k < stages && number < static_cast<double>(most); ++k) number *= (layers + k) / k;
    return number < static_cast<double>(most) ? static_cast<std::uint64_t>(number + 0.5) : most;
  }
  // The layers move from the last stage to the first, as in a counter.
  void try_all() {
    partition p{.layers = std::vector<std::uint32_t>(where_.stages(), 0)};
    p.layers.back() = static_cast<std::uint32_t>(sums_.layers().size());
    for (bool more = true; more && !stopped_ && !is_at_bound(); more = next(p)) {
      if (!keeps_runs(p)) continue;
      const std::optional<score> there = evaluate(p, best_score_);
      if (there && *there < best_score_) best_ = p, best_score_ = *there;
    }
    if (is_at_bound()) descend(best_, best_score_);  // among partitions as short, to one that is more even
  }
  static bool next(partition& p) {
    std::size_t last = p.stages() - 1;  // the last stage that is not empty
    while (last > 0 && p.layers[last] == 0) --last;
    if (last == 0) return false;
    const std::uint32_t rest = std::exchange(p.layers[last], 0);
    ++p.layers[last - 1], p.layers.back() = rest - 1;
    return true;
  }

  // Work of a stage for one micro-batch, on average over all micro-batches.
  double work_of(std::uint32_t s, double forward, const backward_times& backward, double recompute) const {
    const stage_backward has = class_.backward.empty() ? stage_backward::full : class_.backward[s];
    const double back = has == stage_backward::full    ? backward.whole
                        : has == stage_backward::input ? backward.input
                                                       : 0;
    return forward + (class_.forward_only ? 0 : back) + recomputed_[s] * recompute;
  }
  double squares(const stage_costs& costs) const {
    return squares_of_work(where_, costs, [&](std::uint32_t s) {
      return work_of(s, costs.forward[s], costs.backward_times(s), costs.recompute[s]);
    });
  }
  void look_at_schedule() {
    const schedule& s = times_->schedule;
    class_ = schedule_class_of(s);
    recomputed_.assign(s.stages(), 0);
    if (!class_.recompute) return;
    for (const cell& c : s.cells.all())
      for (const op o : c) recomputed_[o.stage] += recomputes(o.pass) ? 1.0 / s.micro : 0;
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
      if (&from == &to || from == 0 || run_of_[step / stages] != run_of_[step % stages]) continue;
      --from, ++to;
      const std::optional<score> there = evaluate(p, now);
      if (there && *there < now)
        now = *there, since = 0;
      else
        ++from, --to;
    }
    if (now < best_score_) best_ = std::move(p), best_score_ = now;
  }

  // Each stage ends where the work in front comes nearest to its part of all work, which is the larger the faster the stage is.
  partition balanced() const {
    double forward = 0, recompute = 0;
    backward_times backward{0, 0, 0};
    std::vector<double> work{0};
    for (const layer& l : sums_.layers()) {
      const backward_times t = l.backward_times();
      forward += l.forward, recompute += duration_of(l, pass::recompute);
      backward.whole += t.whole, backward.input += t.input;
      work.push_back(work.back() + l.forward + (class_.forward_only ? 0 : t.whole));
    }
    std::vector<double> fast{0};  // sums over the first stages
    for (std::uint32_t s = 0; s < where_.stages(); ++s) {
      const double takes = work_of(s, forward, backward, recompute);
      const double speed = rank_at(m_, where_.rank_of_stage(0)[s]).speed;
      fast.push_back(fast.back() + (takes > 0 && work.back() > 0 ? speed * work.back() / takes : 1));
    }
    partition p;
    for (const stage_run& run : runs_) {
      const double here = work[run.end_layer] - work[run.first_layer],
                   speeds = fast[run.end_stage] - fast[run.first_stage];
      std::size_t begin = run.first_layer;
      for (std::size_t s = run.first_stage + 1; s <= run.end_stage; ++s) {
        const double part = work[run.first_layer] + here * (fast[s] - fast[run.first_stage]) / speeds;
        std::size_t end = s == run.end_stage ? run.end_layer : begin;
        while (end < run.end_layer && work[end + 1] - part < part - work[end]) ++end;
        p.layers.push_back(static_cast<std::uint32_t>(end - begin));
        begin = end;
      }
    }
    return p;
  }
  // @pre has_moves()
  partition near(partition p, random_numbers& random) const {
    for (std::size_t moves = 1 + random.below(4); moves > 0;) {
      partition next = p;
      if (!move_layer(next, random) || !keeps_runs(next)) continue;
      p = std::move(next), --moves;
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
  std::optional<step_replay> replay_;          // of its schedule, where that stays the same
  std::optional<pipesched::program> program_;  // of its schedule, where memory is limited
  schedule_class class_;
  std::vector<stage_run> runs_;
  std::vector<std::size_t> run_of_;  // by stage
  double bound_ = -1;                // of all partitions, where the order is kept
  std::vector<double> recomputed_;   // by stage: the part of the micro-batches that it recomputes
  std::uint64_t budget_ = 0, spent_ = 0, evaluations_ = 0;
  reporter report_{};
  bool stopped_ = false;
  partition best_;
  score best_score_;
  score least_;  // of all partitions evaluated; best_score_ follows at the end of a descent
  double uniform_makespan_ = 0;
  bool uniform_fits_ = true;
};

}  // namespace pipesched::detail
