// SPDX-License-Identifier: MIT

#include "pipesched/core/transform.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/cost/presets.hpp"
#include "pipesched/cost/split_costs.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"

using namespace pipesched;
using namespace pipesched::tests;

static_assert(verify(split_backward(make_dualpipe_schedule({.pp = 4, .micro = 8}))));
static_assert(verify(overlap_neighbours(make_zbv_schedule({.pp = 2, .micro = 4}))));
static_assert(verify(concatenate(make_1f1b_schedule({.pp = 2, .micro = 2}),
                                 make_1f1b_schedule({.pp = 2, .micro = 3}))));

namespace {

// All ops of all ranks, sorted.
std::vector<op> ops_of(const schedule& s) {
  std::vector<op> all;
  for (const cell& c : s.cells.all()) all.insert(all.end(), c.begin(), c.end());
  std::sort(all.begin(), all.end());
  return all;
}

std::size_t count(const schedule& s, pass p) {
  const std::vector<op> all = ops_of(s);
  return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [&](op o) { return o.pass == p; }));
}

std::size_t pairs_of(const schedule& s) {
  const auto cells = s.cells.all();
  return static_cast<std::size_t>(
      std::count_if(cells.begin(), cells.end(), [](const cell& c) { return c.overlapped(); }));
}

schedule from_text(const std::vector<std::vector<cell>>& cells, const schedule& like) {
  schedule s = like;
  s.cells = rows<cell>(cells);
  return s;
}

}  // namespace

TEST_CASE("transform: the result is valid for every family and size") {
  for_all_families(7, 15, [](const family& f, const schedule_params& p) {
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    CAPTURE(p.forward_only);
    const schedule s = f.make(p);
    const schedule split = split_backward(s);
    REQUIRE(to_string(verify(split)) == "");
    REQUIRE(count(split, pass::backward) == 0);
    const schedule merged = merge_backward(s);
    REQUIRE(to_string(verify(merged)) == "");
    REQUIRE(count(merged, pass::backward_input) + count(merged, pass::backward_weight) == 0);
    if (count(s, pass::backward_weight) == 0) REQUIRE(merge_backward(split) == s);
    const schedule forwards = keep_forwards(s);
    REQUIRE(to_string(verify(forwards)) == "");
    REQUIRE(forwards.cells.all().size() == count(s, pass::forward));
    for (std::int64_t micro = 1; micro <= p.micro; ++micro) {
      const schedule fewer = keep_micro_batches(s, micro);
      REQUIRE(to_string(verify(fewer)) == "");
      REQUIRE(count(fewer, pass::forward) * s.micro == count(s, pass::forward) * static_cast<std::size_t>(micro));
    }
    REQUIRE(keep_micro_batches(s, p.micro) == s);
    for (const std::int64_t by : {0, 1, 3, 1000}) {
      const schedule delayed = delay_weights(s, by);
      REQUIRE(to_string(verify(delayed)) == "");
      REQUIRE(ops_of(delayed) == ops_of(s));
      if (by == 0) REQUIRE(delayed == s);
      for (std::size_t rank = 0; rank < s.pp(); ++rank)
        REQUIRE(peak_activations(delayed[rank], s.forward_only) <= peak_activations(s[rank], s.forward_only) + by);
    }
    for (const schedule& plain : {s, split, delay_weights(split, 2)})
      for (const overlap_policy how : {overlap_policy::everywhere, overlap_policy::where_ready}) {
        const schedule paired = overlap_neighbours(plain, how);
        REQUIRE(to_string(verify(paired)) == "");
        REQUIRE(ops_of(paired) == ops_of(plain));
        REQUIRE(paired.cells.all().size() + pairs_of(paired) == plain.cells.all().size() + pairs_of(plain));
      }
    if (p.micro % 2 == 0 || s.placement.replicas() == 1) {
      const schedule twice = concatenate(s, s);
      REQUIRE(to_string(verify(twice)) == "");
      REQUIRE(twice.micro == 2 * s.micro);
      const schedule more = concatenate(s, f.make({.pp = p.pp, .micro = 3, .forward_only = p.forward_only}));
      REQUIRE(to_string(verify(more)) == "");
      REQUIRE(more.micro == s.micro + 3);
    }
  });
}

