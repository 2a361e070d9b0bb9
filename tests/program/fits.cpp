// SPDX-License-Identifier: MIT
// fits(): weights, activations and buffers against the memory of each rank.

#include "pipesched/program/fits.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "pipesched/core/recompute.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

const schedule on_two_ranks = make_1f1b_schedule({.pp = 2, .micro = 4});
const stage_costs bytes{.message_bytes = 3, .kept_by_forward = 10, .weight_bytes = {100, 50}, .transient_backward = 2};

}  // namespace

TEST_CASE("fits: the sum of weights, activations at their peak, and buffers") {
  const memory_report r = fits(lower(on_two_ranks, {.depth = 1}), bytes);
  CHECK(r);
  CHECK(r.ranks[0].weights == 100);
  CHECK(r.ranks[0].activations == 22);
  CHECK(r.ranks[0].buffers == 6);  // one that is sent, one that is received
  CHECK(r.ranks[0].total() == 128);
  CHECK(r.ranks[1].total() == 68);
  CHECK(fits(on_two_ranks, bytes, {}, {.depth = 4}).ranks[0].buffers == 24);
  CHECK(fits(make_dualpipe_schedule({.pp = 2, .micro = 4}), stage_costs{.weight_bytes = {1, 2}}).ranks[0].weights == 3);
  CHECK(fits(on_two_ranks, uniform_costs{}).ranks[1].total() == 0);
}

TEST_CASE("fits: names the first cell on the first rank that does not fit, and by how much") {
  const program p = lower(on_two_ranks, {.depth = 1});
  CHECK(to_string(fits(p, bytes, std::vector{128.0}), on_two_ranks) == "");
  const memory_report r = fits(p, bytes, std::vector{127.0, 67.0});
  CHECK(!r);
  CHECK(to_string(r, on_two_ranks) ==
        "rank 0 has 127 bytes: 0B0, its cell 2, needs 1 more (weights 100, activations 22, buffers 6)");
  CHECK(r.ranks[1].first_too_large == 1u);
  CHECK(r.ranks[1].excess == 1);
  CHECK(to_string(fits(p, bytes, std::vector{128.0, 60.0}), on_two_ranks) ==
        "rank 1 has 60 bytes: 1F0, its cell 0, needs 6 more (weights 50, activations 10, buffers 6)");
  stage_costs context = bytes;  // more after an I than while it runs
  context.context = 30, context.transient_backward = 0;
  const schedule split = split_backward(on_two_ranks);
  CHECK(to_string(fits(lower(split, {.depth = 1}), context, std::vector{1000.0, 80.0}), split) ==
        "rank 1 has 80 bytes: 1I0, its cell 1, needs 6 more (weights 50, activations 30, buffers 6)");
  CHECK(refusal_of([&] {
          fits(p, bytes, std::vector{1.0, 2.0, 3.0});
        }) == "there are 3 limits of memory; expected 1, or 2, one per rank");
  CHECK(refusal_of([&] { fits(p, bytes, std::vector{-1.0}); }) ==
        "a limit of memory is 0 bytes or more; got -1, nearest 0");
}

TEST_CASE("fits: a buffer is as large as the largest message that it holds, by stage and length") {
  const schedule looped = make_interleaved_1f1b_schedule({.pp = 2, .micro = 2, .chunks = 2});
  stage_costs c{.message_bytes = {1, 10, 100}};
  const program p = lower(looped, {.depth = 1});
  CHECK(fits(p, c).ranks[0].buffers + fits(p, c).ranks[1].buffers > 200);
  c.micro_batches = {1, 5};
  CHECK(fits(p, c).ranks[0].buffers > fits(p, stage_costs{.message_bytes = {1, 10, 100}}).ranks[0].buffers);
}
