// SPDX-License-Identifier: MIT
#pragma once

// Simulation of words: counters instead of labels. W's go into the gaps in which they fit, run early where an F needs their
// memory, and else at the end.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/plan/detail/exact_costs.hpp"
#include "pipesched/plan/detail/word_table.hpp"

namespace pipesched::detail {

/// One word per rank: the kinds of its cells. Of the W's only those are there that run at a given place.
using word_rows = std::vector<std::vector<std::uint16_t>>;

/// The end of the last rank, and the sum of the ends of all; infinite if a rank waits for ever or lacks memory.
struct word_times {
  double makespan = std::numeric_limits<double>::infinity(), ends = 0;
};

/// A cell of words as it ran.
struct word_event {
  double end = 0;
  std::uint16_t kind = 0;  // a node's, if it is a W
  bool weight = false;
  std::uint32_t place = 0;                                 // in its word; of a W, that of the cell to come
  std::array<std::uint32_t, 2> micros{};                   // by op, among those of its node
  std::uint32_t cause_rank = 0, cause = word_event::self;  // the event that it waited for; self: the one before
  static constexpr std::uint32_t self = 0xFFFF'FFFF;
};

class word_simulator {
 public:
  explicit word_simulator(const word_table& t)
      : t_(&t),
        stride_(t.max_micros() + 1),
        arrivals_(2 * t.nodes().size() * stride_),
        queues_(2 * t.nodes().size()),
        ranks_(t.ranks()),
        stack_(t.ranks()),
        exact_(t) {
    std::size_t most = 0;
    for (std::size_t r = 0; r < t.ranks(); ++r) {
      std::size_t micros = 0;
      for (const std::uint16_t n : t.nodes_of(r)) micros += t.nodes()[n].micros;
      most = std::max(most, micros);
    }
    delayed_.resize(t.ranks() * most), delayed_micros_.resize(t.ranks() * most), delayed_stride_ = most;
  }

  /// Neither allocates nor throws. Linear in the ops.
  word_times run(const word_rows& w) { return t_->alike() ? run_all<false, true>(w) : run_all<false, false>(w); }

  /// The same, and keeps what each rank did. Only as far as it went, if a rank waits for ever.
  word_times record(const word_rows& w) {
    events_.assign(w.size(), {});
    producers_.assign(arrivals_.size(), {});
    return t_->alike() ? run_all<true, true>(w) : run_all<true, false>(w);
  }
  /// Begins a run without words, of which run_cell() adds one cell at a time, and end_run() the W's that are left.
  void begin_run() {
    std::fill(queues_.begin(), queues_.end(), queue{});
    std::fill(ranks_.begin(), ranks_.end(), rank_state{});
    full_ = ranks_.size();
    depth_ = 0;
  }
  /// When a cell of a rank would have its inputs; infinite as long as they are not made.
  double arrival(std::size_t rank, std::uint16_t kind) const noexcept {
    const inputs in = inputs_of(t_->kind(rank, kind));
    return in.missing == word_cell::none ? in.arrival : std::numeric_limits<double>::infinity();
  }
  /// Runs a cell that has its inputs. False, and the run is over, if it lacks memory.
  bool run_cell(std::size_t rank, std::uint16_t kind) {
    const auto r = static_cast<std::uint32_t>(rank);
    return t_->alike() ? run_next<false, true>(r, kind) : run_next<false, false>(r, kind);
  }
  /// Runs the oldest W to come. False if no W is left, or if it lacks memory.
  bool run_weight(std::size_t rank) {
    const auto r = static_cast<std::uint32_t>(rank);
    rank_state& s = ranks_[r];
    if (s.delayed_begin == s.delayed_end) return false;
    return t_->alike() ? run_weight<false, true>(r, s) : run_weight<false, false>(r, s);
  }
  word_times end_run() { return t_->alike() ? end_all<false, true>() : end_all<false, false>(); }
  /// When a rank has done its cells so far, and the memory that it uses then.
  double free_at(std::size_t rank) const noexcept { return ranks_[rank].free; }
  double level(std::size_t rank) const noexcept { return ranks_[rank].level; }
  /// How many inputs of a queue are taken.
  std::uint32_t taken(std::size_t q) const noexcept { return queues_[q].taken; }

