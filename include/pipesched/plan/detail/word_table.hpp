// SPDX-License-Identifier: MIT
#pragma once

// Words: rows without numbers of micro-batches. Micro-batches of a replica that are alike run in order of their numbers
// without loss: keep all cells and times of a schedule, and give the j-th F and the j-th backward of every stage the
// number j. The j-th smallest start at a stage is no earlier than the j-th smallest arrival there, as each start has an
// arrival of its own that is earlier; durations and live activations do not depend on the numbers. So a row is a sequence of
// kinds of cells, and W's go where there is time for them: the simulator of words places them.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/plan/memory_caps.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"

namespace pipesched::detail {

/// A stage of a replica, with the micro-batches that go through it. It has two queues: 2 x node for the activations that its
/// F's take, and 2 x node + 1 for the gradients that its backwards take.
struct word_node {
  std::uint16_t replica = 0, stage = 0;
  std::uint32_t rank = 0, micros = 0;
};

/// A kind of cells of one rank, with its costs. Times are from the start of the cell.
struct word_cell {
  static constexpr std::uint16_t none = 0xFFFF;

  double duration = 0;
  double before = 0, after = 0;                                       // time that messages keep the rank busy
  std::array<double, 2> arrives{};                                    // of the outputs
  std::array<std::uint16_t, 2> takes{none, none}, gives{none, none};  // queues; those that it takes count its ops, too
  std::array<bool, 2> is_source{};                                    // F's of the first stage, which wait for nothing
  std::array<std::uint16_t, 2> delays{none, none};                    // nodes whose W is to come
  double rise = 0, transient = 0, fall = 0;  // of memory: at the start, while it runs, at the end

  std::array<std::uint16_t, 2> nodes{none, none};
  std::array<pass, 2> passes{pass::none, pass::none};

  constexpr std::size_t size() const noexcept { return passes[1] == pass::none ? 1 : 2; }
  /// True for the sign that the oldest W which is to come runs here, if there is one and it has room.
  constexpr bool is_weight() const noexcept { return passes[0] == pass::none; }
  constexpr bool costs_as(const word_cell& o) const noexcept {
    return duration == o.duration && before == o.before && after == o.after && arrives == o.arrives && rise == o.rise &&
           transient == o.transient && fall == o.fall;
  }
};

/// A W that stands alone.
struct word_weight {
  double duration = 0, transient = 0, fall = 0;

  friend constexpr bool operator==(const word_weight&, const word_weight&) = default;
};

/// The kinds of cells that the words of a problem are made of, in numbers. `kind(rank, i)` is the i-th of a rank.
class word_table {
 public:
  /// Passes that words are made of.
  static constexpr std::array<pass, 3> passes = {pass::forward, pass::backward_input, pass::backward};

  /// @param shape       a schedule without cells
  /// @param costs       must outlive this, if micro-batches are not alike
  /// @param recomputed  by stage: its backwards recompute inside; empty: none
  template <cost_model Costs>
  word_table(const schedule& shape, const Costs& costs, pass_pair_set pairs, const memory_caps& caps,
             const std::vector<bool>& recomputed = {})
      : shape_(shape), recomputed_(recomputed), by_bytes_(!caps.bytes.empty()) {
    const placement& where = shape.placement;
    locals_.resize(where.ranks());
    for (std::uint32_t replica = 0; replica < where.replicas(); ++replica)
      for (std::uint32_t stage = 0; stage < where.stages(); ++stage) add_node(replica, stage);
    units_ = activation_units(where);
    if (!micro_batches_alike(costs)) {
      exact_cell_ = [&costs](const word_table& t, std::uint32_t rank, const cell& c) {
        return t.price(rank, c, costs);
      };
      exact_weight_ = [&costs](const word_table& t, std::uint16_t node, std::uint32_t j) {
        return t.price_weight(node, j, costs);
      };
    }
    for (std::size_t n = 0; n < nodes_.size(); ++n)
      weights_.push_back(nodes_[n].micros == 0 ? word_weight{} : price_weight(static_cast<std::uint16_t>(n), 0, costs));
    for (std::uint32_t rank = 0; rank < where.ranks(); ++rank) {
      caps_.push_back(by_bytes_          ? with_rounding(caps.bytes[rank])
                      : caps.activations ? with_rounding(*caps.activations * static_cast<double>(units_[rank].share))
                                         : std::numeric_limits<double>::infinity());
      add_kinds(rank, costs, pairs);
    }
  }

