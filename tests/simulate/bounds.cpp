// SPDX-License-Identifier: MIT
// Metrics, published formulas and lower bounds, compared with the simulator and with each other.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/simulate/closed_form_of.hpp"
#include "pipesched/simulate/explain.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/random_costs.hpp"

using namespace pipesched;
using namespace pipesched::tests;

TEST_CASE("metrics: bytes by stage, with the time of the peak") {
  stage_costs costs{.kept_by_forward = {10, 100}, .freed_by_input = {4, 0}, .weight_bytes = {7, 8}};
  const timeline t = simulate(make_zb1p_schedule({.pp = 2, .micro = 3}), costs);
  const metrics m = measure(t, costs);
  // Rank 0: F0 F1 . I0 W0 F2 ...: two activations at time 1. Rank 1: F0 I0 F1 I1 W0 ...: I frees nothing, so two at time 3.
  CHECK(to_string(t.schedule[0]) == "0F0 0F1 0I0 0W0 0F2 0I1 0W1 0I2 0W2");
  CHECK((m.ranks[0].peak_bytes == 20 && m.ranks[0].peak_bytes_at == 1));
  CHECK((m.ranks[1].peak_bytes == 200 && m.ranks[1].peak_bytes_at == 3));
  CHECK((m.ranks[1].peak_activations == 2 && m.ranks[1].peak_activations_at == 3));
  CHECK((m.peak_bytes == 200 && m.ranks[0].weight_bytes == 7 && m.weight_bytes == 8));
}

TEST_CASE("metrics: DualPipe holds two copies of the parameters and overlaps most of its time, DualPipeV holds one") {
  const metrics two = measure(simulate(make_dualpipe_schedule({.pp = 8, .micro = 20})));
  CHECK(two.parameter_copies == 2);
  CHECK(two.ranks[0].overlapped_fraction == 9 * 3 / 60.0);  // nine pairs
  CHECK(measure(simulate(make_dualpipev_schedule({.pp = 8, .micro = 20}))).parameter_copies == 1);
}

TEST_CASE("metrics: an evaluation keeps the activation of one stage at a time") {
  for_all_families(5, 9, [](const family& f, const schedule_params& p) {
    if (!p.forward_only) return;
    const schedule s = f.make(p);
    CHECK(measure(simulate(s)).peak_activations == static_cast<double>(s.pp()) / s.stages());
  });
}

TEST_CASE("closed form: equals the simulator wherever its assumptions hold, for many unit times") {
  int held = 0;
  for_all_families(16, 40, [&](const family& f, const schedule_params& p) {
    for (const double unit : {1.0, 3.0}) {
      pass_times t{.F = unit, .I = unit, .W = unit};
      const auto form = closed_form_of(f.name, p, t);
      if (!form || !form->holds()) continue;
      CAPTURE(f.name);
      CAPTURE(p.pp);
      CAPTURE(p.micro);
      CAPTURE(p.forward_only);
      const metrics m =
          measure(simulate(f.make(p), uniform_costs{.forward = t.F, .backward_input = t.I, .backward_weight = t.W}));
      for (const rank_metrics& r : m.ranks) REQUIRE(r.bubble == form->bubble);
      REQUIRE(m.peak_activations == form->peak_activations);
      ++held;
    }
  });
  CHECK(held > 300);
}

TEST_CASE("closed form: 1F1B and GPipe hold for any F and B; ZB-H1 for W <= F and W <= I") {
  random_costs random(77);
  for (int i = 0; i < 2000; ++i) {
    const std::int64_t pp = random.number(1, 10), micro = random.number(1, 30);
    uniform_costs c;
    c.forward = random.number(1, 9), c.backward_input = random.number(1, 9), c.backward_weight = random.number(1, 9);
    const pass_times t{.F = c.forward, .I = *c.backward_input, .W = *c.backward_weight};
    CAPTURE(pp);
    CAPTURE(micro);
    CAPTURE(t.F);
    CAPTURE(t.I);
    CAPTURE(t.W);
    for (const char* name : {"gpipe", "1f1b", "zb1p"}) {
      if (name[0] == 'z' && (micro < pp || t.W > t.F || t.W > t.I)) continue;
      const auto form = closed_form_of(name, {.pp = pp, .micro = micro}, t);
      const metrics m = measure(simulate(make_schedule(name, {.pp = pp, .micro = micro}), c));
      CAPTURE(name);
      REQUIRE(m.ranks[0].bubble == form->bubble);
    }
  }
}

