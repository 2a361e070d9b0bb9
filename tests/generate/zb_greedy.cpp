// SPDX-License-Identifier: MIT

#include "pipesched/generate/zb_greedy.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pipesched/core/transform.hpp"
#include "pipesched/generate/1f1b.hpp"
#include "pipesched/generate/detail/zb_rows.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/generate/zb1p.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"
#include "support/random_costs.hpp"
#include "support/zero_bubble_table.hpp"

using namespace pipesched;
using namespace pipesched::tests;
using nlohmann::json;

namespace {

// The costs of the authors' 1.5B model: microseconds and bytes in units of sequence x batch x hidden.
const stage_costs costs_1p5B{.forward = 18522,
                             .backward_input = 18086,
                             .backward_weight = 9337,
                             .transfer_time = 601,
                             .kept_by_forward = 201216,
                             .freed_by_input = 127488,
                             .freed_by_weight = per_stage(73728)};

}  // namespace

TEST_CASE("zb greedy: the orders of the zero-bubble authors' scheduler") {
  CHECK(text_rows(make_zb_h1_schedule({.pp = 4, .micro = 8})) == golden_rows("zb_h1_greedy_pp4_m8"));
  CHECK(text_rows(make_zb_h2_schedule({.pp = 4, .micro = 8})) == golden_rows("zb_h2_greedy_pp4_m8"));
  CHECK(text_rows(make_zb_greedy_1p_schedule({.pp = 4, .micro = 8, .costs = costs_1p5B})) ==
        golden_rows("zb_1p_greedy_costs_1p5B_pp4_m8"));
  CHECK(text_rows(make_zb_greedy_2p_schedule({.pp = 4, .micro = 8, .costs = costs_1p5B})) ==
        golden_rows("zb_2p_greedy_costs_1p5B_pp4_m8"));
}

TEST_CASE("zb greedy: all 60 values of table 5 of the paper, to four decimals") {
  const json table = json::parse(golden_text("zero_bubble_paper_table5.json"));
  int equal = 0;
  for (const json& row : table["rows"]) {
    const auto pp = row["pp"].get<std::int64_t>(), micro = row["micro"].get<std::int64_t>();
    const stage_costs costs = zero_bubble_costs(row);
    const auto rate_of = [&](const schedule& s) {
      const double work =
          static_cast<double>(micro) * (costs.forward[0] + (*costs.backward_input)[0] + (*costs.backward_weight)[0]);
      const double span = measure(simulate(s, costs)).span;
      return (span - work) / span;
    };
    const std::pair<const char*, double> ours[] = {
        {"1f1b", rate_of(make_1f1b_schedule({.pp = pp, .micro = micro}))},
        {"zbh1", rate_of(make_zb_h1_schedule({.pp = pp, .micro = micro}))},
        {"zbh2", rate_of(make_zb_h2_schedule({.pp = pp, .micro = micro}))},
        {"zb1p", rate_of(make_zb_greedy_1p_schedule({.pp = pp, .micro = micro, .costs = costs}))},
        {"zb2p", rate_of(make_zb_greedy_2p_schedule({.pp = pp, .micro = micro, .costs = costs}))}};
    for (const auto& [name, rate] : ours) {
      const double paper = row["table5_bubble_rate"][name].get<double>();
      char beside[160];
      std::snprintf(beside, sizeof beside, "%s, %ld micro-batches, %s: paper %.4f, ours %.6f",
                    row["model"].get<std::string>().c_str(), static_cast<long>(micro), name, paper, rate);
      MESSAGE(beside);
      CHECK_MESSAGE(std::round(rate * 1e4) / 1e4 == doctest::Approx(paper).epsilon(1e-9), beside);
      ++equal;
    }
  }
  CHECK(equal == 60);
}

