// SPDX-License-Identifier: MIT
#pragma once

// The times of words, fast: what word_simulator::run() says and nothing else. A search spends most of its time here.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/plan/detail/exact_costs.hpp"
#include "pipesched/plan/detail/word_simulator.hpp"
#include "pipesched/plan/detail/word_table.hpp"

namespace pipesched::detail {

class word_evaluator {
 public:
  /// @param t  must outlive this
  explicit word_evaluator(const word_table& t)
      : arrivals_(2 * t.nodes().size() * (t.max_micros() + std::size_t{1}), 0),
        first_kind_(t.ranks()),
        ranks_(t.ranks()),
        caps_(t.ranks()),
        first_delayed_(t.ranks()),
        line_(std::bit_ceil(t.ranks())),
        is_source_(2 * t.nodes().size(), false),
        queues_(2 * t.nodes().size()),
        is_alike_(t.alike()),
        exact_(t) {
    std::size_t delayed = 0;
    for (std::size_t r = 0; r < t.ranks(); ++r) {
      first_kind_[r] = kinds_.size(), first_delayed_[r] = delayed, caps_[r] = t.cap(r);
      for (const word_cell& c : t.kinds(r)) add(c);
      for (const std::uint16_t n : t.nodes_of(r)) delayed += t.nodes()[n].micros;
    }
    delayed_.resize(delayed);
    if (!is_alike_) delayed_micros_.resize(delayed);
    for (std::size_t n = 0; n < t.nodes().size(); ++n) weights_.push_back(t.weight(n));
    for (std::size_t q = 0; q < 2 * t.nodes().size(); ++q) {
      double* const begin = arrivals_.data() + q * (t.max_micros() + std::size_t{1});
      empty_.push_back({.next = begin, .end = begin + (is_source_[q] ? t.max_micros() + 1 : 0)});
    }
  }
  word_evaluator(word_evaluator&&) = default;
  word_evaluator& operator=(word_evaluator&&) = default;
  word_evaluator(const word_evaluator&) = delete;  // queues point to arrivals
  word_evaluator& operator=(const word_evaluator&) = delete;

  /// Neither allocates nor throws. Linear in the ops.
  word_times run(const word_rows& w) { return is_alike_ ? run_all<true>(w) : run_all<false>(w); }

 private:
  struct alignas(32) queue {
    double *next, *end;         // arrivals that are made and not taken; of sources: all
    std::int32_t waiting = -1;  // rank
  };
  // Of a word_cell.
  struct cell_costs {
    cell_costs() = default;
    explicit cell_costs(const word_cell& c)
        : duration(c.duration),
          before(c.before),
          after(c.after),
          rise(c.rise),
          transient(c.transient),
          change(c.rise - c.fall),
          arrives(c.arrives) {}

    double duration = 0, before = 0, after = 0, rise = 0, transient = 0, change = 0;
    std::array<double, 2> arrives{};
  };
  // The rest of what counts here of it; its costs are of the first micro-batches.
  struct alignas(128) kind {
    cell_costs costs;
    std::array<queue*, 2> takes, gives;  // nullptr: none
    std::array<std::uint16_t, 2> delays;
    bool weight, pair;
    std::uint8_t second;  // place in its queue of what the second op takes: 1 after one of the same queue
  };
  struct rank {
    double free = 0, level = 0;
    const std::uint16_t *at, *end;   // cells to come
    std::uint16_t *owed, *owed_end;  // nodes whose W is to come
  };

