// SPDX-License-Identifier: MIT
// Peaks of memory in bytes, by hand: recomputation, running ops, contexts, frozen stages. Times of recomputation and of links
// that keep ranks busy.

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pipesched/core/freeze.hpp"
#include "pipesched/core/recompute.hpp"
#include "pipesched/core/transform.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/io/costs_json.hpp"
#include "pipesched/simulate/explain.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/makespan.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

std::vector<double> peaks(const schedule& s, const stage_costs& costs) {
  std::vector<double> of;
  for (const rank_metrics& r : measure(simulate(s, costs), costs).ranks) of.push_back(r.peak_bytes);
  return of;
}
std::vector<double> kept(const schedule& s, const stage_costs& costs) {
  std::vector<double> of;
  for (const rank_metrics& r : measure(simulate(s, costs), costs).ranks) of.push_back(r.peak_kept_bytes);
  return of;
}
}  // namespace

TEST_CASE("memory: what an op needs while it runs is on top") {
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 4});
  CHECK(peaks(s, {.kept_by_forward = 1, .transient_backward = 9}) == std::vector<double>{11, 10});
  CHECK(peaks(s, {.kept_by_forward = 1, .transient_forward = 9}) == std::vector<double>{11, 10});
  CHECK(peaks(split_backward(s), {.kept_by_forward = 1, .transient_backward = 5, .transient_backward_weight = 9}) ==
        std::vector<double>{11, 10});
  const metrics m = measure(simulate(s, stage_costs{.backward = 2, .kept_by_forward = 1, .transient_backward = 9}),
                            stage_costs{.backward = 2, .kept_by_forward = 1, .transient_backward = 9});
  CHECK(m.ranks[0].peak_bytes_at == 4);  // 0B0
  // A pair adds both: 3F3 and 4B0 of a rank in the middle of DualPipe's steady state.
  const schedule pair = parse_schedule("0F0 (0F1;0B0) 0B1", placement::linear(1));
  CHECK(peaks(pair, {.kept_by_forward = 1, .transient_forward = 3, .transient_backward = 4}) == std::vector<double>{9});
}

TEST_CASE("memory: recomputation keeps the input alone until R, all of it from then") {
  const schedule s = make_1f1b_schedule({.pp = 4, .micro = 8});
  const stage_costs costs{.kept_by_forward = 10, .kept_input = 1};
  for (const bool inside : {false, true}) {
    const schedule half = recompute(s, {.count = 2, .of_every = 4, .inside_backward = inside});
    CHECK(peaks(half, costs) == std::vector<double>{31, 30, 20, 10});
    CHECK(kept(half, costs) == std::vector<double>{22, 21, 20, 10});
    CHECK(peaks(recompute(s, {.inside_backward = inside}), costs) == std::vector<double>{13, 12, 11, 10});
  }
  CHECK(kept(s, costs) == std::vector<double>{40, 30, 20, 10});
  stage_costs running = costs;
  running.transient_forward = 2, running.transient_recompute = 5, running.transient_backward = 3;
  CHECK(peaks(recompute(s), running) == std::vector<double>{18, 17, 16, 15});
  CHECK(peaks(recompute(s, {.inside_backward = true}), running) == std::vector<double>{18, 17, 16, 15});
  CHECK(measure(simulate(recompute(s), costs), costs).peak_activations == 1);
}

TEST_CASE("memory: between I and W a context, which may be less than what F kept, or more") {
  const schedule s = parse_schedule("0F0 0I0 0F1 0I1 0W0 0W1", placement::linear(1));
  CHECK(peaks(s, {.kept_by_forward = 10, .context = {4}}) == std::vector<double>{14});
  CHECK(peaks(s, {.kept_by_forward = 10, .context = {25}}) == std::vector<double>{50});
  // A whole backward frees what F kept, however much more the context is.
  CHECK(peaks(parse_schedule("0F0 0B0 0F1 0B1", placement::linear(1)), {.kept_by_forward = 3, .context = {1e30}}) ==
        std::vector<double>{3});
  const stage_costs more{.kept_by_forward = 10, .context = {25}};
  CHECK(measure(simulate(s, more), more).ranks[0].peak_bytes_at == 4);  // the end of 0I1
  CHECK(
      refusal_of([&] { simulate(s, stage_costs{.kept_by_forward = 5, .freed_by_input = 2, .context = {1}}); }) ==
      "costs: memory.context and memory.freed_by_input or freed_by_weight both give what I leaves for W; expected one "
      "of them");
  CHECK(refusal_of([&] { simulate(s, stage_costs{.kept_by_forward = 5, .kept_input = 6}); }) ==
        "costs: memory.kept_input of stage 0 is 6, more than the 5 that its forward keeps; nearest 5");
}

