// SPDX-License-Identifier: MIT
// Recomputation and frozen stages: the transforms, what they refuse, and laws over all families.

#include "pipesched/core/recompute.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/freeze.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/core/transform.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/generate/families.hpp"
#include "support/any_variant.hpp"
#include "support/brute_force.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

const schedule small = make_1f1b_schedule({.pp = 2, .micro = 4});

// By stage and micro-batch: 'R' if it is recomputed by an R, 'r' inside its backward.
std::map<std::pair<std::uint32_t, std::uint32_t>, char> recomputed(const schedule& s) {
  std::map<std::pair<std::uint32_t, std::uint32_t>, char> found;
  for (const cell& c : s.cells.all())
    for (const op o : c)
      if (o.pass == pass::recompute)
        found[{o.stage, o.micro}] = 'R';
      else if (recomputes(o.pass))
        found[{o.stage, o.micro}] = 'r';
  return found;
}

}  // namespace

TEST_CASE("recompute: an R stands right before its backward, or the backward recomputes inside") {
  CHECK(to_string(recompute(small)[0]) == "0F0 0F1 0R0 0B0 0F2 0R1 0B1 0F3 0R2 0B2 0R3 0B3");
  CHECK(to_string(recompute(small)[1]) == "1F0 1R0 1B0 1F1 1R1 1B1 1F2 1R2 1B2 1F3 1R3 1B3");
  CHECK(to_string(recompute(small, {.inside_backward = true})[1]) == "1F0 1RB0 1F1 1RB1 1F2 1RB2 1F3 1RB3");
  CHECK(to_string(recompute(split_backward(small), {.stages = {1}, .inside_backward = true})[1]) ==
        "1F0 1RI0 1W0 1F1 1RI1 1W1 1F2 1RI2 1W2 1F3 1RI3 1W3");
  CHECK(to_string(recompute(small, {.stages = {1}})[0]) == to_string(small[0]));
  CHECK(to_string(recompute(small, {.count = 1, .of_every = 2})[1]) == "1F0 1B0 1F1 1R1 1B1 1F2 1B2 1F3 1R3 1B3");
  CHECK(to_string(recompute(small, {.first_whole = 3})[1]) == "1F0 1B0 1F1 1B1 1F2 1B2 1F3 1R3 1B3");
  CHECK(to_string(recompute(make_dualpipev_schedule({.pp = 2, .micro = 4}))[0]).find("3R1 (0F3;3B1) 0R0 (3F2;0B0)") !=
        std::string::npos);
}

TEST_CASE("recompute: what is chosen, and nothing else, is recomputed; keep_activations() undoes it") {
  for_all_families(4, 6, [](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    for (const bool inside : {false, true}) {
      const schedule all = recompute(s, {.inside_backward = inside});
      CAPTURE(f.name);
      CAPTURE(to_string(all));
      REQUIRE(to_string(verify(all)) == "");
      REQUIRE(recomputed(all).size() == (p.forward_only ? 0 : std::size_t{s.stages()} * s.micro));
      REQUIRE(keep_activations(all) == s);
      REQUIRE(recompute(all, {.inside_backward = !inside}) == all);  // what is recomputed stays
      const schedule half =
          recompute(s, {.stages = {0}, .count = 1, .of_every = 2, .first_whole = 1, .inside_backward = inside});
      std::size_t chosen = 0;
      for (std::uint32_t m = 0; m < s.micro && !p.forward_only; ++m) {
        const std::uint32_t own = m - s.placement.replica_begin(s.placement.replica_of(m));
        const bool is = own >= 1 && own % 2 == 1;
        REQUIRE(recomputed(half).count({0, m}) == is);
        chosen += is;
      }
      REQUIRE(recomputed(half).size() == chosen);
    }
  });
}