  std::size_t ranks() const noexcept { return kinds_.size(); }
  std::span<const word_node> nodes() const noexcept { return nodes_; }
  std::span<const std::uint16_t> nodes_of(std::size_t rank) const noexcept { return locals_[rank]; }
  std::span<const word_cell> kinds(std::size_t rank) const noexcept { return kinds_[rank]; }
  const word_cell& kind(std::size_t rank, std::size_t i) const noexcept { return kinds_[rank][i]; }
  /// The kind of the sign for a W, the last one.
  std::uint16_t weight_kind(std::size_t rank) const noexcept {
    return static_cast<std::uint16_t>(kinds_[rank].size() - 1);
  }
  const word_weight& weight(std::size_t node) const noexcept { return weights_[node]; }

  /// False if costs depend on the micro-batch; cells then cost what the next two say, and kind() and weight() are of the first
  /// micro-batches.
  bool alike() const noexcept { return !exact_cell_; }
  word_cell exact(std::uint32_t rank, const word_cell& c, std::array<std::uint32_t, 2> micros) const {
    return exact_cell_(*this, rank, cell_at(c, micros));
  }
  word_weight exact_weight(std::uint16_t node, std::uint32_t j) const { return exact_weight_(*this, node, j); }
  double cap(std::size_t rank) const noexcept { return caps_[rank]; }
  /// The time of the longest F alone.
  double longest_forward() const noexcept {
    double longest = 0;
    for (const std::vector<word_cell>& kinds : kinds_)
      for (const word_cell& c : kinds)
        if (c.size() == 1 && c.passes[0] == pass::forward) longest = std::max(longest, c.duration);
    return longest;
  }
  std::uint32_t max_micros() const noexcept {
    std::uint32_t most = 0;
    for (const word_node& n : nodes_) most = std::max(most, n.micros);
    return most;
  }
  /// Number of F's and backwards of all micro-batches.
  std::size_t ops() const noexcept {
    std::size_t sum = 0;
    for (const word_node& n : nodes_) sum += std::size_t{n.micros} * (shape_.forward_only ? 1u : 2u);
    return sum;
  }
  const schedule& shape() const noexcept { return shape_; }
  bool forward_only() const noexcept { return shape_.forward_only; }
  /// True if two F's, or two backwards, may share a cell.
  bool pairs_one_way() const noexcept { return pairs_one_way_; }

  /// The kind of a cell with these ops, `none` if it may not be used. An op is 3 x its node's place on the rank + its pass's
  /// place in `passes`.
  std::uint16_t find(std::size_t rank, std::size_t op) const noexcept { return lone_[rank][op]; }
  std::uint16_t find(std::size_t rank, std::size_t first, std::size_t second) const noexcept {
    return pairs_[rank][first * lone_[rank].size() + second];
  }
  /// The op of a node of the rank, and one of a kind of cells, as find() takes them.
  std::size_t op_of(std::size_t rank, std::size_t node, pass p) const noexcept {
    const auto& local = locals_[rank];
    const auto at = static_cast<std::size_t>(std::find(local.begin(), local.end(), node) - local.begin());
    return 3 * at + static_cast<std::size_t>(std::find(passes.begin(), passes.end(), p) - passes.begin());
  }
  std::size_t op_of(std::size_t rank, const word_cell& c, std::size_t k) const noexcept {
    return op_of(rank, c.nodes[k], c.passes[k]);
  }
  /// The other form of a backward, B for I and I for B; an F itself.
  static constexpr std::size_t other_form(std::size_t op) noexcept {
    return op % 3 == 0 ? op : op % 3 == 1 ? op + 1 : op - 1;
  }

