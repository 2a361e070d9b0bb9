// SPDX-License-Identifier: MIT
// ZB-V, V-Half, V-Min, 1F1B-V, and ZB-V by greedy search.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/generate/v_1f1b.hpp"
#include "pipesched/generate/v_half.hpp"
#include "pipesched/generate/v_min.hpp"
#include "pipesched/generate/zbv.hpp"
#include "pipesched/generate/zbv_greedy.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"
#include "support/random_costs.hpp"
#include "support/slow_blocks.hpp"

using namespace pipesched;
using namespace pipesched::tests;

static_assert(verify(make_zbv_schedule({.pp = 4, .micro = 8})));
static_assert(verify(make_v_half_schedule({.pp = 2, .micro = 3})));
static_assert(verify(make_v_min_schedule({.pp = 2, .micro = 3})));
static_assert(verify(make_v_1f1b_schedule({.pp = 2, .micro = 3})));

namespace {

#ifdef PIPESCHED_SMALL_GRIDS
constexpr std::int64_t largest_pp = 5;
#else
constexpr std::int64_t largest_pp = 16;
#endif

metrics measured(const schedule& s, const stage_costs& costs = {}) { return measure(simulate(s, costs), costs); }

// The order of zbv_greedy under a limit that it refuses for stages that keep different bytes.
schedule searched(std::int64_t pp, std::int64_t micro, const stage_costs& costs, double limit) {
  schedule s = make_zbv_schedule({.pp = pp, .micro = micro});
  s.name = "zbv_greedy";
  s.cells = detail::zbv_rows({.pp = pp, .micro = micro, .costs = &costs}, s.placement, limit);
  return s;
}

// PyTorch's construction of a ZB-V row, one op at a time, without the ops of surplus micro-batches.
std::string zbv_row_in_order(std::int64_t pp, std::int64_t micro, std::int64_t rank) {
  const std::int64_t n = std::max(2 * pp - 1, micro);
  const std::int64_t stage[] = {rank, 2 * pp - 1 - rank};
  std::int64_t F[] = {0, 0}, I[] = {0, 0}, W[] = {0, 0};
  std::string text;
  const auto say = [&](char letter, int chunk, std::int64_t& next) {
    if (next < micro) text += (text.empty() ? "" : " ") + std::to_string(stage[chunk]) + letter + std::to_string(next);
    ++next;
  };
  for (std::int64_t i = 0; i < 2 * (pp - rank) - 1; ++i) say('F', 0, F[0]);
  for (std::int64_t i = 0; i < rank; ++i) say('F', 1, F[1]), say('F', 0, F[0]);
  for (std::int64_t i = 0; i < pp - rank; ++i) say('F', 1, F[1]), say('I', 1, I[1]), say('W', 1, W[1]);
  while (F[1] < n) {
    if (F[0] < n) say('F', 0, F[0]);
    say('I', 0, I[0]), say('W', 0, W[0]), say('F', 1, F[1]), say('I', 1, I[1]), say('W', 1, W[1]);
  }
  for (std::int64_t i = 0; i < rank; ++i) say('I', 0, I[0]), say('I', 1, I[1]);
  for (std::int64_t i = 0; i < pp - rank; ++i) say('I', 0, I[0]), say('W', 0, W[0]);
  while (W[1] < n) say('W', 1, W[1]);
  while (W[0] < n) say('W', 0, W[0]);
  return text;
}

// The longest span minus the work of a rank, for F = I = W = 1.
std::int64_t bubble_of_span(const schedule& s) {
  return static_cast<std::int64_t>(measured(s).span) - 6 * std::int64_t{s.micro};
}

}  // namespace

TEST_CASE("v shapes: ZB-V has PyTorch's order, the others have the authors' orders") {
  const pipeline_params p{.pp = 4, .micro = 8};
  CHECK(text_rows(make_zbv_schedule(p)) == golden_rows("zbv_pp4_v2_m8"));
  CHECK(text_rows(make_zbv_greedy_schedule({.pp = 4, .micro = 8})) == golden_rows("zbv_greedy_pp4_m8"));
  CHECK(text_rows(make_v_half_schedule(p)) == golden_rows("v_half_pp4_m8"));
  CHECK(text_rows(make_v_min_schedule(p)) == golden_rows("v_min_pp4_m8"));
  CHECK(text_rows(make_v_1f1b_schedule(p)) == golden_rows("v_1f1b_pp4_m8"));
}

