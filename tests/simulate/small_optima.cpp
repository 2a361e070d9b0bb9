// SPDX-License-Identifier: MIT
// Lower bounds and plans against the shortest schedules of small steps, which an exact solver has found: golden/small_optima.json,
// made by golden/small_optima.py. No bound is above an optimum and no plan below.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/io/costs_json.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/plan/detail/memory_bound.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/schedule_class.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/golden.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

struct small_step {
  std::string kind, text;  // text: the whole entry
  placement where{};
  std::uint32_t micro = 0;
  stage_costs costs{};
  schedule_class of{};
  memory_caps memory{};
  double optimum = 0;
  schedule shortest{};

  // A plan splits any backward and freezes nothing.
  bool can_be_planned() const { return of.forward_only || (of.split_backward && of.backward.empty()); }
};

placement placement_of(const nlohmann::json& j) {
  for (std::size_t k = 0; k < std::size(placement_kind_names); ++k)
    if (j["placement"] == placement_kind_names[k])
      return placement::of_kind(static_cast<placement_kind>(k), j["ranks"], j["stages"], j["micro"]);
  throw schedule_error("small_optima.json: an unknown placement");
}

stage_backward backward_of(const std::string& name) {
  std::size_t i = 0;
  while (stage_backward_names.at(i) != name) ++i;
  return static_cast<stage_backward>(i);
}

small_step step_of(const nlohmann::json& j) {
  small_step s{.kind = j["kind"], .text = j.dump(), .where = placement_of(j), .micro = j["micro"], .costs = j["costs"]};
  s.of = {.split_backward = j["split"], .pairs = {}, .forward_only = j.value("forward_only", false)};
  for (const std::string p : j["pairs"]) s.of.pairs.insert(parse_pass_pair(p).value());
  if (j.contains("backward"))
    for (const std::string b : j["backward"]) s.of.backward.push_back(backward_of(b));
  if (j.contains("activations")) s.of.memory_cap = s.memory.activations = j["activations"].get<double>();
  if (j.contains("bytes")) s.of.memory_limits = s.memory.bytes = j["bytes"].get<std::vector<double>>();
  s.optimum = j["makespan"];
  std::string rows;
  for (const std::string row : j["rows"]) rows += row + '\n';
  s.shortest = parse_schedule(rows, s.where, "shortest");
  s.shortest.forward_only = s.of.forward_only, s.shortest.backward = s.of.backward;
  return s;
}

const std::vector<small_step>& small_steps() {
  static const std::vector<small_step> all = [] {
    std::vector<small_step> found;
    const auto document = nlohmann::json::parse(golden_text("small_optima.json"));
    for (const auto& j : document["instances"]) found.push_back(step_of(j));
    return found;
  }();
  return all;
}

// How often something was exact, and its mean distance from the optimum.
struct tally {
  int steps = 0, exact = 0;
  double distance = 0;

  void add(double value, double optimum) {
    ++steps, exact += value == optimum;
    distance += (value - optimum) / optimum;
  }
  double mean_percent() const { return 100 * distance / steps; }
};

void print_tallies(const std::string& what, const std::map<std::string, tally>& by_kind) {
  for (const auto& [kind, t] : by_kind)
    MESSAGE(what, " of ", kind, ": ", t.exact, " of ", t.steps, " exact, mean distance ", t.mean_percent(), " %");
}

}  // namespace

TEST_CASE("small optima: there are enough of each kind, and each has a valid schedule that takes as long") {
  std::map<std::string, int> number;
  for (const small_step& s : small_steps()) {
    CAPTURE(s.text);
    ++number[s.kind];
    REQUIRE(verify(s.shortest));
    const metrics m = measure(simulate(s.shortest, s.costs), s.costs);
    REQUIRE(m.makespan == s.optimum);
    REQUIRE(fits(s.memory, m));
    const schedule_class used = schedule_class_of(s.shortest);
    for (const pass_pair p : used.pairs.pairs()) REQUIRE(s.of.pairs.contains(p));
    REQUIRE((s.of.split_backward || !used.split_backward));
  }
  CHECK(number["forward_backward"] >= 260);
  CHECK(number["any_pair"] >= 200);
  CHECK(number["lengths"] >= 100);
}

TEST_CASE("small optima: no lower bound is above one") {
  std::map<std::string, tally> by_kind;
  for (const small_step& s : small_steps()) {
    CAPTURE(s.text);
    const lower_bound_result bound = lower_bound(s.where, s.micro, s.costs, s.of);
    CAPTURE(describe_bound(bound));
    CHECK(bound.makespan <= s.optimum);
    by_kind[s.kind].add(bound.makespan, s.optimum);
    const std::string memory = s.of.memory_cap ? ", activations" : s.memory.bytes.empty() ? ", no limit" : ", bytes";
    by_kind[s.kind + memory].add(bound.makespan, s.optimum);

    CHECK(lower_bound(s.shortest, s.costs).makespan <= s.optimum);
    schedule_class own = schedule_class_of(s.shortest);
    const metrics m = measure(simulate(s.shortest, s.costs), s.costs);
    own.memory_cap = m.peak_activations;
    for (const rank_metrics& r : m.ranks) own.memory_limits.push_back(r.peak_bytes);
    CHECK(lower_bound(s.where, s.micro, s.costs, own).makespan <= s.optimum);
  }
  print_tallies("bounds", by_kind);
  CHECK(by_kind["forward_backward"].exact >= 119);
  CHECK(by_kind["any_pair"].exact >= 73);
  CHECK(by_kind["lengths"].exact >= 26);
}