  /// The op of a node's j-th micro-batch.
  op op_at(std::uint16_t node, pass p, std::uint32_t j) const noexcept {
    const word_node& n = nodes_[node];
    const std::uint32_t micro = shape_.placement.replica_begin(n.replica) + j;
    const bool again = p != pass::forward && !recomputed_.empty() && recomputed_[n.stage];
    return {again ? with_recompute(p) : p, shape_.placement.chunk_of(n.stage, micro), n.stage, micro};
  }

  /// The cell of a kind with these micro-batches of its nodes.
  cell cell_at(const word_cell& c, std::array<std::uint32_t, 2> micros) const noexcept {
    const op first = op_at(c.nodes[0], c.passes[0], micros[0]);
    return c.size() == 1 ? cell(first) : cell(first, op_at(c.nodes[1], c.passes[1], micros[1]));
  }

  /// The same with other limits of memory, by rank.
  word_table with_caps(std::vector<double> caps) const {
    word_table other = *this;
    for (double& cap : caps) cap = with_rounding(cap);
    other.caps_ = std::move(caps);
    return other;
  }

  /// The half of a problem that is its own mirror image, ranks r and pp - 1 - r; nothing if it is not.
  std::optional<word_table> folded() const {
    if (!is_symmetric()) return std::nullopt;
    word_table half = *this;
    const auto mirrored = [&](std::uint16_t& queue) {
      if (queue != word_cell::none && nodes_[queue / 2].rank >= ranks() / 2)
        queue = static_cast<std::uint16_t>(2 * mirror(queue / 2) + queue % 2);
    };
    for (auto* rows : {&half.lone_, &half.pairs_, &half.locals_}) rows->resize(ranks() / 2);
    half.kinds_.resize(ranks() / 2), half.caps_.resize(ranks() / 2);
    for (auto& kinds : half.kinds_)
      for (word_cell& c : kinds) mirrored(c.gives[0]), mirrored(c.gives[1]);
    for (word_node& n : half.nodes_)
      if (n.rank >= ranks() / 2) n.micros = 0;
    return half;
  }

  /// The kind of cells on the mirror rank that is the mirror image of one. @pre folded()
  std::uint16_t mirror_of(std::size_t rank, std::size_t kind) const {
    const word_cell& c = kinds_[rank][kind];
    const std::size_t other = ranks() - 1 - rank;
    if (c.is_weight()) return weight_kind(other);
    std::array<std::size_t, 2> ops{};
    for (std::size_t k = 0; k < c.size(); ++k) ops[k] = op_of(other, mirror(c.nodes[k]), c.passes[k]);
    return c.size() == 1 ? find(other, ops[0]) : find(other, ops[0], ops[1]);
  }

 private:
  std::uint16_t mirror(std::size_t node) const {
    const std::size_t stages = shape_.stages();
    return static_cast<std::uint16_t>(node < stages ? node + stages : node - stages);
  }
  bool is_symmetric() const {
    if (shape_.placement.replicas() != 2 || ranks() % 2 != 0 || shape_.micro % 2 != 0) return false;
    for (std::size_t n = 0; n < nodes_.size(); ++n)
      if (nodes_[n].rank + nodes_[mirror(n)].rank + 1 != ranks()) return false;
    for (std::size_t rank = 0; rank < ranks(); ++rank) {
      if (caps_[rank] != caps_[ranks() - 1 - rank] || kinds_[rank].size() != kinds_[ranks() - 1 - rank].size())
        return false;
      for (std::size_t i = 0; i < kinds_[rank].size(); ++i)
        if (!is_dropped(rank, i)) {
          const std::uint16_t image = mirror_of(rank, i);
          if (image == word_cell::none || !kinds_[rank][i].costs_as(kinds_[ranks() - 1 - rank][image])) return false;
        }
    }
    for (std::size_t n = 0; n < nodes_.size(); ++n)
      if (!(weights_[n] == weights_[mirror(n)]) || (!alike() && !ops_are_symmetric(static_cast<std::uint16_t>(n))))
        return false;
    return true;
  }
  bool ops_are_symmetric(std::uint16_t node) const {
    for (std::uint32_t j = 0; j < nodes_[node].micros; ++j)
      for (const pass p : passes) {
        if (p != pass::forward && forward_only()) continue;
        const auto exact = [&](std::uint16_t n) { return exact_cell_(*this, nodes_[n].rank, op_at(n, p, j)); };
        if (!exact(node).costs_as(exact(mirror(node)))) return false;
      }
    return true;
  }
  bool is_dropped(std::size_t rank, std::size_t kind) const {
    const word_cell& c = kinds_[rank][kind];
    if (c.is_weight()) return false;
    return (c.size() == 1 ? find(rank, op_of(rank, c, 0)) : find(rank, op_of(rank, c, 0), op_of(rank, c, 1))) != kind;
  }

