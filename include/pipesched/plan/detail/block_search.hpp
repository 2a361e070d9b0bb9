// SPDX-License-Identifier: MIT
#pragma once

// Rows made of blocks, as DualPipe's are, whose lengths are annealed for all ranks together. A change to one cell does little
// where there are many ranks; a change to the length of a block does the same on neighboring ranks.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/plan/detail/word_evaluator.hpp"
#include "pipesched/plan/detail/word_table.hpp"
#include "pipesched/plan/detail/words.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched::detail {

/// The lengths of a rank's blocks. Let F and I be of the rank's first stage, f and i of its last one: F `first` times; fF `both`
/// times; f; if `fill` times, in `paired` of them F&i in place of i; then F&i f&I while there are F's, the first `whole_early`
/// and the last `whole_late` times with whole backwards; i f&I while there are f's beyond the next block; if `tail` times; iI
/// and I, as many as are left.
struct block_lengths {
  int first = 0, both = 0, fill = 0, paired = 0, tail = 0;
  int whole_early = 0, whole_late = 0;
  int shift = 0;  ///< every other i of `fill` becomes a pair, from the last one (0) or the one before it (1) backward
};

/// Words of blocks, for placements with two stages on each rank, as far from the first stage as from the last.
class block_search {
 public:
  /// Nothing if the table has another placement, lacks a pair of F and a backward, or has replicas of different sizes. Counts
  /// its simulation in `evaluations`.
  static std::optional<block_search> on(const word_table& t, std::uint64_t seed, std::uint64_t& evaluations) {
    block_search search(t, seed);
    const std::size_t last = t.shape().stages() - 1;
    for (std::size_t rank = 0; rank < t.ranks(); ++rank) {
      const auto nodes = t.nodes_of(rank);
      if (nodes.size() != 2 || t.forward_only()) return std::nullopt;
      const word_node &a = t.nodes()[nodes[0]], &b = t.nodes()[nodes[1]];
      if (a.stage + b.stage != last || a.stage == b.stage || a.micros != b.micros) return std::nullopt;
      if (rank > 0 && a.micros != static_cast<std::uint32_t>(search.micros_)) return std::nullopt;
      search.micros_ = static_cast<int>(a.micros);
      search.add_rank(rank, a.stage < b.stage, std::max(a.stage, b.stage) - t.shape().stages() / 2);
      if (search.kinds_.back().first_pair == word_cell::none || search.kinds_.back().second_pair == word_cell::none)
        return std::nullopt;
    }
    search.start();
    ++evaluations;
    if (search.best_score_ == std::numeric_limits<double>::infinity()) return std::nullopt;
    return search;
  }

  /// Starts from DualPipe's lengths. @param go_on  gets the evaluations since its last call and the best makespan; false: stop
  template <typename GoOn>
  void anneal(std::uint64_t evaluations, GoOn&& go_on) {
    constexpr double hot = 0.05, cold = 0.001;  // of the longest F
    constexpr std::uint64_t slice = 1024;
    std::vector<block_lengths> now = best_;
    double score = best_score_;
    for (std::uint64_t i = 1; i <= evaluations; ++i) {
      std::vector<block_lengths> then = changed(now);
      const double other = score_of(then);
      const double temperature =
          unit_ * hot * std::pow(cold / hot, static_cast<double>(i) / static_cast<double>(evaluations));
      if (other <= score || random_.unit() < std::exp((score - other) / temperature))
        now = std::move(then), score = other;
      if (score < best_score_) best_ = now, best_score_ = score, best_makespan_ = makespan_;
      if ((i % slice == 0 || i == evaluations) && !go_on((i - 1) % slice + 1, best_makespan_)) return;
    }
  }

  /// The shortest words so far.
  word_rows words() const {
    word_rows w(kinds_.size());
    for (std::size_t rank = 0; rank < w.size(); ++rank) write(rank, best_[kinds_[rank].distance], w[rank]);
    return w;
  }

 private:
  struct rank_kinds {
    std::uint16_t f1, f2, b1, b2, first_pair, second_pair, first_whole, second_whole;
    std::size_t distance;  // of its stages from the middle of the chain
  };

  block_search(const word_table& t, std::uint64_t seed) : evaluator_(t), table_(&t), random_(seed) {}