TEST_CASE("v-half, v-min, 1f1b-v: equal a slow implementation in slots, at every size up to 9 x 20") {
#ifdef PIPESCHED_SMALL_GRIDS
  const int max_micro = 7;
#else
  const int max_micro = 20;
#endif
  for (int pp = 1; pp <= std::min<int>(largest_pp, 9); ++pp)
    for (int micro = 1; micro <= max_micro; ++micro) {
      CAPTURE(pp);
      CAPTURE(micro);
      const pipeline_params p{.pp = pp, .micro = micro};
      REQUIRE(text_rows(make_v_half_schedule(p)) == slow_v_half(pp, micro));
      REQUIRE(text_rows(make_v_min_schedule(p)) == slow_v_min(pp, micro));
      REQUIRE(text_rows(make_v_1f1b_schedule(p)) == slow_v_1f1b(pp, micro));
    }
}

TEST_CASE("zbv: equals PyTorch's construction op by op, at every size") {
  for (std::int64_t pp = 1; pp <= largest_pp; ++pp)
    for (std::int64_t micro = 1; micro <= 3 * pp + 2; ++micro) {
      CAPTURE(pp);
      CAPTURE(micro);
      const schedule s = make_zbv_schedule({.pp = pp, .micro = micro});
      for (std::int64_t rank = 0; rank < pp; ++rank)
        REQUIRE(to_string(s[static_cast<std::size_t>(rank)]) == zbv_row_in_order(pp, micro, rank));
    }
}

TEST_CASE("zbv: no bubble in the span, pp - 1 in the makespan, and 2 pp activations of one stage on every rank") {
  for (std::int64_t pp = 1; pp <= 12; ++pp)
    for (std::int64_t micro : {2 * pp, 3 * pp + 1, 5 * pp}) {
      CAPTURE(pp);
      CAPTURE(micro);
      const metrics m = measured(make_zbv_schedule({.pp = pp, .micro = micro}));
      CHECK(m.span == static_cast<double>(6 * micro));
      CHECK(m.makespan == static_cast<double>(6 * micro + pp - 1));
      for (const rank_metrics& r : m.ranks) CHECK(r.peak_activations == shares(2 * pp, 2));
    }
}

// Source of the expected numbers: the papers' formulas of the peaks, and the bubbles measured with the authors' generator
// for F = I = W and four micro-batches per rank.
TEST_CASE("v shapes: peaks and bubbles equal those of the paper and the authors' generator") {
  for (std::int64_t pp = 2; pp <= largest_pp; ++pp) {
    const pipeline_params p{.pp = pp, .micro = 4 * pp};
    const bool even = pp % 2 == 0;
    const auto compare = [&](const char* name, const schedule& s, std::int64_t peak, std::int64_t bubble) {
      const auto got_peak = static_cast<std::int64_t>(2 * measured(s).peak_activations);
      const std::int64_t got_bubble = bubble_of_span(s);
      const std::string beside = std::string(name) + ", " + std::to_string(pp) + " ranks: peak " +
                                 std::to_string(peak) + " by the paper, ours " + std::to_string(got_peak) +
                                 "; bubble " + std::to_string(bubble) + " expected, ours " + std::to_string(got_bubble);
      MESSAGE(beside);
      CHECK_MESSAGE(got_peak == peak, beside);
      CHECK_MESSAGE(got_bubble == bubble, beside);
    };
    compare("ZB-V, greedy", make_zbv_greedy_schedule({.pp = pp, .micro = 4 * pp}), 2 * pp, 0);
    compare("V-Half", make_v_half_schedule(p), 2 * ((pp + 2) / 2), pp == 2 ? 1 : even ? 3 * pp - 7 : 3 * pp - 4);
    compare("V-Min", make_v_min_schedule(p), 2 * ((pp + 4) / 3), pp % 3 == 0 ? 4 * pp - 7 : 4 * pp - 5);
  }
  for (const auto& [pp, bubble] : {std::pair{4, 15}, {8, 33}, {16, 75}})
    CHECK(bubble_of_span(make_v_1f1b_schedule({.pp = pp, .micro = 4 * pp})) == bubble);
  for (std::int64_t pp = 1; pp <= largest_pp; ++pp)
    CHECK(2 * measured(make_v_1f1b_schedule({.pp = pp, .micro = 4 * pp})).peak_activations ==
          (4 * pp + (pp % 3 == 1   ? 2
                     : pp % 3 == 2 ? 4
                                   : 6)) /
              3);
}