TEST_CASE("transform: results written by hand") {
  const schedule like = make_1f1b_schedule({.pp = 1, .micro = 2});
  const stage_ops a(0);
  const schedule pairs = from_text({{a.F(0), overlap(a.F(1), a.B(0)), a.B(1)}}, like);
  CHECK(to_string(split_backward(pairs)[0]) == "0F0 (0F1;0I0) 0W0 0I1 0W1");
  CHECK(merge_backward(split_backward(pairs)) == pairs);
  CHECK(to_string(keep_forwards(pairs)[0]) == "0F0 0F1");
  CHECK(to_string(keep_micro_batches(pairs, 1)[0]) == "0F0 0B0");
  const schedule weights = from_text({{a.F(0), a.F(1), a.I(0), overlap(a.W(0), a.I(1)), a.W(1)}}, like);
  REQUIRE(verify(weights));
  CHECK(to_string(delay_weights(weights, 1)[0]) == "0F0 0F1 0I0 0I1 0W0 0W1");
  CHECK(to_string(delay_weights(weights, 2)[0]) == "0F0 0F1 0I0 0I1 0W0 0W1");
  CHECK(to_string(merge_backward(weights)[0]) == "0F0 0F1 0B0 0B1");
  CHECK(to_string(overlap_neighbours(make_gpipe_schedule({.pp = 1, .micro = 2}))[0]) == "0F0 (0F1;0B0) 0B1");
  CHECK(to_string(overlap_neighbours(make_1f1b_schedule({.pp = 2, .micro = 3}))) ==
        "rank 0: 0F0 (0F1;0B0) (0F2;0B1) 0B2\nrank 1: 1F0 1B0 1F1 1B1 1F2 1B2\n");
  CHECK(overlap_neighbours(make_1f1b_schedule({.pp = 2, .micro = 3}), overlap_policy::where_ready) ==
        make_1f1b_schedule({.pp = 2, .micro = 3}));
  // As pairs, rank 0 would wait for 1B1 before it runs 0F2 and rank 1 for 0F2 before it runs 1B1: one stays unpaired.
  const schedule cycle = [&] {
    schedule s = make_1f1b_schedule({.pp = 2, .micro = 3});
    const stage_ops b(1);
    s.cells = rows<cell>(
        {{a.F(0), a.F(1), a.B(0), a.F(2), a.B(1), a.B(2)}, {b.F(0), b.B(0), b.F(1), b.F(2), b.B(1), b.B(2)}});
    return s;
  }();
  REQUIRE(verify(cycle));
  CHECK(to_string(overlap_neighbours(cycle)) ==
        "rank 0: 0F0 (0F1;0B0) 0F2 0B1 0B2\nrank 1: 1F0 1B0 1F1 (1F2;1B1) 1B2\n");
  CHECK(to_string(concatenate(make_1f1b_schedule({.pp = 2, .micro = 1}), make_1f1b_schedule({.pp = 2, .micro = 2}))) ==
        "rank 0: 0F0 0B0 0F1 0F2 0B1 0B2\nrank 1: 1F0 1B0 1F1 1B1 1F2 1B2\n");
  // Replica 1 has micro-batches 2 and 3 of four, then 4 ... 7 of eight.
  CHECK(to_string(concatenate(make_chimera_schedule({.pp = 2, .micro = 4}),
                              make_chimera_schedule({.pp = 2, .micro = 4}))[0]) ==
        "0F0 1F4 1B4 0B0 0F1 1F5 1B5 0B1 0F2 1F6 1B6 0B2 0F3 1F7 1B7 0B3");
}

TEST_CASE("transform: the results equal the families' own variants") {
  for (std::int64_t pp : {2, 4, 6})
    for (std::int64_t micro : {1, 3, 2 * static_cast<int>(pp) - 2}) {
      CHECK(keep_micro_batches(make_zbv_schedule({.pp = pp, .micro = 2 * pp - 1}), micro) ==
            make_zbv_schedule({.pp = pp, .micro = micro}));
      CHECK(keep_micro_batches(make_dualpipe_schedule({.pp = pp, .micro = 2 * pp}), micro) ==
            make_dualpipe_schedule({.pp = pp, .micro = micro}));
      for (const char* name :
           {"gpipe", "1f1b", "zb1p", "zbv", "dualpipe", "dualpipev", "chimera", "hanayo", "v_half", "v_min", "v_1f1b"})
        CHECK(keep_forwards(make_schedule(name, {.pp = pp, .micro = micro})) ==
              make_schedule(name, {.pp = pp, .micro = micro, .forward_only = true}));
    }
  // Megatron's overlap: one more forward of warm-up, then pairs.
  for (std::int64_t pp : {2, 4, 8})
    for (std::int64_t micro : {pp, 3 * pp + 1, 5 * pp}) {
      const interleaved_params p{.pp = pp, .micro = micro, .chunks = 2, .extra_warm_up = true};
      CHECK(overlap_neighbours(make_interleaved_1f1b_schedule(p)) ==
            make_interleaved_1f1b_schedule({.pp = pp, .micro = micro, .chunks = 2, .overlap = true}));
    }
  const stage_costs costs = split_stage_costs(deepseek_v3_costs(), placement::vee(4));
  const auto makespan = [&](const schedule& s) { return measure(simulate(s, costs)).makespan; };
  const schedule zbv = make_zbv_schedule({.pp = 4, .micro = 24});
  CHECK(makespan(overlap_neighbours(zbv, overlap_policy::where_ready)) < 0.9 * makespan(zbv));
}

