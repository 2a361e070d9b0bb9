// SPDX-License-Identifier: MIT
// Values computed by hand or by an independent simulator, for costs that earlier versions got wrong.

#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "pipesched/core/recompute.hpp"
#include "pipesched/cost/presets.hpp"
#include "pipesched/cost/split_costs.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/closed_form_of.hpp"
#include "pipesched/simulate/explain.hpp"
#include "pipesched/simulate/fit_costs.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

// Makespan of a family whose costs are given per rank, as the tool takes them.
double makespan(std::string_view name, std::int64_t pp, std::int64_t micro, const stage_costs& share) {
  const family& f = find_family(name);
  schedule_params p{.pp = pp, .micro = micro};
  schedule s = f.make(p);
  const stage_costs costs = split_stage_costs(share, s.placement);
  if (f.limits.takes.contains(parameter::costs)) p.costs = costs, s = f.make(p);
  return measure(simulate(s, costs)).makespan;
}

// Costs that depend on the micro-batch alone.
struct by_micro {
  double first, step;
  double duration(const cell& c) const {
    double time = 0;
    for (op o : c) time += (o.pass == pass::backward ? 2 : 1) * (first + step * o.micro);
    return time;
  }
  double transfer(std::uint32_t, std::uint32_t, tensor_id) const { return 0; }
};

}  // namespace

TEST_CASE("known values: B alone means I = W = B/2") {
  CHECK(makespan("1f1b", 1, 1, {.backward = 4}) == 5);
  CHECK(makespan("zb1p", 1, 1, {.backward = 4}) == 5);
  const stage_costs costs{.forward = 10, .backward = 20};
  CHECK(makespan("1f1b", 4, 8, costs) == 330);
  CHECK(makespan("zb1p", 4, 8, costs) == 270);
  CHECK(makespan("zbv", 4, 8, costs) == 255);
  CHECK(makespan("dualpipev", 4, 8, costs) == 270);
  // The same holds if one half is given, for arrays, and for the uniform model.
  CHECK(makespan("zb1p", 4, 8, {.forward = 10, .backward_input = 10, .backward = 20}) == 270);
  CHECK(makespan("zb1p", 4, 8, {.forward = 10, .backward_weight = 10, .backward = {20, 20, 20, 20}}) == 270);
  CHECK(measure(simulate(make_zb1p_schedule({.pp = 4, .micro = 8}), uniform_costs{.forward = 10, .backward = 20}))
            .makespan == 270);
  // Families that search on the costs see the same halves.
  CHECK(makespan("zb_greedy", 4, 8, costs) == makespan("zb_greedy", 4, 8, {10, 10, 10}));
  CHECK(makespan("zbv_greedy", 4, 8, costs) == makespan("zbv_greedy", 4, 8, {10, 10, 10}));
  CHECK(refusal_of([] {
          makespan("1f1b", 2, 2, {.backward_input = 3, .backward = {4, 2}});
        }) == "costs: backward of stage 1 is 2, less than its backward_input; nearest 3");
}

TEST_CASE("known values: bounds for costs by micro-batch") {
  const schedule forward = make_gpipe_schedule({.pp = 1, .micro = 2, .forward_only = true});
  const by_micro five_and_one{5, -4};
  CHECK(measure(simulate(forward, five_and_one)).makespan == 6);
  CHECK(lower_bound(forward, five_and_one).makespan == 6);
  const schedule s = make_1f1b_schedule({.pp = 4, .micro = 8});
  const by_micro shrinking{8, -1};  // 8, 7, ... 1
  CHECK(measure(simulate(s, shrinking)).makespan == 162);
  CHECK(lower_bound(s, shrinking).makespan <= 162);
  CHECK(lower_bound(s, shrinking).makespan >= 3 * 36);
}

