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
        const char l = o.pass == pass::forward ? 'F' : o.pass == pass::backward_weight ? 'W' : 'B';
        makers[{l, o.stage, o.micro}] = {rank, i, k};
      }
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
      for (std::size_t i = 0; i < s[rank].size(); ++i) {
        const cell& c = s[rank][i];
        double start = i == 0 ? 0 : times[rank][i - 1].second;
        for (op o : c) {
          std::vector<name> needs;
          const bool sends_gradient = o.pass == pass::backward || o.pass == pass::backward_input;
          if (o.pass == pass::forward && o.stage > 0) needs.push_back({'F', o.stage - 1, o.micro});
          if (sends_gradient && o.stage + 1u < s.stages()) needs.push_back({'B', o.stage + 1, o.micro});
          for (const name& n : needs) {
            const place& m = makers.at(n);
            const cell& maker = s[m.rank][m.cell];
            double arrives = times[m.rank][m.cell].first + detail::release_of(costs, m.rank, maker, m.op);
            const tensor_id t{std::get<0>(n) == 'B' ? tensor_kind::gradient : tensor_kind::activation,
                              static_cast<std::uint16_t>(std::get<1>(n)), o.micro};
            if (m.rank != rank) arrives += costs.transfer(m.rank, rank, t);
            start = std::max(start, arrives);
          }
        }
        const double end = start + detail::duration_of(costs, rank, c);
        if (times[rank][i] != std::pair(start, end)) times[rank][i] = {start, end}, changed = true;
      }
  }
  return times;
}

}  // namespace pipesched::tests
