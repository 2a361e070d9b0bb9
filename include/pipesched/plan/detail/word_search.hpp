// SPDX-License-Identifier: MIT
#pragma once

// Simulated annealing over words: cells move within their rank, become pairs or single ops, and exchange partners.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/plan/detail/word_evaluator.hpp"
#include "pipesched/plan/detail/word_simulator.hpp"
#include "pipesched/plan/detail/word_table.hpp"
#include "pipesched/plan/detail/words.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched::detail {

class word_search {
 public:
  /// @pre the words run. @param t  must outlive this. @param weights  W's are given places, too, in this many of 24 moves
  word_search(const word_table& t, word_rows start, std::uint64_t seed, std::size_t weights = 0)
      : t_(&t),
        sim_(t),
        evaluator_(t),
        unit_(t.longest_forward()),
        now_(std::move(start)),
        weights_(t.forward_only() ? 0 : weights),
        random_(seed) {
    const word_times times = evaluator_.run(now_);
    score_ = score(times);
    best_ = before_ = now_, best_score_ = score_, best_makespan_ = times.makespan;
    ++evaluations_;
    find_critical();
  }

  const word_rows& best() const noexcept { return best_; }
  double best_score() const noexcept { return best_score_; }
  std::uint64_t evaluations() const noexcept { return evaluations_; }

  /// Anneals for some evaluations, those of the constructor among them, from one temperature to another, in parts of the
  /// longest F. Simulations of any kind count.
  /// @param go_on  gets the evaluations since its last call and the best makespan; false: stop
  template <typename GoOn>
  void anneal(std::uint64_t evaluations, double hot, double cold, GoOn&& go_on) {
    // Some milliseconds of work between two calls, so that a search stops soon.
    const std::uint64_t slice = std::clamp<std::uint64_t>((1u << 20) / std::max<std::uint64_t>(t_->ops(), 1), 1, 4096);
    const double cooling = std::log(cold / hot);
    std::uint64_t reported = 0, accepted = 0, failures = 0;
    while (evaluations_ < evaluations) {
      if (evaluations_ - reported >= slice) {
        const std::uint64_t since = evaluations_ - std::exchange(reported, evaluations_);
        if (!go_on(since, best_makespan_)) return;
      }
      if (!move()) {
        if (++failures == 1000) break;  // there is hardly anything to change
        continue;
      }
      failures = 0;
      const double temperature =
          unit_ * hot * std::exp(cooling * static_cast<double>(evaluations_) / static_cast<double>(evaluations));
      ++evaluations_;
      const word_times times = evaluator_.run(now_);
      const double then = score(times);
      if (then <= score_ || random_.unit() < std::exp((score_ - then) / temperature)) {
        score_ = then;
        if (score_ < best_score_) best_ = now_, best_score_ = score_, best_makespan_ = times.makespan;
        if (++accepted % 50 == 0) find_critical();
      } else {
        undo();
      }
    }
    go_on(evaluations_ - reported, best_makespan_);
  }

 private:
  double score(const word_times& t) const { return t.makespan + 0.01 * t.ends; }

  // The cells that the last end waits for, one after the other.
  void find_critical() {
    critical_.clear();
    ++evaluations_;
    sim_.record(now_);
    const auto& events = sim_.events();
    std::size_t rank = 0;
    for (std::size_t r = 0; r < events.size(); ++r)
      if (!events[r].empty() && (events[rank].empty() || events[r].back().end > events[rank].back().end)) rank = r;
    if (events[rank].empty()) return;
    for (std::size_t i = events[rank].size() - 1;;) {
      const word_event& e = events[rank][i];
      critical_.push_back({static_cast<std::uint32_t>(rank), e.place});
      if (e.cause != word_event::self)
        rank = e.cause_rank, i = e.cause;
      else if (i > 0)
        --i;
      else
        break;
    }
  }

