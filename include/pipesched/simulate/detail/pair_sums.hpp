// SPDX-License-Identifier: MIT
#pragma once

// Sums of the work of one rank, less what its overlapped pairs can save, by the number of pairs.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/simulate/detail/bound_unit.hpp"
#include "pipesched/simulate/detail/most_value.hpp"
#include "pipesched/simulate/detail/pair_times.hpp"
#include "pipesched/simulate/detail/rank_frame.hpp"

namespace pipesched::detail {

/// Makes the sums of one rank.
class pair_sum_maker {
 public:
  constexpr pair_sum_maker(const std::vector<bound_unit>& all, const std::vector<std::size_t>& hosted,
                           const pair_times& times, const rank_frame& frame)
      : times_(times), frame_(frame) {
    for (std::size_t i : hosted) units_.push_back(&all[i]);
    for (const bound_unit* u : units_) {
      forwards_ += static_cast<std::size_t>(u->count);
      if (u->trained) gradients_ += static_cast<std::size_t>(u->count);
    }
    for (const std::size_t other : {F, B, I, W})
      for (const std::size_t p : {F, B, I, W})
        if (!is_forward_backward(p, other) && times_.any(pass_of(p), pass_of(other))) other_pairs_ = true;
  }

  constexpr std::size_t forwards() const { return forwards_; }
  constexpr std::size_t gradients() const { return gradients_; }