TEST_CASE("closed form: ZB-H2 has no idle time within the span for F = I = W, with 2 pp - 1 activations") {
  for (std::int64_t pp = 1; pp <= 10; ++pp)
    for (std::int64_t micro : {2 * pp - 1, 2 * pp, 3 * pp, 4 * pp + 1}) {
      const closed_form form = zb_h2_family.formula({.pp = pp, .micro = micro}, {}).value();
      const metrics m = measure(simulate(make_zb_h2_schedule({.pp = pp, .micro = micro})));
      CAPTURE(pp);
      CAPTURE(micro);
      REQUIRE(form.holds());
      for (const rank_metrics& r : m.ranks) CHECK(r.span - r.busy == form.bubble);
      CHECK(m.peak_activations <= form.peak_activations);
      if (micro >= 2 * pp) CHECK(m.peak_activations == form.peak_activations);
    }
}

TEST_CASE("closed form: dualpipe, pair = 3: (pp/2-1)(F&B+B-3W) on every rank and peak pp+1, for all even pp up to 32") {
  for (std::int64_t pp = 2; pp <= 32; pp += 2)
    for (std::int64_t micro : {2 * pp, 2 * pp + 2, 3 * pp, 4 * pp, 5 * pp + 8}) {
      CAPTURE(pp);
      CAPTURE(micro);
      const metrics m =
          measure(simulate(make_dualpipe_schedule({.pp = pp, .micro = micro}), uniform_costs{.overlapped = 3}));
      for (const rank_metrics& r : m.ranks) {
        REQUIRE(r.bubble == static_cast<double>((pp / 2 - 1) * (3 + 2 - 3)));
        REQUIRE(r.peak_activations == pp + 1);
      }
    }
}

TEST_CASE("closed form: dualpipe, pair = 2.5: the rank that idles longest equals the formula, outer ranks idle less") {
  for (std::int64_t pp = 4; pp <= 32; pp += 2)
    for (std::int64_t micro : {2 * pp, 3 * pp, 4 * pp + 2}) {
      CAPTURE(pp);
      CAPTURE(micro);
      const metrics m =
          measure(simulate(make_dualpipe_schedule({.pp = pp, .micro = micro}), uniform_costs{.overlapped = 2.5}));
      const double formula = static_cast<double>(pp / 2 - 1) * (2.5 + 2 - 3);
      double most = 0;
      for (const rank_metrics& r : m.ranks) most = std::max(most, r.bubble);
      CHECK(most == formula);
      // A rank that is d ranks nearer to an end than those next to the middle ranks has d overlapped pairs more.
      for (std::int64_t rank = 0; rank < pp / 2; ++rank)
        CHECK(m.ranks[static_cast<std::size_t>(rank)].bubble ==
              formula - 0.5 * static_cast<double>(std::max<std::int64_t>(0, pp / 2 - 2 - rank)));
    }
}

TEST_CASE("closed form: with F != I != W the simulated bubble of dualpipe is not the formula's") {
  const uniform_costs c{.forward = 1, .backward_input = 1.2, .backward_weight = 0.8, .overlapped = 2.6};
  const auto form = closed_form_of("dualpipe", {.pp = 8, .micro = 20}, {.F = 1, .I = 1.2, .W = 0.8, .B = 2, .FB = 2.6});
  const metrics m = measure(simulate(make_dualpipe_schedule({.pp = 8, .micro = 20}), c));
  CHECK_FALSE(form->holds());
  CHECK(form->bubble == doctest::Approx(6.6));
  CHECK(std::min_element(m.ranks.begin(), m.ranks.end(), [](auto& a, auto& b) {
          return a.bubble < b.bubble;
        })->bubble == doctest::Approx(5.2));
  CHECK(std::max_element(m.ranks.begin(), m.ranks.end(), [](auto& a, auto& b) {
          return a.bubble < b.bubble;
        })->bubble == doctest::Approx(6.0));
}