TEST_CASE("recompute: transforms keep it, split it and merge it") {
  const schedule inside = recompute(small, {.inside_backward = true});
  CHECK(to_string(split_backward(inside)[1]) == "1F0 1RI0 1W0 1F1 1RI1 1W1 1F2 1RI2 1W2 1F3 1RI3 1W3");
  CHECK(merge_backward(split_backward(inside)) == inside);
  CHECK(keep_forwards(inside) == keep_forwards(small));
  CHECK(keep_micro_batches(recompute(small), 2).micro == 2);
  CHECK(verify(concatenate(recompute(small), inside)));
  CHECK(verify(overlap_neighbours(inside)));
  CHECK(verify(overlap_neighbours(inside, overlap_policy::where_ready)));
  CHECK(verify(delay_weights(recompute(split_backward(small)), 2)));
}

TEST_CASE("recompute: refuses a choice that makes no sense") {
  const auto refused = [](const recompute_choice& which) {
    return refusal_of([&] { static_cast<void>(recompute(small, which)); });
  };
  CHECK(refused({.stages = {2}}) == "recompute() takes stages 0 to 1; got 2, nearest 1");
  CHECK(refused({.stages = {-1}}) == "recompute() takes stages 0 to 1; got -1, nearest 0");
  CHECK(refused({.count = 3, .of_every = 2}) == "recompute() takes a count of 0 to 2, of_every; got 3, nearest 2");
  CHECK(refused({.count = -1}) == "recompute() takes a count of 0 to 1, of_every; got -1, nearest 0");
  CHECK(refused({.of_every = 0}) == "recompute() takes of_every of 1 or more; got 0, nearest 1");
  CHECK(refused({.first_whole = -1}) == "recompute() takes first_whole of 0 or more; got -1, nearest 0");
}

TEST_CASE("verify: names what is wrong with a recomputation") {
  const auto verdict = [](const char* rank_0, const char* rank_1) {
    return to_string(verify(parse_schedule(std::string(rank_0) + "\n" + rank_1, placement::linear(2))));
  };
  CHECK(verdict("0F0 0R0 0B0", "1F0 1B0") == "");
  CHECK(verdict("0R0 0F0 0B0", "1F0 1B0") == "rank 0, cell 0: order: 0R0 before 0F0 in cell 1; expected after it\n");
  CHECK(verdict("0F0 0B0 0R0", "1F0 1B0") == "rank 0, cell 1: order: 0B0 before 0R0 in cell 2; expected after it\n");
  CHECK(verdict("0F0 0R0 0RB0", "1F0 1B0") ==
        "rank 0, cell 1: backward: 0R0 beside 0RB0 in cell 2; expected one recomputation\n");
  CHECK(verdict("0F0 0R0 0R0 0B0", "1F0 1B0").find("duplicate: 0R0 again, first in cell 1") != std::string::npos);
  CHECK(verdict("0F0 (0R0;0B0)", "1F0 1B0").find("overlap: 0B0 needs 0R0") != std::string::npos);
  CHECK(verdict("(0F0;0R0) 0B0", "1F0 1B0").find("overlap: 0R0 needs 0F0") != std::string::npos);
  CHECK(verdict("0F0 0R0 0RI0 0W0", "1F0 1B0").find("0R0 beside 0RI0") != std::string::npos);
  CHECK(verdict("0F0 0B0 0RB0", "1F0 1B0") ==
        "rank 0, cell 2: duplicate: 0RB0 again, first as 0B0 in cell 1; expected once\n");
  CHECK(verdict("0F0 0RB0 0I0", "1F0 1B0") ==
        "rank 0, cell 1: backward: 0RB0 beside 0I0 in cell 2; expected either one B or one I and one W\n");
  CHECK(verdict("0F0 0B0 0RI0", "1F0 1B0") ==
        "rank 0, cell 1: backward: 0B0 beside 0RI0 in cell 2; expected either one B or one I and one W\n");
}

