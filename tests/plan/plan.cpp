// SPDX-License-Identifier: MIT

#include "pipesched/plan/plan.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/presets.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/plan/detail/narrow_search.hpp"
#include "pipesched/plan/detail/word_evaluator.hpp"
#include "pipesched/plan/pareto.hpp"
#include "pipesched/plan/refill.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/noise.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/support/random_numbers.hpp"
#include "support/golden.hpp"
#include "support/zero_bubble_table.hpp"

using namespace pipesched;
using pipesched::tests::golden_text;
using pipesched::tests::zero_bubble_costs;

namespace {

const plan_problem dualpipe_8x20{.placement = placement::bidirectional(8, 20), .micro = 20};
const stage_costs unit{.forward = 1, .backward_input = 1, .backward_weight = 1};

metrics measured(const schedule& s, const stage_costs& costs) { return measure(simulate(s, costs), costs); }

}  // namespace

TEST_CASE("plan: DeepSeek-V3's costs on 8 ranks, 20 micro-batches, with DualPipe's memory") {
  const stage_costs costs = deepseek_v3_costs();
  for (const std::uint64_t seed : {1u, 2u}) {
    CAPTURE(seed);
    const plan_result p =
        plan(dualpipe_8x20, costs, {.memory = {.activations = 9}, .evaluations = 100'000, .seed = seed});
    CHECK(p.makespan <= 3930.90);
    CHECK(p.bound.makespan >= 3913.4);
    CHECK(p.bound.makespan <= p.makespan);
    CHECK(p.published == "dualpipe");
    CHECK(p.published_makespan == doctest::Approx(4088.30));
    CHECK(p.evaluations <= 100'100);
    CHECK(verify(p.schedule));
    CHECK(measured(p.schedule, costs).makespan == p.makespan);
    CHECK(measured(p.schedule, costs).peak_activations <= 9);
  }
}

TEST_CASE("plan: with unit costs and 6, 7 and 8 activations a plan meets its bound") {
  for (const double cap : {6.0, 7.0, 8.0}) {
    CAPTURE(cap);
    const plan_result p = plan(dualpipe_8x20, unit, {.memory = {.activations = cap}, .evaluations = 200'000});
    CHECK(p.makespan == 71 - cap);
    CHECK(p.bound.makespan <= p.makespan);
    CHECK(measured(p.schedule, unit).peak_activations <= cap);
  }
}

TEST_CASE("plan: a plan is valid, within its limits, never longer than a family and never below the bound") {
  for (const auto& where : {placement::linear(3), placement::vee(2), placement::looped(2, 2),
                            placement::bidirectional(4, 6), placement::wave(2, 2), placement::looped(3, 2)})
    for (const bool forward_only : {false, true})
      for (const int kind : {0, 1, 2, 3}) {
        CAPTURE(to_string(where.kind()));
        CAPTURE(forward_only);
        CAPTURE(kind);
        stage_costs costs{.forward = 3, .backward_input = 4, .backward_weight = 2, .overlapped = 8, .transfer_time = 1};
        if (kind == 1) costs.micro_batches = {1, 2, 0.5, 1, 3, 1};
        if (kind == 2) costs.rank_speeds.assign(where.ranks(), 1), costs.rank_speeds[0] = 0.5;
        if (kind == 3) costs.transfers_busy = link_busy::both;
        const plan_problem problem{.placement = where, .micro = 6, .forward_only = forward_only};
        for (const std::optional<double> cap : {std::optional<double>(), std::optional<double>(3)}) {
          const plan_limits limits{.memory = {.activations = cap}, .evaluations = 300};
          const plan_result p = plan(problem, costs, limits);
          CHECK(verify(p.schedule));
          const metrics m = measured(p.schedule, costs);
          CHECK(m.makespan == p.makespan);
          CHECK(m.makespan >= p.bound.makespan * (1 - 1e-12));
          CHECK(m.makespan <= p.published_makespan);
          if (cap) CHECK(m.peak_activations <= *cap);
          plan_limits threads = limits;
          threads.threads = 3;
          CHECK(plan(problem, costs, threads).schedule == p.schedule);
        }
      }
}

TEST_CASE("plan: a plan of one evaluation is not longer than interleaved families with groups of usual sizes") {
  struct instance {
    std::int64_t pp, chunks, micro;
    stage_costs costs;
  };
  const instance all[] = {
      {5, 2, 10, {.forward = 3, .backward_input = 4, .backward_weight = 2, .transfer_time = 1}},
      {4, 2, 20, {.forward = 4, .backward_input = 8, .backward_weight = 8, .transfer_time = 2}},  // one group: 836
      {4, 4, 13, {.forward = 6, .backward_input = 9, .backward_weight = 8, .transfer_time = 1}},  // one group: 1229
      {8, 2, 25, {.forward = 1, .backward_input = 6, .backward_weight = 4, .transfer_time = 1}}};
  for (const auto& [pp, chunks, micro, costs] : all) {
    const plan_problem problem{.placement = placement::looped(pp, chunks), .micro = static_cast<std::uint32_t>(micro)};
    const double planned = plan(problem, costs, {.evaluations = 1}).makespan;
    for (const std::string_view name : {"interleaved_1f1b", "interleaved_zb", "group_interleaved"})
      for (const std::int64_t size : std::initializer_list<std::int64_t>{pp, pp + 1, 2 * pp, micro}) {
        CAPTURE(std::string(name));
        CAPTURE(std::int64_t{size});
        schedule s;
        try {
          s = make_schedule(name, {.pp = pp, .micro = micro, .chunks = chunks, .group_size = size});
        } catch (const schedule_error&) {
          continue;  // no such size
        }
        CHECK(planned <= measured(s, costs).makespan);
      }
  }
}

TEST_CASE("plan: the words of every family run as long as the plan's own simulation says") {
  stage_costs costs{.forward = 3, .backward_input = 4, .backward_weight = 2, .overlapped = 8, .transfer_time = 1};
  for (const int kind : {0, 1, 2}) {
    if (kind == 1) costs.micro_batches = {1, 2, 0.5, 1, 3, 1, 2, 1};
    if (kind == 2) costs.transfers_busy = link_busy::sender;
    for (const auto& where :
         {placement::linear(4), placement::vee(2), placement::looped(2, 2), placement::bidirectional(4, 8)})
      for (const schedule& s : detail::published_schedules(where, 8, false, {}, {})) {
        CAPTURE(s.name.view());
        CAPTURE(kind);
        schedule shape = s;
        shape.cells = {};
        const detail::word_table t(shape, costs, pass_pair_set::forward_with_backward(), {});
        for (const bool keep_weights : {false, true}) {
          const detail::word_rows w = detail::words_of(t, s, keep_weights);
          const schedule back = detail::schedule_of(t, w);
          REQUIRE(verify(back));
          CHECK(measured(back, costs).makespan == detail::word_simulator(t).run(w).makespan);
        }
        if (const auto half = t.folded()) {
          detail::word_rows w = detail::words_of(t, s, false);
          w.resize(half->ranks());
          const double makespan = detail::word_simulator(*half).run(w).makespan;
          CHECK(detail::word_simulator(t).run(detail::unfold(t, w)).makespan == makespan);
        }
      }
  }
}

TEST_CASE("plan: the work and the memory of a rank's words are those of its schedule") {
  stage_costs costs{.forward = 3, .backward_input = 4, .backward_weight = 2};
  costs.rank_speeds = {0.5, 1, 1, 2};
  for (const auto& where :
       {placement::linear(4), placement::vee(4), placement::looped(4, 2), placement::bidirectional(4, 8)})
    for (const bool forward_only : {false, true})
      for (const schedule& s : detail::published_schedules(where, 8, forward_only, {}, {})) {
        CAPTURE(s.name.view());
        schedule shape = s;
        shape.cells = {};
        const detail::word_table t(shape, costs, pass_pair_set::forward_with_backward(), {});
        const detail::word_rows w = detail::words_of(t, s, true);
        const metrics m = measured(detail::schedule_of(t, w), costs);
        const std::vector<double> peaks = detail::peaks_of(t, w), works = detail::works_of(t);
        const double share = where.stages() == where.ranks() ? 1 : 2;  // activations of a stage in one of the rank
        for (std::size_t r = 0; r < peaks.size(); ++r) {
          CHECK(works[r] == doctest::Approx(m.ranks[r].busy));
          CHECK(peaks[r] == doctest::Approx(share * m.ranks[r].peak_activations));
        }
      }
}

TEST_CASE("plan: less memory on the busiest rank at first leads to a shorter step") {
  stage_costs uneven = deepseek_v3_costs();
  uneven.overlapped = {}, uneven.overlap_efficiency = 0.916;
  const auto per_stage_of = [](double x) { return per_stage{x, 1.5 * x, x, x, 1.5 * x, x}; };
  uneven.forward = per_stage_of(97.39), uneven.backward_input = per_stage_of(111.61);
  uneven.backward_weight = per_stage_of(23.71);
  const schedule dualpipe = make_dualpipe_schedule({.pp = 6, .micro = 16});
  const detail::word_table all(detail::planned_shape(dualpipe.placement, 16, false), uneven,
                               pass_pair_set::forward_with_backward(), {.activations = 7});
  const detail::word_table t = *all.folded();
  detail::word_rows start = detail::words_of(all, dualpipe, false);
  start.resize(t.ranks());
  const std::uint64_t evaluations = 5200 * t.ops();
  const auto found = [&](unsigned threads) {
    detail::search_monitor monitor;
    return detail::narrow_search(t, {start}, 1, threads, monitor).run(evaluations, 1);
  };
  const detail::word_rows narrow = found(1);
  CHECK(found(3) == narrow);
  detail::search_monitor monitor;
  detail::word_portfolio usual(t, {start}, 1, 1, monitor);
  usual.run(evaluations);
  detail::word_evaluator evaluator(t);
  CHECK(evaluator.run(narrow).makespan < evaluator.run(usual.best()).makespan);
  CHECK(verify(detail::schedule_of(all, detail::unfold(all, narrow))));
}

// Cells that change places at random, so that many words wait for ever or lack memory.
TEST_CASE("plan: the fast evaluator of words says what the simulator of words says") {
  detail::random_numbers random(5);
  std::size_t whole = 0, broken = 0;
  for (int kind = 0; kind < 4; ++kind) {
    stage_costs costs{
        .forward = 3, .backward_input = 4.1, .backward_weight = 1.7, .overlapped = 6.3, .transfer_time = 0.3};
    if (kind == 1) costs.micro_batches = {1, 2, 0.5, 1, 3, 1, 2, 1};
    if (kind == 2) costs.transfers_busy = link_busy::both;
    if (kind == 3) costs.kept_by_forward = 10, costs.freed_by_input = 4, costs.transient_backward = 3;
    memory_caps caps{.activations = kind == 0 ? 3 : 8};
    if (kind == 3) caps = {.bytes = std::vector<double>(4, 90)};
    const pass_pair_set pairs{{pass::forward, pass::backward},
                              {pass::forward, pass::backward_input},
                              {pass::forward, pass::forward},
                              {pass::backward, pass::backward},
                              {pass::backward_input, pass::backward_input}};
    for (const auto& where :
         {placement::linear(4), placement::vee(4), placement::looped(4, 2), placement::bidirectional(4, 8)})
      for (const schedule& s : detail::published_schedules(where, 8, false, {}, {})) {
        CAPTURE(s.name.view());
        schedule shape = s;
        shape.cells = {};
        const detail::word_table t(shape, costs, pairs, caps);
        detail::word_evaluator evaluator(t);
        detail::word_simulator simulator(t);
        for (int n = 0; n < 100; ++n) {
          detail::word_rows w = detail::words_of(t, s, n % 2 == 0);
          for (std::uint64_t swaps = random.below(5); swaps > 0; --swaps) {
            auto& row = w[random.below(w.size())];
            const std::size_t i = random.below(row.size() - 1);
            std::swap(row[i], row[i + 1]);
          }
          const detail::word_times fast = evaluator.run(w), slow = simulator.run(w);
          CHECK(fast.makespan == slow.makespan);
          CHECK((fast.makespan == std::numeric_limits<double>::infinity() || fast.ends == slow.ends));
          if (n % 10 == 0 && fast.makespan < std::numeric_limits<double>::infinity())
            CHECK(fast.makespan == doctest::Approx(measured(detail::schedule_of(t, w), costs).makespan));
          ++(fast.makespan < std::numeric_limits<double>::infinity() ? whole : broken);
        }
      }
  }
  CHECK(whole > 2000);
  CHECK(broken > 2000);
}

TEST_CASE("plan: limits in bytes, recomputed stages, starts, and a search that is stopped") {
  stage_costs costs{.forward = 2, .backward_input = 2, .backward_weight = 1, .recompute = 1};
  costs.kept_by_forward = 10, costs.kept_input = 1, costs.transient_backward = 3;
  const plan_problem problem{.placement = placement::linear(4), .micro = 8};
  const std::vector<double> bytes(4, 25);
  const plan_result p = plan(problem, costs, {.memory = {.bytes = bytes}, .evaluations = 2000});
  for (const rank_metrics& r : measured(p.schedule, costs).ranks) CHECK(r.peak_bytes <= 25);
  plan_problem again = problem;
  again.recomputed.assign(4, true);
  const plan_result r = plan(again, costs, {.memory = {.bytes = bytes}, .evaluations = 2000});
  CHECK(r.makespan < p.makespan);
  for (const rank_metrics& m : measured(r.schedule, costs).ranks) CHECK(m.peak_bytes <= 25);
  CHECK(plan(problem, costs, {.memory = {.bytes = bytes}, .evaluations = 1, .starts = {p.schedule}}).makespan ==
        p.makespan);
  const plan_problem long_problem{.placement = placement::bidirectional(4, 40), .micro = 40};
  double seen = 0;  // progress speaks of the whole step, also while fewer micro-batches are planned
  const plan_result whole = plan(long_problem, unit, {.evaluations = 5000, .progress = [&](const plan_progress& at) {
                                                        CHECK(at.makespan >= at.lower_bound);
                                                        seen = at.makespan;
                                                        return true;
                                                      }});
  CHECK(seen >= whole.makespan);
  int calls = 0;
  const plan_result stopped =
      plan(dualpipe_8x20, unit, {.evaluations = 1'000'000, .progress = [&](const plan_progress& at) {
                                   CHECK(at.makespan >= at.lower_bound);
                                   return ++calls < 3;
                                 }});
  CHECK(stopped.evaluations < 500'000);
  CHECK(verify(stopped.schedule));
}

TEST_CASE("plan: a search that is to stop spends a million ops at most on it, whatever its size") {
  const plan_problem large{.placement = placement::vee(8), .micro = 64};  // 3072 ops
  std::uint64_t calls = 0;
  const plan_result stopped = plan(large, unit, {.evaluations = 1'000'000, .progress = [&](const plan_progress&) {
                                                   ++calls;
                                                   return false;
                                                 }});
  CHECK(calls == 1);
  CHECK(stopped.evaluations < 1000);
}

TEST_CASE("plan: bad limits are refused with the nearest legal value") {
  const plan_problem problem{.placement = placement::linear(4), .micro = 8};
  const auto refusal = [&](const plan_problem& of, const plan_limits& limits) {
    try {
      (void)plan(of, unit, limits);
    } catch (const schedule_error& e) {
      return std::string(e.what());
    }
    return std::string("taken");
  };
  CHECK(refusal(problem, {.memory = {.activations = 0.5}}) ==
        "plan() finds no schedule with at most 0.5 live activations per rank; nearest 1");
  CHECK(refusal(problem, {.memory = {.activations = 0}}) ==
        "a limit of live activations is more than 0; got 0, nearest 1");
  CHECK(refusal(problem, {.memory = {.activations = 1, .bytes = {1, 1, 1, 1}}}) ==
        "a plan takes a limit in activations or limits in bytes; got both");
  CHECK(refusal(problem, {.memory = {.bytes = {1}}}) == "1 limit in bytes; expected 4, one per rank");
  CHECK(refusal({.placement = {}, .micro = 8}, {}) ==
        "plan() needs a placement on at least 1 rank; got none, nearest 1");
  CHECK(refusal({.placement = placement::linear(4), .micro = 0}, {}) ==
        "plan() needs at least 1 micro-batch; got 0, nearest 1");
  CHECK(refusal({.placement = placement::linear(4), .micro = 0x8000'0000}, {}) ==
        "plan() needs stages x micro-batches of at most 2^28; got 4 stages x micro = 2147483648, nearest micro = "
        "67108864");
  CHECK(refusal(problem, {.starts = {make_dualpipe_schedule({.pp = 4, .micro = 8})}})
            .starts_with("plan() starts from schedules of its own problem; got dualpipe with 8 micro-batches"));
}

TEST_CASE("plan: proved optimal for every row of table 5 of the zero-bubble paper, with the memory of 1p and of 2p") {
  const auto table = nlohmann::json::parse(golden_text("zero_bubble_paper_table5.json"));
  int shorter = 0;
  for (const auto& row : table["rows"]) {
    const auto pp = row["pp"].get<std::uint32_t>(), micro = row["micro"].get<std::uint32_t>();
    CAPTURE(pp);
    CAPTURE(micro);
    const stage_costs costs = zero_bubble_costs(row);
    const double kept = costs.kept_by_forward[0];
    for (const double multiple : {1.0, 2.0}) {
      CAPTURE(multiple);
      const plan_result p = plan({.placement = placement::linear(pp), .micro = micro}, costs,
                                 {.memory = {.bytes = std::vector<double>(pp, multiple * pp * kept)},
                                  .pairs = pass_pair_set{},
                                  .evaluations = 1000});
      CHECK(p.makespan == doctest::Approx(p.bound.makespan).epsilon(1e-9));
      shorter += p.makespan < p.published_makespan - 1e-9;
    }
  }
  CHECK(shorter > 0);
}

TEST_CASE("refill: DualPipe's W's in its stalls") {
  const stage_costs costs = deepseek_v3_costs();
  const auto refilled = [&](std::int64_t pp, std::int64_t micro) {
    const schedule s = refill(make_dualpipe_schedule({.pp = pp, .micro = micro}), costs);
    CHECK(verify(s));
    CHECK(measured(s, costs).peak_activations <= static_cast<double>(pp + 1));
    return measured(s, costs).makespan;
  };
  CHECK(refilled(8, 20) == doctest::Approx(4026.73).epsilon(1e-6));
  CHECK(refilled(16, 64) == doctest::Approx(11250.84).epsilon(1e-6));
  CHECK(refilled(32, 128) == doctest::Approx(22712.28).epsilon(1e-6));
}

TEST_CASE("plan: blocks for many ranks") {
  struct instance {
    std::uint32_t pp, micro;
    std::uint64_t evaluations;
    double most, bound;
  };
  for (const auto& [pp, micro, evaluations, most, bound] :
       {instance{16, 64, 20'000, 11160, 11105.3}, instance{32, 128, 4'000, 22530, 22427.5}}) {
    CAPTURE(pp);
    const plan_result p = plan({.placement = placement::bidirectional(pp, micro), .micro = micro}, deepseek_v3_costs(),
                               {.memory = {.activations = pp + 1.0}, .evaluations = evaluations});
    CHECK(p.makespan <= most);
    CHECK(p.bound.makespan >= bound);
    CHECK(verify(p.schedule));
    CHECK(measured(p.schedule, deepseek_v3_costs()).peak_activations <= pp + 1.0);
  }
}

TEST_CASE("blocks: words of every length have each op once, on placements with two opposite stages per rank only") {
  const auto blocks_on = [](const placement& where, std::uint32_t micro, bool forward_only = false,
                            pass_pair_set pairs = pass_pair_set::forward_with_backward()) {
    const detail::word_table t(detail::planned_shape(where, micro, forward_only), unit, pairs, {});
    std::uint64_t simulations = 0;
    auto search = detail::block_search::on(t, 7, simulations);
    if (!search) return false;
    CHECK(simulations == 1);
    const auto is_complete = [&] {
      const schedule s = detail::schedule_of(t, search->words());
      return static_cast<bool>(verify(s));
    };
    CHECK(is_complete());
    for (int part = 0; part < 20; ++part) {
      search->anneal(50, [](std::uint64_t, double) { return true; });
      CHECK(is_complete());
    }
    return true;
  };
  CHECK(blocks_on(placement::bidirectional(4, 12), 12));
  CHECK(blocks_on(placement::bidirectional(6, 16), 16));
  CHECK(blocks_on(placement::vee(3), 9));
  CHECK_FALSE(blocks_on(placement::vee(3), 9, true));
  CHECK_FALSE(blocks_on(placement::vee(3), 9, false, pass_pair_set{}));
  CHECK_FALSE(blocks_on(placement::bidirectional(4, 13), 13));
  CHECK_FALSE(blocks_on(placement::linear(4), 9));
  CHECK_FALSE(blocks_on(placement::looped(4, 2), 9));
}

TEST_CASE("plan: a plan keeps its gain over DualPipe when cells take up to 5 % longer") {
  const plan_result p = plan(dualpipe_8x20, deepseek_v3_costs(), {.memory = {.activations = 9}, .evaluations = 20'000});
  const auto mean = [](const schedule& s) {
    return simulate_noise(s, deepseek_v3_costs(), {.noise = 0.05, .draws = 1000}).mean;
  };
  CHECK(mean(p.schedule) <= 0.965 * mean(make_dualpipe_schedule({.pp = 8, .micro = 20})));
}

TEST_CASE("pareto: more memory is never worse") {
  const auto front = pareto(dualpipe_8x20, deepseek_v3_costs(), {9, 6, 12, 7}, {.evaluations = 100'000});
  REQUIRE(front.size() == 4);
  for (std::size_t i = 1; i < front.size(); ++i) {
    CHECK(front[i - 1].cap < front[i].cap);
    CHECK(front[i].plan.makespan <= front[i - 1].plan.makespan);
    CHECK(front[i].plan.bound.makespan <= front[i].plan.makespan);
  }
}

TEST_CASE(
    "plan: a limit that holds one micro-batch at a time is enough, on a placement that is its own mirror image, too") {
  const stage_costs costs{.forward = 3, .backward_input = 3, .backward_weight = 5, .transfer_time = 2};
  for (const double cap : {1.0, 2.0}) {
    CAPTURE(cap);
    const plan_result p = plan({.placement = placement::bidirectional(4, 4), .micro = 4}, costs,
                               {.memory = {.activations = cap}, .pairs = pass_pair_set{}, .evaluations = 300});
    CHECK(measured(p.schedule, costs).peak_activations <= cap);
  }
}

TEST_CASE("plan: a whole backward is used where it needs fewer bytes than its halves") {
  stage_costs costs{.forward = 1, .kept_by_forward = 3, .context = 3, .transient_backward_weight = 2};
  const plan_problem problem{.placement = placement::vee(2), .micro = 3};
  const plan_result p = plan(problem, costs, {.memory = {.activations = {}, .bytes = {6, 6}}, .evaluations = 300});
  for (const rank_metrics& r : measured(p.schedule, costs).ranks) CHECK(r.peak_bytes == 6);
  CHECK_THROWS_WITH_AS(plan(problem, costs, {.memory = {.activations = {}, .bytes = {6, 5}}}),
                       "plan() finds no schedule with at most 5 bytes on rank 1; nearest 6", schedule_error);
}