TEST_CASE("memory: a frozen stage keeps nothing, or nothing after its I") {
  const schedule s = freeze(make_1f1b_schedule({.pp = 3, .micro = 4}), {0, 2});
  CHECK(peaks(s, {.kept_by_forward = 10, .context = {4}}) == std::vector<double>{10, 20, 10});
  CHECK(peaks(keep_forwards(s), {.kept_by_forward = 10}) == std::vector<double>{10, 10, 10});
  const metrics m = measure(simulate(s));
  CHECK(m.ranks[0].peak_activations == 1);
  CHECK(m.ranks[1].peak_activations == 2);
}

TEST_CASE("recompute: R lasts as long as F unless it is given, alone, inside a backward and in a pair") {
  const schedule s = make_1f1b_schedule({.pp = 1, .micro = 2});
  CHECK(makespan(recompute(s), {.forward = 3, .backward = 4}) == 20);
  CHECK(makespan(recompute(s), {.forward = 3, .backward = 4, .recompute = 2}) == 18);
  CHECK(makespan(recompute(s, {.inside_backward = true}), {.forward = 3, .backward = 4, .recompute = 2}) == 18);
  CHECK(measure(simulate(recompute(s), uniform_costs{.forward = 3, .backward = 4, .recompute = 2})).makespan == 18);
  const cell inside(op{pass::forward, 0, 0, 1}, op{pass::recompute_backward, 0, 0, 0});
  stage_costs c{.forward = 3, .backward = 4, .recompute = 2, .overlapped = {5}};
  CHECK(c.duration(inside) == 7);
  c.pairs = {{.passes = *parse_pass_pair("F(RB)"), .time = 6}};
  CHECK(c.duration(inside) == 6);
  CHECK(to_string(c.pairs[0].passes) == "F(RB)");
  CHECK(uniform_costs{.forward = 3, .backward = 4, .overlapped = 5, .recompute = 2}.duration(inside) == 7);
  CHECK(!parse_pass_pair("F(R)"));
  CHECK(!parse_pass_pair("(RB)"));
  CHECK(!parse_pass_pair("FRB"));
  CHECK(parse_pass_pair("(RI)R") == pass_pair{pass::recompute, pass::recompute_backward_input});
  nlohmann::json j = c;
  CHECK(j["pairs"][0]["ops"] == "F(RB)");
  CHECK(j.get<stage_costs>() == c);
}

TEST_CASE(
    "links: a message keeps its sender busy after the cell, or its receiver, too, before the cell that needs it") {
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  const auto ends = [&](link_busy busy) {
    const stage_costs c{.backward = 2, .transfer_time = 0.5, .transfers_busy = busy};
    const timeline t = simulate(s, c);
    return std::vector{t[0][1].end, t[0][2].end, t[0][3].end, t[1][3].end};
  };
  CHECK(ends(link_busy::none) == std::vector{2.0, 7.0, 10.0, 7.5});
  CHECK(ends(link_busy::sender) == std::vector{2.5, 7.0, 10.5, 8.0});
  CHECK(ends(link_busy::both) == std::vector{2.5, 7.0, 11.0, 8.5});
  // By link, as in a model: rank 0 sends its outputs itself, rank 1 does not.
  stage_costs c{.backward = 2, .transfer_time = 9};
  c.links = {{0, 1, 0.5, {}, link_busy::sender}, {1, 0, 0.5, {}, link_busy::none}};
  const timeline t = simulate(s, c);
  CHECK(t[0][1].end == 2.5);
  CHECK(t[1][3].end == 7.5);
  CHECK(t[0][3].end == 10);
  // A rank that sends is not stalled by another one.
  const explanation e =
      explain(simulate(make_1f1b_schedule({.pp = 2, .micro = 2}),
                       stage_costs{.backward = 2, .transfer_time = 0.5, .transfers_busy = link_busy::sender}),
              stage_costs{.backward = 2, .transfer_time = 0.5, .transfers_busy = link_busy::sender});
  for (const stall& of : e.stalls) CHECK_FALSE((of.before.rank == 0 && of.before.index == 1));
}
