// SPDX-License-Identifier: MIT
#pragma once

// List scheduling of words: a rank that is free takes the most urgent op that has its inputs and its memory. Some numbers say how
// urgent an op is, and are searched. Makes rows for any placement, costs and memory, also where no family fits.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

#include "pipesched/plan/detail/word_simulator.hpp"
#include "pipesched/plan/detail/word_table.hpp"
#include "pipesched/plan/detail/words.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched::detail {

/// Weights of how urgent an op is, and limits. Times are in those of the longest F, micro-batches in numbers of ranks, places in
/// the chain in its length.
struct list_rule {
  enum : std::size_t {
    backward,         ///< of a backward, beside an F
    forward_stages,   ///< of an F, by its place in the chain
    backward_stages,  ///< of a backward, by its place in the chain
    micros,           ///< by the number of the micro-batch
    fullness,         ///< of an F, by the part of the memory that is in use
    patience,         ///< time that a rank waits for a more urgent op
    live,             ///< micro-batches that a rank may have begun and not ended
    slope,            ///< more of them on the first rank, and some more on those that follow
    pair,             ///< an F and a backward that both have their inputs run in one cell, if above 0
    size
  };
  std::array<double, size> of{};
};

class list_search {
 public:
  /// About the cost of a list in simulations of the same words.
  static constexpr std::uint64_t price = 40;

  /// @pre t.alike(). @param t  must outlive this
  list_search(const word_table& t, std::uint64_t seed)
      : table_(&t), sim_(t), random_(seed), ranks_(t.ranks()), unit_(t.longest_forward()) {
    for (std::size_t r = 0; r < t.ranks(); ++r) add_rank(r);
  }

  /// Searches for so many evaluations. @param go_on  gets the work since its last call, in ops of an evaluation, and the best
  /// makespan, after each list; false: stop
  template <typename GoOn>
  void run(std::uint64_t evaluations, GoOn&& go_on) {
    const std::uint64_t all = evaluations * table_->ops();
    std::uint64_t spent = 0, last = price * table_->ops();
    while (spent + last <= all) {
      const double part = static_cast<double>(spent) / static_cast<double>(all);
      const list_rule rule = spent == 0                      ? list_rule{usual}
                             : 3 * part < 1 || best_.empty() ? drawn()
                                                             : changed(best_rule_, 1 - part);
      work_ = 0;
      const word_times times = schedule(rule);
      if (times.makespan < best_makespan_) best_ = words_, best_rule_ = rule, best_makespan_ = times.makespan;
      last = work_ / work_per_op;
      spent += last;
      if (!go_on(last, best_makespan_)) return;
    }
  }

  /// The shortest words; none if no list ran.
  const word_rows& words() const noexcept { return best_; }
  double makespan() const noexcept { return best_makespan_; }

 private:
  // The work of a list, in parts of an op of an evaluation, as measured for 2 to 32 ranks and 1 to 4 stages on each: to run an
  // op, to look at one that may run, and to look at a stage that is to have memory for the ends of all micro-batches.
  static constexpr std::uint64_t work_per_op = 2, work_of_run = 32, work_of_option = 4, work_of_claim = 1;
  static constexpr double infinity = std::numeric_limits<double>::infinity();
  static constexpr std::array<double, list_rule::size> usual = {1, 0.5, 0, -0.5, 0, 0, 2.5, 0, 1};
  static constexpr std::array<std::pair<double, double>, list_rule::size> range = {
      {{-1, 2}, {-2, 2}, {-2, 2}, {-1.5, 0.5}, {-2, 0.5}, {0, 2}, {0.3, 2.5}, {-1, 1}, {-1, 1}}};

