// SPDX-License-Identifier: MIT

#include "pipesched/plan/detail/list_search.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/plan/detail/words.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/support/random_numbers.hpp"

using namespace pipesched;

namespace {

detail::list_search searched(const detail::word_table& t, std::uint64_t evaluations, std::uint64_t seed) {
  detail::list_search search(t, seed);
  search.run(evaluations, [](std::uint64_t, double) { return true; });
  return search;
}

// The memory of one micro-batch at a time, by rank.
std::vector<double> least_memory(const placement& where, const stage_costs& costs) {
  std::vector<double> kept(where.ranks(), 0), beyond(where.ranks(), 0);
  for (std::uint32_t replica = 0; replica < where.replicas(); ++replica) {
    std::vector<double> of_replica(where.ranks(), 0);
    for (std::uint32_t s = 0; s < where.stages(); ++s) {
      const std::uint16_t rank = where.rank_of_stage(replica)[s];
      of_replica[rank] += costs.kept_by_forward[s];
      beyond[rank] = std::max({beyond[rank], costs.transient_forward[s], costs.transient_backward[s]});
    }
    for (std::size_t r = 0; r < kept.size(); ++r) kept[r] = std::max(kept[r], of_replica[r]);
  }
  for (std::size_t r = 0; r < kept.size(); ++r) kept[r] += beyond[r];
  return kept;
}

}  // namespace

TEST_CASE("lists: on any placement, with any memory that holds one micro-batch, all ranks get to their end within it") {
  detail::random_numbers random(1);
  for (int i = 0; i < 200; ++i) {
    CAPTURE(i);
    const auto ranks = static_cast<std::int64_t>(2 + random.below(4));
    const auto micro = static_cast<std::uint32_t>(2 + 2 * random.below(5));
    const placement all[] = {placement::linear(ranks), placement::vee(ranks), placement::looped(ranks, 3),
                             placement::wave(ranks, 2), placement::bidirectional(2 * (ranks / 2), micro)};
    const placement where = all[random.below(std::size(all))].for_micro(micro);
    std::vector<double> forward, backward, weight, kept;
    for (std::uint32_t s = 0; s < where.stages(); ++s) {
      forward.push_back(1 + static_cast<double>(random.below(5))),
          backward.push_back(1 + static_cast<double>(random.below(5)));
      weight.push_back(static_cast<double>(random.below(4))), kept.push_back(static_cast<double>(random.below(5)));
    }
    stage_costs costs{
        .forward = per_stage(forward), .backward_input = per_stage(backward), .backward_weight = per_stage(weight)};
    costs.kept_by_forward = per_stage(kept), costs.transient_backward = static_cast<double>(random.below(3));
    costs.overlapped = random.below(2) == 0 ? 4. : 100.;
    costs.transfer_time = static_cast<double>(random.below(3));
    memory_caps caps{.bytes = least_memory(where, costs)};
    for (double& b : caps.bytes) b += static_cast<double>(random.below(4));
    const bool forward_only = random.below(8) == 0;
    const schedule shape = detail::planned_shape(where, micro, forward_only);
    const pass_pair_set pairs = random.below(2) == 0 ? pass_pair_set{} : pass_pair_set::forward_with_backward();
    const detail::word_table t(shape, costs, pairs, caps);
    const detail::list_search search = searched(t, 12 * detail::list_search::price, static_cast<std::uint64_t>(i));
    REQUIRE(search.makespan() < std::numeric_limits<double>::infinity());
    const schedule s = detail::schedule_of(t, search.words());
    REQUIRE(verify(s));
    const metrics m = measure(simulate(s, costs), costs);
    CHECK(m.makespan == doctest::Approx(search.makespan()).epsilon(1e-12));
    for (std::size_t r = 0; r < caps.bytes.size(); ++r) CHECK(m.ranks[r].peak_bytes <= caps.bytes[r] * (1 + 1e-9));
    CHECK(searched(t, 12 * detail::list_search::price, static_cast<std::uint64_t>(i)).words() == search.words());
  }
}

TEST_CASE(
    "lists: what they do is counted, more where ranks have more stages and less memory, and never more than allowed") {
  const auto ops_per_op = [](const placement& where, memory_caps caps) {
    const stage_costs costs{.forward = 1, .backward_input = 1, .backward_weight = 1};
    const detail::word_table t(detail::planned_shape(where, 16, false), costs, {}, caps);
    detail::list_search search(t, 1);
    std::uint64_t lists = 0, ops = 0;
    search.run(500, [&](std::uint64_t since, double) { return ++lists, ops += since, true; });
    CHECK(ops <= 500 * t.ops());
    CHECK(lists >= 5);
    detail::list_search(t, 1).run(detail::list_search::price - 1, [](std::uint64_t, double) {
      FAIL("a list for less than its price");
      return true;
    });
    return static_cast<double>(ops) / static_cast<double>(lists * t.ops());
  };
  const double linear = ops_per_op(placement::linear(4), {}), looped = ops_per_op(placement::looped(4, 4), {}),
               scarce = ops_per_op(placement::looped(4, 4), {.activations = 4});
  // To run an op takes as much as 16 ops of an evaluation, and at least two looks at the F and the backward of each stage.
  CHECK(linear > 20);
  CHECK(looped > linear + 10);
  CHECK(scarce > looped + 5);
}

TEST_CASE("lists: where memory is unequal and no family fits, a plan starts from a list") {
  const placement where = placement::looped(4, 2).for_micro(16);
  stage_costs costs{
      .forward = {1, 2, 2, 3, 2, 2, 1, 6}, .backward_input = {2, 3, 3, 4, 3, 3, 2, 3}, .backward_weight = 0.5};
  costs.kept_by_forward = {1, 2, 2, 3, 2, 2, 1, 0};
  const std::vector<double> bytes{10, 12, 9, 9};
  const plan_result p =
      plan({.placement = where, .micro = 16}, costs, {.memory = {.bytes = bytes}, .evaluations = 3000});
  CHECK(p.published.empty());
  CHECK(verify(p.schedule));
  CHECK(p.makespan < 1.2 * p.bound.makespan);
}