TEST_CASE("zb greedy: valid, and within the limit in bytes, for random costs by stage and every limit") {
  random_costs random(99);
  for (std::int64_t pp = 1; pp <= 6; ++pp)
    for (std::int64_t micro = 1; micro <= 16; micro += 1 + micro / 5)
      for (double limit = 1; limit <= static_cast<double>(2 * pp + 2); limit += 0.5) {
        const auto stages = static_cast<std::uint32_t>(pp);
        stage_costs costs = random.make(stages);
        costs.kept_by_forward = random.per_stage_numbers(stages, 10, 20);
        costs.freed_by_input = random.per_stage_numbers(stages, 0, 10);
        // Stages that keep different bytes: the search itself, as make_zb_greedy_schedule() refuses a limit for them.
        schedule s = make_zb_greedy_schedule({.pp = pp, .micro = micro});
        s.cells = detail::zb_rows({.pp = pp, .micro = micro, .costs = &costs}, s.placement, limit);
        const timeline t = simulate(s, costs);
        CAPTURE(pp);
        CAPTURE(micro);
        CAPTURE(limit);
        REQUIRE(to_string(verify(t.schedule)) == "");
        const metrics m = measure(t, costs);
        for (std::uint32_t rank = 0; rank < stages; ++rank)
          REQUIRE(m.ranks[rank].peak_bytes <= limit * costs.kept_by_forward[rank]);
      }
}

TEST_CASE("zb greedy: with the costs known, no slower than the order for equal stages") {
  const stage_costs slow_middle{
      .forward = {1, 1, 3, 1}, .backward_input = per_stage{1, 1, 3, 1}, .backward_weight = per_stage{1, 1, 3, 1}};
  const auto makespan = [&](const schedule& s) { return measure(simulate(s, slow_middle)).makespan; };
  const double uniform_order = makespan(make_zb_h2_schedule({.pp = 4, .micro = 16}));
  const double own_order =
      makespan(make_zb_greedy_schedule({.pp = 4, .micro = 16, .costs = slow_middle, .memory_limit = 7}));
  CHECK(own_order <= uniform_order);
}

TEST_CASE("zb greedy: bad limits and costs are refused") {
  CHECK(refusal_of([] { make_zb_greedy_schedule({.pp = 4, .micro = 8, .memory_limit = 0.5}); }) ==
        "zb_greedy needs a memory limit of at least 1 activation per rank; got 0.5, nearest 1");
  CHECK(refusal_of([] { make_zb_greedy_schedule({.pp = 4, .micro = 8, .memory_limit = -1}); }) != "");
  CHECK(refusal_of([] { make_zb_greedy_schedule({.pp = 4, .micro = 8, .memory_limit = std::nan("")}); }) != "");
  CHECK(refusal_of([] {
          make_zb_greedy_schedule({.pp = 4, .micro = 8, .costs = {.forward = {1, 2}}});
        }) == "costs: forward has 2 numbers; expected 1 or 4, one per stage");
  CHECK(refusal_of([] { make_zb_greedy_2p_schedule({.pp = 0, .micro = 8}); }) ==
        "zb_greedy_2p needs at least 1 pipeline rank; got pp = 0, nearest 1");
}

TEST_CASE("zb greedy: on unequal stages it ends no later than ZB1P, whose order it knows") {
  const stage_costs costs{
      .forward = {3, 3, 2, 2}, .backward_input = per_stage{4.5, 3, 3, 2}, .backward_weight = per_stage{3, 1.5, 2, 2}};
  const auto makespan = [&](const schedule& s) { return measure(simulate(s, costs), costs).makespan; };
  CHECK(makespan(make_zb1p_schedule({.pp = 4, .micro = 3})) == 40.5);
  CHECK(makespan(make_zb_greedy_schedule({.pp = 4, .micro = 3, .costs = costs})) <= 40.5);
  CHECK(makespan(make_zb_greedy_1p_schedule({.pp = 4, .micro = 3, .costs = costs})) <= 40.5);
}

