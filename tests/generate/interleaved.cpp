// SPDX-License-Identifier: MIT
// The families on a looped placement.

#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/generate/group_interleaved.hpp"
#include "pipesched/generate/interleaved_1f1b.hpp"
#include "pipesched/generate/interleaved_zb.hpp"
#include "pipesched/generate/looped_bfs.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"

using namespace pipesched;
using namespace pipesched::tests;

static_assert(verify(make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2})));
static_assert(verify(make_interleaved_zb_schedule({.pp = 2, .micro = 4, .chunks = 2})));
static_assert(verify(make_looped_bfs_schedule({.pp = 2, .micro = 4, .chunks = 2})));
static_assert(verify(make_group_interleaved_schedule({.pp = 2, .micro = 4, .chunks = 2})));

namespace {

// PyTorch's construction of a row, one op at a time: counters give the chunk of the k-th forward or backward and its
// micro-batch.
std::string row_by_counters(std::int64_t pp, std::int64_t micro, std::int64_t chunks, std::int64_t rank, bool split) {
  const std::int64_t rounds = std::max<std::int64_t>(1, micro / pp), group = micro / rounds, all = micro * chunks;
  const std::int64_t warm_up = std::min((chunks - 1) * group + (split ? 1 : 2) * (pp - 1 - rank), all);
  std::map<std::int64_t, std::int64_t> forwards, backwards, weights;
  std::string text;
  const auto say = [&](char letter, std::int64_t chunk, std::int64_t k) {
    text += (text.empty() ? "" : " ") + std::to_string(chunk * pp + rank) + letter + std::to_string(k);
  };
  std::int64_t f = 0, b = 0, w = 0;
  const auto forward = [&] {
    const std::int64_t chunk = f++ / group % chunks;
    say('F', chunk, forwards[chunk]++);
  };
  const auto weight = [&] {
    const std::int64_t chunk = chunks - 1 - w++ / group % chunks;
    say('W', chunk, weights[chunk]++);
  };
  const auto backward = [&] {
    const std::int64_t chunk = chunks - 1 - b / group % chunks;
    say(split ? 'I' : 'B', chunk, backwards[chunk]++);
    if (split && b >= rank) weight();
    ++b;
  };
  while (f < warm_up) forward();
  while (f < all) forward(), backward();
  while (b < all) backward();
  while (split && w < all) weight();
  return text;
}

}  // namespace

TEST_CASE("interleaved 1f1b, interleaved zb, looped bfs: PyTorch's orders; group-interleaved: PipeOffload's") {
  CHECK(text_rows(make_interleaved_1f1b_schedule({.pp = 4, .micro = 8, .chunks = 2})) ==
        golden_rows("interleaved_1f1b_pp4_v2_m8"));
  CHECK(text_rows(make_interleaved_1f1b_schedule({.pp = 2, .micro = 16, .chunks = 3})) ==
        golden_rows("interleaved_1f1b_pp2_v3_m16"));
  CHECK(text_rows(make_interleaved_zb_schedule({.pp = 4, .micro = 8, .chunks = 2})) ==
        golden_rows("interleaved_zb_pp4_v2_m8"));
  CHECK(text_rows(make_looped_bfs_schedule({.pp = 4, .micro = 8, .chunks = 2})) == golden_rows("looped_bfs_pp4_v2_m8"));
  CHECK(text_rows(make_group_interleaved_schedule({.pp = 4, .micro = 8, .chunks = 2})) ==
        golden_rows("group_interleaved_pp4_m8"));
}

