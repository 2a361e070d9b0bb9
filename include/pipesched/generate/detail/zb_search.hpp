// SPDX-License-Identifier: MIT
#pragma once

// The greedy search of zb_greedy, with one stage per rank. In each round every rank takes a forward, if one is
// available and fits into memory, then an I.
// Source: Qi et al., "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 3 and appendix B; the authors'
// zb.py (sail-sg/zero-bubble-pipeline-parallelism 39f2c186).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/detail/greedy_ranks.hpp"

namespace pipesched::detail {

class zb_search : public greedy_ranks {
 public:
  struct switches {
    bool keep_first_backward;  // no forward delays the first backward
    bool prioritize_backward;  // forwards wait where that brings a backward earlier
    bool fill_every_gap;       // a W runs in every gap, even if it delays the next op
  };

  zb_search(const placement& where, std::int64_t micro, const stage_costs& costs, double limit)
      : greedy_ranks(where, micro, costs, limit), wish_(count()) {}

  /// @param go_on  asked once a round; the search stops where it says no
  /// @returns whether the order is whole
  template <typename GoOn>
  bool run(switches s, GoOn&& go_on) {
    restart();
    switches_ = s;
    warm_up();
    for (std::size_t round = 1; round < micro(); ++round) {
      wish_for_forwards();
      for (std::size_t j = 0; j < count(); ++j)
        if (wish_[j]) take_forward(j);
      for (std::size_t j = count(); j-- > 0;) take_backward(j);
      if (!go_on()) return false;
    }
    for (std::size_t j = 0; j < count(); ++j) put_all_W(j);
    return true;
  }

 private:
  // One F per rank, as many more as fit before the first gradient arrives, then the first I of each rank, the last rank
  // first.
  void warm_up() {
    for (std::size_t j = 0; j < count(); ++j) put_F(j);
    std::vector<std::size_t> extra(count(), 0);
    double gradient = 0;  // when the next rank ends its first I
    for (std::size_t j = count(); j-- > 0;) {
      if (j + 1 == count()) {
        gradient = clock(j) + duration_of_I(j);
        continue;
      }
      const double arrival = arrival_of_I(j, gradient), F = duration_of_F(j);
      double end = clock(j);
      while (1 + extra[j] < micro() && fits(j, extra[j] + 1) &&
             !(switches_.keep_first_backward ? end + F > arrival : end >= arrival))
        end += F, ++extra[j];
      gradient = std::max(end, arrival) + duration_of_I(j);
    }
    for (std::size_t j = 1; j < count(); ++j) {  // fewer on each next rank, or all
      const std::size_t before = extra[j - 1];
      extra[j] = std::min(extra[j], 1 + before == micro() ? before : std::max<std::size_t>(before, 1) - 1);
    }
    for (std::size_t j = 0; j < count(); ++j)
      for (; extra[j] > 0; --extra[j]) put_F(j);
    for (std::size_t j = count(); j-- > 0;) put_I(j);
  }

  void wish_for_forwards() {
    for (std::size_t j = 0; j < count(); ++j) {
      wish_[j] = forwards(j) < micro();
      const std::size_t next = j + 1;
      if (!wish_[j] || !switches_.prioritize_backward || next == count() || forwards(j) < forwards(next) + 2) continue;
      const double next_gradient =  // the earliest arrival
          arrival_of_I(j, clock(next) + duration_of_F(next) + duration_of_I(next));
      wish_[j] = clock(j) < next_gradient && (clock(j) + duration_of_F(j) + time_to_fit(j) <= next_gradient ||
                                              next_gradient - clock(j) > longest_bubble() - bubble(j));
    }
    for (std::size_t j = count() - 1; j-- > 0;) wish_[j] = wish_[j] && wish_[j + 1];
  }

  // Takes W's in the gap before `arrival`: those that fit, and one more if the gap would make this rank the one that
  // idles longest, or if every gap is to be filled.
  void fill(std::size_t j, double arrival) {
    fill_gap(j, arrival);
    if (owed(j) > 0 && clock(j) < arrival &&
        (switches_.fill_every_gap || arrival - clock(j) > longest_bubble() - bubble(j)))
      put_W(j);
  }

  void take_forward(std::size_t j) {
    if (!can_F(j)) return;                                 // the rank before held it back
    if (!make_room(j) && forwards(j) > inputs(j)) return;  // the next backward frees memory
    fill(j, arrival_of_F(j));
    put_F(j);
  }

  void take_backward(std::size_t j) {
    fill(j, arrival_of_I(j));
    if (j == 0 && forwards(j) == micro()) put_all_W(j);
    put_I(j);
  }

  switches switches_{};
  std::vector<char> wish_;
};

}  // namespace pipesched::detail
