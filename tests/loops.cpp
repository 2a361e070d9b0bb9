// SPDX-License-Identifier: MIT
// Loops as users write them: their numbers have any integer type, and no call needs a cast.

#include <doctest/doctest.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pipesched/execute/run.hpp"
#include "pipesched/execute/thread_transport.hpp"
#include "pipesched/pipesched.hpp"
#include "pipesched/program/describe.hpp"
#include "pipesched/program/launch_order.hpp"
#include "pipesched/program/lower.hpp"

#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wconversion"
#pragma GCC diagnostic error "-Wsign-conversion"

namespace {

using namespace pipesched;

// Counts the ops of a rank.
struct counting_trainer {
  int ops = 0;

  void forward(task) { ++ops; }
  void backward(task) { ++ops; }
  std::span<std::byte> buffer(tensor_id, std::uint32_t) { return {}; }
};

template <std::integral Number>
void loop_over(const schedule& s) {
  const pipeline_params p{.pp = s.pp(), .micro = s.micro};
  const timeline t = simulate(s);
  program lowered = lower(s);
  schedule edited = s;
  const auto ranks = static_cast<Number>(s.size()), stages = static_cast<Number>(s.stages());
  const auto micros = static_cast<Number>(s.micro);

  for (Number rank = 0; rank < ranks; ++rank) {
    const auto row = s[rank];
    CHECK(t[rank].size() == row.size());
    CHECK(make_dualpipe_row(p, rank) == std::vector(row.begin(), row.end()));
    CHECK(dualpipe_family.row(p, rank).size() == row.size());
    std::size_t count = 0;
    for (op o : ops(s, rank)) count += o.micro < s.micro;
    CHECK(count >= 2 * s.micro);
    CHECK(s.placement.stages_of(rank).size() == 2);
    edited.edit(rank, [](std::vector<cell>& cells) { cells.clear(); });
    CHECK(edited[rank].empty());

    const auto actions = static_cast<Number>(lowered.actions[rank].size());
    for (Number action = 0; action < actions; ++action) CHECK(!describe(lowered, rank, action).empty());
    CHECK(launch_order(lowered, rank).size() == launch_order(lowered)[rank].size());
    CHECK(!buffer_bytes(lowered, rank, [](tensor_id) { return 4u; }).empty());
  }
  for (Number stage = 0; stage < stages; ++stage) {
    CHECK(s.backward_of(stage) == stage_backward::full);
    for (Number micro = 0; micro < micros; ++micro) {
      const auto at = find(s, pass::forward, stage, micro);
      REQUIRE(at.has_value());
      CHECK(at->rank == s.placement.rank_of(stage, micro));
      const std::uint8_t chunk = s.placement.chunk_of(stage, micro);
      CHECK(s.placement.has(at->rank, chunk, stage, micro));
      CHECK(s.placement.rank_of_stage(s.placement.replica_of(micro))[static_cast<std::size_t>(stage)] == at->rank);
    }
    CHECK(!find(s, pass::forward, stage, micros));
  }
  CHECK(!find(s, pass::forward, stages, Number{0}));
}

}  // namespace

TEST_CASE("loops: ranks, stages, micro-batches and actions of any integer type") {
  const schedule s = make_dualpipe_schedule({.pp = 4, .micro = 8});
  loop_over<int>(s);
  loop_over<unsigned>(s);
  loop_over<std::int64_t>(s);
  loop_over<std::size_t>(s);
  loop_over<std::uint16_t>(s);
}

TEST_CASE("loops: run() takes a rank, lower() a depth and stages of any loop") {
  const schedule s = make_1f1b_schedule({.pp = 1, .micro = 3});
  for (std::int64_t depth = 1; depth <= 3; ++depth) {
    const program p = lower(s, {.depth = depth});
    for (std::size_t rank = 0; rank < s.size(); ++rank) {
      counting_trainer trainer;
      thread_world world(1);
      thread_transport transport(world, 0);
      world.prepare(p);
      run(p, rank, trainer, transport);
      CHECK(trainer.ops == 6);
    }
  }
  std::vector<std::vector<std::int64_t>> tied(1);
  for (std::int64_t stage = 0; stage < 3; ++stage) tied[0].push_back(stage);
  CHECK(verify(lower(make_1f1b_schedule({.pp = 3, .micro = 3}), {.tied = tied})));
}

TEST_CASE("loops: a number below 0 is refused as one above") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  const auto refusal = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const schedule_error& e) {
      return e.what();
    }
    return {};
  };
  CHECK(refusal([&] { describe(p, -1, 0); }) == "a program of 2 ranks has ranks 0 to 1; got rank -1, nearest 0");
  CHECK(refusal([&] { launch_order(p, 2); }) == "a program of 2 ranks has ranks 0 to 1; got rank 2, nearest 1");
  CHECK(refusal([&] { gpipe_family.row({.pp = 2, .micro = 2}, -1); }) ==
        "gpipe needs a rank from 0 to pp - 1 = 1; got rank = -1, nearest 0");
  CHECK(refusal([&] { lower(p.schedule, {.depth = -2}); }) == "lower() takes a depth of at least 1; got -2, nearest 1");
  CHECK(refusal([&] { lower(p.schedule, {.tied = {{0, -1}}}); }) == "tied stages are stages 0 to 1; got -1, nearest 0");
  CHECK(!find(p.schedule, pass::forward, -1, 0));
  CHECK(!find(p.schedule, pass::forward, 0, -1));
}

#pragma GCC diagnostic pop
