// SPDX-License-Identifier: MIT

#include "pipesched/io/measured_steps.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "pipesched/io/read_primus.hpp"
#include "pipesched/io/read_times.hpp"
#include "pipesched/render/chrome_trace.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

timeline measured_run(const schedule& s) {
  std::vector<double> F, I, W;
  for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
    F.push_back(3.0 + stage), I.push_back(7.0 + stage), W.push_back(1.0 + stage);
  return simulate(
      s, stage_costs{.forward = per_stage(F), .backward_input = per_stage(I), .backward_weight = per_stage(W)});
}

// Two steps of a timeline as a hook writes them, the first one twice as slow.
nlohmann::json events_of(const timeline& t, int steps = 2) {
  nlohmann::json events = nlohmann::json::array();
  double begin = 100;
  for (int step = 0; step < steps; ++step) {
    const double slow = step == 0 ? 2 : 1;
    for (std::size_t rank = 0; rank < t.schedule.size(); ++rank)
      for (std::size_t i = 0; i < t[rank].size(); ++i)
        events.push_back({{"rank", rank},
                          {"action", to_string(t.schedule[rank][i])},
                          {"start", begin + slow * t[rank][i].start},
                          {"end", begin + slow * t[rank][i].end}});
    begin += slow * detail::last_end(t);
  }
  return events;
}

measured_steps steps_of_text(const std::string& text) { return steps_of(read_times(text).cells); }
std::string refusal_of_times(const std::string& text) {
  return refusal_of([&] { steps_of_text(text); });
}
std::string refusal_of_traces(const std::vector<std::pair<std::string, std::string>>& files) {
  return refusal_of([&] { steps_of(read_traces(files).cells); });
}

// The lists of a rank in Primus' files.
nlohmann::json primus_step(const timeline& t, std::size_t rank) {
  nlohmann::json step = {{"total", 1}, {"memory", 2.5}};
  for (const char* kind : {"fwd", "bwd", "wgrad"})
    for (const char* entry : {"_start", "_end", "_minibatch", "_chunk"})
      step[std::string(kind) + entry] = nlohmann::json::array();
  for (std::size_t i = 0; i < t[rank].size(); ++i)
    for (const op o : t.schedule[rank][i]) {
      const std::string kind = o.pass == pass::forward ? "fwd" : o.pass == pass::backward_weight ? "wgrad" : "bwd";
      step[kind + "_start"].push_back(t[rank][i].start + 10.0 * static_cast<double>(rank));  // its own clock
      step[kind + "_end"].push_back(t[rank][i].end + 10.0 * static_cast<double>(rank));
      step[kind + "_minibatch"].push_back(o.micro);
      step[kind + "_chunk"].push_back(o.chunk);
    }
  return step;
}
std::vector<std::pair<std::string, std::string>> primus_files(const timeline& t) {
  std::vector<std::pair<std::string, std::string>> files;
  for (std::size_t rank = 0; rank < t.schedule.size(); ++rank)
    files.emplace_back("pp_rank_" + std::to_string(rank) + ".json",
                       nlohmann::json{{"1", primus_step(t, rank)}, {"2", primus_step(t, rank)}}.dump());
  return files;
}

}  // namespace

TEST_CASE(
    "measured steps: schedule, placement and times of every family come back from events, and the costs from them") {
  for (const family& f : families) {
    CAPTURE(f.name);
    const schedule s = make_schedule(f, {.pp = 2, .micro = 4});
    if (s.placement.replicas() > 1 || s.stages() > 4) continue;
    const timeline t = measured_run(s);
    const measured_steps measured = steps_of_text(events_of(t).dump());
    REQUIRE(measured.steps.size() == 2);
    CHECK(measured.clocks == rank_clocks::common);
    CHECK(measured.steps[1].schedule.cells == s.cells);
    CHECK(same_stages_on_ranks(measured.steps[1].schedule.placement, s.placement));
    CHECK(fit_costs(measured.steps[1]) == fit_costs(t));
  }
}