// An op's time at speed 1, less the most that a pair with another op of its rank saves.
double least_time(const small_step& s, op o) {
  const double alone = s.costs.unit_duration(o);
  const std::uint32_t rank = s.where.rank_of(o.stage, 0);
  double saved = 0;
  for (const std::uint16_t stage : s.where.stages_of(rank))
    for (const pass p : {pass::forward, pass::backward, pass::backward_input, pass::backward_weight})
      for (const std::uint32_t micro : {0u, 1u})
        for (const bool first : {true, false}) {
          const op other{p, s.where.chunk_of(stage, micro), stage, micro};
          const cell both = first ? cell(o, other) : cell(other, o);
          if (o == other || !s.of.pairs.contains({o.pass, p})) continue;
          const double pair = detail::duration_of(s.costs, rank, both) * s.costs.speed_of(rank);
          saved = std::max(saved, alone + s.costs.unit_duration(other) - pair);
        }
  return std::max(0.0, alone - saved);
}

// One layer a stage: of all ways to divide layers, the one of the step.
TEST_CASE("small optima: the bound of the memory for given layers on each rank is not above one") {
  tally all;
  for (const small_step& s : small_steps()) {
    const bool one_chain = s.where.kind() == placement_kind::linear || s.where.kind() == placement_kind::vee;
    const bool limited = s.of.memory_cap || !s.of.memory_limits.empty();
    if (!one_chain || !limited || s.of.forward_only || !s.of.backward.empty()) continue;
    if (!s.costs.micro_batches.empty()) continue;
    CAPTURE(s.text);
    const std::uint32_t stages = s.where.stages(), ranks = s.where.ranks();
    model m;
    std::vector<detail::layer_times> times;
    for (std::uint32_t i = 0; i < stages; ++i) {
      const auto t = [&](pass p) {
        return least_time(s, {p, s.where.chunk_of(i, 0), static_cast<std::uint16_t>(i), 0});
      };
      const double input = t(pass::backward_input), whole = t(pass::backward);
      times.push_back({.forward = t(pass::forward),
                       .gradient = s.of.split_backward ? std::min(input, whole) : whole,
                       .whole = whole,
                       .weight = s.of.split_backward ? t(pass::backward_weight) : whole});
      const auto bytes = [&](pass p) { return s.costs.bytes({p, 0, static_cast<std::uint16_t>(i), 0}); };
      const double kept = s.of.memory_cap ? 1 : bytes(pass::forward);
      m.layers.push_back({.kept = kept, .context = s.of.memory_cap ? 1 : kept + bytes(pass::backward_input)});
    }
    std::vector<double> limits, speeds;
    for (std::uint32_t r = 0; r < ranks; ++r) {
      limits.push_back(s.of.memory_cap ? *s.of.memory_cap * stages / ranks
                                       : s.of.memory_limits[s.of.memory_limits.size() == 1 ? 0 : r]);
      speeds.push_back(s.costs.speed_of(r));
    }
    const detail::memory_bound bound(m, limits, speeds, s.micro, false, !s.of.pairs.empty(), times);
    double most = 0;
    for (std::uint32_t r = 0; r < ranks; ++r)
      most = std::max(
          most, stages == ranks ? bound(r, r, r + 1, stages, stages) : bound(r, r, r + 1, stages - 1 - r, stages - r));
    CHECK(most <= s.optimum);
    all.add(most, s.optimum);
  }
  print_tallies("bounds", {{"layers under memory", all}});
  CHECK(all.steps >= 50);
}

TEST_CASE("small optima: no plan is below one, and most plans reach it") {
  std::map<std::string, tally> by_kind;
  std::map<std::string, std::string> missed;  // place in the file, makespan for optimum
  for (std::size_t i = 0; i < small_steps().size(); ++i) {
    const small_step& s = small_steps()[i];
    if (!s.can_be_planned()) continue;
    CAPTURE(s.text);
    const plan_result p = plan({.placement = s.where, .micro = s.micro, .forward_only = s.of.forward_only}, s.costs,
                               {.memory = s.memory, .pairs = s.of.pairs, .evaluations = 10000});
    CHECK(p.makespan >= s.optimum);
    CHECK(p.bound.makespan <= s.optimum);
    by_kind[s.kind].add(p.makespan, s.optimum);
    if (p.makespan > s.optimum) missed[s.kind] += detail::concat({" #", i, " ", p.makespan, " for ", s.optimum, ","});
  }
  print_tallies("plans", by_kind);
  for (const auto& [kind, text] : missed) MESSAGE("longer plans of ", kind, ":", text);
  CHECK(by_kind["forward_backward"].exact >= 190);
  CHECK(by_kind["any_pair"].exact >= 78);
  CHECK(by_kind["lengths"].exact >= 54);
}