  void add_node(std::uint32_t replica, std::uint32_t stage) {
    const placement& where = shape_.placement;
    const std::uint32_t second = std::min(shape_.micro, where.replica_begin(1));
    const std::uint32_t micros = replica == 0 ? second : shape_.micro - second;
    const std::uint32_t rank = where.rank_of_stage(replica)[stage];
    locals_[rank].push_back(static_cast<std::uint16_t>(nodes_.size()));
    nodes_.push_back({static_cast<std::uint16_t>(replica), static_cast<std::uint16_t>(stage), rank, micros});
  }

  template <typename Costs>
  void add_kinds(std::uint32_t rank, const Costs& costs, pass_pair_set pairs) {
    const auto& local = locals_[rank];
    const std::size_t ops = 3 * local.size();
    lone_.emplace_back(ops, word_cell::none);
    pairs_.emplace_back(ops * ops, word_cell::none);
    kinds_.emplace_back();
    const auto op_of = [&](std::size_t i, std::uint32_t j) { return op_at(local[i / 3], passes[i % 3], j); };
    const auto add = [&](std::uint16_t& entry, const cell& c) {
      entry = static_cast<std::uint16_t>(kinds_[rank].size());
      kinds_[rank].push_back(price(rank, c, costs));
    };
    for (std::size_t a = 0; a < ops; ++a) {
      if (nodes_[local[a / 3]].micros == 0 || (a % 3 != 0 && forward_only())) continue;
      add(lone_[rank][a], op_of(a, 0));
    }
    for (std::size_t a = 0; a < ops; ++a)
      for (std::size_t b = 0; b < ops; ++b) {
        if (lone_[rank][a] == word_cell::none || lone_[rank][b] == word_cell::none) continue;
        const std::uint32_t other = a / 3 == b / 3 ? 1 : 0;
        if (nodes_[local[a / 3]].micros <= other) continue;
        const cell c(op_of(a, 0), op_of(b, other));
        const pass_pair kept{without_recompute(c[0].pass), without_recompute(c[1].pass)};
        if (kept.first > kept.second || !(pairs.contains(kept) || pairs.contains(pair_of(c)))) continue;
        add(pairs_[rank][a * ops + b], c);
        pairs_one_way_ = pairs_one_way_ || (kept.first == pass::forward) == (kept.second == pass::forward);
      }
    drop_dominated(rank);
    kinds_[rank].push_back({});  // the sign for a W
  }

  // A B alone that takes as long as its I and W, and an F with an I that takes as long as the F with the B, are never better,
  // unless they need less memory.
  void drop_dominated(std::uint32_t rank) {
    const std::size_t ops = lone_[rank].size();
    for (std::size_t i = 1; i < ops; i += 3) {
      std::uint16_t &input = lone_[rank][i], &whole = lone_[rank][i + 1];
      if (input == word_cell::none) continue;
      if (halves_are_as_good(kinds_[rank][input], kinds_[rank][whole])) whole = word_cell::none;
      for (std::size_t f = 0; f < ops; f += 3) {
        std::uint16_t& split = pairs_[rank][f * ops + i];
        const std::uint16_t with = pairs_[rank][f * ops + i + 1];
        if (split == word_cell::none || with == word_cell::none) continue;
        const word_cell &a = kinds_[rank][split], &b = kinds_[rank][with];
        if (b.duration <= a.duration && b.arrives[0] <= a.arrives[0] && b.arrives[1] <= a.arrives[1] &&
            b.transient <= a.transient && b.fall >= a.fall)
          split = word_cell::none;
      }
    }
  }
  bool halves_are_as_good(const word_cell& input, const word_cell& whole) const {
    const word_weight& weight = weights_[input.nodes[0]];
    const double most = std::max({input.transient, -input.fall, weight.transient - input.fall});
    return input.duration + weight.duration <= whole.duration && most <= whole.transient;
  }