  void add_rank(std::size_t rank, bool in_order, std::size_t distance) {
    const std::size_t a = in_order ? 0 : 3, b = 3 - a;
    const word_table& t = *table_;
    const auto whole = [&](std::size_t f, std::size_t of) {  // the other form where there is no whole backward
      const std::uint16_t kind = t.find(rank, f, of + 2);
      return kind != word_cell::none ? kind : kind_of(t, rank, f, of + 1);
    };
    kinds_.push_back({.f1 = kind_of(t, rank, a),
                      .f2 = kind_of(t, rank, b),
                      .b1 = kind_of(t, rank, a + 1),
                      .b2 = kind_of(t, rank, b + 1),
                      .first_pair = kind_of(t, rank, a, b + 1),
                      .second_pair = kind_of(t, rank, b, a + 1),
                      .first_whole = whole(a, b),
                      .second_whole = whole(b, a),
                      .distance = distance});
    unit_ = std::max({unit_, t.kind(rank, kinds_.back().f1).duration, t.kind(rank, kinds_.back().f2).duration});
  }
  void start() {
    std::size_t most = 0;
    for (const rank_kinds& k : kinds_) most = std::max(most, k.distance);
    for (std::size_t i = 0; i <= most; ++i) {
      const int q = static_cast<int>(i);
      best_.push_back({.first = 2 * q + 1, .both = static_cast<int>(most) - q, .fill = q});
    }
    words_.resize(kinds_.size());
    best_score_ = score_of(best_);
    best_makespan_ = makespan_;
  }

  // A change to the ranks of some distances from the middle, the same on all or more on those farther out.
  std::vector<block_lengths> changed(std::vector<block_lengths> to) {
    static constexpr std::array<block_lengths, 9> changes = {{{.first = 1},
                                                              {.both = 1},
                                                              {.fill = 1},
                                                              {.paired = 1},
                                                              {.tail = 1},
                                                              {.whole_early = 1},
                                                              {.whole_late = 1},
                                                              {.first = -1, .paired = 1},
                                                              {.first = -1, .paired = 1, .tail = 1}}};
    const std::size_t begin = random_.below(to.size()), end = std::min(to.size(), begin + 1 + random_.below(to.size()));
    const std::size_t which = random_.below(changes.size() + 1);
    const int sign = random_.below(2) == 0 ? 1 : -1;
    const bool grows = random_.below(4) == 0, grows_outward = random_.below(2) == 0;
    for (std::size_t q = begin; q < end; ++q) {
      const auto from_edge = static_cast<int>(grows_outward ? q - begin : end - 1 - q);
      const int by = sign * (grows ? 1 + from_edge / 2 : 1);
      if (which == changes.size()) {
        to[q].shift ^= 1;
        continue;
      }
      const block_lengths& c = changes[which];
      to[q].first += by * c.first, to[q].both += by * c.both, to[q].fill += by * c.fill;
      to[q].paired += by * c.paired, to[q].tail += by * c.tail;
      to[q].whole_early += by * c.whole_early, to[q].whole_late += by * c.whole_late;
    }
    return to;
  }

  // Infinite if some rank cannot have such blocks, or if they do not run within the memory.
  double score_of(const std::vector<block_lengths>& lengths) {
    for (std::size_t rank = 0; rank < kinds_.size(); ++rank)
      if (!write(rank, lengths[kinds_[rank].distance], words_[rank])) return std::numeric_limits<double>::infinity();
    const word_times times = evaluator_.run(words_);
    makespan_ = times.makespan;
    return times.makespan + 0.01 * times.ends;
  }

  // False if the lengths leave less than nothing for some block.
  bool write(std::size_t rank, const block_lengths& l, std::vector<std::uint16_t>& row) const {
    const int pairs = micros_ - l.first - l.both - l.paired;
    const int lone_input = micros_ - (l.both + 1) - l.fill - pairs - l.tail;
    const int both_input = l.both + 1, rest = micros_ - pairs - lone_input - both_input;
    if (std::min({l.whole_early, l.whole_late, pairs - l.whole_early - l.whole_late}) < 0) return false;
    if (std::min({l.first, l.both, l.fill, l.paired, l.tail, pairs, lone_input, rest}) < 0) return false;
    if (l.paired > 0 && 2 * (l.paired - 1) + l.shift >= l.fill) return false;
    const rank_kinds& k = kinds_[rank];
    row.clear();
    const auto add = [&](int times, auto... kinds) {
      for (int i = 0; i < times; ++i) (row.push_back(kinds), ...);
    };
    add(l.first, k.f1);
    add(l.both, k.f2, k.f1);
    add(1, k.f2);
    for (int left = l.fill - 1; left >= 0; --left) {
      const bool is_pair = left % 2 == l.shift && left / 2 < l.paired;
      add(1, is_pair ? k.first_pair : k.b2, k.f2);
    }
    add(l.whole_early, k.first_whole, k.second_whole);
    add(pairs - l.whole_early - l.whole_late, k.first_pair, k.second_pair);
    add(l.whole_late, k.first_whole, k.second_whole);
    add(lone_input, k.b2, k.second_pair);
    add(l.tail, k.b2, k.f2);
    add(both_input, k.b2, k.b1);
    add(rest, k.b1);
    return true;
  }

  word_evaluator evaluator_;
  const word_table* table_;
  random_numbers random_;
  int micros_ = 0;  // per stage
  std::vector<rank_kinds> kinds_;
  std::vector<block_lengths> best_;  // by distance from the middle
  word_rows words_;
  double unit_ = 0, makespan_ = 0, best_score_ = 0, best_makespan_ = 0;
};

}  // namespace pipesched::detail