  std::pair<std::size_t, std::size_t> pick() {
    if (!critical_.empty() && random_.below(5) != 0) {
      const auto [r, i] = critical_[random_.below(critical_.size())];
      const auto at = static_cast<std::int64_t>(i) + static_cast<std::int64_t>(random_.below(5)) - 2;
      return {r, static_cast<std::size_t>(std::clamp<std::int64_t>(at, 0, std::ssize(now_[r]) - 1))};
    }
    const std::size_t r = random_.below(now_.size());
    return {r, random_.below(now_[r].size())};
  }
  // A place near another, mostly next to it.
  std::size_t near(std::size_t i, std::size_t size) {
    const std::size_t far = random_.below(8) == 0 ? 24 : 4;
    const auto by = static_cast<std::int64_t>(1 + random_.below(far));
    const auto at = static_cast<std::int64_t>(i) + (random_.below(2) == 0 ? by : -by);
    return static_cast<std::size_t>(std::clamp<std::int64_t>(at, 0, static_cast<std::int64_t>(size) - 1));
  }

  // Keeps a row as it is, for undo().
  std::vector<std::uint16_t>& change(std::size_t r) {
    if (std::find(changed_.begin(), changed_.end(), r) == changed_.end()) changed_.push_back(r), before_[r] = now_[r];
    return now_[r];
  }
  void undo() {
    for (const std::size_t r : changed_) now_[r].swap(before_[r]);
  }

  // Changes a row or more; false if nothing came of it.
  bool move() {
    const auto [r, i] = pick();
    changed_.clear();
    auto& row = change(r);
    if (row.size() < 2) return false;
    if (t_->kind(r, row[i]).is_weight()) {
      if (random_.below(2) != 0) return shift(row, i);
      row.erase(row.begin() + static_cast<std::ptrdiff_t>(i));
      return true;
    }
    const std::size_t what = random_.below(24 + weights_);
    const bool pair = t_->kind(r, row[i]).size() == 2;
    if (what < 7) return shift(row, i);
    if (what < 9) return shift_along(r, i);
    if (what < 12) return pair ? separate(row, r, i) : join(row, r, i);
    if (what < 19) return exchange(row, r, i);
    if (what < 24) return change_form(row, r, i);
    row.insert(row.begin() + static_cast<std::ptrdiff_t>(i), t_->weight_kind(r));
    return true;
  }

  bool shift(std::vector<std::uint16_t>& row, std::size_t i) {
    const std::size_t j = near(i, row.size());
    if (i == j) return false;
    rotate(row, i, j);
    return true;
  }
  static void rotate(std::vector<std::uint16_t>& row, std::size_t i, std::size_t j) {
    const auto at = [&](std::size_t k) { return row.begin() + static_cast<std::ptrdiff_t>(k); };
    if (i < j)
      std::rotate(at(i), at(i + 1), at(j + 1));
    else
      std::rotate(at(j), at(i), at(i + 1));
  }

  // Moves the cell of an op, and those of the same micro-batch on the stages that follow.
  bool shift_along(std::size_t r, std::size_t i) {
    const word_cell& c = t_->kind(r, now_[r][i]);
    const std::size_t k = random_.below(c.size());
    std::uint16_t node = c.nodes[k];
    const bool forward = c.passes[k] == pass::forward;
    const auto is_same = [&](const word_cell& other, std::size_t l) {
      return other.nodes[l] == node && (other.passes[l] == pass::forward) == forward;
    };
    std::size_t before = 0;  // earlier micro-batches
    for (std::size_t at = 0; at < i; ++at) {
      const word_cell& other = t_->kind(r, now_[r][at]);
      for (std::size_t l = 0; l < other.size(); ++l) before += is_same(other, l);
    }
    if (k == 1 && is_same(c, 0)) ++before;
    const auto by = static_cast<std::int64_t>(1 + random_.below(3)) * (random_.below(2) == 0 ? 1 : -1);
    for (std::size_t stages = 2 + random_.below(t_->nodes().size()); stages > 0; --stages) {
      const std::size_t rank = t_->nodes()[node].rank;
      auto& row = change(rank);
      std::size_t at = 0, seen = 0;
      for (; at < row.size(); ++at) {
        const word_cell& other = t_->kind(rank, row[at]);
        for (std::size_t l = 0; l < other.size(); ++l) seen += is_same(other, l);
        if (seen > before) break;
      }
      if (at == row.size()) break;
      const word_cell& found = t_->kind(rank, row[at]);
      const std::size_t l = is_same(found, 0) ? 0 : 1;
      const std::uint16_t next = found.gives[l];
      rotate(row, at,
             static_cast<std::size_t>(
                 std::clamp<std::int64_t>(static_cast<std::int64_t>(at) + by, 0, std::ssize(row) - 1)));
      if (next == word_cell::none || (next % 2 == 0) != forward) break;
      node = static_cast<std::uint16_t>(next / 2);
    }
    return true;
  }