TEST_CASE("interleaved 1f1b and zb: equal PyTorch's construction op by op, wherever PyTorch accepts the numbers") {
  int compared = 0;
  for (std::int64_t pp = 1; pp <= 8; ++pp)
    for (std::int64_t chunks = 1; chunks <= 4; ++chunks)
      for (std::int64_t micro = 1; micro <= 24; ++micro) {
        if (micro % std::max<std::int64_t>(1, micro / pp) != 0) continue;
        const schedule plain = make_interleaved_1f1b_schedule({.pp = pp, .micro = micro, .chunks = chunks});
        const schedule split = make_interleaved_zb_schedule({.pp = pp, .micro = micro, .chunks = chunks});
        CAPTURE(pp);
        CAPTURE(micro);
        CAPTURE(chunks);
        for (std::int64_t rank = 0; rank < pp; ++rank) {
          const auto r = static_cast<std::size_t>(rank);
          REQUIRE(to_string(plain[r]) == row_by_counters(pp, micro, chunks, rank, false));
          REQUIRE(to_string(split[r]) == row_by_counters(pp, micro, chunks, rank, true));
          ++compared;
        }
      }
  CHECK(compared > 1000);
}

TEST_CASE(
    "interleaved families: valid for every pp up to 16, micro up to 64, chunks up to 4, with the documented peaks") {
#ifdef PIPESCHED_SMALL_GRIDS
  const std::int64_t max_pp = 3, max_micro = 9;
#else
  const std::int64_t max_pp = 16, max_micro = 64;
#endif
  for (std::int64_t pp = 1; pp <= max_pp; ++pp)
    for (std::int64_t micro = 1; micro <= max_micro; ++micro)
      for (std::int64_t chunks = 1; chunks <= 4; ++chunks) {
        CAPTURE(pp);
        CAPTURE(micro);
        CAPTURE(chunks);
        for (const bool forward_only : {false, true}) {
          const interleaved_params p{.pp = pp, .micro = micro, .chunks = chunks, .forward_only = forward_only};
          const schedule plain = make_interleaved_1f1b_schedule(p), split = make_interleaved_zb_schedule(p),
                         bfs = make_looped_bfs_schedule(p), grouped = make_group_interleaved_schedule(p);
          for (const schedule* s : {&plain, &split, &bfs, &grouped}) REQUIRE(to_string(verify(*s)) == "");
          // Upper limits from full groups, exact for whole groups in training; looped BFS keeps all activations.
          const std::int64_t rounds = std::max<std::int64_t>(1, micro / pp),
                             group = micro % rounds == 0 ? micro / rounds : pp;
          for (std::int64_t rank = 0; rank < pp; ++rank) {
            const auto peak = [&](const schedule& s) {
              return std::int64_t{peak_activations(s[static_cast<std::size_t>(rank)], forward_only)};
            };
            const std::int64_t all = micro * chunks, interleaved = (chunks - 1) * group + 2 * (pp - 1 - rank) + 1,
                               in_groups = (chunks - 1) * pp + pp - rank;
            REQUIRE(peak(plain) <= std::min(all, interleaved));
            REQUIRE(peak(grouped) <= std::min(all, in_groups));
            REQUIRE(peak(bfs) == (forward_only ? 1 : all));
            if (forward_only || micro % pp != 0) continue;
            REQUIRE(peak(plain) == std::min(all, interleaved));
            REQUIRE(peak(grouped) == std::min(all, in_groups));
          }
        }
        if (micro % 3 != pp % 3) continue;  // options on a third of the grid
        for (const std::optional<std::int64_t> group :
             {std::optional<std::int64_t>{}, std::optional(std::min(pp, micro)), std::optional(pp + 1),
              std::optional(2 * pp + 1)}) {
          for (const bool overlap : {false, true})
            REQUIRE(to_string(verify(make_interleaved_1f1b_schedule({.pp = pp,
                                                                     .micro = micro,
                                                                     .chunks = chunks,
                                                                     .group_size = group,
                                                                     .extra_warm_up = true,
                                                                     .overlap = overlap}))) == "");
          REQUIRE(to_string(verify(make_interleaved_zb_schedule(
                      {.pp = pp, .micro = micro, .chunks = chunks, .group_size = group}))) == "");
        }
        for (std::int64_t group = (pp + 1) / 2; group < pp; ++group)
          REQUIRE(to_string(verify(make_group_interleaved_schedule(
                      {.pp = pp, .micro = micro, .chunks = chunks, .group_size = group}))) == "");
      }
}