TEST_CASE("v shapes: bubble rates for unequal F, I and W, as measured with the authors' generators") {
  struct rates {
    double F, I, W, zbv, v_half, v_min;
  };
  for (const rates& expected : {rates{2, 2, 1, .0390, .1185, .2677}, rates{1, 2, 1, .0483, .2000, .3890},
                                rates{2, 1, 1, .0519, .1924, .3756}, rates{1, 1, 2, 0, .0588, .0824}}) {
    const stage_costs costs{
        .forward = expected.F, .backward_input = expected.I, .backward_weight = per_stage(expected.W)};
    const double work = 2 * 32 * (expected.F + expected.I + expected.W);
    const auto rate = [&](const schedule& s) {
      const double span = measured(s, costs).span;
      return std::round((span - work) / span * 1e4) / 1e4;
    };
    CHECK(rate(make_zbv_greedy_schedule({.pp = 8, .micro = 32, .costs = costs})) == doctest::Approx(expected.zbv));
    CHECK(rate(make_v_half_schedule({.pp = 8, .micro = 32})) == doctest::Approx(expected.v_half));
    CHECK(rate(make_v_min_schedule({.pp = 8, .micro = 32})) == doctest::Approx(expected.v_min));
  }
}

TEST_CASE("zbv greedy: valid, and within the limit in bytes, for random costs by stage and every limit") {
  random_costs random(7);
  for (std::int64_t pp = 1; pp <= 5; ++pp)
    for (std::int64_t micro = 1; micro <= 16; micro += 1 + micro / 4)
      for (double limit = 1; limit <= static_cast<double>(pp) + 1.5; limit += 0.25) {
        const auto stages = static_cast<std::uint32_t>(2 * pp);
        stage_costs costs = random.make(stages);
        costs.kept_by_forward = random.per_stage_numbers(stages, 10, 20);
        costs.freed_by_input = random.per_stage_numbers(stages, 0, 10);
        CAPTURE(pp);
        CAPTURE(micro);
        CAPTURE(limit);
        // Stages that keep different bytes: the search itself, as make_zbv_greedy_schedule() refuses a limit for them.
        const schedule s = searched(pp, micro, costs, limit);
        const timeline t = simulate(s, costs);
        REQUIRE(to_string(verify(t.schedule)) == "");
        const metrics m = measure(t, costs);
        for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
          const double share = costs.kept_by_forward[rank] + costs.kept_by_forward[stages - 1 - rank];
          REQUIRE(m.ranks[rank].peak_bytes <= limit * share * (1 + 1e-9));
        }
      }
}

TEST_CASE("zbv greedy: stages without bytes, tiny bytes and rounding errors keep the limit; unequal stages") {
  const auto peak_over_limit = [](std::int64_t pp, stage_costs costs, double limit) {
    const metrics m = measured(searched(pp, 100, costs, limit), costs);
    double worst = 0;
    for (std::uint32_t rank = 0; rank < pp; ++rank) {
      const double share =
          costs.kept_by_forward[rank] + costs.kept_by_forward[static_cast<std::uint32_t>(2 * pp) - 1 - rank];
      if (share > 0) worst = std::max(worst, m.ranks[rank].peak_bytes / (limit * share));
    }
    return worst;
  };
  CHECK(peak_over_limit(2, {.kept_by_forward = {0.02, 0.02, 0.02, 0}}, 2) <= 1 + 1e-9);
  CHECK(peak_over_limit(4, {.kept_by_forward = {1e-3, 1e-3, 1e-3, 0, 0, 0, 0, 0}}, 2) <= 1 + 1e-9);
  CHECK(peak_over_limit(1, {.kept_by_forward = {1, 0}}, 1) <= 1 + 1e-9);
  const stage_costs leaky{.kept_by_forward = 1, .freed_by_weight = per_stage(1 - 0.9e-9)};
  CHECK(make_zbv_greedy_schedule({.pp = 2, .micro = 100, .costs = leaky, .memory_limit = 1}).cells ==
        make_zbv_greedy_schedule({.pp = 2, .micro = 100, .memory_limit = 1}).cells);
  const stage_costs unequal{.forward = {4, 1, 3, 4, 4, 1, 4, 2, 1, 2},
                            .backward_input = per_stage{2, 3, 4, 1, 3, 3, 2, 3, 3, 2},
                            .backward_weight = per_stage{3, 2, 1, 1, 2, 3, 1, 2, 3, 4}};
  CHECK(measured(make_zbv_greedy_schedule({.pp = 5, .micro = 10, .costs = unequal}), unequal).span <= 179);
}

TEST_CASE("zbv: the row of one rank equals that of the schedule") {
  for (const pipeline_params p : {pipeline_params{.pp = 4, .micro = 9}, pipeline_params{.pp = 3, .micro = 2}})
    for (std::int64_t rank = 0; rank < p.pp; ++rank) {
      const schedule s = make_zbv_schedule(p);
      const auto row = s[static_cast<std::size_t>(rank)];
      CHECK(make_zbv_row(p, rank) == std::vector(row.begin(), row.end()));
    }
}