TEST_CASE("known values: a formula names the assumption that fails") {
  const auto fails = [](const schedule& s, const stage_costs& costs) {
    return std::string(closed_form_of(s, costs).value().fails);
  };
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  CHECK(fails(s, {}) == "");
  CHECK(closed_form_of(s, stage_costs{.transfer_time = 1})->bubble == 3);
  CHECK(measure(simulate(s, stage_costs{.transfer_time = 1})).max_bubble == 5);
  CHECK(fails(s, {.transfer_time = 1}) == "transfers take no time");
  CHECK(fails(s, {.message_bytes = 10, .bandwidth = 2}) == "transfers take no time");
  CHECK(fails(s, {.backward = {2, 8}}) == "every stage and micro-batch takes the same time");
  CHECK(measure(simulate(s, stage_costs{.backward = {2, 8}})).max_bubble == 15);
  CHECK(fails(s, {.forward = {1, 2}}) == "every stage and micro-batch takes the same time");
  CHECK(fails(s, {.backward_input = {1, 2}, .backward = 3}) == "");  // 1F1B has no I
  const schedule d = make_dualpipe_schedule({.pp = 4, .micro = 8});
  CHECK(fails(d, {.overlapped = 2.5}) == "");
  CHECK(fails(d, {.overlapped = {2.5, 2.6, 2.5, 2.5}}) == "every overlapped pair takes the same time");
  CHECK(fails(d, {.overlapped = 1.5}) == "B <= F&B <= F+B");
  CHECK(fails(d, {.overlapped = 3, .release_backward = 2}) == "outputs leave at the end of their cell");
  CHECK(fails(d, {.backward_input = 1.2}) == "F = I = W");
  schedule other = s;  // valid, but not the family's order: the name alone proves nothing
  other.cells = make_gpipe_schedule({.pp = 2, .micro = 2}).cells;
  CHECK(fails(other, {}) == "the order is the family's own");
}

TEST_CASE("known values: families that search use the costs of stages, not of ranks' shares") {
  CHECK(makespan("zbv_greedy", 2, 3, {.backward_input = 1.2, .backward_weight = .8, .transfer_time = .4}) ==
        doctest::Approx(11.3));
  CHECK(makespan("zbv_greedy", 4, 7, {.backward_input = .6, .backward_weight = 1.4, .transfer_time = .4}) <=
        26.4 + 1e-9);
}

TEST_CASE("known values: a pair takes the time given for its passes; overlapped prices only F with B or I") {
  const op F{pass::forward, 0, 0, 0}, F1{pass::forward, 0, 1, 3}, B{pass::backward, 0, 1, 0},
      I{pass::backward_input, 0, 1, 0}, W{pass::backward_weight, 0, 1, 0};
  const stage_costs v3 = deepseek_v3_costs();
  CHECK(v3.duration(cell(F, B)) == 129.01);
  CHECK(v3.duration(cell(F, I)) == 129.01);
  CHECK(v3.duration(cell(B, B)) == 2 * v3.duration(B));
  CHECK(v3.duration(cell(F, F)) == 2 * v3.forward[0]);
  CHECK(v3.duration(cell(F, W)) == v3.forward[0] + v3.backward_weight[0]);
  CHECK(uniform_costs{.overlapped = 2}.duration(cell(F, F1)) == 2);
  CHECK(uniform_costs{.overlapped = 1.5}.duration(cell(F, F1)) == 2);  // the sum

  stage_costs c;
  c.overlapped = 2.5;
  c.pairs = {{{pass::forward, pass::forward}, {}, 1.5},
             {{pass::backward, pass::forward}, {{1, 0}}, 2.25},
             {{pass::forward, pass::forward}, {{0, 1}}, 1.25}};
  CHECK(c.duration(cell(F, F)) == 1.5);
  CHECK(c.duration(cell(F, F1)) == 1.25);  // the price for these stages, in either order
  CHECK(c.duration(cell(F1, F)) == 1.25);
  CHECK(c.duration(cell(F, B)) == 2.25);
  CHECK(c.duration(cell(F1, B)) == 2.5);
  CHECK(c.duration(cell(B, B)) == 4);
  CHECK(to_string(c.may_overlap()) == "FF, FB, FI");
  c.allowed_pairs = pass_pair_set{{pass::forward, pass::backward}};
  CHECK(to_string(c.may_overlap()) == "FB");
  c.check(2);
  const auto refused = [&](std::vector<pair_time> pairs) {
    return refusal_of([&] {
      stage_costs wrong;
      wrong.pairs = std::move(pairs);
      wrong.check(2);
    });
  };
  CHECK(refused({{{pass::forward, pass::forward}, {{0, 2}}, 1}}) ==
        "costs: pairs[0] names stage 2; expected 0 to 1, nearest 1");
  CHECK(refused({{{pass::forward, pass::forward}, {{0, 1}}, 1}, {{pass::forward, pass::forward}, {{1, 0}}, 2}}) ==
        "costs: pairs[1] prices the cells of pairs[0] again; expected one price");
  CHECK(refused({{{pass::forward, pass::forward}, {}, -1}}) ==
        "costs: pairs[0].time is negative; expected a finite number that is not negative, nearest 0");
  CHECK(refusal_of([] { stage_costs{.overlapped = 3, .overlap_efficiency = .9}.check(2); }) ==
        "costs: overlapped and overlap_efficiency both give the time of an F with a B; expected one of them");
}

