// SPDX-License-Identifier: MIT
#pragma once

// Searches for words with less memory than there is. An annealing hardly takes a step that makes many ranks wait, and uses the
// memory that it gets for early F's. A rank that runs fewer F's before its first backward waits there, and has more F's left to
// pair with backwards: where that is shorter, it is found from words that had no memory for those F's.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/plan/detail/word_evaluator.hpp"
#include "pipesched/plan/detail/word_portfolio.hpp"
#include "pipesched/plan/detail/word_simulator.hpp"
#include "pipesched/plan/detail/word_starts.hpp"
#include "pipesched/plan/detail/word_table.hpp"
#include "pipesched/plan/detail/words.hpp"

namespace pipesched::detail {

/// By rank, the most memory in use. @pre t.alike(), and the words run
inline std::vector<double> peaks_of(const word_table& t, const word_rows& w) {
  word_simulator sim(t);
  sim.record(w);
  std::vector<double> peaks(t.ranks(), 0);
  for (std::size_t r = 0; r < t.ranks(); ++r) {
    double level = 0;
    for (const word_event& e : sim.events()[r]) {
      const word_cell& c = t.kind(r, e.weight ? 0 : e.kind);
      const word_weight& weight = t.weight(e.weight ? e.kind : 0);
      peaks[r] = std::max(peaks[r], level + (e.weight ? weight.transient : c.rise + c.transient));
      level += e.weight ? -weight.fall : c.rise - c.fall;
    }
  }
  return peaks;
}

/// By rank, the time of all its ops alone. @pre t.alike()
inline std::vector<double> works_of(const word_table& t) {
  std::vector<double> works(t.ranks(), 0);
  for (std::size_t r = 0; r < t.ranks(); ++r)
    for (std::size_t i = 0; i < t.nodes_of(r).size(); ++i) {
      const std::uint16_t n = t.nodes_of(r)[i];
      const std::uint32_t micros = t.nodes()[n].micros;
      if (micros == 0) continue;
      const std::uint16_t forward = kind_of(t, r, 3 * i), backward = kind_of(t, r, 3 * i + 1);
      double one = t.kind(r, forward).duration;
      if (!t.forward_only()) one += t.kind(r, backward).duration;
      if (!t.forward_only() && t.kind(r, backward).passes[0] == pass::backward_input) one += t.weight(n).duration;
      works[r] += micros * one;
    }
  return works;
}

/// Searches words with all the memory and, given many evaluations, before that with less: on the busiest rank an activation less
/// than the smallest start needs, or, where all ranks are about as busy, nowhere more than it needs.
class narrow_search {
 public:
  /// @pre as word_portfolio
  narrow_search(const word_table& t, std::vector<word_rows> starts, std::uint64_t seed, unsigned threads,
                search_monitor& monitor)
      : t_(t), starts_(std::move(starts)), seed_(seed), threads_(threads), monitor_(monitor) {}

  /// @param heat  as word_portfolio::run()
  word_rows run(std::uint64_t evaluations, double heat) {
    const auto part = [&](double share) {
      return static_cast<std::uint64_t>(share * static_cast<double>(evaluations));
    };
    double left = 1;
    std::optional<word_rows> found;
    const bool enough = t_.alike() && evaluations / t_.ops() >= enough_per_op;
    if (const std::optional<level> less = enough ? less_memory() : std::nullopt)
      if (std::vector<word_rows> from = repaired_starts(less->table); !from.empty()) {
        const word_rows narrow = search(less->table, std::move(from), part(0.7 * less->share), heat, true);
        found = search(t_, {narrow}, part(0.3 * less->share), 0.25 * heat);
        left -= less->share;
      }
    const word_rows usual = search(t_, starts_, part(left), heat);
    if (found) monitor_.charge(2 * t_.ops());
    word_evaluator evaluator(t_);
    return found && evaluator.run(*found).makespan < evaluator.run(usual).makespan ? *found : usual;
  }

 private:
  static constexpr std::uint64_t enough_per_op = 5000;

  struct level {
    word_table table;
    double share = 0;  // of the evaluations
  };

  // Nothing if that is no less than there is.
  std::optional<level> less_memory() const {
    const std::vector<double> works = works_of(t_);
    const auto busiest = static_cast<std::size_t>(std::max_element(works.begin(), works.end()) - works.begin());
    const double all = std::accumulate(works.begin(), works.end(), 0.0);
    const bool is_uneven = works[busiest] * static_cast<double>(works.size()) > 1.05 * all;
    monitor_.charge(2 * (starts_.size() + 1) * t_.ops());
    const std::vector<double> peaks = peaks_of(t_, smallest_start(is_uneven ? 1.1 : 1.05));
    double activation = 0;
    for (const word_cell& c : t_.kinds(busiest))
      if (c.size() == 1) activation = std::max(activation, c.rise - c.fall);
    std::vector<double> caps;
    for (std::size_t r = 0; r < peaks.size(); ++r) {
      const double needed = !is_uneven ? largest_of(peaks) : r == busiest ? peaks[r] - activation : t_.cap(r);
      caps.push_back(std::min(t_.cap(r), needed));
    }
    level less{t_.with_caps(caps), is_uneven ? 0.75 : 0.2};
    for (std::size_t r = 0; r < peaks.size(); ++r)
      if (less.table.cap(r) < t_.cap(r)) return less;
    return std::nullopt;
  }
  static double largest_of(const std::vector<double>& of) { return *std::max_element(of.begin(), of.end()); }
  // The start with the least memory, of those that are at most so many times as long as the shortest.
  const word_rows& smallest_start(double most_length) const {
    word_evaluator evaluator(t_);
    const double shortest = evaluator.run(starts_.front()).makespan;
    std::size_t best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < starts_.size(); ++i) {
      if (evaluator.run(starts_[i]).makespan > most_length * shortest) continue;
      if (const double peak = largest_of(peaks_of(t_, starts_[i])); peak < least) best = i, least = peak;
    }
    return starts_[best];
  }
  std::vector<word_rows> repaired_starts(const word_table& table) const {
    std::vector<word_rows> from;
    for (const word_rows& w : starts_) {
      std::uint64_t tries = 0;
      if (std::optional<word_rows> runs = repaired(table, w, tries)) from.push_back(std::move(*runs));
      monitor_.charge(tries * t_.ops());
    }
    return from;
  }
  word_rows search(const word_table& table, std::vector<word_rows> from, std::uint64_t evaluations, double heat,
                   bool far_from_starts = false) {
    word_portfolio portfolio(table, std::move(from), seed_, threads_, monitor_);
    portfolio.run(evaluations, heat, far_from_starts);
    return portfolio.best();
  }

  const word_table& t_;
  std::vector<word_rows> starts_;
  std::uint64_t seed_;
  unsigned threads_;
  search_monitor& monitor_;
};

}  // namespace pipesched::detail