TEST_CASE("v shapes: bad sizes and limits are refused with the nearest legal value") {
  CHECK(refusal_of([] { make_v_half_schedule({.pp = 0, .micro = 8}); }) ==
        "v_half needs at least 1 pipeline rank; got pp = 0, nearest 1");
  CHECK(refusal_of([] { make_v_min_schedule({.pp = 40000, .micro = 8}); }) ==
        "v_min needs at most 32768 pipeline ranks (stages are 16-bit numbers); got pp = 40000, nearest 32768");
  CHECK(refusal_of([] { make_v_1f1b_schedule({.pp = 4, .micro = 0}); }) ==
        "v_1f1b needs at least 1 micro-batch; got micro = 0, nearest 1");
  CHECK(refusal_of([] { make_zbv_greedy_schedule({.pp = 4, .micro = 8, .memory_limit = 0.75}); }) ==
        "zbv_greedy needs a memory limit of at least 1 activation per rank; got 0.75, nearest 1");
  for (const char* name : {"zb_greedy", "zbv_greedy"})
    CHECK(refusal_of([&] {
            make_schedule(
                name,
                {.pp = 4, .micro = 8, .costs = stage_costs{.kept_by_forward = 3, .freed_by_weight = per_stage(2)}});
          }) == std::string(name) +
                    " needs costs whose I and W free all that F keeps; stage 0 keeps 3 and frees 2, nearest "
                    "freed_by_weight = 3");
  CHECK(refusal_of([] {
          make_zbv_greedy_schedule({.pp = 4, .micro = 8, .costs = {.forward = {1, 2}}});
        }) == "costs: forward has 2 numbers; expected 1 or 8, one per stage");
}

TEST_CASE(
    "zbv greedy: for random costs and limits, never longer than ZB-V, V-Half or V-Min where they keep the limit") {
  random_costs random(2312);
  int compared = 0, equal = 0;
  for (int n = 0; n < 3000; ++n) {
    const std::int64_t pp = random.number(1, 6), micro = random.number(1, 20);
    const auto stages = static_cast<std::uint32_t>(2 * pp);
    stage_costs costs{.forward = random.per_stage_numbers(stages, 0, 20),
                      .backward_input = random.per_stage_numbers(stages, 0, 20),
                      .backward_weight = random.per_stage_numbers(stages, 0, 20)};
    if (random.maybe()) costs.transfer_time = random.per_stage_numbers(stages, 0, 10);
    if (random.maybe()) costs.kept_by_forward = 20, costs.freed_by_input = random.per_stage_numbers(stages, 0, 20);
    const bool limited = random.maybe();
    const double limit = limited ? random.number(4, static_cast<int>(5 * pp)) / 4.0 : static_cast<double>(pp);
    CAPTURE(n);
    zb_params p{.pp = pp, .micro = micro, .costs = costs};
    if (limited) p.memory_limit = limit;
    const double searched = measured(make_zbv_greedy_schedule(p), costs).makespan;
    const pipeline_params sizes{.pp = pp, .micro = micro};
    for (const schedule& known : {make_zbv_schedule(sizes), make_v_half_schedule(sizes), make_v_min_schedule(sizes)}) {
      if (known.name != "zbv" && limit >= static_cast<double>(pp)) continue;  // as the doc comment says
      const metrics m = measured(known, costs);
      const double peak =
          costs.kept_by_forward[0] > 0 ? m.peak_bytes / (2 * costs.kept_by_forward[0]) : m.peak_activations;
      if (peak > limit) continue;
      REQUIRE(searched <= m.makespan);
      ++compared, equal += searched == m.makespan;
    }
  }
  CHECK(compared > 2000);
  CHECK(equal < compared * 3 / 4);
}

TEST_CASE("zbv greedy: the limit is in activations of a rank's whole share, and has one meaning") {
  CHECK(make_zbv_greedy_schedule({.pp = 4, .micro = 8, .memory_limit = 4}) ==
        make_zbv_greedy_schedule({.pp = 4, .micro = 8}));
  for (const double limit : {1.0, 1.5, 2.0, 3.0, 4.0, 5.5})
    CHECK(measured(make_zbv_greedy_schedule({.pp = 4, .micro = 16, .memory_limit = limit})).peak_activations <= limit);
  CHECK(
      refusal_of([] {
        make_zbv_greedy_schedule({.pp = 2, .micro = 8, .costs = {.kept_by_forward = {3, 3, 3, 4}}, .memory_limit = 2});
      }) ==
      "zbv_greedy takes a memory limit in activations only where all stages keep the same bytes; stage 0 keeps "
      "3 and stage 3 keeps 4, nearest: no limit, which means pp = 2 activations per rank");
}