TEST_CASE("measured steps: costs are medians over all steps") {
  const timeline t = measured_run(make_1f1b_schedule({.pp = 2, .micro = 4}));
  const measured_steps measured = steps_of_text(events_of(t, 4).dump());
  const stage_costs fitted = fit_costs(measured.steps);
  CHECK(fitted.forward[0] == doctest::Approx(3));
  CHECK(fitted.forward[1] == doctest::Approx(4));
  CHECK(estimates_of(measured.steps) == std::vector<std::string>{"I = W = B/2 of all stages, as neither ran"});
}

TEST_CASE("measured steps: a slow step of two, and stages without backwards, do not set the costs in silence") {
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 4});
  CHECK(fit_costs(steps_of_text(events_of(measured_run(s)).dump()).steps).forward == per_stage({3, 4}));
  const measured_steps evaluation =
      steps_of_text(events_of(measured_run(make_1f1b_schedule({.pp = 2, .micro = 2, .forward_only = true}))).dump());
  CHECK(estimates_of(evaluation.steps) == std::vector<std::string>{"B of all stages takes no time, as none ran alone"});
}

TEST_CASE("measured steps: cells of a rank that ran at once are noted") {
  const measured_steps measured = steps_of_text(
      R"([{"rank": 0, "action": "0F0", "start": 0, "end": 5}, {"rank": 0, "action": "0F1", "start": 1, "end": 2},
          {"rank": 0, "action": "0B0", "start": 6, "end": 7}, {"rank": 0, "action": "0B1", "start": 7, "end": 8}])");
  CHECK(measured.notes ==
        std::vector<std::string>{
            "times of cells that ran at once count twice: 0F1 of rank 0 starts before 0F0 ends in step 0"});
  CHECK(steps_of_text(events_of(measured_run(make_zbv_schedule({.pp = 2, .micro = 4}))).dump()).notes.empty());
}

TEST_CASE("measured steps: frozen stages and evaluations are seen") {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 2, .forward_only = true});
  CHECK(steps_of_text(events_of(measured_run(s)).dump()).steps[0].schedule.forward_only);
  const measured_steps frozen = steps_of_text(
      R"([{"rank": 0, "action": "0F0", "start": 0, "end": 1}, {"rank": 1, "action": "1F0", "start": 1, "end": 2},
          {"rank": 1, "action": "1B0", "start": 2, "end": 4}])");
  CHECK(frozen.steps[0].schedule.backward == std::vector{stage_backward::none, stage_backward::full});
}

TEST_CASE("measured steps: clocks that differ are seen, and give no transfers") {
  const timeline t = measured_run(make_1f1b_schedule({.pp = 2, .micro = 3}));
  nlohmann::json events = events_of(t);
  for (auto& e : events)
    if (e["rank"] == 1) e["start"] = e["start"].get<double>() - 50, e["end"] = e["end"].get<double>() - 50;
  const measured_steps measured = steps_of_text(events.dump());
  CHECK(measured.clocks == rank_clocks::own);
  CHECK(measured.notes ==
        std::vector<std::string>{"transfers are unknown: the ranks have no common clock, as 1F0 of rank 1 "
                                 "starts before its input ends on rank 0 in step 0"});
  CHECK(fit_costs(measured.steps, measured.clocks).transfer_time == per_stage({0, 0}));
}