TEST_CASE("known values: a price in pairs allows the pair to a planner; a bound for other cells ignores it") {
  const placement one = placement::linear(1);
  stage_costs c;
  const double sum = lower_bound(one, 4, c).makespan;
  CHECK(sum == 4 * 3);
  c.pairs = {{{pass::forward, pass::forward}, {}, 1}};
  CHECK(lower_bound(one, 4, c).makespan == 4 * 3 - 2);  // two pairs of forwards save one each
  CHECK(lower_bound(one, 4, c, {.pairs = {}}).makespan == sum);
  c.allowed_pairs = pass_pair_set{};
  CHECK(lower_bound(one, 4, c).makespan == sum);
  c = {.overlap_efficiency = 1};  // max(F, B): an efficiency alone allows no further pair
  CHECK(c.may_overlap() == pass_pair_set::forward_with_backward());
}

TEST_CASE("known values: peaks are in activations of a rank's share") {
  const auto peak = [](const schedule& s) { return measure(simulate(s)).peak_activations; };
  CHECK(peak(make_dualpipe_schedule({.pp = 8, .micro = 20})) == 9);
  CHECK(peak(make_dualpipev_schedule({.pp = 8, .micro = 20})) == 8.5);
  CHECK(peak(make_1f1b_schedule({.pp = 8, .micro = 20})) == 8);
  CHECK(peak(make_interleaved_1f1b_schedule({.pp = 4, .micro = 8, .chunks = 3})) == doctest::Approx(15.0 / 3));
  CHECK(peak(make_schedule("zbv_greedy", {.pp = 4, .micro = 8, .memory_limit = 4})) <= 4);
}

TEST_CASE("known values: an array with one number per rank is divided among each rank's stages") {
  // A slow second GPU: stages of 0.5, 1.5, 1.5, 0.5 on a V.
  CHECK(makespan("zbv", 2, 8, {.forward = {1, 3}, .backward_input = {1, 3}, .backward_weight = {1, 3}}) == 72.5);
  CHECK(makespan("zbv", 2, 8,
                 {.forward = {.5, 1.5, 1.5, .5},
                  .backward_input = {.5, 1.5, 1.5, .5},
                  .backward_weight = {.5, 1.5, 1.5, .5}}) == 72.5);
  const placement v = placement::vee(2);
  CHECK(split_stage_costs({.transfer_time = {1, 2}}, v).transfer_time == per_stage{1, 2, 2, 1});  // not divided
  CHECK(split_stage_costs({.transfer_time = {1, 2, 3}}, v).transfer_time == per_stage{1, 2, 3});  // per cut
  CHECK(split_stage_costs({.weight_bytes = {2, 4}}, v).weight_bytes == per_stage{1, 2, 2, 1});
  CHECK(split_stage_costs({}, v).duration(op{pass::backward_input, 0, 0, 0}) == .5);  // the defaults, too
  CHECK(split_stage_costs({}, v).duration(op{pass::backward_weight, 0, 3, 0}) == .5);
  CHECK(split_stage_costs({.backward_input = 3}, v).duration(op{pass::backward_weight, 0, 3, 0}) == .5);
  CHECK(split_stage_costs({.backward = 3}, v).duration(op{pass::backward_weight, 0, 3, 0}) == .75);
  stage_costs paired;
  paired.pairs = {{{pass::forward, pass::backward}, {}, 5}, {{pass::forward, pass::backward}, {{0, 1}}, 5}};
  CHECK(split_stage_costs(paired, v).pairs[0].time == 2.5);
  CHECK(split_stage_costs(paired, v).pairs[1].time == 5);
  CHECK(describe_split({}, v) == "costs are of a rank's share, divided among its 2 stages");
  CHECK(describe_split({.forward = {1, 2, 3, 4}, .backward = {1, 2, 3, 4}}, v) == "costs are per stage");
  CHECK(describe_split({.forward = {1, 2, 3, 4}, .backward = {2, 4}}, v) ==
        "costs are per stage (forward) or of a rank's share, divided among its 2 stages (backward)");
  CHECK(describe_split({}, placement::bidirectional(4, 8)) == "costs are per stage, one stage per rank");
}

