// SPDX-License-Identifier: MIT
#pragma once

// Several annealings of words, from different starts and at different temperatures, in rounds: the first ones apart, the later
// ones from the best so far. How many threads run them makes no difference to the result.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/plan/detail/word_search.hpp"
#include "pipesched/plan/detail/word_simulator.hpp"
#include "pipesched/plan/detail/word_table.hpp"

namespace pipesched::detail {

/// Counts what a search has simulated, in ops, and asks now and then whether it shall continue.
class search_monitor {
 public:
  /// @param report  gets the ops so far and the best makespan of an annealing; false: stop. Called by one thread at a time
  explicit search_monitor(std::function<bool(std::uint64_t, double)> report = {}) : report_(std::move(report)) {}

  bool stopped() const noexcept { return stopped_.load(std::memory_order_relaxed); }
  std::uint64_t ops() const noexcept { return ops_.load(std::memory_order_relaxed); }
  void charge(std::uint64_t ops) noexcept { ops_.fetch_add(ops, std::memory_order_relaxed); }
  void found(double makespan) {
    if (!report_) return;
    const std::scoped_lock lock(mutex_);
    if (!stopped() && !report_(ops(), makespan)) stopped_ = true;
  }

 private:
  std::function<bool(std::uint64_t, double)> report_;
  std::mutex mutex_;
  std::atomic<std::uint64_t> ops_ = 0;
  std::atomic<bool> stopped_ = false;
};

// One annealing.
struct word_chain {
  const word_rows* start = nullptr;
  double hot = 0, cold = 0;
  std::size_t weights = 0;
  std::uint64_t evaluations = 0, seed = 0;
};

/// Runs `work(i)` for i below `count` on some threads, this one among them.
template <typename Work>
void run_on_threads(std::size_t count, unsigned threads, Work&& work) {
  std::atomic<std::size_t> next = 0;
  const auto run = [&] {
    for (std::size_t i = 0; (i = next++) < count;) work(i);
  };
  std::vector<std::jthread> others;
  for (unsigned t = 1; t < std::min<std::size_t>(threads, count); ++t) others.emplace_back(run);
  run();
}

class word_portfolio {
 public:
  /// @pre there is a start, and all run. The best come first.
  word_portfolio(const word_table& t, std::vector<word_rows> starts, std::uint64_t seed, unsigned threads,
                 search_monitor& monitor)
      : t_(&t), starts_(std::move(starts)), seed_(seed), threads_(threads), monitor_(&monitor) {
    best_ = starts_.front();
    const word_search first(t, best_, seed);
    best_score_ = first.best_score();
    monitor.charge(first.evaluations() * t.ops());
  }

  const word_rows& best() const noexcept { return best_; }

  /// @param heat  factor on all temperatures
  /// @param far_from_starts  good rows may lie far from the starts, as they do where two F's may share a cell: half as many
  ///                         chains, each twice as long
  void run(std::uint64_t evaluations, double heat = 1, bool far_from_starts = false) {
    const auto share = [&](double part) { return static_cast<std::uint64_t>(part * static_cast<double>(evaluations)); };
    const auto ops = static_cast<double>(t_->ops());
    // A chain is worth its while from some 150 evaluations per op on, and more where there are many.
    const std::size_t most = chains_.size() / (far_from_starts || t_->pairs_one_way() ? 2 : 1);
    const auto count = static_cast<std::size_t>(
        std::clamp<double>(static_cast<double>(share(0.6)) / (ops * (120 + ops / 5)), 1, static_cast<double>(most)));
    const double per_op = static_cast<double>(share(0.6)) / static_cast<double>(count) / ops;
    heat *= std::clamp(std::sqrt(per_op / 150), 0.15, 1.0);
    std::vector<word_chain> all;
    for (std::size_t i = 0; i < count; ++i)
      all.push_back({.start = &starts_[chains_[i].start % starts_.size()],
                     .hot = heat * chains_[i].hot,
                     .cold = chains_[i].cold,
                     .weights = chains_[i].weights,
                     .evaluations = share(0.6) / count,
                     .seed = next_seed()});
    run(all);
    for (const double hot : {0.03, 0.015}) {
      const word_rows from = best_;
      const std::size_t warm = std::max<std::size_t>(1, count / 2);
      all.clear();
      for (std::size_t i = 0; i < warm; ++i)
        all.push_back({.start = &from,
                       .hot = heat * hot * (i % 2 == 0 ? 1 : 2),
                       .cold = 0.002,
                       .weights = i % 2 == 0 ? 0u : 2u,
                       .evaluations = share(0.2) / warm,
                       .seed = next_seed()});
      run(all);
    }
  }

 private:
  struct setting {
    std::size_t start;
    double hot, cold;
    std::size_t weights;
  };
  static constexpr std::array<setting, 8> chains_ = {{{0, 0.06, 0.003, 0},
                                                      {0, 0.06, 0.002, 2},
                                                      {0, 0.2, 0.004, 0},
                                                      {1, 0.1, 0.002, 2},
                                                      {0, 0.03, 0.002, 0},
                                                      {1, 0.2, 0.004, 2},
                                                      {2, 0.3, 0.005, 0},
                                                      {0, 0.1, 0.003, 4}}};

  std::uint64_t next_seed() noexcept { return seed_ = random_numbers(seed_).next(); }

  void run(const std::vector<word_chain>& all) {
    struct result {
      word_rows best;
      double score = std::numeric_limits<double>::infinity();
    };
    std::vector<result> results(all.size());
    run_on_threads(all.size(), threads_, [&](std::size_t i) {
      const word_chain& c = all[i];
      if (monitor_->stopped()) return;
      word_search search(*t_, *c.start, c.seed, c.weights);
      search.anneal(c.evaluations, c.hot, c.cold, [&](std::uint64_t evaluations, double makespan) {
        monitor_->charge(evaluations * t_->ops());
        monitor_->found(makespan);
        return !monitor_->stopped();
      });
      results[i] = {search.best(), search.best_score()};
    });
    for (result& r : results)
      if (r.score < best_score_) best_ = std::move(r.best), best_score_ = r.score;
  }

  const word_table* t_;
  std::vector<word_rows> starts_;
  std::uint64_t seed_;
  unsigned threads_;
  search_monitor* monitor_;
  word_rows best_;
  double best_score_ = 0;
};

}  // namespace pipesched::detail