TEST_CASE("lower bound: the certificates of the papers' unit times") {
  const auto of = [](const char* family, std::int64_t pp, std::int64_t micro) {
    const schedule s = make_schedule(family, {.pp = pp, .micro = micro});
    return format_optimality_gap(measure(simulate(s)).makespan,
                                 lower_bound(s.placement, s.micro, uniform_costs{}, schedule_class_of(s)));
  };
  CHECK(of("dualpipe", 8, 20) == "makespan 66, at least 63, gap 4.8 %");
  CHECK(of("1f1b", 8, 32) == "makespan 117, at least 117, gap 0.0 %");
  CHECK(of("gpipe", 8, 32) == "makespan 117, at least 117, gap 0.0 %");
  CHECK(of("zb1p", 8, 32) == "makespan 103, at least 103, gap 0.0 %");
  CHECK(of("dualpipev", 8, 20) == "makespan 134, at least 127, gap 5.5 %");
}

TEST_CASE("lower bound: dualpipe meets it if pairs release their outputs early") {
  stage_costs c;
  c.release_forward = 1, c.release_backward = 2;
  const schedule s = make_dualpipe_schedule({.pp = 8, .micro = 20});
  CHECK(measure(simulate(s, c)).makespan == 63);
  CHECK(lower_bound(s.placement, s.micro, c, schedule_class_of(s)).makespan == 63);
}

TEST_CASE("lower bound: a memory cap gives the bound of Little's law") {
  const placement line = placement::linear(4);
  schedule_class unsplit{.split_backward = false, .pairs = {}, .memory_cap = 4};
  CHECK(lower_bound(line, 32, uniform_costs{}, unsplit).reason == "head, work and tail of the rank");
  unsplit.memory_cap = 1;  // one micro-batch at a time on rank 0: each lives 4 F + 4 B = 12
  CHECK(lower_bound(line, 32, uniform_costs{}, unsplit).makespan == 32 * 12);
  schedule_class split{.pairs = {}, .memory_cap = 2};
  // Two activations at a time: when the first F starts there is one for 1, and when the last but one W ends, one for 1.
  CHECK(lower_bound(line, 32, uniform_costs{}, split).makespan == (32 * (4 + 4 + 1) + 1 + 1) / 2.0);
}

TEST_CASE("lower bound: no valid order of any family beats it for random costs, also after random valid changes") {
  random_costs random(4242);
  int reordered = 0;
  for_all_families(5, 9, [&](const family& f, const schedule_params& p) {
    schedule s = f.make(p);
    const stage_costs costs = random.make(s);
    for (int round = 0; round < 6; ++round) {
      const timeline t = simulate(s, costs);
      const metrics m = measure(t);
      schedule_class c = schedule_class_of(s);
      CAPTURE(f.name);
      CAPTURE(p.pp);
      CAPTURE(p.micro);
      CAPTURE(p.forward_only);
      CAPTURE(round);
      const auto bound = lower_bound(s.placement, s.micro, costs, c);
      CAPTURE(bound.reason);
      REQUIRE(bound.makespan <= m.makespan);
      c.memory_cap = m.peak_activations;
      REQUIRE(lower_bound(s.placement, s.micro, costs, c).makespan <= m.makespan);
      const metrics with_bytes = measure(t, costs);
      for (const rank_metrics& r : with_bytes.ranks) c.memory_limits.push_back(r.peak_bytes);
      REQUIRE(lower_bound(s.placement, s.micro, costs, c).makespan <= m.makespan);
      REQUIRE(lower_bound(s.placement, s.micro, costs, {.forward_only = p.forward_only}).makespan <= bound.makespan);
      for (int tries = 0; tries < 8; ++tries) {  // another order of the same class
        schedule other = s;
        auto row = other[static_cast<std::size_t>(random.number(0, static_cast<int>(p.pp) - 1))];
        const int i = random.number(0, static_cast<int>(row.size()) - 1),
                  j = random.number(0, static_cast<int>(row.size()) - 1);
        std::rotate(row.begin() + std::min(i, j), row.begin() + std::max(i, j), row.end());
        if (verify(other)) s = other, ++reordered;
      }
    }
  });
  CHECK(reordered > 300);
}