  constexpr std::vector<pair_sum> make() {
    std::vector<pair_sum> sums;
    std::vector<sum_weights> mixes{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    if (other_pairs_) mixes.insert(mixes.end(), {{0.5, 0.5, 0}, {0.5, 0, 0.5}, {0, 0.5, 0.5}});
    using order = std::array<std::size_t, 4>;
    const std::array<order, 4> orders{order{F, B, I, W}, {W, F, B, I}, {B, I, F, W}, {B, I, W, F}};
    for (const sum_weights& w : mixes) {
      weights_ = w;
      if (!other_pairs_) {
        for (auto& of_pass : charged_) of_pass.assign(units_.size(), 0);
        add(sums);
        continue;
      }
      std::vector<std::array<std::vector<double>, 4>> seen;
      for (std::size_t k = 0; k <= orders.size(); ++k) {
        charge(k == 0, orders[k == 0 ? 0 : k - 1]);
        if (std::find(seen.begin(), seen.end(), charged_) != seen.end()) continue;
        seen.push_back(charged_);
        add(sums);
      }
    }
    return sums;
  }

 private:
  enum index : std::size_t { F, B, I, W };  // of passes
  static constexpr double never = -std::numeric_limits<double>::infinity();

  static constexpr pass pass_of(std::size_t i) { return static_cast<pass>(i + 1); }
  static constexpr bool is_forward_backward(std::size_t a, std::size_t b) {
    return (a == F && (b == B || b == I)) || (b == F && (a == B || a == I));
  }

  // Ops that the stage has.
  constexpr bool has(std::size_t p, std::size_t u) const {
    const bound_unit& unit = *units_[u];
    return p == F || (p == B   ? unit.trained && unit.whole_backward
                      : p == I ? unit.trained && unit.input_backward
                               : unit.split_backward);
  }
  constexpr double alone(std::size_t p, std::size_t u) const { return units_[u]->of(pass_of(p)).alone; }
  constexpr double gradient(std::size_t u) const {
    return std::min(has(B, u) ? alone(B, u) : pair_times::none, has(I, u) ? alone(I, u) : pair_times::none);
  }
  constexpr double weight_gradient(std::size_t u) const { return has(W, u) ? alone(W, u) : 0; }
  constexpr double backward(std::size_t u) const {
    return std::min(has(B, u) ? alone(B, u) : pair_times::none,
                    has(I, u) ? alone(I, u) + weight_gradient(u) : pair_times::none);
  }

  // Least time that an op adds to the sum in a cell of its own. B, or I and W, add the same.
  constexpr double counted(std::size_t p, std::size_t u) const {
    if (p == F) return alone(F, u);
    if (p == W) return weights_.work * weight_gradient(u);
    return weights_.gradients * gradient(u) + weights_.work * (backward(u) - (p == I ? weight_gradient(u) : 0));
  }
  // Part of a cell's duration that the sum counts.
  constexpr double share(std::size_t a, std::size_t b) const {
    if (a == F || b == F) return 1;
    return a == W && b == W ? weights_.work : weights_.gradients + weights_.work;
  }
  // Time that the sum saves by a cell of two ops.
  constexpr double saving(std::size_t a, std::size_t u, std::size_t b, std::size_t v) const {
    if (!times_.any(pass_of(a), pass_of(b)) || !has(a, u) || !has(b, v)) return never;
    const double time = times_.of(pass_of(a), u, pass_of(b), v);
    return time == pair_times::none ? never : counted(a, u) + counted(b, v) - share(a, b) * time;
  }

  // Charges the ops with what pairs save, those of F with a backward aside: the charges of two ops are together no less than
  // their saving. So the savings of any pairs, disjoint as they are, are no more than the sum of all charges.
  // First each op pays its largest saving, or half of it; then the passes in order lower theirs as far as the others allow.
  constexpr void charge(bool halves, const std::array<std::size_t, 4>& order) {
    for (auto& of_pass : charged_) of_pass.assign(units_.size(), 0);
    const auto partners = [&](std::size_t a, std::size_t u, auto&& f) {
      for (std::size_t b : {F, B, I, W}) {
        if (is_forward_backward(a, b) || !times_.any(pass_of(a), pass_of(b))) continue;
        for (std::size_t v = 0; v < units_.size(); ++v) f(saving(a, u, b, v), b, v);
      }
    };
    std::array<std::vector<double>, 4> start = charged_;
    for (std::size_t a : {F, B, I, W})
      for (std::size_t u = 0; u < units_.size(); ++u)
        partners(a, u, [&](double saved, std::size_t, std::size_t) {
          start[a][u] = std::max(start[a][u], halves ? saved / 2 : saved);
        });
    charged_ = start;
    for (std::size_t a : order)
      for (std::size_t u = 0; u < units_.size(); ++u) {
        double least = 0;
        partners(a, u, [&](double saved, std::size_t b, std::size_t v) {
          least = std::max(least, a == b && u == v ? saved / 2 : saved - charged_[b][v]);
        });
        charged_[a][u] = least;
      }
  }
  // Charges of the backward of one micro-batch.
  constexpr double charged_backward(std::size_t u) const {
    return std::max(has(B, u) ? charged_[B][u] : 0,
                    (has(I, u) ? charged_[I][u] : 0) + (has(W, u) ? charged_[W][u] : 0));
  }

  // Saving of a pair of F and backward beyond the charges of its ops, which are not due then.
  constexpr double net(std::size_t backward_pass, std::size_t u, std::size_t v) const {
    const double saved = saving(F, u, backward_pass, v);
    if (saved == never) return never;
    const double still_due = backward_pass == I && has(W, v) ? charged_[W][v] : 0;
    return saved - charged_[F][u] - (charged_backward(v) - still_due);
  }

  // Adds the sums of the present mix and charges.
  constexpr void add(std::vector<pair_sum>& sums) {
    const std::size_t n = units_.size();
    for (const std::size_t p : {B, I}) {
      nets_[p].assign(times_.any(pass::forward, pass_of(p)) ? n * n : 0, never);
      for (std::size_t k = 0; k < nets_[p].size(); ++k) nets_[p][k] = net(p, k / n, k % n);
    }
    pair_sum s;
    s.weights = weights_;
    for (std::size_t u = 0; u < units_.size(); ++u) {
      double of_one = counted(F, u) - charged_[F][u];
      if (units_[u]->trained) of_one += counted(has(B, u) ? B : I, u) - charged_backward(u);
      if (units_[u]->trained && !has(B, u)) of_one += counted(W, u);
      s.total += units_[u]->count * of_one;
    }
    s.tail = weights_.gradients * frame_.after_gradient;
    if (weights_.forwards > 0) s.tail = never;
    s.first_forwards = first_forwards();
    s.left = left_after_last_forward();
    const auto exists = [](double saved) { return saved > never; };
    const bool with_B = std::any_of(nets_[B].begin(), nets_[B].end(), exists),
               with_I = std::any_of(nets_[I].begin(), nets_[I].end(), exists);
    s.saved_by_pairs = {0};
    if (!with_B && !with_I) {
      sums.push_back(std::move(s));
      return;
    }
    if (with_B != with_I || units_.size() > 1) add_with_pairs(sums, s, with_B, with_I, false);
    if (with_B && with_I) add_with_pairs(sums, s, false, true, true);
    if (with_B && with_I && units_.size() > 1) add_with_pairs(sums, s, true, false, true);
  }

  // The most that p pairs save, by prices of their two ops which are together no less than any pair's saving. Prices may be
  // negative. `other`: a pair of the other backward costs as much more as its saving may be above the prices.
  constexpr void add_with_pairs(std::vector<pair_sum>& sums, pair_sum s, bool with_B, bool with_I, bool other) {
    const std::size_t n = units_.size();
    const auto saved = [&](std::size_t u, std::size_t v) {
      return std::max(with_B ? nets_[B][u * n + v] : never, with_I ? nets_[I][u * n + v] : never);
    };
    std::vector<double> of_F(n, never), of_backward(n, never);
    const auto for_each = [&](auto&& f) {
      for (std::size_t u = 0; u < n; ++u)
        for (std::size_t v = 0; v < n; ++v) f(u, v);
    };
    for_each([&](std::size_t u, std::size_t v) { of_F[u] = std::max(of_F[u], saved(u, v)); });
    for_each([&](std::size_t u, std::size_t v) {
      if (saved(u, v) > never) of_backward[v] = std::max(of_backward[v], saved(u, v) - of_F[u]);
    });
    of_F.assign(n, never);
    for_each([&](std::size_t u, std::size_t v) {
      if (saved(u, v) > never) of_F[u] = std::max(of_F[u], saved(u, v) - of_backward[v]);
    });
    double more = never;
    if (other)
      for_each([&](std::size_t u, std::size_t v) {
        const double of_other = nets_[with_B ? I : B][u * n + v];
        if (of_other > never) more = std::max(more, of_other - of_F[u] - of_backward[v]);
      });
    if (other && !(more > never && more < pair_times::none)) return;
    const std::vector<double> forwards =
        prefix_sums([&](std::size_t u) { return of_F[u]; }, [](const bound_unit&) { return true; });
    const std::vector<double> backwards =
        prefix_sums([&](std::size_t u) { return of_backward[u]; }, [](const bound_unit& u) { return u.trained; });
    s.saved_by_pairs.clear();
    for (std::size_t p = 0; p < std::min(forwards.size(), backwards.size()); ++p)
      s.saved_by_pairs.push_back(forwards[p] + backwards[p] + (other && with_B ? static_cast<double>(p) * more : 0));
    s.saved_by_B = !other ? 0 : with_B ? -more : more;
    sums.push_back(std::move(s));
  }

  // [n]: the sum of the n largest values, each as often as its unit has micro-batches; negative infinities left out.
  template <typename Value, typename Filter>
  constexpr std::vector<double> prefix_sums(const Value& value, const Filter& filter) const {
    std::vector<std::pair<double, std::size_t>> values;
    for (std::size_t u = 0; u < units_.size(); ++u)
      if (filter(*units_[u]) && value(u) > never)
        values.push_back({value(u), static_cast<std::size_t>(units_[u]->count)});
    std::sort(values.begin(), values.end(), std::greater<>());
    std::vector<double> sums{0};
    for (const auto& [one, count] : values)
      for (std::size_t i = 0; i < count; ++i) sums.push_back(sums.back() + one);
    return sums;
  }

  // [k]: most time of k forwards whose activations fit into the memory together. Those of one stage lie between its first
  // forward and the rank's first backward.
  constexpr std::vector<double> first_forwards() const {
    const auto value = [&](std::size_t u) { return std::max(0.0, counted(F, u) - charged_[F][u]); };
    std::vector<double> first = prefix_sums(value, [](const bound_unit&) { return true; });
    std::vector<sized_value> all;
    for (std::size_t u = 0; u < units_.size(); ++u) {
      const double room = std::max(0.0, frame_.first_backward - units_[u]->first_forward);
      const double whole = units_[u]->count * value(u), part = whole > room ? room / whole : 1;
      all.push_back({units_[u]->trained ? part * units_[u]->count * units_[u]->kept : 0, part * whole});
    }
    const double most = most_value(densest_first(std::move(all)), frame_.first_bytes);
    for (double& time : first) time = std::min(time, most);
    return first;
  }

  // Most time of a backward, or of a W, that is left after the last F.
  constexpr double left_backward(std::size_t u) const {
    return std::max(0.0, counted(has(B, u) ? B : I, u) + (has(B, u) ? 0 : counted(W, u)) - charged_backward(u));
  }
  constexpr double left_weight(std::size_t u) const {
    return has(W, u) ? std::max(0.0, counted(W, u) - charged_[W][u]) : 0;
  }

  // [x]: most time of what is left after the last F, x backwards that have not begun or fewer, and W's.
  constexpr std::vector<double> left_after_last_forward() const {
    const auto trained = [](const bound_unit& u) { return u.trained; };
    const std::vector<double> whole = prefix_sums([&](std::size_t u) { return left_backward(u); }, trained),
                              weights = prefix_sums([&](std::size_t u) { return left_weight(u); }, trained);
    const std::size_t live = std::min(frame_.max_live, gradients_);
    std::vector<double> left;
    for (std::size_t x = 0; x <= live; ++x) left.push_back(whole[x] + weights[live - x]);
    if (frame_.bytes < std::numeric_limits<double>::max()) {
      const std::vector<double> under_bytes = left_under_bytes(whole);
      left.resize(std::min(left.size(), under_bytes.size()));
      for (std::size_t x = 0; x < left.size(); ++x) left[x] = std::min(left[x], under_bytes[x]);
    }
    for (std::size_t x = 1; x < left.size(); ++x) left[x] = std::max(left[x], left[x - 1]);
    return left;
  }
  // The same under a limit of bytes: the backwards take the fewest bytes, the W's the room that is left, at most so many as
  // fit. In parts where stages differ; else whole ones, which is made concave in x.
  constexpr std::vector<double> left_under_bytes(const std::vector<double>& whole) const {
    std::vector<std::pair<double, double>> kept;  // bytes of one, and how many
    std::vector<sized_value> contexts;
    const bound_unit* first = nullptr;
    bool alike = true;
    double worth = 0;
    for (std::size_t u = 0; u < units_.size(); ++u) {
      const bound_unit& unit = *units_[u];
      if (!unit.trained) continue;
      kept.push_back({unit.kept, unit.count});
      contexts.push_back({unit.count * unit.context, unit.count * left_weight(u)});
      if (!first) first = &unit, worth = left_weight(u);
      alike = alike && unit.kept == first->kept && unit.context == first->context && left_weight(u) == worth;
    }
    std::sort(kept.begin(), kept.end());
    contexts = densest_first(std::move(contexts));
    const auto best_weights = [&](double bytes) {
      if (alike && first->context > 0)
        bytes = first->context * static_cast<double>(static_cast<std::uint64_t>(bytes / first->context));
      return most_value(contexts, bytes);
    };
    const double most = most_left();
    std::vector<double> left;
    double bytes = frame_.bytes;
    std::size_t x = 0;
    for (const auto& [size, count] : kept)
      for (double i = 0; i < count; ++i, ++x, bytes -= size) {
        if (bytes < 0) return concave(left);
        left.push_back(std::min(most, whole[x] + best_weights(bytes)));
      }
    if (bytes >= 0) left.push_back(std::min(most, whole[x] + best_weights(bytes)));
    return concave(left);
  }
  // The most time of backwards and W's that are left after the last F, less what the time from then on is longer than its
  // least: their activations fit into the memory together, and, on a rank of few units, each gradient of a stage ends before
  // the tail of that stage.
  constexpr double most_left() const {
    constexpr std::size_t few = 16;
    const bool by_time = units_.size() <= few;
    const auto left_in = [&](double time) {
      std::vector<sized_value> all;
      for (std::size_t u = 0; u < units_.size(); ++u) {
        const bound_unit& unit = *units_[u];
        if (!unit.trained) continue;
        const double one = left_backward(u), gradients = unit.count * (one - (has(I, u) ? left_weight(u) : 0));
        const double room = std::max(0.0, time - after_gradient(unit));
        const double part = by_time && gradients > room ? room / gradients : 1;
        all.push_back({part * unit.count * unit.kept, part * unit.count * one});
        all.push_back({unit.count * unit.context, unit.count * left_weight(u)});
      }
      return most_value(densest_first(std::move(all)), frame_.bytes) - (time - frame_.after_forward);
    };
    const double least = left_in(frame_.after_forward);
    if (!by_time) return least;
    // A concave function of the time: its largest value, by thirds.
    double low = frame_.after_forward, high = low;
    double work = 0;
    for (std::size_t u = 0; u < units_.size(); ++u)
      if (units_[u]->trained)
        high = std::max(high, after_gradient(*units_[u])), work += units_[u]->count * left_backward(u);
    high += work;
    const double margin = 1e-12 * high;
    for (int step = 0; step < 60; ++step) {
      const double a = low + (high - low) / 3, b = high - (high - low) / 3;
      if (left_in(a) < left_in(b))
        low = a;
      else
        high = b;
    }
    const double most = left_in((low + high) / 2) + margin;
    return most > least + 2 * margin ? most : least;
  }
  // Least time from the end of a gradient's cell to the end of the step.
  static constexpr double after_gradient(const bound_unit& u) {
    double after = std::numeric_limits<double>::infinity();
    if (u.whole_backward) after = u.after_cell(pass::backward);
    return u.input_backward ? std::min(after, u.after_cell(pass::backward_input)) : after;
  }

  // The least concave sequence that is nowhere less.
  static constexpr std::vector<double> concave(const std::vector<double>& values) {
    std::vector<std::size_t> hull;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto below = [&](std::size_t a, std::size_t b) {  // b is not above the line from a to i
        return (values[b] - values[a]) * static_cast<double>(i - a) <=
               (values[i] - values[a]) * static_cast<double>(b - a);
      };
      while (hull.size() > 1 && below(hull[hull.size() - 2], hull.back())) hull.pop_back();
      hull.push_back(i);
    }
    std::vector<double> all = values;
    for (std::size_t h = 1; h < hull.size(); ++h)
      for (std::size_t i = hull[h - 1] + 1; i < hull[h]; ++i)
        all[i] = values[hull[h - 1]] + (values[hull[h]] - values[hull[h - 1]]) * static_cast<double>(i - hull[h - 1]) /
                                           static_cast<double>(hull[h] - hull[h - 1]);
    return all;
  }

  std::vector<const bound_unit*> units_;
  const pair_times& times_;
  rank_frame frame_;
  std::size_t forwards_ = 0, gradients_ = 0;
  bool other_pairs_ = false;  // than those of F with a backward
  sum_weights weights_;
  std::array<std::vector<double>, 4> charged_{};  // [pass][unit]
  std::array<std::vector<double>, 4> nets_{};     // [B or I][unit of F * units + unit of backward]: see net()
};

}  // namespace pipesched::detail