  // A stage of a rank, with its ops alone.
  struct local_node {
    std::uint16_t node = 0, forward = word_cell::none, backward = word_cell::none;
    std::size_t activations = 0, gradients = 0;  // queues
    double kept = 0;                             // from F on
    double stages = 0;                           // place in the chain, from 0 to 1
  };
  struct rank_ops {
    std::vector<local_node> nodes;
    double kept = 0;     // of a micro-batch on all stages
    double beyond = 0;   // most memory that an op takes beyond what F keeps, while it runs
    double weight = 0;   // and a W
    double place = 0;    // from 1 on the first rank to 0
    double settled = 0;  // memory in use, once the W's to come have run
  };
  struct option {
    double urgency = -infinity, arrival = infinity;
    std::uint16_t kind = word_cell::none;
    std::size_t at = 0;  // of its node on the rank
    bool forward = false;
  };
  struct event {
    double time = 0;
    std::uint32_t rank = 0, version = 0;
    bool operator>(const event& o) const noexcept { return time > o.time || (time == o.time && rank > o.rank); }
  };

  void add_rank(std::size_t r) {
    const word_table& t = *table_;
    rank_ops& rank = ranks_[r];
    std::size_t first = t.shape().stages();
    for (std::size_t i = 0; i < t.nodes_of(r).size(); ++i) {
      const std::uint16_t n = t.nodes_of(r)[i];
      const word_node& node = t.nodes()[n];
      if (node.micros == 0) continue;
      local_node l{.node = n, .forward = kind_of(t, r, 3 * i)};
      l.activations = 2 * std::size_t{n}, l.gradients = l.activations + 1;
      if (!t.forward_only()) l.backward = kind_of(t, r, 3 * i + 1);
      const word_cell& f = t.kind(r, l.forward);
      l.kept = f.rise - f.fall;
      l.stages = static_cast<double>(node.stage) / static_cast<double>(t.shape().stages());
      rank.kept += l.kept;
      rank.beyond = std::max(rank.beyond, f.rise + f.transient - l.kept);
      if (!t.forward_only())
        rank.beyond = std::max(rank.beyond, t.kind(r, l.backward).rise + t.kind(r, l.backward).transient);
      rank.weight = std::max(rank.weight, t.weight(n).transient), rank.beyond = std::max(rank.beyond, rank.weight);
      first = std::min<std::size_t>(first, node.stage);
      rank.nodes.push_back(l);
    }
    rank.place = 1 - static_cast<double>(first) / static_cast<double>(t.shape().pp());
  }

  list_rule drawn() {
    list_rule rule;
    for (std::size_t i = 0; i < list_rule::size; ++i)
      rule.of[i] = range[i].first + random_.unit() * (range[i].second - range[i].first);
    if (random_.below(2) == 0) rule.of[list_rule::patience] = 0;
    if (random_.below(2) == 0) rule.of[list_rule::live] = usual[list_rule::live], rule.of[list_rule::slope] = 0;
    return rule;
  }
  list_rule changed(list_rule rule, double step) {
    for (std::size_t changes = 1 + random_.below(3); changes > 0; --changes) {
      const std::size_t i = random_.below(list_rule::size);
      const auto [least, most] = range[i];
      rule.of[i] = std::clamp(rule.of[i] + (random_.unit() - 0.5) * (0.05 + step) * (most - least), least, most);
    }
    return rule;
  }

  // One list. Infinite if some rank waits for ever.
  word_times schedule(const list_rule& rule) {
    const word_table& t = *table_;
    sim_.begin_run();
    words_.assign(t.ranks(), {});
    versions_.assign(t.ranks(), 0);
    events_ = {};
    for (rank_ops& r : ranks_) r.settled = 0;
    for (std::size_t r = 0; r < t.ranks(); ++r) announce(r);
    while (!events_.empty()) {
      const event e = events_.top();
      events_.pop();
      if (e.version != versions_[e.rank]) continue;
      if (!run_on(e.rank, e.time, rule)) return {};
    }
    std::size_t done = 0;
    for (std::size_t q = 0; q < 2 * t.nodes().size(); ++q) done += sim_.taken(q);
    return done == t.ops() ? sim_.end_run() : word_times{};
  }