TEST_CASE("known values: a tensor's transfer is that of the cut that it crosses") {
  // VGG-16 cut in four: milliseconds, bytes at the cuts, bytes per second.
  const stage_costs vgg{.forward = {40.279, 58.897, 73.949, 78.749},
                        .backward = {24.613, 129.773, 147.911, 136.336},
                        .message_bytes = {1644167168, 411041792, 411041792},
                        .bandwidth = 10e6};  // 10e9 bytes a second, in ms
  const schedule s = make_1f1b_schedule({.pp = 4, .micro = 8});
  CHECK(measure(simulate(s, vgg)).makespan == doctest::Approx(3253.98).epsilon(1e-5));
  const stage_costs cuts{.transfer_time = {1, 2, 4}};
  const timeline t = simulate(make_1f1b_schedule({.pp = 4, .micro = 1}), cuts);
  CHECK(t[3][0].start == 1 + 1 + 1 + 2 + 1 + 4);
  CHECK(t[0][1].start == t[3][1].end + 4 + 2 + 2 + 2 + 1);
  CHECK(lower_bound(t.schedule, cuts).makespan == measure(t).makespan);
  const stage_costs fitted = fit_costs(t);
  CHECK(fitted.transfer_time == per_stage{1, 2, 4, 0});
  CHECK(refusal_of([&] {
          simulate(s, stage_costs{.transfer_time = {1, 2}});
        }) == "costs: transfer has 2 numbers; expected 1 or 3, one per cut between 4 stages");
}

TEST_CASE("known values: every function throws the report of an invalid schedule") {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 3});
  std::swap(s[0][1], s[0][2]);
  std::swap(s[1][1], s[1][2]);
  const std::string text = refusal_of([&] { require_valid(s); });
  REQUIRE(text.find("cycle") != text.npos);
  CHECK(refusal_of([&] { measure(simulate(s)); }) == text);
  CHECK(refusal_of([&] { explain(simulate(s), uniform_costs{}); }) == text);
  CHECK(refusal_of([&] { fit_costs(simulate(s)); }) == text);
  CHECK(refusal_of([&] { lower_bound(s, uniform_costs{}); }) == text);
  CHECK(refusal_of([&] { closed_form_of(s, uniform_costs{}); }) == text);
  // Ops, passes and frozen stages that do not exist are not looked up.
  const schedule good = recompute(make_1f1b_schedule({.pp = 4, .micro = 8}));
  std::vector<schedule> broken(4, good);
  broken[0].backward = {stage_backward::full};
  broken[1][0][0] = cell(op{pass::recompute, 0, 999, 0});
  broken[2].cells = rows<cell>();
  broken[3][1][2] = cell(op{static_cast<pass>(77), 0, 1, 0});
  const stage_costs costs{.forward = {1, 1, 1, 1}, .backward = {2, 2, 2, 2}};
  for (const schedule& b : broken) {
    const std::string why = refusal_of([&] { require_valid(b); });
    CHECK(why != "");
    CHECK(refusal_of([&] { lower_bound(b, costs); }) == why);
    CHECK(refusal_of([&] { closed_form_of(b, costs); }) == why);
  }
  // A timeline by hand that does not match its schedule.
  const timeline empty{.schedule = make_1f1b_schedule({.pp = 2, .micro = 3})};
  const std::string rows_missing =
      "a timeline needs one row of cells and one of intervals per rank; got 2 and 0 for 2 ranks";
  CHECK(refusal_of([&] { measure(empty); }) == rows_missing);
  CHECK(refusal_of([&] { explain(empty); }) == rows_missing);
  CHECK(refusal_of([&] { explain(empty, uniform_costs{}); }) == rows_missing);
  CHECK(refusal_of([&] { fit_costs(empty); }) == rows_missing);
  // A simulated timeline whose schedule or times were edited afterwards.
  timeline edited = simulate(make_1f1b_schedule({.pp = 2, .micro = 2}));
  std::swap(edited.schedule[0][0], edited.schedule[0][3]);
  CHECK(refusal_of([&] { explain(edited); }) == refusal_of([&] { require_valid(edited.schedule); }));
  CHECK(refusal_of([&] { explain(edited, uniform_costs{}); }) == refusal_of([&] { require_valid(edited.schedule); }));
  CHECK(explain(edited, uniform_costs{}, verified).critical_path.size() <= 8);  // ends even so
  edited.schedule[1][3] = cell(op{pass::backward, 0, 40, 70});
  CHECK(refusal_of([&] { measure(edited); }).find("the schedule is not valid") == 0);
  CHECK(refusal_of([&] { fit_costs(edited); }).find("the schedule is not valid") == 0);
  timeline timeless = simulate(make_1f1b_schedule({.pp = 2, .micro = 2}));
  timeless[1][0].end = std::numeric_limits<double>::quiet_NaN();
  CHECK(refusal_of([&] { measure(timeless); }).find("a timeline needs finite times, each end at or after its start") ==
        0);
  timeless[1][0] = {3, 2};
  CHECK(refusal_of([&] {
          fit_costs(timeless);
        }).find("a timeline needs finite times, each end at or after its start") == 0);
  timeline shorter = simulate(make_1f1b_schedule({.pp = 2, .micro = 3}));
  shorter.schedule = make_1f1b_schedule({.pp = 2, .micro = 4});
  CHECK(refusal_of([&] { measure(shorter); }) == "a timeline needs one interval per cell; rank 0 has 6 for 8 cells");
}

