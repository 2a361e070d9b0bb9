// SPDX-License-Identifier: MIT
#pragma once

// A simple, slow twin of simulate(): recomputes every cell until no time changes. It shares no code with the library
// except the value types.

#include <algorithm>
#include <map>
#include <pipesched/core/schedule.hpp>
#include <tuple>
#include <vector>

namespace pipesched::tests {

/// Start and end of every cell, [rank][cell]. `Costs` needs duration(cell), release(cell, i) and transfer(from, to, tensor).
template <typename Costs>
std::vector<std::vector<std::pair<double, double>>> slow_simulation(const schedule& s, const Costs& costs) {
  using name = std::tuple<char, std::uint32_t, std::uint32_t>;  // letter (an I counts as a B), stage, micro
  struct place {
    std::uint32_t rank;
    std::size_t cell, op;
  };
  std::map<name, place> makers;
  std::vector<std::vector<std::pair<double, double>>> times(s.pp());
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    times[rank].assign(s[rank].size(), {0, 0});
    for (std::size_t i = 0; i < s[rank].size(); ++i)
      for (std::size_t k = 0; k < s[rank][i].size(); ++k) {
        const op o = s[rank][i][k];
        const char l = o.pass == pass::forward           ? 'F'
                       : o.pass == pass::backward_weight ? 'W'
                       : o.pass == pass::recompute       ? 'R'
                                                         : 'B';
        makers[{l, o.stage, o.micro}] = {rank, i, k};
      }
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
      for (std::size_t i = 0; i < s[rank].size(); ++i) {
        const cell& c = s[rank][i];
        // Messages that keep a rank busy: sent one after the other once a cell has ended, received right before one starts.
        const auto sent_by = [&](std::uint32_t from, const cell& of, std::size_t last) {
          double time = 0;
          for (std::size_t k = 0; k < of.size() && k <= last; ++k) {
            const op o = of[k];
            const bool forward = o.pass == pass::forward;
            const bool gradient = !forward && o.pass != pass::backward_weight && o.pass != pass::recompute;
            const std::size_t first =
                s.backward.empty() ? 0
                                   : static_cast<std::size_t>(
                                         std::find_if(s.backward.begin(), s.backward.end(),
                                                      [](stage_backward b) { return b != stage_backward::none; }) -
                                         s.backward.begin());
            if (!(forward && o.stage + 1u < s.stages()) && !(gradient && o.stage > first)) continue;
            const std::uint32_t to = s.placement.rank_of(forward ? o.stage + 1u : o.stage - 1u, o.micro);
            const tensor_id t{forward ? tensor_kind::activation : tensor_kind::gradient, o.stage, o.micro};
            if (to != from && detail::busy_of(costs, from, to, t) != link_busy::none)
              time += costs.transfer(from, to, t);
          }
          return time;
        };
        double start = i == 0 ? 0 : times[rank][i - 1].second + sent_by(rank, s[rank][i - 1], 1);
        double received = 0, latest = 0;
        for (op o : c) {
          std::vector<name> needs;
          const bool sends_gradient =
              o.pass != pass::forward && o.pass != pass::backward_weight && o.pass != pass::recompute;
          if (o.pass == pass::forward && o.stage > 0) needs.push_back({'F', o.stage - 1, o.micro});
          if (sends_gradient && o.stage + 1u < s.stages()) needs.push_back({'B', o.stage + 1, o.micro});
          for (const name& n : needs) {
            const place& m = makers.at(n);
            const cell& maker = s[m.rank][m.cell];
            double arrives = times[m.rank][m.cell].first + detail::release_of(costs, m.rank, maker, m.op);
            double takes = 0;
            const tensor_id t{std::get<0>(n) == 'B' ? tensor_kind::gradient : tensor_kind::activation,
                              static_cast<std::uint16_t>(std::get<1>(n)), o.micro};
            if (m.rank != rank) takes = costs.transfer(m.rank, rank, t);
            const link_busy busy = m.rank == rank ? link_busy::none : detail::busy_of(costs, m.rank, rank, t);
            arrives += takes;
            if (busy != link_busy::none)
              arrives = std::max(arrives, times[m.rank][m.cell].second + sent_by(m.rank, maker, m.op));
            if (busy == link_busy::both) received += takes;
            latest = std::max(latest, arrives);
          }
        }
        start = std::max(start + received, latest);
        const double end = start + detail::duration_of(costs, rank, c);
        if (times[rank][i] != std::pair(start, end)) times[rank][i] = {start, end}, changed = true;
      }
  }
  return times;
}

}  // namespace pipesched::tests