  // Puts two lone ops into one cell, in the place of either.
  bool join(std::vector<std::uint16_t>& row, std::size_t r, std::size_t i) {
    std::size_t j = near(i, row.size());
    const word_cell &a = t_->kind(r, row[i]), &b = t_->kind(r, row[j]);
    if (i == j || b.size() == 2 || b.is_weight()) return false;
    const std::uint16_t kind = kind_of(*t_, r, t_->op_of(r, a, 0), t_->op_of(r, b, 0));
    if (kind == word_cell::none) return false;
    if (random_.below(2) == 0) std::swap(i, j);
    row[i] = kind;
    row.erase(row.begin() + static_cast<std::ptrdiff_t>(j));
    return true;
  }

  // Takes a pair apart; one of its ops may move.
  bool separate(std::vector<std::uint16_t>& row, std::size_t r, std::size_t i) {
    const word_cell& c = t_->kind(r, row[i]);
    const std::uint16_t a = kind_of(*t_, r, t_->op_of(r, c, 0)), b = kind_of(*t_, r, t_->op_of(r, c, 1));
    const bool swapped = random_.below(2) == 0;
    row[i] = swapped ? b : a;
    row.insert(row.begin() + static_cast<std::ptrdiff_t>(i) + 1, swapped ? a : b);
    if (random_.below(2) == 0) rotate(row, i + 1, near(i + 1, row.size()));
    return true;
  }

  // Exchanges an op of a pair for one of another cell.
  bool exchange(std::vector<std::uint16_t>& row, std::size_t r, std::size_t i) {
    const std::size_t j = near(i, row.size());
    if (i == j) return false;
    const word_cell &a = t_->kind(r, row[i]), &b = t_->kind(r, row[j]);
    if (b.is_weight()) return false;
    const std::size_t k = random_.below(a.size()), l = random_.below(b.size());
    const std::size_t x = t_->op_of(r, a, k), y = t_->op_of(r, b, l);
    if (x == y) return false;
    const auto with = [&](const word_cell& c, std::size_t at, std::size_t other) {
      return c.size() == 1 ? kind_of(*t_, r, other) : kind_of(*t_, r, t_->op_of(r, c, 1 - at), other);
    };
    const std::uint16_t first = with(a, k, y), second = with(b, l, x);
    if (first == word_cell::none || second == word_cell::none) return false;
    row[i] = first, row[j] = second;
    return true;
  }

  // A whole backward for its first half, or the reverse.
  bool change_form(std::vector<std::uint16_t>& row, std::size_t r, std::size_t i) {
    const word_cell& c = t_->kind(r, row[i]);
    const std::size_t k = random_.below(c.size()), o = t_->op_of(r, c, k);
    if (o % 3 == 0) return false;
    const std::size_t other = word_table::other_form(o);
    const std::uint16_t kind = c.size() == 1 ? t_->find(r, other)
                               : k == 0      ? t_->find(r, other, t_->op_of(r, c, 1))
                                             : t_->find(r, t_->op_of(r, c, 0), other);
    if (kind == word_cell::none) return false;
    row[i] = kind;
    return true;
  }

  const word_table* t_;
  word_simulator sim_;
  word_evaluator evaluator_;
  double unit_ = 0;  // of temperatures: the longest F
  word_rows now_, best_;
  word_rows before_;                  // by rank, of those that changed
  std::vector<std::size_t> changed_;  // ranks
  std::size_t weights_ = 0;
  double score_ = 0, best_score_ = 0, best_makespan_ = 0;
  std::uint64_t evaluations_ = 0;
  random_numbers random_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> critical_;  // rank and place in its word
};

}  // namespace pipesched::detail