TEST_CASE("measured steps: what is no whole step is refused with its place") {
  const timeline t = measured_run(make_1f1b_schedule({.pp = 2, .micro = 2}));
  nlohmann::json events = events_of(t);
  const auto changed = [&](std::size_t i, const char* name, const nlohmann::json& value) {
    nlohmann::json other = events;
    other[i][name] = value;
    return refusal_of_times(other.dump());
  };
  CHECK(changed(0, "action", "0X0") ==
        "times: [0].action is not a cell; expected one such as 0F3 or (0F7;7B13) (line 1, column 16)");
  CHECK(changed(1, "rank", -1).starts_with("times: [1].rank is not a rank; expected 0 to 65535 (line 1, column "));
  CHECK(changed(1, "end", "x").starts_with("times: [1].end is not a number (line 1, column "));
  CHECK(changed(1, "end", 0).starts_with("times: [1].end is before its start"));
  CHECK(changed(1, "ends", 0).starts_with("times: unknown entry \"[1].ends\"; did you mean \"end\"?"));
  CHECK(changed(0, "action", "0F1").starts_with("rank 0 ran 3 steps and rank 1 ran 2; expected as many"));
  CHECK(changed(0, "action", "0F3").starts_with("step 0 is not whole: "));
  CHECK(changed(0, "action", "0F100000000")
            .starts_with("step 0 is not whole: 9 cells for 100000001 micro-batches and 2 stages"));
  CHECK(changed(0, "rank", 1).starts_with("stage 0 has ops on ranks 0 and 1; expected one of them"));
  CHECK(changed(0, "rank", 3).starts_with("rank 2 has no op"));
  CHECK(changed(0, "action", "3F0").starts_with("stage 2 has no op; expected ops of stages 0 to 3"));
  for (const char* empty : {"[]", "{\"events\": []}"})
    CHECK(refusal_of_times(empty).starts_with("times: no events; expected one such as {"));
  CHECK(refusal_of([] { steps_of({}); }) == "no op was measured");
  CHECK(refusal_of_times("{}") == "times: there are no \"events\"");
  CHECK(refusal_of_times("{\"events\": [], \"unit\": 3}").starts_with("times: unknown entry \"unit\"; "));
  CHECK(refusal_of_times("{\"events\": [], \"time_unit\": \"h\"}") ==
        "times: time_unit is not a unit; expected none, s, ms or us (line 1, column 31)");
  CHECK(refusal_of_times("3") == "times: events is not an array");
  CHECK(refusal_of_times("[").starts_with("times: not JSON: "));
}