  /// By rank, in order. @pre record()
  const std::vector<std::vector<word_event>>& events() const noexcept { return events_; }
  /// The rank that lacked memory for its next cell in the last run; ranks() if none did.
  std::size_t full_rank() const noexcept { return full_; }
  /// The next cell of a rank, after the last run.
  std::size_t position(std::size_t rank) const noexcept { return ranks_[rank].next; }

 private:
  static constexpr std::uint32_t none = 0xFFFF'FFFF;

  struct queue {
    std::uint32_t made = 0, taken = 0;
    std::int32_t waiting = -1;  // rank
  };
  struct rank_state {
    double free = 0, level = 0;
    std::uint32_t next = 0, delayed_begin = 0, delayed_end = 0;
  };

  // The inputs of a rank's next cell of a kind.
  struct inputs {
    std::array<std::uint32_t, 2> micros{};
    double arrival = 0;
    std::uint32_t cause = none;               // index of an arrival
    std::uint16_t missing = word_cell::none;  // a queue
  };

  template <bool Record, bool Alike>
  word_times run_all(const word_rows& w) {
    begin_run();
    for (std::size_t r = ranks_.size(); r-- > 0;) stack_[depth_++] = static_cast<std::uint32_t>(r);
    while (depth_ > 0) {
      const std::uint32_t r = stack_[--depth_];
      if (!run_rank<Record, Alike>(r, w[r])) return {};
    }
    for (std::size_t r = 0; r < ranks_.size(); ++r)
      if (ranks_[r].next != w[r].size()) return {};
    return end_all<Record, Alike>();
  }
  template <bool Record, bool Alike>
  word_times end_all() {
    word_times times{.makespan = 0};
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      rank_state& s = ranks_[r];
      while (s.delayed_begin < s.delayed_end)
        if (!run_weight<Record, Alike>(static_cast<std::uint32_t>(r), s)) return {};
      times.makespan = std::max(times.makespan, s.free), times.ends += s.free;
    }
    return times;
  }

  inputs inputs_of(const word_cell& kind) const {
    inputs in;
    for (std::size_t k = 0; k < 2; ++k) {
      const std::uint16_t q = kind.takes[k];
      if (q == word_cell::none) continue;
      const queue& from = queues_[q];
      const std::uint32_t j = in.micros[k] = from.taken + (k == 1 && kind.takes[0] == q);
      if (kind.is_source[k]) continue;
      if (j >= from.made) {
        in.missing = q;
        return in;
      }
      const std::size_t at = q * stride_ + j;
      if (arrivals_[at] > in.arrival) in.arrival = arrivals_[at], in.cause = static_cast<std::uint32_t>(at);
    }
    return in;
  }

  // False if there is not enough memory.
  template <bool Record, bool Alike>
  bool run_rank(std::uint32_t r, const std::vector<std::uint16_t>& word) {
    rank_state& s = ranks_[r];
    const std::span<const word_cell> kinds = t_->kinds(r);
    for (; s.next < word.size(); ++s.next) {
      const word_cell& kind = kinds[word[s.next]];
      if (kind.is_weight()) {
        if (s.delayed_begin < s.delayed_end && has_room(r, s, next_weight<Alike>(r, s)))
          run_weight<Record, Alike>(r, s);
        continue;
      }
      const inputs in = inputs_of(kind);
      if (in.missing != word_cell::none) {
        queues_[in.missing].waiting = static_cast<std::int32_t>(r);
        return true;
      }
      if (!run_with<Record, Alike>(r, s, word[s.next], in)) return false;
    }
    return true;
  }
  template <bool Record, bool Alike>
  bool run_next(std::uint32_t r, std::uint16_t kind) {
    return run_with<Record, Alike>(r, ranks_[r], kind, inputs_of(t_->kind(r, kind)));
  }
  template <bool Record, bool Alike>
  bool run_with(std::uint32_t r, rank_state& s, std::uint16_t kind, const inputs& in) {
    const word_cell& c = Alike ? t_->kind(r, kind) : exact_.cell_of(r, kind, in.micros);
    if (!run_delayed<Record, Alike>(r, s, c, in.arrival)) return false;
    const double ready = s.free + c.before;
    run_cell<Record, Alike>(r, s, c, kind, std::max(in.arrival, ready), in.arrival > ready ? in.cause : none,
                            in.micros);
    if (s.level <= t_->cap(r)) return true;
    full_ = r;
    return false;
  }