TEST_CASE("zb greedy: for random costs and limits, never longer than a known order that keeps the limit") {
  random_costs random(2311);
  int compared = 0, equal = 0;
  for (int n = 0; n < 3000; ++n) {
    const auto stages = static_cast<std::uint32_t>(random.number(1, 7));
    const std::int64_t pp = stages, micro = random.number(1, 20);
    stage_costs costs{.forward = random.per_stage_numbers(stages, 0, 20),
                      .backward_input = random.per_stage_numbers(stages, 0, 20),
                      .backward_weight = random.per_stage_numbers(stages, 0, 20)};
    if (random.maybe()) costs.transfer_time = random.per_stage_numbers(stages, 0, 10);
    if (random.maybe()) costs.kept_by_forward = 20, costs.freed_by_input = random.per_stage_numbers(stages, 0, 20);
    const bool limited = random.maybe();
    const double limit = limited ? random.number(2, static_cast<int>(4 * pp)) / 2.0 : static_cast<double>(pp);
    CAPTURE(n);
    zb_params p{.pp = pp, .micro = micro, .costs = costs};
    if (limited) p.memory_limit = limit;
    const auto measured = [&](const schedule& s) { return measure(simulate(s, costs), costs); };
    const double searched = measured(make_zb_greedy_schedule(p)).makespan;
    for (const schedule& known : {make_zb1p_schedule({.pp = pp, .micro = micro}),
                                  split_backward(make_1f1b_schedule({.pp = pp, .micro = micro}))}) {
      const metrics m = measured(known);
      const double peak = costs.kept_by_forward[0] > 0 ? m.peak_bytes / costs.kept_by_forward[0] : m.peak_activations;
      if (peak > limit) continue;
      REQUIRE(searched <= m.makespan);
      ++compared, equal += searched == m.makespan;
    }
  }
  CHECK(compared > 2000);
  CHECK(equal < compared / 2);
}

TEST_CASE("zb greedy: an activation counts as the most that it takes, also if its context is larger") {
  const stage_costs grows{.kept_by_forward = 10, .context = 40};
  for (const double limit : {1.0, 2.0, 3.0, 4.0})
    for (const std::int64_t pp : {2, 4, 5})
      for (const bool vee : {false, true}) {
        const zb_params p{.pp = pp, .micro = 8, .costs = grows, .memory_limit = limit};
        const schedule s = vee ? make_zbv_greedy_schedule(p) : make_zb_greedy_schedule(p);
        REQUIRE(verify(s));
        REQUIRE(measure(simulate(s, grows), grows).peak_bytes <= limit * 40 * (vee ? 2 : 1));
      }
}

TEST_CASE("zb greedy: a limit in activations is refused where stages keep different bytes") {
  const stage_costs unequal{.kept_by_forward = {10, 10, 20, 10}};
  CHECK(refusal_of([&] { make_zb_greedy_schedule({.pp = 4, .micro = 8, .costs = unequal, .memory_limit = 3}); }) ==
        "zb_greedy takes a memory limit in activations only where all stages keep the same bytes; stage 0 keeps 10 and "
        "stage 2 keeps 20, nearest: no limit, which means pp = 4 activations per rank");
  CHECK(refusal_of([&] { make_zb_greedy_schedule({.pp = 4, .micro = 8, .costs = unequal}); }) == "");
  CHECK(refusal_of([&] { make_zb_greedy_2p_schedule({.pp = 4, .micro = 8, .costs = unequal}); }) == "");
  CHECK(refusal_of([&] {
          make_zb_greedy_schedule({.pp = 4, .micro = 8, .costs = {.kept_by_forward = {7, 7, 7, 7}}, .memory_limit = 3});
        }) == "");
  CHECK(refusal_of([&] { make_zb_greedy_1p_schedule({.pp = 4, .micro = 8, .memory_limit = 3}); }) ==
        "zb_greedy_1p takes no memory_limit; got memory_limit = 3");
}