TEST_CASE("measured steps: cells that no reader made are checked before anything is sorted or made") {
  const auto refused = [](const measured_cell& m) { return refusal_of([&] { steps_of({m}); }); };
  const cell F(op{.pass = pass::forward});
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(refused({.rank = 0xFFFF'FFFF, .what = F, .time = {0, 1}}) == "ranks are 0 to 65535; got 4294967295");
  CHECK(refused({.what = F, .time = {nan, 1}}) == "the times of 0F0 on rank 0 are not finite: nan to 1");
  CHECK(refused({.what = F, .time = {0, std::numeric_limits<double>::infinity()}}) ==
        "the times of 0F0 on rank 0 are not finite: 0 to inf");
  CHECK(refusal_of([] { estimates_of({}); }) == "fit_costs() needs at least 1 timeline; got 0, nearest 1");
}

TEST_CASE("traces: our own come back, whatever the other events") {
  const stage_costs costs{.backward = per_stage(2.5), .transfer_time = per_stage(0.5)};
  const timeline t = simulate(make_dualpipev_schedule({.pp = 2, .micro = 4}), costs);
  const measured_times times = read_traces({{"t.json", render_chrome_trace(t, costs)}});
  CHECK(times.unit == time_unit::us);
  const measured_steps measured = steps_of(times.cells);
  REQUIRE(measured.steps.size() == 1);
  CHECK(measured.steps[0].schedule.cells == t.schedule.cells);
  CHECK(fit_costs(measured.steps[0]).forward[0] == doctest::Approx(1000));
}

TEST_CASE("traces: stages that two ranks hold, of DualPipe and Chimera") {
  const stage_costs costs{
      .forward = per_stage({1, 2, 3, 4}), .backward = per_stage(2.5), .transfer_time = per_stage(0.5)};
  for (const schedule& made :
       {make_dualpipe_schedule({.pp = 4, .micro = 8}), make_chimera_schedule({.pp = 4, .micro = 6}),
        make_chimera_schedule({.pp = 4, .micro = 8, .forward_only = true})}) {
    CAPTURE(made.name.view());
    const timeline t = simulate(made, costs);
    const measured_steps measured = steps_of(read_traces({{"t.json", render_chrome_trace(t, costs)}}).cells);
    REQUIRE(measured.steps.size() == 1);
    CHECK(measured.steps[0].schedule.placement == made.placement);
    CHECK(measured.steps[0].schedule.cells == made.cells);
    const stage_costs fitted = fit_costs(measured.steps[0]);
    for (std::uint32_t stage = 0; stage < 4; ++stage)
      CHECK(fitted.forward[stage] == doctest::Approx(1000 * costs.forward[stage]));
  }
}

TEST_CASE("events: a stage on two ranks that is not held twice is refused") {
  const auto F = [](std::uint32_t rank, std::uint16_t stage, std::uint32_t micro) {
    return measured_cell{.rank = rank, .what = cell(op{pass::forward, 0, stage, micro}), .time = {0, 1}};
  };
  CHECK(refusal_of([&] {
          steps_of({F(0, 0, 0), F(1, 0, 0)});
        }) == "stage 0 has ops on ranks 0 and 1; expected one of them");
  CHECK(refusal_of([&] {
          steps_of({F(0, 0, 0), F(1, 0, 1), F(1, 1, 0)});
        }) ==
        "stage 1 has no op of micro-batch 1; expected ops of all stages in either half, as some are on two ranks");
  CHECK(refusal_of([&] { steps_of({F(0, 0, 0), F(1, 0, 1)}); }).empty());
}

TEST_CASE("traces: PyTorch's, a file per process, device before host") {
  const auto rank = [](int global, std::string events) {
    return "{\"distributedInfo\": {\"rank\": " + std::to_string(global) + "}, \"traceEvents\": [" + events + "]}";
  };
  const auto event = [](std::string name, int ts, int dur, std::string cat = "user_annotation") {
    return R"({"ph": "X", "cat": ")" + cat + R"(", "name": ")" + name + R"(", "pid": 7, "tid": 1, "ts": )" +
           std::to_string(ts) + ", \"dur\": " + std::to_string(dur) + ", \"args\": {\"Ev Idx\": [1, {\"x\": 2}]}}";
  };
  const std::string first = event("PP:0F0", 0, 10) + "," + event("PP:0SEND_F0", 10, 1) + "," + event("PP:0B0", 90, 20);
  const std::string last = event("PP:1F0", 1, 1) + "," + event("PP:1F0", 20, 30, "gpu_user_annotation") + "," +
                           event("PP:1B0", 2, 1) + "," + event("PP:1B0", 50, 40, "gpu_user_annotation");
  const measured_times times = read_traces({{"b.json", rank(8, last)}, {"a.json", rank(0, first)}});
  CHECK(times.notes == std::vector<std::string>{
                           "a.json has times of the host, no gpu_user_annotation events; a GPU ends its work later"});
  const measured_steps measured = steps_of(times.cells);
  REQUIRE(measured.steps.size() == 1);
  const stage_costs costs = fit_costs(measured.steps);
  CHECK(costs.forward == per_stage({10, 30}));
  CHECK(*costs.backward == per_stage({20, 40}));
  CHECK(costs.transfer_time[0] == 10);

  CHECK(refusal_of_traces({{"a.json", rank(0, first)}, {"b.json", rank(1, first)}}) ==
        "stage 0 ran in two processes: a.json and b.json; expected those of one pipeline");
  CHECK(refusal_of_traces({{"a.json", rank(0, event("aten::add", 0, 1))}}) ==
        "a.json: no event is named after an action, such as 0F3, (0F7;7B13) or PP:0F3");
  CHECK(refusal_of_traces({{"a.json", rank(0, first)}, {"b.json", "[]"}}) ==
        "b.json: no event is named after an action, such as 0F3, (0F7;7B13) or PP:0F3");
  CHECK(refusal_of_traces({}) == "read_traces() needs at least 1 file; got 0, nearest 1");
  CHECK(refusal_of_traces({{"a.json", rank(0, R"({"ph": "X", "name": "PP:0F0", "ts": 1})")}}) ==
        "a.json: times: traceEvents[0] has no \"dur\"");
  CHECK(refusal_of_traces({{"a.json", rank(0, event("PP:0F0", 0, -1))}}) ==
        "a.json: times: traceEvents[0].dur is negative");
  CHECK(refusal_of_traces({{"a.json", "{}"}}) == "a.json: no trace; expected \"traceEvents\"");
  CHECK(refusal_of_traces({{"a.json", "{"}}).starts_with("a.json: not JSON: "));
  CHECK(refusal_of_traces({{"a.json", rank(0, first)}, {"b.json", ""}}) == "b.json: empty; expected a trace");
}

TEST_CASE(
    "Primus: costs come back from the lists of ranks with clocks of their own, for whole, split and combined "
    "backwards") {
  for (const schedule& s : {make_1f1b_schedule({.pp = 2, .micro = 4}), make_zbv_schedule({.pp = 2, .micro = 4}),
                            make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2, .overlap = true})}) {
    CAPTURE(s.name.view());
    const timeline t = measured_run(s);
    const measured_steps measured = read_primus(s, primus_files(t));
    REQUIRE(measured.steps.size() == 2);
    stage_costs expected = fit_costs(t);
    expected.transfer_time = per_stage(std::vector<double>(s.stages(), 0));
    CHECK(fit_costs(measured.steps, measured.clocks) == expected);
  }
}

TEST_CASE("Primus: lists that are not those of the schedule are refused with file and step") {
  const schedule s = make_zb1p_schedule({.pp = 2, .micro = 3});
  const timeline t = measured_run(s);
  const auto changed = [&](std::size_t rank, auto change) {
    auto files = primus_files(t);
    nlohmann::json j = nlohmann::json::parse(files[rank].second);
    change(j);
    files[rank].second = j.dump();
    return refusal_of([&] { read_primus(s, files); });
  };
  CHECK(changed(1, [](auto& j) { j["2"]["fwd_start"].erase(0); }) ==
        "pp_rank_1.json: step 2: 2 starts of fwd; rank 1 of zb1p has 3");
  CHECK(changed(0, [](auto& j) { j["1"]["wgrad_end"].clear(); }) ==
        "pp_rank_0.json: step 1: 0 ends of wgrad; rank 0 of zb1p has 3");
  CHECK(changed(0, [](auto& j) { j["1"]["bwd_minibatch"][1] = 7; }) ==
        "pp_rank_0.json: step 1: bwd_minibatch[1] is 7; 0I1 of zb1p has 1");
  CHECK(changed(0, [](auto& j) { j["1"]["fwd_chunk"].erase(0); }) ==
        "pp_rank_0.json: step 1: fwd_chunk[2] is missing; 0F2 of zb1p has 0");
  CHECK(changed(0, [](auto& j) { j["1"]["fwd_start"][0] = "x"; }) ==
        "pp_rank_0.json: step 1: fwd_start[0] is not a number");
  CHECK(changed(0, [](auto& j) { j["1"]["fwd_end"][0] = -1; }) ==
        "pp_rank_0.json: step 1: fwd_end[0] is before its start");
  CHECK(changed(0, [](auto& j) { j["1"]["fwd_start"][1] = -1; }) ==
        "pp_rank_0.json: step 1: 0F1 ran before 0F0, and comes after it in zb1p");
  CHECK(changed(0, [](auto& j) { j["1"]["fwd_end"] = 3; }) == "pp_rank_0.json: step 1: fwd_end is not an array");
  CHECK(changed(0, [](auto& j) { j["x"] = j["1"]; }) == "pp_rank_0.json: step \"x\" is not a number");
  CHECK(changed(1, [](auto& j) { j.erase("2"); }) == "pp_rank_1.json: 1 step; pp_rank_0.json has 2, among them 1");
  CHECK(refusal_of([&] { read_primus(s, {{"pp_rank_0.json", "{}"}}); }) == "1 file of ranks; zb1p has 2 ranks");
  CHECK(refusal_of([&] { read_primus(s, {{"a", "{}"}, {"b", "{}"}}); }).starts_with("a: no steps; expected "));
  CHECK(refusal_of([&] { read_primus(s, {{"a", "{"}, {"b", "{}"}}); }).starts_with("a: not JSON: "));

  const schedule apart = make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2, .extra_warm_up = true});
  const schedule pairs = make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2, .overlap = true});
  CHECK(refusal_of([&] {
          read_primus(apart, primus_files(measured_run(pairs)));
        }).find(" ran combined, and are two cells of ") != std::string::npos);
  CHECK(refusal_of([&] { read_primus(pairs, primus_files(measured_run(apart))); }).find(", and its ops ran apart") !=
        std::string::npos);
}
