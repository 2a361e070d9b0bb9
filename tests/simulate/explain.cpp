// SPDX-License-Identifier: MIT

#include "pipesched/simulate/explain.hpp"

#include <doctest/doctest.h>

#include <map>
#include <string>

#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "support/families.hpp"
#include "support/random_costs.hpp"

using namespace pipesched;
using namespace pipesched::tests;

TEST_CASE("explain: the stalls of 1F1B on two ranks, each with the input it waited for") {
  const timeline t = simulate(make_1f1b_schedule({.pp = 2, .micro = 2}));
  const explanation e = explain(t, uniform_costs{});
  REQUIRE(e.stalls.size() == 3);
  CHECK(to_string(e.stalls[0].waiting) == "0B0");
  CHECK(to_string(e.stalls[0].made_by) == "1B0");
  CHECK((e.stalls[0].start == 2 && e.stalls[0].end == 4 && e.stalls[0].made_in == cell_ref{1, 1}));
  CHECK(to_string(e.stalls[1].waiting) == "0B1");
  CHECK((e.stalls[2].before == cell_ref{1, 0} && e.stalls[2].start == 0 && e.stalls[2].end == 1));
  std::string path;
  for (cell_ref c : e.critical_path) path += to_string(t.schedule[c.rank][c.index]) + ' ';
  CHECK(path == "0F0 1F0 1B0 1F1 1B1 0B1 ");
}

TEST_CASE(
    "explain: stalls fill the time between cells, and the critical path runs from 0 to the makespan without a gap") {
  random_costs random(31);
  for_all_families(5, 11, [&](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    const stage_costs costs = random.make(s);
    const timeline t = simulate(s, costs);
    const metrics m = measure(t);
    const explanation e = explain(t, costs);
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    CAPTURE(p.forward_only);

    std::vector<double> idle(s.pp(), 0.0);
    for (const stall& g : e.stalls) {
      REQUIRE(g.start < g.end);
      REQUIRE(t[g.before.rank][g.before.index].start == g.end);
      idle[g.before.rank] += g.end - g.start;
      const auto in = input_of(g.waiting, s.stages());
      REQUIRE((in && output_of(g.made_by, s.stages()) == in));
    }
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
      REQUIRE(idle[rank] + m.makespan - t[rank].back().end == m.ranks[rank].bubble);

    REQUIRE(!e.critical_path.empty());
    const auto when = [&](cell_ref c) { return t[c.rank][c.index]; };
    REQUIRE(when(e.critical_path.front()).start == 0);
    REQUIRE(when(e.critical_path.back()).end == m.makespan);
    for (std::size_t k = 1; k < e.critical_path.size(); ++k) {
      const cell_ref a = e.critical_path[k - 1], b = e.critical_path[k];
      if (a.rank == b.rank && a.index + 1 == b.index) {
        REQUIRE(when(a).end == when(b).start);
        continue;
      }
      bool explained = false;  // an op of a produces an input of b that arrives at b's start
      for (std::size_t i = 0; i < s[a.rank][a.index].size(); ++i)
        for (op o : s[b.rank][b.index])
          if (const auto out = output_of(s[a.rank][a.index][i], s.stages()); out && out == input_of(o, s.stages())) {
            const double made = when(a).start + costs.release(s[a.rank][a.index], i, a.rank);
            explained =
                explained || made + (a.rank == b.rank ? 0 : costs.transfer(a.rank, b.rank, *out)) == when(b).start;
          }
      REQUIRE(explained);
    }
  });
}

TEST_CASE("explain: a measured timeline needs no costs") {
  const timeline t = simulate(make_zb1p_schedule({.pp = 4, .micro = 8}), uniform_costs{.transfer_time = 0});
  const explanation simulated = explain(t, uniform_costs{}), measured = explain(t);
  CHECK(simulated.stalls == measured.stalls);
  CHECK(simulated.critical_path == measured.critical_path);
}