TEST_CASE("interleaved 1f1b: the peak is one more than the warm-up; the bubble is divided by the number of chunks") {
  for (std::int64_t pp : {2, 4, 7})
    for (std::int64_t chunks : {1, 2, 3, 4})
      for (std::int64_t micro : {pp, 2 * pp, 5 * pp}) {
        const schedule s = make_interleaved_1f1b_schedule({.pp = pp, .micro = micro, .chunks = chunks});
        const metrics m = measure(simulate(s));
        CAPTURE(pp);
        CAPTURE(chunks);
        CAPTURE(micro);
        for (std::int64_t rank = 0; rank < pp; ++rank) {
          const auto& r = m.ranks[static_cast<std::size_t>(rank)];
          CHECK(r.bubble == static_cast<double>(3 * (pp - 1)));
          CHECK(r.peak_activations ==
                shares(std::min(micro * chunks, (chunks - 1) * pp + 2 * (pp - 1 - rank) + 1), chunks));
        }
      }
}

TEST_CASE("interleaved 1f1b: with overlap the steady state is all F&B, after one more forward") {
  const schedule s = make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2, .overlap = true});
  CHECK(to_string(s[1]) == "1F0 1F1 3F0 (3F1;3B0) (1F2;3B1) (1F3;1B0) (3F2;1B1) (3F3;3B2) 3B3 1B2 1B3");
}

TEST_CASE("group-interleaved: peak and bubble for groups of pp/2 to pp micro-batches") {
  for (std::int64_t pp : {1, 2, 3, 4, 7, 8})
    for (std::int64_t chunks : {1, 2, 3, 4})
      for (std::int64_t group = (pp + 1) / 2; group <= pp; ++group)
        for (std::int64_t micro : {2 * group, 5 * group}) {
          CAPTURE(pp);
          CAPTURE(chunks);
          CAPTURE(group);
          CAPTURE(micro);
          const metrics m = measure(simulate(
              make_group_interleaved_schedule({.pp = pp, .micro = micro, .chunks = chunks, .group_size = group})));
          for (std::int64_t rank = 0; rank < pp; ++rank) {
            const auto& r = m.ranks[static_cast<std::size_t>(rank)];
            CHECK(r.bubble == static_cast<double>(2 * (pp - 1) + (pp - group) * (chunks - 1)));
            CHECK(r.peak_activations == shares(std::min(micro * chunks, (chunks - 1) * group + pp - rank), chunks));
          }
        }
  // Bubbles and peaks measured with the authors' generator, for two chunks.
  for (const auto& expected : std::map<std::int64_t, double>{{4, 8}, {8, 18}, {16, 38}}) {
    const std::int64_t pp = expected.first;
    const auto at = [&](std::int64_t group) {
      return measure(
          simulate(make_group_interleaved_schedule({.pp = pp, .micro = 4 * pp, .chunks = 2, .group_size = group})));
    };
    CHECK(at(pp).ranks[0].bubble == static_cast<double>(2 * (pp - 1)));
    CHECK(at(pp).peak_activations == shares(2 * pp, 2));
    CHECK(at(pp / 2).ranks[0].bubble == expected.second);
    CHECK(at(pp / 2).peak_activations == shares(3 * pp / 2, 2));
  }
}