TEST_CASE("transform: refuses impossible arguments") {
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 4});
  CHECK(refusal_of([&] { keep_micro_batches(s, 0); }) ==
        "keep_micro_batches() takes 1 to 4 of this schedule's micro-batches; got 0, nearest 1");
  CHECK(refusal_of([&] { keep_micro_batches(s, 5); }) ==
        "keep_micro_batches() takes 1 to 4 of this schedule's micro-batches; got 5, nearest 4");
  CHECK(refusal_of([&] { concatenate(s, make_1f1b_schedule({.pp = 3, .micro = 4})); }) ==
        "concatenate() takes two steps with the same stages on the same ranks; got 2 stages on 2 ranks (linear) and 3 "
        "on 3 (linear)");
  CHECK(refusal_of([&] { concatenate(s, make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 1})); }) == "");
  CHECK(refusal_of([&] {
          schedule huge = s;
          huge.micro = 0xFFFFFFFE;
          concatenate(huge, s);
        }) ==
        "concatenate() takes at most 4294967294 micro-batches in all; got 4294967294 and 4, nearest 0 in the second "
        "step");
  CHECK(refusal_of([&] { concatenate(s, make_1f1b_schedule({.pp = 2, .micro = 4, .forward_only = true})); }) ==
        "concatenate() takes two forward-only steps or two training steps; got one of each");
  const schedule odd = make_dualpipe_schedule({.pp = 2, .micro = 5});
  CHECK(refusal_of([&] { concatenate(odd, odd); }) ==
        "with two replicas concatenate() takes at most one step with an odd number of micro-batches; got 5 and 5, "
        "nearest 4 or 6 in the second step");
  CHECK(refusal_of([&] {
          concatenate(odd, make_dualpipe_schedule({.pp = 2, .micro = 1}));
        }).ends_with("got 5 and 1, nearest 2 in the second step"));
  CHECK(refusal_of([&] { delay_weights(s, -1); }) == "delay_weights() delays by 0 or more; got -1, nearest 0");
}

TEST_CASE("transform: every transform refuses an invalid schedule with the report's first violation") {
  const schedule good = make_1f1b_schedule({.pp = 2, .micro = 4});
  schedule late = good;  // 0B0 before 0F0
  std::swap(late[0][0], late[0][2]);
  schedule far = good;  // an index that no transform may use
  far[1][0][0].stage = 9;
  schedule no_micro = good;
  no_micro.micro = 0;
  for (const schedule& bad : {late, far, no_micro, schedule{}}) {
    const std::string expected = "the schedule is not valid: " + detail::first_violation(verify(bad));
    CAPTURE(expected);
    CHECK(refusal_of([&] { require_valid(bad); }) == expected);
    CHECK(refusal_of([&] { split_backward(bad); }) == expected);
    CHECK(refusal_of([&] { merge_backward(bad); }) == expected);
    CHECK(refusal_of([&] { keep_forwards(bad); }) == expected);
    CHECK(refusal_of([&] { keep_micro_batches(bad, 1); }) == expected);
    CHECK(refusal_of([&] { delay_weights(bad, 1); }) == expected);
    CHECK(refusal_of([&] { overlap_neighbours(bad); }) == expected);
    CHECK(refusal_of([&] { overlap_neighbours(bad, overlap_policy::where_ready); }) == expected);
    CHECK(refusal_of([&] { concatenate(bad, good); }) == expected);
    CHECK(refusal_of([&] { concatenate(good, bad); }) == expected);
  }
  CHECK(refusal_of([&] { require_valid(late); }) ==
        "the schedule is not valid: rank 0, cell 0: order: 0B0 before 0F0 in cell 2; expected after it");
  CHECK(
      refusal_of([&] { require_valid(far); }) ==
      "the schedule is not valid: rank 1, cell 0: range: 9F0; expected F, B, I, W, R, RB or RI, a stage below 2 and a "
      "micro-batch below 4 (and 1 more)");
}
