// SPDX-License-Identifier: MIT
#pragma once

// The greedy search of zbv_greedy, with two stages per rank: rank i hosts stage i on the way down the V and 2pp-1-i on
// the way back up. In each round every rank takes an I, then a forward.
// Source: Qi et al., "Pipeline Parallelism with Controllable Memory" (arXiv 2405.15362); the authors' zbv.py
// (sail-sg/zero-bubble-pipeline-parallelism 39f2c186).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/detail/greedy_ranks.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

class zbv_search : public greedy_ranks {
 public:
  // Whether a W that does not fit into the gap before an I on the way back, or before a forward, runs if the gap would
  // make its rank idle longest. `idle_before`: the idle times of an earlier search, or none; a rank may idle longer by
  // as much as it idled less than the others then.
  struct rules {
    bool fill_before_backward, fill_before_forward;
    std::vector<double> idle_before{};
  };

  zbv_search(const placement& where, std::int64_t micro, const stage_costs& costs, double limit)
      : greedy_ranks(where, micro, costs, limit), limit_(limit), slack_(count()), takes_down_(count()) {}

  /// @param go_on  asked once a round; the search stops where it says no
  /// @returns whether the order is whole
  template <typename GoOn>
  bool run(const rules& with, GoOn&& go_on) {
    restart();
    fill_before_backward_ = with.fill_before_backward, fill_before_forward_ = with.fill_before_forward;
    const std::vector<double>& allowed = with.idle_before;
    const double longest = allowed.empty() ? 0 : *std::max_element(allowed.begin(), allowed.end());
    for (std::size_t i = 0; i < count(); ++i) slack_[i] = allowed.empty() ? 0 : longest - allowed[i];
    warm_up();
    while (inputs(0) < micro()) {
      const std::size_t before = taken();
      take_backwards();
      for (std::size_t i = 0; i < count(); ++i) take_forward(i);
      if (taken() == before)
        throw schedule_error(concat({"zbv_greedy finds no order within a memory limit of ", limit_,
                                     " activations per rank, because of rounding; nearest ", 1.001 * limit_}));
      if (!go_on()) return false;
    }
    for (std::size_t i = 0; i < count(); ++i) put_all_W(i);
    return true;
  }

  std::vector<double> bubbles() const {
    std::vector<double> all;
    for (std::size_t i = 0; i < count(); ++i) all.push_back(bubble(i));
    return all;
  }

 private:
  std::size_t down(std::size_t i) const { return i; }
  std::size_t back(std::size_t i) const { return stages() - 1 - i; }
  bool last(std::size_t i) const { return i + 1 == count(); }

  // Whether a forward fits. On the way down it leaves room for one micro-batch to come back up, and micro-batches that
  // have come back will free their memory; so no rank waits for memory that is never freed.
  bool fits_F(std::size_t i, bool way_back) const {
    if (way_back) return fits(back(i));
    return fits(down(i)) && leaves_room(down(i), forwards(down(i)) - forwards(back(i)) + 1, back(i));
  }
  bool put_if_possible(std::size_t i, bool way_back) {
    const std::size_t s = way_back ? back(i) : down(i);
    if (!can_F(s) || !fits_F(i, way_back)) return false;
    put_F(s);
    return true;
  }

  void warm_up() {
    // The first micro-batch goes down. Before it arrives on its way back, each rank takes as many more as fit.
    for (std::size_t i = 0; i < count(); ++i) put_F(down(i));
    put_F(back(count() - 1));
    for (std::size_t i = count() - 1; i-- > 0;) {
      const double arrival = arrival_of_F(back(i));
      const auto fit_before = [&] {
        for (std::size_t j = 0; j <= i; ++j)
          if (!fits_F(j, false)) return false;
        return true;
      };
      while (forwards(down(i)) < micro() && clock(i) + duration_of_F(down(i)) <= arrival && fits(down(i), 2 * i + 2) &&
             fit_before())
        for (std::size_t j = 0; j <= i; ++j) put_F(down(j));
      put_F(back(i));
    }
    // No rank takes fewer forwards than the rank before it; the ways down and back alternate.
    const auto all = [&](std::size_t i) { return forwards(down(i)) + forwards(back(i)); };
    bool way_back = false;
    for (std::size_t i = 1; i < count(); ++i)
      for (int refused = 0; refused < 2;) {
        const std::size_t here = forwards(back(i)), above = forwards(back(i - 1));
        if (all(i) >= all(i - 1) && (here > above || above == micro())) break;
        bool any = false;
        for (std::size_t j = count(); j-- > i;) any = put_if_possible(j, way_back) || any;
        way_back = !way_back;
        refused = any ? 0 : refused + 1;
      }
  }

  void fill(std::size_t i, double arrival, bool one_more) {
    fill_gap(i, arrival);
    if (one_more && owed(i) > 0 && arrival - clock(i) > std::max(longest_bubble(), slack_[i]) - bubble(i)) put_W(i);
  }

  void take_backwards() {
    // The ranks that take an I on the way down: those that have taken more on the way back, where the gradient exists.
    for (std::size_t i = 0; i < count(); ++i)
      takes_down_[i] = inputs(down(i)) < inputs(back(i)) &&
                       (last(i) || inputs(down(i + 1)) > inputs(down(i)) || inputs(back(i)) == micro());
    for (std::size_t i = count(); i-- > 0;)
      if (takes_down_[i] && can_I(down(i))) {
        if (!last(i)) fill(i, arrival_of_I(down(i)), true);
        put_I(down(i));
      }
    for (std::size_t i = 0; i < count(); ++i)
      if (!takes_down_[i] && can_I(back(i))) {
        if (i > 0) fill(i, arrival_of_I(back(i)), fill_before_backward_);
        put_I(back(i));
      }
  }

  void take_forward(std::size_t i) {
    if (forwards(back(i)) == micro()) return;
    const bool way_back = can_F(back(i));
    const std::size_t s = way_back ? back(i) : down(i);
    if (!can_F(s)) return;
    while (!fits_F(i, way_back) && owed(i) > 0) put_W(i);
    if (!fits_F(i, way_back)) return;
    fill(i, arrival_of_F(s), fill_before_forward_);
    put_F(s);
  }

  bool fill_before_backward_ = false, fill_before_forward_ = false;
  double limit_;
  std::vector<double> slack_;
  std::vector<char> takes_down_;
};

}  // namespace pipesched::detail