// Rank 1 of a vee holds stages 1 and 2, of 1 and 3 layers; a layer takes 1 in either direction and keeps 1 of 4 bytes. Its first
// backward starts after 7 (F's of 1, 1, 3, 1 and a backward of 1). The F's before it fit into the memory, and so take 4 at most:
// 3 of idle time. After its last F come F 1 and backwards 1, 3, 1, 1: 7, in which the rank has backwards of 4 bytes left, which
// take 4: 3 of idle time again.
TEST_CASE(
    "lower bound: what is kept at the first backward and at the last forward fits into the bytes, of stages that "
    "differ") {
  const stage_costs costs{.forward = {1, 1, 3, 1},
                          .backward_input = {1, 1, 3, 1},
                          .backward_weight = 0,
                          .backward = {1, 1, 3, 1},
                          .kept_by_forward = {1, 1, 3, 1}};
  schedule_class of{.pairs = {}};
  CHECK(lower_bound(placement::vee(2), 8, costs, of).makespan == 1 + 64 + 1);
  of.memory_limits = {4, 4};
  const lower_bound_result bound = lower_bound(placement::vee(2), 8, costs, of);
  CHECK(bound.makespan == doctest::Approx(3 + 64 + 3));
  CHECK(bound.rank == 1);
  const plan_result best = plan({.placement = placement::vee(2), .micro = 8}, costs,
                                {.memory = {.bytes = {4, 4}}, .pairs = pass_pair_set{}, .evaluations = 20'000});
  CHECK(best.makespan >= bound.makespan);
}

TEST_CASE("bounds under limits of bytes that not even one op fits into: finite, and no less than with more memory") {
  for (const placement& where : {placement::vee(4), placement::linear(4), placement::bidirectional(4, 6)})
    for (const double transient : {0.0, 2.0, 5.0}) {
      stage_costs costs{.forward = 4, .backward_input = 4, .backward_weight = 3, .transfer_time = 0.5};
      costs.kept_by_forward = 1, costs.transient_forward = transient, costs.transient_backward = transient + 1;
      double before = std::numeric_limits<double>::infinity();
      for (const double bytes : {0.25, 0.5, 1.0, 2.0, 3.0, 6.0, 9.0, 20.0}) {
        CAPTURE(bytes);
        schedule_class of;
        of.memory_limits = {bytes};
        const double bound = lower_bound(where, 6, costs, of).makespan;
        CHECK(std::isfinite(bound));
        CHECK(bound <= before);
        before = bound;
      }
    }
}

TEST_CASE("lower bound: sizes that no schedule has are refused") {
  CHECK(
      refusal_of([] { lower_bound(placement::linear(4), 0x8000'0000, uniform_costs{}); }) ==
      "lower_bound() needs stages x micro-batches of at most 2^28; got 4 stages x micro = 2147483648, nearest micro = "
      "67108864");
}

TEST_CASE("lower bound: a class that cannot be is refused; the placement may be for another number of micro-batches") {
  const placement where = placement::linear(4);
  const auto refused = [&](const schedule_class& of) {
    return refusal_of([&] { lower_bound(where, 8, uniform_costs{}, of); });
  };
  CHECK(refused({.backward = {stage_backward::full}}) ==
        "a class of schedules says of each stage, or of none, what its backward is; got 1, nearest 4");
  CHECK(refused({.memory_cap = -1}) == "a memory cap is 0 activations or more; got -1, nearest 0");
  CHECK(refused({.memory_cap = std::nan("")}) == "a memory cap is 0 activations or more; got nan, nearest 0");
  CHECK(refused({.memory_cap = 4}) == "");
  const stage_costs lengths{.micro_batches = std::vector<double>(20, 1)};  // all 1, and yet by micro-batch
  const schedule_class any{};
  CHECK(lower_bound(placement::bidirectional(4, 40), 20, lengths, any).makespan ==
        lower_bound(placement::bidirectional(4, 20), 20, lengths, any).makespan);
}

TEST_CASE("metrics and explanations: costs that do not fit the schedule are refused") {
  const schedule s = make_1f1b_schedule({.pp = 4, .micro = 8});
  const timeline t = simulate(s);
  for (const stage_costs& wrong :
       {stage_costs{.forward = {1, 2}}, stage_costs{.kept_by_forward = {1, 2}}, stage_costs{.micro_batches = {1, 2}}}) {
    const std::string said = refusal_of([&] { simulate(s, wrong); });
    CHECK(said != "");
    CHECK(refusal_of([&] { measure(t, wrong); }) == said);
    CHECK(refusal_of([&] { explain(t, wrong); }) == said);
  }
}