TEST_CASE("known values: numbers are refused as they were given, before they are divided") {
  const placement v = placement::vee(2);
  const auto refused = [&](const stage_costs& given) {
    return refusal_of([&] { split_stage_costs(given, v).check(4); });
  };
  CHECK(refused({.backward_input = 2, .backward = 1}) ==
        "costs: backward of stage 0 is 1, less than its backward_input; nearest 2");
  CHECK(refused({.forward = {1, 2, 3}}) ==
        "costs: forward has 3 numbers; expected 1, 2, one per rank, or 4, one per stage");
  CHECK(refusal_of([] {
          split_stage_costs({.forward = {1, 2, 3}}, placement::vee(1));
        }) == "costs: forward has 3 numbers; expected 1 or 2, one per stage");
  CHECK(refused({.kept_by_forward = {1, 2}, .freed_by_input = {3, 0}}) ==
        "costs: stage 0 frees 3 bytes, more than the 1 that its forward keeps; nearest 1");
  CHECK(refusal_of([] {
          stage_costs{.transfer_time = {1, 2, 3}}.check(2);
        }) == "costs: transfer has 3 numbers; expected 1, for the cut between 2 stages");
  CHECK(describe_split({.transfer_time = {1, 2}}, v) ==
        "costs are of a rank's share, divided among its 2 stages; transfers are by the rank of a cut's earlier stage");
}

TEST_CASE("known values: a cost model without check() is refused for times that make no sense") {
  struct costs {
    double time, way;
    double duration(const cell&) const { return time; }
    double transfer(std::uint32_t, std::uint32_t, tensor_id) const { return way; }
  };
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  const auto begins = [](const std::string& text, std::string_view with) { return text.rfind(with, 0) == 0; };
  for (const double wrong : {-1.0, std::numeric_limits<double>::quiet_NaN()}) {
    CAPTURE(wrong);
    CHECK(begins(refusal_of([&] {
                   simulate(s, costs{wrong, 0});
                 }),
                 "costs: the duration of 0F0 is negative or not a number"));
    CHECK(begins(refusal_of([&] {
                   simulate(s, costs{0, wrong});
                 }),
                 "costs: the time to the arrival of an output of 0F0 is negative or not a number"));
    CHECK(begins(refusal_of([&] { lower_bound(s, costs{wrong, 0}); }), "costs: a duration, release or transfer is "));
    CHECK(begins(refusal_of([&] { lower_bound(s, costs{1, wrong}); }), "costs: a duration, release or transfer is "));
  }
}

TEST_CASE("known values: simulating a timeline again equals a new simulation") {
  const schedule s = make_dualpipe_schedule({.pp = 4, .micro = 10});
  timeline t = simulate(s);
  const stage_costs other{.forward = {1, 2, 3, 4}, .overlapped = 5, .transfer_time = .5};
  simulate_again(t, other);
  CHECK(t == simulate(s, other));
  CHECK(t == simulate(s, other, verified));
}