  // Runs the delayed weights that end before the cell's inputs arrive, and more of them while it lacks memory. False if it still
  // does.
  template <bool Record, bool Alike>
  bool run_delayed(std::uint32_t r, rank_state& s, const word_cell& c, double arrival) {
    const double cap = t_->cap(r);
    while (s.delayed_begin < s.delayed_end && weight_fits<Alike>(r, s, arrival - c.before))
      run_weight<Record, Alike>(r, s);
    while (s.level + c.rise + c.transient > cap && s.delayed_begin < s.delayed_end)
      if (!run_weight<Record, Alike>(r, s)) return false;
    if (s.level + c.rise + c.transient <= cap) return true;
    full_ = r;
    return false;
  }
  template <bool Alike>
  bool weight_fits(std::uint32_t r, const rank_state& s, double until) const {
    const word_weight& w = next_weight<Alike>(r, s);
    return s.free + w.duration <= until && has_room(r, s, w);
  }
  bool has_room(std::uint32_t r, const rank_state& s, const word_weight& w) const {
    return s.level + w.transient <= t_->cap(r);
  }
  template <bool Alike>
  const word_weight& next_weight(std::uint32_t r, const rank_state& s) const {
    const std::size_t at = r * delayed_stride_ + s.delayed_begin;
    return Alike ? t_->weight(delayed_[at]) : exact_.weight_of(delayed_[at], delayed_micros_[at]);
  }

  template <bool Record, bool Alike>
  void run_cell(std::uint32_t r, rank_state& s, const word_cell& c, std::uint16_t kind, double start,
                std::uint32_t cause, std::array<std::uint32_t, 2> micros) {
    s.level += c.rise - c.fall;
    for (std::size_t k = 0; k < c.size(); ++k) {
      ++queues_[c.takes[k]].taken;
      if (c.delays[k] == word_cell::none) continue;
      const std::size_t at = r * delayed_stride_ + s.delayed_end++;
      delayed_[at] = c.delays[k], delayed_micros_[at] = micros[k];
    }
    s.free = start + c.duration;
    if constexpr (Record) {
      word_event e{.end = s.free, .kind = kind, .place = s.next, .micros = micros};
      if (cause != none) e.cause_rank = producers_[cause].first, e.cause = producers_[cause].second;
      events_[r].push_back(e);
    }
    s.free += c.after;
    for (std::size_t k = 0; k < 2; ++k) {
      const std::uint16_t q = c.gives[k];
      if (q == word_cell::none) continue;
      queue& to = queues_[q];
      const std::size_t at = q * stride_ + to.made++;
      arrivals_[at] = start + c.arrives[k];
      if constexpr (Record) producers_[at] = {r, static_cast<std::uint32_t>(events_[r].size() - 1)};
      if (to.waiting >= 0) stack_[depth_++] = static_cast<std::uint32_t>(std::exchange(to.waiting, -1));
    }
  }

  // Runs the oldest W that is to come.
  template <bool Record, bool Alike>
  bool run_weight(std::uint32_t r, rank_state& s) {
    const word_weight& w = next_weight<Alike>(r, s);
    if (!has_room(r, s, w)) {
      full_ = r;
      return false;
    }
    const std::size_t at = r * delayed_stride_ + s.delayed_begin++;
    if constexpr (Record) {
      word_event e{.end = s.free + w.duration, .kind = delayed_[at], .weight = true, .place = s.next};
      e.micros[0] = delayed_micros_[at];
      events_[r].push_back(e);
    }
    s.free += w.duration, s.level -= w.fall;
    return true;
  }

  const word_table* t_;
  std::size_t stride_ = 0, delayed_stride_ = 0;
  std::vector<double> arrivals_;
  std::vector<queue> queues_;
  std::vector<rank_state> ranks_;
  std::vector<std::uint32_t> stack_;
  std::size_t depth_ = 0, full_ = 0;
  std::vector<std::uint16_t> delayed_;  // [rank]: nodes whose W was or is to come, in order
  std::vector<std::uint32_t> delayed_micros_;
  exact_costs<word_cell> exact_;
  std::vector<std::vector<word_event>> events_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> producers_;  // by arrival: rank and event
};

}  // namespace pipesched::detail