TEST_CASE("interleaved families: the row of one rank equals that of the schedule") {
  for (const interleaved_params p :
       {interleaved_params{.pp = 4, .micro = 8, .chunks = 2}, interleaved_params{.pp = 3, .micro = 7, .chunks = 3}})
    for (std::int64_t rank = 0; rank < p.pp; ++rank) {
      const auto row_of = [&](const schedule& s) {
        const auto row = s[static_cast<std::size_t>(rank)];
        return std::vector(row.begin(), row.end());
      };
      CHECK(make_interleaved_1f1b_row(p, rank) == row_of(make_interleaved_1f1b_schedule(p)));
      CHECK(make_interleaved_zb_row(p, rank) == row_of(make_interleaved_zb_schedule(p)));
      CHECK(make_looped_bfs_row(p, rank) == row_of(make_looped_bfs_schedule(p)));
      CHECK(make_group_interleaved_row(p, rank) == row_of(make_group_interleaved_schedule(p)));
    }
}

TEST_CASE("interleaved families: bad chunks and groups are refused with the nearest legal value") {
  const auto refused = [](std::int64_t chunks, std::optional<std::int64_t> group) {
    return refusal_of(
        [&] { make_interleaved_1f1b_schedule({.pp = 4, .micro = 8, .chunks = chunks, .group_size = group}); });
  };
  CHECK(refused(2, std::nullopt) == "");
  CHECK(refused(0, std::nullopt) == "interleaved_1f1b needs 1 to 256 chunks per rank; got chunks = 0, nearest 1");
  CHECK(refused(257, std::nullopt) == "interleaved_1f1b needs 1 to 256 chunks per rank; got chunks = 257, nearest 256");
  CHECK(refused(2, 0) ==
        "interleaved_1f1b needs groups of at least pp micro-batches, or of all of them; got group_size = 0, nearest 4");
  CHECK(refused(2, 3) ==
        "interleaved_1f1b needs groups of at least pp micro-batches, or of all of them; got group_size = 3, nearest 4");
  CHECK(
      refused(2, -1) ==
      "interleaved_1f1b needs groups of at least pp micro-batches, or of all of them; got group_size = -1, nearest 4");
  for (const std::int64_t group : {3, 9, -1, 0})
    CHECK(refusal_of([&] {
            make_group_interleaved_schedule({.pp = 8, .micro = 8, .chunks = 2, .group_size = group});
          }) == "group_interleaved needs groups of pp/2 = 4 to pp = 8 micro-batches; got group_size = " +
                    std::to_string(group) + ", nearest " + (group > 8 ? "8" : "4"));
  CHECK(refusal_of([] { make_looped_bfs_schedule({.pp = 1024, .micro = 1, .chunks = 65}); }) ==
        "looped_bfs needs at most 1008 pipeline ranks (stages are 16-bit numbers); got pp = 1024, nearest 1008");
  CHECK(refusal_of([] {
          make_interleaved_zb_row({.pp = 4, .micro = 8, .chunks = 2}, 4);
        }).find("got rank = 4, nearest 3") != std::string::npos);
}

TEST_CASE("interleaved families: parameters of another family are refused, not ignored") {
  const auto with = [](bool extra_warm_up, bool overlap, std::optional<std::int64_t> group = {}) {
    return interleaved_params{
        .pp = 4, .micro = 8, .chunks = 2, .group_size = group, .extra_warm_up = extra_warm_up, .overlap = overlap};
  };
  CHECK(refusal_of([&] { make_interleaved_zb_schedule(with(false, true)); }) ==
        "interleaved_zb takes no overlap; got overlap = true");
  CHECK(refusal_of([&] { make_interleaved_zb_row(with(true, false), 0); }) ==
        "interleaved_zb takes no extra_warm_up; got extra_warm_up = true");
  CHECK(refusal_of([&] { make_group_interleaved_schedule(with(true, false)); }) ==
        "group_interleaved takes no extra_warm_up; got extra_warm_up = true");
  CHECK(refusal_of([&] { make_looped_bfs_schedule(with(false, false, 4)); }) ==
        "looped_bfs takes no group_size; got group_size = 4");
  CHECK(refusal_of([&] { make_looped_bfs_row(with(false, true), 0); }) ==
        "looped_bfs takes no overlap; got overlap = true");
}