TEST_CASE("known values: the gap is relative to the bound, and 0 where no cell takes any time") {
  CHECK(lower_bound_result{.makespan = 50}.gap(60) == doctest::Approx(0.2));
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  const stage_costs nothing{.forward = 0, .backward = 0};
  const lower_bound_result bound = lower_bound(s, nothing);
  CHECK(bound.makespan == 0);
  CHECK(bound.reason == "ops alone take no time");
  CHECK(bound.gap(measure(simulate(s, nothing)).makespan) == 0);
}

TEST_CASE("stage costs: lengths of micro-batches, speeds of ranks and links, by hand") {
  stage_costs c{.backward = 2, .micro_batches = {8, 7, 6, 5, 4, 3, 2, 1}};
  const schedule s = make_1f1b_schedule({.pp = 4, .micro = 8});
  CHECK(measure(simulate(s, c)).makespan == 162);
  std::reverse(c.micro_batches.begin(), c.micro_batches.end());
  CHECK(measure(simulate(s, c)).makespan == 160);
  c.micro_batches.pop_back();
  CHECK(refusal_of([&] { simulate(s, c); }) == "costs: micro_batches has 7 numbers; expected 8, one per micro-batch");

  const schedule v = make_zbv_schedule({.pp = 2, .micro = 8});
  CHECK(measure(simulate(v, split_stage_costs({.rank_speeds = {1, 1.0 / 3}}, v.placement))).makespan == 72.5);
  CHECK(refusal_of([&] { simulate(v, stage_costs{.rank_speeds = {1}}); }) ==
        "costs: rank_speeds has 1 number; expected 2, one per rank");
  CHECK(refusal_of([&] {
          simulate(v, stage_costs{.rank_speeds = {1, 0}});
        }) == "costs: rank_speeds[1] is 0; expected more than 0");

  // A pair of lengths 3 and 2: twice the pair, once the longer op alone.
  const op f{pass::forward, 0, 0, 0}, b{pass::backward, 0, 0, 1};
  const stage_costs pair{.forward = 1, .backward = 2, .overlapped = 2.25, .micro_batches = {3, 2}};
  CHECK(pair.duration(cell(f, b)) == 2 * 2.25 + 1);
  CHECK(pair.duration(cell(f, b), 0) == 2 * 2.25 + 1);
  const stage_costs longer{
      .forward = 1, .backward = 2, .overlapped = 2.25, .rank_speeds = {0.5}, .micro_batches = {2, 5}};
  CHECK(longer.duration(cell(f, b), 0) == 2 * (2 * 2.25 + 3 * 2));
  const stage_costs kept{.micro_batches = {3, 2}, .kept_by_forward = 10, .freed_by_input = 4, .weight_bytes = 7};
  CHECK(kept.bytes(f) == 30);
  CHECK(kept.bytes(op{pass::backward_input, 0, 0, 1}) == -8);
  CHECK(kept.weights(0) == 7);

  stage_costs linked{.transfer_time = 5,
                     .message_bytes = 12,
                     .bandwidth = 4,
                     .links = {{0, 1, 0.5, 3}, {2, 1, 1, {}}},
                     .micro_batches = {1, 0.5}};
  const tensor_id first{tensor_kind::activation, 0, 0}, second{tensor_kind::activation, 0, 1},
      gradient{tensor_kind::gradient, 2, 0};
  CHECK(linked.transfer(0, 1, first) == 0.5 + 4);
  CHECK(linked.transfer(0, 1, second) == 0.5 + 2);
  CHECK(linked.transfer(1, 0, first) == 5 + 3);
  CHECK(linked.transfer(2, 1, gradient) == 1);
  const auto refused = [&](const rank_link& l) {
    linked.links.push_back(l);
    const std::string text = refusal_of([&] { linked.check(4, 4, 2); });
    linked.links.pop_back();
    return text;
  };
  CHECK(refused({3, 2, 0, {}}) == "");
  CHECK(refused({3, 4, 0, {}}) == "costs: links[2] names rank 4; expected 0 to 3, nearest 3");
  CHECK(refused({3, 3, 0, {}}) == "costs: links[2] is from rank 3 to itself; expected two ranks");
  CHECK(refused({3, 2, 0, 0}) == "costs: links[2].bandwidth is 0; expected more than 0");
  CHECK(refused({0, 1, 0, {}}) == "costs: links[2] is for the ranks of links[0]; expected one link for a pair");
}