TEST_CASE("freeze: the first stages lose their backward, the others their W") {
  const schedule s = make_1f1b_schedule({.pp = 3, .micro = 2});
  const schedule frozen = freeze(s, {0, 2});
  CHECK(to_string(frozen) == "rank 0: 0F0 0F1\nrank 1: 1F0 1F1 1B0 1B1\nrank 2: 2F0 2I0 2F1 2I1\n");
  CHECK(frozen.backward == std::vector{stage_backward::none, stage_backward::full, stage_backward::input});
  CHECK(freeze(s, {2}).backward == std::vector{stage_backward::full, stage_backward::full, stage_backward::input});
  CHECK(freeze(freeze(s, {0}), {1}).backward ==
        std::vector{stage_backward::none, stage_backward::none, stage_backward::full});
  CHECK(freeze(freeze(s, {1}), {0}) == freeze(s, {0, 1}));
  CHECK(freeze(s, {}) == s);
  CHECK(refusal_of([&] { static_cast<void>(freeze(s, {3})); }) == "freeze() takes stages 0 to 2; got 3, nearest 2");
  CHECK(refusal_of([&] {
          static_cast<void>(freeze(s, {0, 1, 2}));
        }) == "freeze() leaves at least one stage to train; keep_forwards() makes a step without backwards");
  CHECK(refusal_of([&] { static_cast<void>(freeze(keep_forwards(s), {0})); }) ==
        "freeze() takes a training step; this one is forward only");
  CHECK(split_backward(frozen).backward == frozen.backward);
  CHECK(merge_backward(split_backward(frozen)) == frozen);
}

TEST_CASE("verify: names what is wrong with frozen stages") {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 1});
  s.backward = {stage_backward::none, stage_backward::full};
  CHECK(to_string(verify(s)).find("range: 0B0; expected F alone (the stage has no backward)") != std::string::npos);
  s.backward = {stage_backward::input, stage_backward::full};
  CHECK(to_string(verify(s)).find("0B0; expected F, I, R or RI (the stage has no backward for weights)") !=
        std::string::npos);
  s.backward = {stage_backward::full};
  CHECK(to_string(verify(s)) == "rank 0: shape: the backwards of 1 stage; expected 2, or none at all\n");
  s.backward = {stage_backward::full, stage_backward::none};
  CHECK(to_string(verify(s)) ==
        "rank 0: shape: stage 1 has no backward, but stage 0 before it has; expected none in the first stages alone\n");
  schedule missing = parse_schedule("0F0\n1F0 1B0", placement::linear(2));
  missing.backward = {stage_backward::input, stage_backward::full};
  CHECK(to_string(verify(missing)) == "rank 0: missing: 0I0; expected one I\n");
}

TEST_CASE("variants: valid for verify() and its twin; predecessors and successors are inverse and make an order") {
  std::mt19937_64 random(15);
  int recomputing = 0, frozen = 0, paired = 0;
  for_all_families(4, 6, [&](const family& f, const schedule_params& p) {
    const schedule s = any_variant(f.make(p), random);
    CAPTURE(to_string(s));
    REQUIRE(to_string(verify(s)) == "");
    REQUIRE(brute_force(s).broken_rules().empty());
    recomputing += !recomputed(s).empty(), frozen += !s.backward.empty();
    std::map<op, std::size_t> number;  // in the order of a walk
    walk(s, [&](std::uint32_t, std::size_t, const cell& c) {
      paired += c.overlapped() && (c[0].pass == pass::recompute || c[1].pass == pass::recompute);
      for (const op o : c) number.emplace(o, number.size());
    });
    for (const auto& [o, at] : number) {
      const auto before = predecessors(s, o);
      REQUIRE(before.size() <= 2);
      for (const op b : before) {
        REQUIRE(number.at(b) < at);
        REQUIRE(depends(o, b, s.chain()));
        const auto back = successors(s, b);
        REQUIRE(std::find(back.begin(), back.end(), o) != back.end());
      }
      for (const op a : successors(s, o)) {
        const auto back = predecessors(s, a);
        REQUIRE(std::find(back.begin(), back.end(), o) != back.end());
      }
    }
  });
  CHECK(recomputing > 100);
  CHECK(frozen > 100);
  CHECK(paired > 20);
}