  // Puts a rank into the queue for the time at which it can first run something.
  void announce(std::size_t r) {
    double time = infinity;
    for_each_option(r, [&](const option& o) { time = std::min(time, o.arrival); });
    ++versions_[r];
    if (time < infinity) events_.push({std::max(time, sim_.free_at(r)), static_cast<std::uint32_t>(r), versions_[r]});
  }

  // Ops of a rank that have or get their inputs, and that have memory.
  template <typename Visit>
  void for_each_option(std::size_t r, Visit&& visit) const {
    const rank_ops& rank = ranks_[r];
    work_ += work_of_option * rank.nodes.size();
    for (std::size_t i = 0; i < rank.nodes.size(); ++i) {
      const local_node& l = rank.nodes[i];
      const std::uint32_t micros = table_->nodes()[l.node].micros;
      if (sim_.taken(l.activations) < micros && has_room(r, l.forward) && is_safe(r, i))
        visit(option{.arrival = sim_.arrival(r, l.forward), .kind = l.forward, .at = i, .forward = true});
      if (l.backward != word_cell::none && sim_.taken(l.gradients) < micros && has_room(r, l.backward))
        visit(option{.arrival = sim_.arrival(r, l.backward), .kind = l.backward, .at = i});
    }
  }
  bool has_room(std::size_t r, std::uint16_t kind) const {
    const word_cell& c = table_->kind(r, kind);
    return ranks_[r].settled + c.rise + c.transient <= table_->cap(r);
  }
  // True if all micro-batches can still end, one after the other, once the next F of a stage has run. As every rank takes care
  // of that, in the same order, no rank waits for ever.
  bool is_safe(std::size_t r, std::size_t next) const {
    const rank_ops& rank = ranks_[r];
    const double cap = table_->cap(r);
    if (cap == infinity) return true;
    work_ += work_of_claim * rank.nodes.size();
    double room = cap - rank.settled - rank.nodes[next].kept;
    std::uint32_t most = 0, first = std::numeric_limits<std::uint32_t>::max();
    for (const local_node& l : rank.nodes)
      most = std::max(most, table_->nodes()[l.node].micros), first = std::min(first, ended(l));
    const local_node& own = rank.nodes[next];
    bool is_oldest = true;
    for (std::uint32_t j = first; j < most && room < rank.kept + rank.beyond; ++j)
      for (std::uint16_t replica = 0; replica < 2; ++replica) {
        const claim c = claim_of(rank, replica, j, next);
        if (!c.is_open) continue;
        const bool is_own = j == sim_.taken(own.activations) && replica == table_->nodes()[own.node].replica;
        if (!(is_own && is_oldest) && c.needed + rank.beyond > room) return false;
        room += c.freed, is_oldest = false;
      }
    return true;
  }
  // The memory that a micro-batch still needs on a rank to end there, and the memory that it frees then, once the next F of a
  // stage has run.
  struct claim {
    double needed = 0, freed = 0;
    bool is_open = false;
  };
  claim claim_of(const rank_ops& rank, std::uint16_t replica, std::uint32_t j, std::size_t next) const {
    claim c;
    work_ += work_of_claim * rank.nodes.size();
    for (std::size_t i = 0; i < rank.nodes.size(); ++i) {
      const local_node& l = rank.nodes[i];
      const word_node& n = table_->nodes()[l.node];
      if (n.replica != replica || j >= n.micros || ended(l) > j) continue;
      const bool is_kept = sim_.taken(l.activations) + (i == next ? 1u : 0u) > j;
      (is_kept ? c.freed : c.needed) += l.kept;
      c.is_open = true;
    }
    return c;
  }
  // Micro-batches that a stage has done.
  std::uint32_t ended(const local_node& l) const {
    return sim_.taken(table_->forward_only() ? l.activations : l.gradients);
  }

