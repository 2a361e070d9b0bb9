// SPDX-License-Identifier: MIT

#include "pipesched/core/placement.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/families.hpp"

using namespace pipesched;
using pipesched::tests::refusal_of;
using stages = std::vector<std::uint16_t>;

static_assert(placement::vee(4).rank_of(5, 0) == 2 && placement::vee(4).chunk_of(5, 0) == 1);
static_assert(placement::vee(4).has(2, 1, 5, 0) && !placement::vee(4).has(2, 0, 5, 0) &&
              !placement::vee(4).has(1, 1, 5, 0));
static_assert(placement::bidirectional(4, 5).has(1, 0, 1, 2) && !placement::bidirectional(4, 5).has(1, 0, 1, 3));

TEST_CASE("placement: the stages of a rank, by chunk") {
  CHECK(placement::linear(4).stages_of(2) == stages{2});
  CHECK(placement::looped(4, 3).stages_of(1) == stages{1, 5, 9});
  CHECK(placement::vee(4).stages_of(0) == stages{0, 7});
  CHECK(placement::vee(4).stages_of(3) == stages{3, 4});
  CHECK(placement::wave(2, 2).stages_of(0) == stages{0, 3, 4, 7});
  CHECK(placement::bidirectional(8, 20).stages_of(1) == stages{1, 6});
  CHECK(placement::custom(2, 1, {{1, 0, 0}}).stages_of(0) == stages{1, 2});
}

TEST_CASE("placement: rank_of, chunk_of and stages_of agree for every kind") {
  std::vector<placement> all;
  for (std::int64_t pp = 1; pp <= 9; ++pp) {
    for (std::int64_t n = 1; n <= 4; ++n)
      all.push_back(placement::looped(pp, n)), all.push_back(placement::wave(pp, n));
    all.push_back(placement::linear(pp)), all.push_back(placement::vee(pp));
    for (std::int64_t micro = 1; micro <= 5; ++micro) all.push_back(placement::bidirectional(pp, micro));
  }
  for (const placement& p : all) {
    CAPTURE(to_string(p.kind()));
    CAPTURE(p.ranks());
    CAPTURE(p.stages());
    std::size_t hosted = 0;
    for (std::uint32_t rank = 0; rank < p.ranks(); ++rank) hosted += p.stages_of(rank).size();
    CHECK(hosted == p.replicas() * p.stages());
    for (std::uint32_t stage = 0; stage < p.stages(); ++stage)
      for (std::uint32_t micro = 0; micro < 6; ++micro)
        CHECK(p.stages_of(p.rank_of(stage, micro)).at(p.chunk_of(stage, micro)) == stage);
    CHECK(placement::of_kind(p.kind(), p.ranks(), p.stages(), 1).rank_of(0, 0) == p.rank_of(0, 0));
  }
}

TEST_CASE("placement: the first half of the micro-batches, rounded up, goes through replica 0") {
  const placement odd = placement::bidirectional(4, 5);
  for (std::uint32_t micro = 0; micro < 5; ++micro) CHECK(odd.replica_of(micro) == (micro < 3 ? 0 : 1));
  CHECK(odd.rank_of(1, 2) == 1);
  CHECK(odd.rank_of(1, 3) == 2);
  CHECK(placement::linear(4).replica_of(4'000'000'000) == 0);
}

TEST_CASE("placement: refuses impossible sizes") {
  CHECK(refusal_of([] { placement::linear(0); }) == "a placement takes 1 to 65536 ranks; got 0, nearest 1");
  CHECK(refusal_of([] { placement::linear(65537); }) == "a placement takes 1 to 65536 ranks; got 65537, nearest 65536");
  CHECK(refusal_of([] { placement::looped(4, 257); }) ==
        "a placement takes 1 to 256 chunks per rank; got 257, nearest 256");
  CHECK(refusal_of([] { placement::looped(1024, 65); }) ==
        "a placement takes 1 to 65536 stages; got 66560, nearest 65536");
  CHECK(refusal_of([] { placement::wave(4, INT64_MAX); }).find("1 to 128 waves") != std::string::npos);
  CHECK(refusal_of([] { placement::bidirectional(4, -1); }).find("micro-batches; got -1") != std::string::npos);
  CHECK(refusal_of([] { placement::bidirectional(4, 8).for_micro(-3); }) ==
        "a placement takes 1 to 4294967295 micro-batches; got -3, nearest 1");
  CHECK(refusal_of([] { placement::bidirectional(4, 8).for_micro(0x1'FFFF'FFFE); }).find("nearest 4294967295") !=
        std::string::npos);
  CHECK(refusal_of([] { placement::custom(2, 1, {}); }) == "a placement takes 1 to 2 replicas; got 0, nearest 1");
  CHECK(refusal_of([] {
          placement::custom(2, 1, {{0, 1}, {0}});
        }) == "both replicas of a placement have the same stages; got 2 and 1");
  CHECK(refusal_of([] { placement::custom(2, 1, {{0, 2}}); }) == "a placement names ranks 0 to 1; got rank 2");
  CHECK(refusal_of([] { placement::custom(2, 1, {{0, 0}}); }) == "every rank has a stage; rank 1 has none");
  CHECK(refusal_of([] { placement::custom(1, 1, {stages(257, 0)}); }) ==
        "a rank has at most 256 chunks; rank 0 has more");
  CHECK(refusal_of([] { placement::of_kind(placement_kind::vee, 4, 7, 1); }) ==
        "a placement of kind vee with 4 ranks has 8 stages; got 7");
  CHECK(refusal_of([] { placement::of_kind(placement_kind::looped, 4, 7, 1); }) ==
        "a placement of kind looped with 4 ranks has a multiple of 4 stages; got 7");
}