  template <bool Alike>
  word_times run_all(const word_rows& w) {
    std::copy(empty_.begin(), empty_.end(), queues_.begin());
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      std::uint16_t* const delayed = delayed_.data() + first_delayed_[r];
      ranks_[r] = {.at = w[r].data(), .end = w[r].data() + w[r].size(), .owed = delayed, .owed_end = delayed};
    }
    woken_ = 0;
    for (std::size_t r = 0; r < ranks_.size(); ++r) line_[woken_++] = static_cast<std::uint32_t>(r);
    for (std::size_t n = 0; n != woken_; ++n)
      if (!run_rank<Alike>(line_[n & mask_])) return {};
    word_times times{.makespan = 0};
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      rank& s = ranks_[r];
      if (s.at != s.end) return {};
      while (s.owed != s.owed_end)
        if (!run_weight<Alike>(s, caps_[r])) return {};
      times.makespan = std::max(times.makespan, s.free), times.ends += s.free;
    }
    return times;
  }

  queue* queue_at(std::uint16_t q) { return q == word_cell::none ? nullptr : &queues_[q]; }
  void add(const word_cell& c) {
    for (std::size_t k = 0; k < 2; ++k)
      if (c.is_source[k]) is_source_[c.takes[k]] = true;
    kinds_.push_back({.costs = cell_costs(c),
                      .takes = {queue_at(c.takes[0]), queue_at(c.takes[1])},
                      .gives = {queue_at(c.gives[0]), queue_at(c.gives[1])},
                      .delays = c.delays,
                      .weight = c.is_weight(),
                      .pair = c.size() == 2,
                      .second = static_cast<std::uint8_t>(c.takes[1] == c.takes[0] ? 1 : 0)});
  }

  // Runs the oldest W to come. False if it lacks memory.
  template <bool Alike>
  bool run_weight(rank& s, double cap) {
    const word_weight& w = next_weight<Alike>(s);
    if (!(s.level + w.transient <= cap)) return false;
    ++s.owed, s.free += w.duration, s.level -= w.fall;
    return true;
  }

  // The oldest W to come.
  template <bool Alike>
  const word_weight& next_weight(const rank& s) const {
    if constexpr (Alike)
      return weights_[*s.owed];
    else
      return exact_.weight_of(*s.owed, delayed_micros_[place_of(s.owed)]);
  }
  std::size_t place_of(const std::uint16_t* owed) const { return static_cast<std::size_t>(owed - delayed_.data()); }
  // The micro-batch, among those of its node, whose input is next in a queue.
  std::uint32_t micro_at(const queue& q) const {
    return static_cast<std::uint32_t>(q.next - empty_[static_cast<std::size_t>(&q - queues_.data())].next);
  }

  // Runs a rank until it waits or ends. False if it lacks memory. Inlined: a rank waits after some two cells, and a call costs an
  // eighth of the time.
  template <bool Alike>
  [[gnu::always_inline]] inline bool run_rank(std::uint32_t r) {
    rank s = ranks_[r];
    const kind* const kinds = kinds_.data() + first_kind_[r];
    const double cap = caps_[r];
    const auto wait_for = [&](queue& q) {
      q.waiting = static_cast<std::int32_t>(r);
      ranks_[r] = s;
      return true;
    };
    for (; s.at != s.end; ++s.at) {
      const kind& of = kinds[*s.at];
      if (of.weight) {
        if (s.owed != s.owed_end) run_weight<Alike>(s, cap);
        continue;
      }
      queue& first = *of.takes[0];
      if (first.next == first.end) return wait_for(first);
      double arrival = *first.next;
      std::array<std::uint32_t, 2> micros{};
      if constexpr (!Alike) micros[0] = micro_at(first);
      if (of.pair) {
        queue& second = *of.takes[1];
        if (second.next + of.second >= second.end) return wait_for(second);
        arrival = std::max(arrival, second.next[of.second]);
        if constexpr (!Alike) micros[1] = micro_at(second) + of.second;
        ++second.next;
      }
      ++first.next;
      const cell_costs& c = Alike ? of.costs : exact_.cell_of(r, *s.at, micros);
      if (s.owed != s.owed_end || s.level + c.rise + c.transient > cap)
        if (!run_weights<Alike>(s, c, arrival, cap)) return false;
      s.level += c.change;
      const double start = std::max(arrival, s.free + c.before);
      s.free = start + c.duration + c.after;
      if constexpr (!Alike) note_micros(s, of, micros);
      finish_op(s, of, 0, start + c.arrives[0]);
      if (of.pair) finish_op(s, of, 1, start + c.arrives[1]);
      if (s.level > cap) return false;
    }
    ranks_[r] = s;
    return true;
  }
  // Notes the micro-batches of the W's to come of a cell.
  void note_micros(const rank& s, const kind& c, std::array<std::uint32_t, 2> micros) {
    std::size_t at = place_of(s.owed_end);
    for (std::size_t k = 0; k < 2; ++k)
      if (c.delays[k] != word_cell::none) delayed_micros_[at++] = micros[k];
  }
  // Notes an op's W to come and its output.
  void finish_op(rank& s, const kind& c, std::size_t k, double arrives) {
    if (c.delays[k] != word_cell::none) *s.owed_end++ = c.delays[k];
    if (c.gives[k] == nullptr) return;
    queue& to = *c.gives[k];
    *to.end++ = arrives;
    if (to.waiting >= 0) line_[woken_++ & mask_] = static_cast<std::uint32_t>(std::exchange(to.waiting, -1));
  }
  // Runs the W's to come that end before the cell's inputs arrive, and more of them while it lacks memory. False if it still does.
  template <bool Alike>
  bool run_weights(rank& s, const cell_costs& c, double arrival, double cap) {
    const double until = arrival - c.before;
    while (s.owed != s.owed_end && s.free + next_weight<Alike>(s).duration <= until)
      if (!run_weight<Alike>(s, cap)) break;
    while (s.level + c.rise + c.transient > cap)
      if (s.owed == s.owed_end || !run_weight<Alike>(s, cap)) return false;
    return true;
  }

  std::vector<double> arrivals_;
  std::vector<kind> kinds_;
  std::vector<std::size_t> first_kind_;
  std::vector<rank> ranks_;
  std::vector<double> caps_;
  std::vector<std::size_t> first_delayed_;
  std::vector<std::uint32_t> line_;  // ranks to run, a ring
  std::size_t mask_ = line_.size() - 1, woken_ = 0;
  std::vector<std::uint16_t> delayed_;
  std::vector<word_weight> weights_;
  std::vector<bool> is_source_;
  std::vector<queue> queues_, empty_;
  bool is_alike_;
  exact_costs<cell_costs> exact_;
  std::vector<std::uint32_t> delayed_micros_;  // of the W's to come
};

}  // namespace pipesched::detail