  // Runs the most urgent op, or a pair of ops. False if it lacks memory.
  bool run_on(std::size_t r, double time, const list_rule& rule) {
    const double until = time + rule.of[list_rule::patience] * unit_;
    option best, other[2];
    for_each_option(r, [&](option o) {
      if (o.arrival > until || (o.forward && !may_begin(r, o, rule))) return;
      o.urgency = urgency_of(r, o, rule);
      if (o.urgency > best.urgency) best = o;
      if (o.arrival <= time && o.urgency > other[o.forward].urgency) other[o.forward] = o;
    });
    if (best.kind == word_cell::none) {  // only F's that had better not begin yet, and nothing else to run
      for_each_option(r, [&](const option& o) {
        if (o.arrival <= until && o.arrival < best.arrival) best = o;
      });
    }
    std::uint16_t kind = best.kind;
    const option& with = other[!best.forward];
    if (rule.of[list_rule::pair] > 0 && best.arrival <= time && with.kind != word_cell::none)
      if (const std::uint16_t both = pair_of(r, best, with); both != word_cell::none) kind = both;
    return run(r, kind);
  }
  std::uint16_t pair_of(std::size_t r, const option& a, const option& b) const {
    const auto op = [&](const option& o) {
      return table_->op_of(r, ranks_[r].nodes[o.at].node, o.forward ? pass::forward : pass::backward_input);
    };
    const std::uint16_t kind = kind_of(*table_, r, op(a), op(b));
    if (kind == word_cell::none) return kind;
    const word_cell& c = table_->kind(r, kind);
    const bool is_shorter = c.duration < table_->kind(r, a.kind).duration + table_->kind(r, b.kind).duration;
    return is_shorter && ranks_[r].settled + c.rise + c.transient <= table_->cap(r) ? kind : word_cell::none;
  }
  bool may_begin(std::size_t r, const option& o, const list_rule& rule) const {
    const rank_ops& rank = ranks_[r];
    const auto ranks = static_cast<double>(table_->ranks());
    const double most = ranks * (rule.of[list_rule::live] + rule.of[list_rule::slope] * rank.place);
    return rank.settled + rank.nodes[o.at].kept <= rank.kept * std::max(1.0, most) || rank.kept == 0;
  }
  double urgency_of(std::size_t r, const option& o, const list_rule& rule) const {
    const local_node& l = ranks_[r].nodes[o.at];
    const auto ranks = static_cast<double>(table_->ranks());
    const double micro = static_cast<double>(sim_.taken(o.forward ? l.activations : l.gradients)) / ranks;
    double urgency = rule.of[list_rule::micros] * micro;
    if (!o.forward)
      return urgency + rule.of[list_rule::backward] + rule.of[list_rule::backward_stages] * (1 - l.stages);
    if (table_->cap(r) < infinity) urgency += rule.of[list_rule::fullness] * ranks_[r].settled / table_->cap(r);
    return urgency + rule.of[list_rule::forward_stages] * l.stages;
  }
  bool run(std::size_t r, std::uint16_t kind) {
    const word_cell& c = table_->kind(r, kind);
    work_ += work_of_run * c.size();
    const double room = table_->cap(r) - ranks_[r].weight - std::max(0.0, c.rise - c.fall);
    while (ranks_[r].weight > 0 && sim_.level(r) > room && sim_.run_weight(r))  // later W's would have none
      words_[r].push_back(table_->weight_kind(r));
    ranks_[r].settled += c.rise - c.fall;
    for (const std::uint16_t n : c.delays)
      if (n != word_cell::none) ranks_[r].settled -= table_->weight(n).fall;
    words_[r].push_back(kind);
    if (!sim_.run_cell(r, kind)) return false;
    announce(r);
    for (const std::uint16_t q : c.gives)
      if (q != word_cell::none && table_->nodes()[q / 2].rank != r) announce(table_->nodes()[q / 2].rank);
    return true;
  }

  const word_table* table_;
  word_simulator sim_;
  random_numbers random_;
  std::vector<rank_ops> ranks_;
  double unit_ = 0;
  word_rows words_, best_;
  list_rule best_rule_;
  double best_makespan_ = infinity;
  mutable std::uint64_t work_ = 0;       // of the list that is made
  std::vector<std::uint32_t> versions_;  // by rank, of its last event
  std::priority_queue<event, std::vector<event>, std::greater<>> events_;
};

}  // namespace pipesched::detail