  // The costs of a cell.
  template <typename Costs>
  word_cell price(std::uint32_t rank, const cell& c, const Costs& costs) const {
    word_cell to;
    to.duration = duration_of(costs, rank, c);
    to.before = time_to_receive(shape_, costs, rank, c), to.after = time_to_send(shape_, costs, rank, c);
    for (std::size_t k = 0; k < c.size(); ++k) price_op(to, rank, c, k, costs);
    return to;
  }
  template <typename Costs>
  void price_op(word_cell& to, std::uint32_t rank, const cell& c, std::size_t k, const Costs& costs) const {
    const op o = c[k];
    const std::uint16_t node =
        static_cast<std::uint16_t>(shape_.placement.replica_of(o.micro) * shape_.stages() + o.stage);
    const bool forward = o.pass == pass::forward;
    to.nodes[k] = node, to.passes[k] = without_recompute(o.pass);
    to.takes[k] = static_cast<std::uint16_t>(2 * node + (forward ? 0 : 1)), to.is_source[k] = forward && o.stage == 0;
    if (!forward && to.passes[k] == pass::backward_input) to.delays[k] = node;
    if (const auto out = output_of(o, shape_.chain())) {
      to.gives[k] = static_cast<std::uint16_t>(forward ? 2 * (node + 1) : 2 * (node - 1) + 1);
      to.arrives[k] = time_to_arrive(shape_, costs, rank, c, k, *out);
    } else if (forward && !forward_only()) {
      to.gives[k] = static_cast<std::uint16_t>(2 * node + 1);  // the backward of the last stage follows its F
    }
    const bool again = !recomputed_.empty() && recomputed_[o.stage];
    const auto bytes = [&](pass p) { return by_bytes_ ? bytes_of(costs, o, p) : activations_of(node, p); };
    if (by_bytes_) to.transient += transient_of(costs, o);
    if (forward) {
      to.rise += bytes(pass::forward);
      to.fall += forward_only() ? bytes(pass::forward) : again ? bytes(pass::recompute) : 0;
    } else {
      to.rise += again ? bytes(pass::recompute) : 0;
      to.fall -= bytes(to.passes[k]);
    }
  }
  double activations_of(std::uint16_t node, pass p) const {
    const auto one = static_cast<double>(units_[nodes_[node].rank].weight[nodes_[node].replica]);
    return p == pass::forward || p == pass::recompute ? one : p == pass::backward_input ? 0 : -one;
  }

  template <typename Costs>
  word_weight price_weight(std::uint16_t node, std::uint32_t j, const Costs& costs) const {
    if (forward_only()) return {};
    const op w = with_pass(op_at(node, pass::forward, j), pass::backward_weight);
    return {
        .duration = duration_of(costs, nodes_[node].rank, cell(w)),
        .transient = by_bytes_ ? transient_of(costs, w) : 0,
        .fall = by_bytes_ ? -bytes_of(costs, w, pass::backward_weight) : -activations_of(node, pass::backward_weight)};
  }

  schedule shape_;  // without cells
  std::vector<bool> recomputed_;
  bool by_bytes_ = false;
  std::vector<word_node> nodes_;
  std::vector<std::vector<std::uint16_t>> locals_;  // [rank]: nodes
  std::vector<activation_unit> units_;
  std::vector<double> caps_;
  std::vector<std::vector<word_cell>> kinds_;
  std::vector<std::vector<std::uint16_t>> lone_, pairs_;  // [rank][op], [rank][op x op]
  bool pairs_one_way_ = false;
  std::vector<word_weight> weights_;
  std::function<word_cell(const word_table&, std::uint32_t, const cell&)>
      exact_cell_;  // empty: micro-batches are alike
  std::function<word_weight(const word_table&, std::uint16_t, std::uint32_t)> exact_weight_;
};

}  // namespace pipesched::detail
