// SPDX-License-Identifier: MIT
// Models of layers, and their costs under a partition.

#include "pipesched/model/model.hpp"

#include <doctest/doctest.h>

#include <array>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/generate/1f1b.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "pipesched/generate/dualpipev.hpp"
#include "pipesched/generate/interleaved_1f1b.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/layout.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/model/presets.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/makespan.hpp"

using namespace pipesched;
using pipesched::tests::makespan;
using pipesched::tests::refusal_of;

namespace {

model small() {
  return {
      .layers = {
          {.kind = "embedding",
           .forward = 0.5,
           .backward_input = 0,
           .backward_weight = 0.25,
           .weights = 7,
           .message = 2},
          {.kind = "a", .count = 2, .forward = 1, .backward = 3, .kept = 10, .context = 4, .weights = 1, .message = 3},
          {.kind = "b", .count = 3, .forward = 2, .backward_input = 2, .backward = 5, .kept = 20, .message = 4},
          {.kind = "head", .forward = 4, .backward_input = 1, .backward_weight = 2, .weights = 9}}};
}

}  // namespace

TEST_CASE("model: what makes no sense is refused, with its place") {
  const auto refused = [](const std::function<void(model&)>& change) {
    model m = small();
    change(m);
    return refusal_of([&] { check(m); });
  };
  CHECK(refused([](model&) {}) == "");
  CHECK(refused([](model& m) { m.layers.clear(); }) == "model: there are no layers; expected at least 1");
  CHECK(refused([](model& m) { m.layers[1].count = 0; }) ==
        "model: layers[1].count is 0; expected 1 or more, nearest 1");
  CHECK(refused([](model& m) { m.layers[1].count = 1u << 20; }) ==
        "model: layers[1].count makes more than 1048576 layers; expected at most as many");
  CHECK(refused([](model& m) { m.layers[2].kind = ""; }) ==
        "model: layers[2].kind is empty; expected a name, such as \"moe\"");
  CHECK(refused([](model& m) { m.layers[2].kind = "a\nb"; }) ==
        "model: layers[2].kind has a control character; expected a name of one line, such as \"moe\"");
  const std::string too_large =
      " makes the sum over all layers more than a double holds, 1.79769e+308; expected numbers in a larger unit";
  CHECK(refused([](model& m) { m.layers[1].forward = 1e308; }) == "model: layers[1].forward" + too_large);
  CHECK(refused([](model& m) { m.layers[1].kept = m.layers[2].kept = 5e307; }) == "model: layers[2].kept" + too_large);
  CHECK(refused([](model& m) { m.layers[0].backward_input = m.layers[0].backward_weight = 1e308; }) ==
        "model: layers[0].backward_input" + too_large);
  CHECK(refused([](model& m) { m.layers[0].recompute = 1.7e308; }) == "");
  CHECK(refused([](model& m) {
          m.layers[0].message = 1e308, m.links = {{}, {.from = 0, .to = 1, .bandwidth = 1e-5}};
        }) ==
        "model: links[1].bandwidth is 1e-05, over which a message of 1e+308 bytes lasts longer than a double holds; "
        "expected more, or times in a larger unit");
  CHECK(refused([](model& m) { m.layers[0].forward = -1; }) ==
        "model: layers[0].forward is negative; expected a finite number that is not negative, nearest 0");
  CHECK(refused([](model& m) { m.layers[0].transient.recompute = std::numeric_limits<double>::infinity(); }) ==
        "model: layers[0].transient.R is infinite; expected a finite number that is not negative, nearest 0");
  CHECK(refused([](model& m) { m.layers[2].backward = 1; }) ==
        "model: layers[2].backward is 1, less than its backward_input; nearest 2");
  CHECK(refused([](model& m) { m.layers[1].kept_input = 11; }) ==
        "model: layers[1].kept_input is 11, more than kept, of which it is a part; nearest 10");
  CHECK(refused([](model& m) {
          m.pairs = {{{"a", "c"}, {pass::forward, pass::backward}, 1}};
        }) == "model: pairs[0] names the kind \"c\", which no layer has");
  CHECK(refused([](model& m) {
          m.layers[0].kind = "dense", m.pairs = {{{"dens", "dense"}, {pass::forward, pass::backward}, 1}};
        }) == "model: pairs[0] names the kind \"dens\", which no layer has; did you mean \"dense\"?");
  CHECK(refused([](model& m) {
          m.pairs = {{{"a", "b"}, {pass::forward, pass::none}, 1}};
        }) == "model: pairs[0] has no two passes; expected two of F, B, I, W, R, (RB), (RI)");
  const layer_pair price{{"a", "b"}, {pass::forward, pass::backward}, 1},
      turned{{"b", "a"}, {pass::backward, pass::forward}, 1}, other{{"b", "a"}, {pass::forward, pass::backward}, 1};
  CHECK(refused([&](model& m) { m.pairs = {price, other}; }) == "");
  CHECK(refused([&](model& m) {
          m.pairs = {price, other, turned};
        }) == "model: pairs[2] prices what pairs[0] prices; expected one price");
  CHECK(refused([](model& m) { m.ranks = {{.speed = 0}}; }) == "model: ranks[0].speed is 0; expected more than 0");
  CHECK(refused([](model& m) { m.ranks = {{.memory = -1}}; }) ==
        "model: ranks[0].memory is negative; expected a finite number that is not negative, nearest 0");
  CHECK(refused([](model& m) { m.links = {{.from = 1}}; }) ==
        "model: links[0] has \"from\" alone; expected both or none");
  CHECK(refused([](model& m) { m.links = {{.from = 1, .to = 1}}; }) ==
        "model: links[0] is from rank 1 to itself; expected two ranks");
  CHECK(refused([](model& m) {
          m.links = {{}, {}};
        }) == "model: links[1] is for the ranks of links[0]; expected one link for a pair");
  CHECK(refused([](model& m) { m.links = {{.bandwidth = 0.0}}; }) ==
        "model: links[0].bandwidth is 0; expected more than 0");
  CHECK(refused([](model& m) { m.micro_batches = {1, 0}; }) == "model: micro_batches[1] is 0; expected more than 0");
}

TEST_CASE("uniform_partition: as many layers a stage; embedding, mtp and head do not count") {
  CHECK(uniform_partition(small(), 2).layers == std::vector<std::uint32_t>{4, 3});
  CHECK(uniform_partition(small(), 7).layers == std::vector<std::uint32_t>{2, 1, 1, 1, 1, 0, 1});
  CHECK(uniform_partition(small(), 1).layers == std::vector<std::uint32_t>{7});
  CHECK(uniform_partition({.layers = {{.kind = "head"}}}, 2).layers == std::vector<std::uint32_t>{0, 1});
  CHECK(uniform_partition({.layers = {{.kind = "embedding", .count = 2}}}, 2).layers ==
        std::vector<std::uint32_t>{2, 0});
  CHECK(uniform_partition({.layers = {{.count = 4}, {.kind = "mtp"}, {.kind = "head"}}}, 4).layers ==
        std::vector<std::uint32_t>{1, 1, 1, 3});
  CHECK(refusal_of([] { uniform_partition(small(), 0); }) ==
        "uniform_partition() needs at least 1 stage; got 0, nearest 1");
}

TEST_CASE("costs_of: a stage is the sum of its layers, and passes on what it got if it is empty") {
  const stage_costs c = costs_of(small(), {{2, 0, 3, 2}}, placement::linear(4));
  CHECK(c.forward.values() == std::vector<double>{1.5, 0, 5, 6});
  CHECK(c.backward->values() == std::vector<double>{3.25, 0, 13, 8});
  CHECK(c.backward_input->values() == std::vector<double>{1.5, 0, 5.5, 3});
  CHECK(c.backward_weight->values() == std::vector<double>{1.75, 0, 7.5, 5});
  CHECK(c.kept_by_forward.values() == std::vector<double>{10, 0, 50, 20});
  CHECK(c.context->values() == std::vector<double>{4, 0, 44, 20});
  CHECK(c.weight_bytes.values() == std::vector<double>{8, 0, 1, 9});
  CHECK(c.message_bytes.values() == std::vector<double>{3, 3, 4, 0});
  CHECK(c.pairs.empty());
  CHECK(costs_of(small(), {{0, 7}}, placement::linear(2)).message_bytes.values() == std::vector<double>{0, 0});
  CHECK(refusal_of([] { costs_of(small(), {{3, 4}}, placement::linear(4)); }) == "a partition of 2 stages; expected 4");
  CHECK(refusal_of([] {
          costs_of(small(), {{3, 3}}, placement::linear(2));
        }) == "a partition of 6 layers; the model has 7");
}

TEST_CASE("costs_of: layers are paired in the order in which they run, those left over run alone") {
  model m{.layers = {{.kind = "x", .forward = 1, .backward = 2},
                     {.kind = "y", .count = 2, .forward = 3, .backward = 5},
                     {.kind = "x", .count = 2, .forward = 1, .backward = 2}},
          .pairs = {{{"x", "y"}, {pass::forward, pass::backward}, 4.5},
                    {{"y", "x"}, {pass::forward, pass::backward}, 3.25},
                    {{"y", "y"}, {pass::forward, pass::forward}, 5}}};
  // On a V of one rank: stage 0 has x y, stage 1 has y x x.
  const stage_costs c = costs_of(m, {{2, 3}}, placement::vee(1));
  const auto cell_of = [](pass a, std::uint16_t s, pass b, std::uint16_t t) {
    return cell(op{a, static_cast<std::uint8_t>(s), s, 0}, op{b, static_cast<std::uint8_t>(t), t, 1});
  };
  // F of x, y beside B of x, x, y: x with x has no price, y with x has one, y is left over.
  CHECK(c.duration(cell_of(pass::forward, 0, pass::backward, 1)) == 1 + 2 + 3.25 + 5);
  // F of y, x, x beside B of y, x: y with y has none, x with x none.
  CHECK(c.duration(cell_of(pass::forward, 1, pass::backward, 0)) == 3 + 5 + 1 + 2 + 1);
  CHECK(c.duration(cell_of(pass::backward, 0, pass::forward, 0)) == 4.5 + 3.25);        // x y beside y x
  CHECK(c.duration(cell_of(pass::forward, 0, pass::forward, 1)) == 1 + 3 + 3 + 1 + 1);  // nothing meets
  CHECK(c.duration(cell_of(pass::forward, 0, pass::backward_input, 1)) == 1 + 3 + (2 + 2 + 5) / 2.0);
  CHECK(c.may_overlap().contains({pass::forward, pass::forward}));
  m.allowed_pairs = pass_pair_set{{pass::forward, pass::backward}};
  CHECK(!costs_of(m, {{2, 3}}, placement::vee(1)).may_overlap().contains({pass::forward, pass::forward}));
}

TEST_CASE("costs_of: a price of a pair that recomputes inside leaves the prices of the other pairs as they are") {
  model m;
  for (const char* kind : {"b", "b", "a", "b"})
    m.layers.push_back({.kind = kind, .forward = 4, .backward = 6, .recompute = 1});
  for (const char* x : {"a", "b"})
    for (const char* y : {"a", "b"}) m.pairs.push_back({{x, y}, {pass::forward, pass::backward}, 7});
  const placement where = placement::bidirectional(2, 2);
  const partition p{{2, 2}};
  const cell both(op{pass::forward, 0, 0, 1}, op{pass::recompute_backward, 0, 1, 0});
  CHECK(costs_of(m, p, where).duration(both) == 2 * (7 + 1));  // 0F with 1B: b with b, and b with a
  m.pairs.push_back({{"b", "b"}, {pass::forward, pass::recompute_backward}, 7.5});
  CHECK(costs_of(m, p, where).duration(both) == 7.5 + (7 + 1));
  m.pairs.push_back({{"b", "a"}, {pass::forward, pass::recompute_backward}, 20});
  CHECK(costs_of(m, p, where).duration(both) == 7.5 + 20);
}

TEST_CASE("costs_of: DeepSeek-V3's layers, four a stage, are its costs") {
  const schedule s = make_dualpipe_schedule({.pp = 8, .micro = 20});
  const model m = deepseek_v3_model(32);
  const stage_costs c = costs_of(m, uniform_partition(m, 8), s.placement);
  stage_costs whole = deepseek_v3_costs();
  CHECK(makespan(s, c) == doctest::Approx(makespan(s, whole)));
  CHECK(makespan(s, c) == doctest::Approx(4088.30));
}

TEST_CASE("costs_of: ranks, links and lengths") {
  model m{.time_unit = time_unit::ms,
          .layers = {{.count = 4, .message = 6e7}},
          .ranks = {{.speed = 1}, {.speed = 2}},
          .links = {{.latency = 1, .bandwidth = 3e10}, {.from = 1, .to = 0, .latency = 0.5}},
          .micro_batches = {1, 0.5}};
  const placement where = placement::linear(2);
  const stage_costs c = costs_of(m, {{2, 2}}, where);
  const tensor_id activation{tensor_kind::activation, 0, 0}, half{tensor_kind::activation, 0, 1},
      gradient{tensor_kind::gradient, 1, 0};
  CHECK(c.transfer(0, 1, activation) == 1 + 2);  // 6e7 bytes at 3e7 a millisecond
  CHECK(c.transfer(0, 1, half) == 1 + 1);
  CHECK(c.transfer(1, 0, gradient) == 0.5);
  CHECK(c.duration(op{pass::forward, 0, 0, 0}, 0) == 2);
  CHECK(c.duration(op{pass::forward, 0, 1, 1}, 1) == 0.5);
  CHECK(refusal_of([&] {
          costs_of(m, {{2, 1, 1}}, placement::linear(3));
        }) == "model: there are 2 entries in ranks; expected 1, or 3, one per rank");
  m.ranks.resize(1), m.links[0].busy = link_busy::sender;
  CHECK(costs_of(m, {{2, 2}}, where).keeps_ranks_busy());
  m.links.clear(), m.ranks = {{.speed = 1}};
  CHECK(costs_of(m, {{2, 2}}, where).rank_speeds.empty());
  m.ranks = {{.speed = 4}};
  CHECK(costs_of(m, {{2, 2}}, where).rank_speeds == std::vector<double>{4, 4});
}

TEST_CASE("layout: Megatron's text and back") {
  const model m{.layers = {{.kind = "embedding"}, {.count = 61}, {.kind = "mtp"}, {.kind = "head"}}};
  const placement where = placement::looped(16, 2);
  const partition p = parse_layout("Et*3|(tt|)*29,m|L", m, where);
  CHECK(p.layers.front() == 4);
  CHECK(p.layers[1] == 2);
  CHECK(p.layers[30] == 1);
  CHECK(p.layers[31] == 1);
  CHECK(to_layout(p, m, where) == "Et*3|(tt|)*29,m|L");
  const model bare{.layers = {{.kind = "block", .count = 3}}};
  const placement four = placement::linear(4);
  CHECK(parse_layout("Et||t|tL", bare, four).layers == std::vector<std::uint32_t>{1, 0, 1, 1});
  CHECK(to_layout({{1, 0, 1, 1}}, bare, four) == "Et||t|tL");
  CHECK(to_layout({{0, 0, 0, 3}}, bare, four) == "E|||t*3L");
  CHECK(to_layout({{3, 0, 0, 0, 0}}, bare, placement::linear(5)) == "Et*3||||L");
  CHECK(to_layout({{3, 0, 0, 0, 0, 0}}, bare, placement::linear(6)) == "Et*3||*4,L");
  CHECK(parse_layout("Et*3||*3,L", bare, placement::linear(5)).layers == std::vector<std::uint32_t>{3, 0, 0, 0, 0});
}

namespace {

// All layers of the kind "mtp" on one stage, the last of its rank.
bool mtp_is_in_place(const partition& p, const model& m, const placement& where) {
  const std::vector<layer> layers = expanded(m.layers);
  const std::vector<std::size_t> first = first_layers(p);
  std::size_t stages_with_mtp = 0;
  for (std::size_t s = 0; s < p.stages(); ++s) {
    bool any = false;
    for (std::size_t i = first[s]; i < first[s + 1]; ++i) any = any || layers[i].kind == "mtp";
    if (any && s + where.ranks() < p.stages()) return false;
    stages_with_mtp += any;
  }
  return stages_with_mtp <= 1;
}

}  // namespace

TEST_CASE("layout: every partition that Megatron-LM takes comes back, on linear and looped placements") {
  const std::vector<model> models = {
      {.layers = {{.kind = "embedding"}, {.count = 5}, {.kind = "head"}}},
      {.layers = {{.kind = "dense", .count = 2}, {.kind = "moe", .count = 3}}},
      {.layers = {{.kind = "embedding"}, {.count = 3}, {.kind = "mtp", .count = 2}, {.kind = "head"}}}};
  int tried = 0, refused = 0;
  for (const model& m : models) {
    const auto all = static_cast<std::uint32_t>(layer_count(m));
    for (std::uint32_t a = 0; a <= all; ++a)
      for (std::uint32_t b = 0; a + b <= all; ++b)
        for (std::uint32_t c = 0; a + b + c <= all; ++c) {
          const partition p{{a, b, c, all - a - b - c}};
          for (const placement& where : {placement::linear(4), placement::looped(2, 2)}) {
            if (!mtp_is_in_place(p, m, where)) {
              REQUIRE(refusal_of([&] { to_layout(p, m, where); }) == layout_refusal(p, m, where));
              REQUIRE(layout_refusal(p, m, where).starts_with("layout: layer "));
              ++refused;
              continue;
            }
            const std::string text = to_layout(p, m, where);
            CAPTURE(text);
            REQUIRE(layout_refusal(p, m, where).empty());
            REQUIRE(parse_layout(text, m, where) == p);
            ++tried;
          }
        }
  }
  CHECK(tried > 400);
  CHECK(refused > 50);
}

TEST_CASE("layout: what Megatron-LM refuses is neither written nor read") {
  const model two_mtp{.layers = {{.kind = "embedding"}, {.count = 8}, {.kind = "mtp", .count = 2}, {.kind = "head"}}},
      two_heads{.layers = {{.kind = "embedding"}, {.count = 2}, {.kind = "head", .count = 2}}},
      two_embeddings{.layers = {{.count = 2}, {.kind = "embedding"}, {.count = 1}}},
      early_mtp{.layers = {{.kind = "mtp"}, {.count = 2}}};
  const placement four = placement::linear(4), two = placement::linear(2);
  const auto written = [](const partition& p, const model& m, const placement& where) {
    return refusal_of([&] { to_layout(p, m, where); });
  };
  const auto read = [](std::string_view text, const model& m, const placement& where) {
    return refusal_of([&] { parse_layout(text, m, where); });
  };
  CHECK(written({{5, 4, 1, 2}}, two_mtp, four) ==
        "layout: layer 10 is an m on stage 3; Megatron-LM takes all m on one stage, and stage 2 has one");
  CHECK(to_layout({{5, 4, 2, 1}}, two_mtp, four) == "Et*4|t*4|mm|L");
  CHECK(written({{5, 6, 0, 1}}, two_mtp, placement::looped(2, 2)) ==
        "layout: layer 9 is an m on stage 1; Megatron-LM takes m on the last stage of a rank, 2 to 3");
  CHECK(read("Et*4|t*4|m|mL", two_mtp, four) ==
        "layout: column 12 is an m on stage 3; Megatron-LM takes all m on one stage, and stage 2 has one");
  CHECK(written({{2, 3}}, two_heads, two) ==
        "layout: layer 3 is an L before another layer; Megatron-LM takes one L, which is the last layer");
  CHECK(read("Et|tLL", two_heads, two) ==
        "layout: column 5 is an L before another layer; Megatron-LM takes one L, which is the last layer");
  CHECK(written({{2, 2}}, two_embeddings, two) ==
        "layout: layer 2 is an E after another layer; Megatron-LM takes one E, which is the first layer");
  CHECK(written({{1, 2}}, early_mtp, two) == "layout: layer 1 is a t after an m; Megatron-LM takes m after all t");
  CHECK(layout_refusal({{1, 2}}, early_mtp, placement::vee(1)) ==
        "a layout places stages on ranks one after another, which is a linear or looped placement; got a vee one");

  // Letters that the model has no layer for.
  const model six{.layers = {{.kind = "embedding"}, {.count = 6}, {.kind = "head"}}};
  CHECK(read("Ettt|tttL", six, two) == "");
  CHECK(read("EEttt|tttL", six, two) == "layout: column 2 is an E where the model has a t");
  CHECK(read("EtttL|tttLLL", six, two) == "layout: column 5 is an L where the model has a t");
  CHECK(read("Ettt|tttLm", six, two) == "layout: column 10 is an m where the model has no layer left");
  CHECK(read("EtttL|EtttL", six, two) == "layout: column 5 is an L where the model has a t");
  const model bare{.layers = {{.count = 6}}};
  CHECK(read("Et*3|t*3,L", bare, two) == "");
  CHECK(read("t*3|t*3", bare, two) == "");
  CHECK(read("E*2,t*3|t*3,L", bare, two) == "layout: column 1 is an E where the model has a t");
  CHECK(read("Et*3|t*3L*2", bare, two) == "layout: column 9 is an L where the model has no layer left");
}

TEST_CASE("layout: faults are named with their column") {
  const model m{.layers = {{.count = 4}}};
  const auto refused = [&](std::string_view text, const placement& where = placement::linear(2)) {
    return refusal_of([&] { parse_layout(text, m, where); });
  };
  CHECK(refused("Ett|ttL") == "");
  CHECK(refused("Ett|tt L") == "layout: column 7 is ' '; expected E, t, m, L, a bar, a comma, or parentheses");
  CHECK(refused("Et*|tL") == "layout: column 3 is a * without a number");
  CHECK(refused("E(tt|tL") == "layout: column 2 opens parentheses that nothing closes");
  CHECK(refused("E((tt)*2|)*2") == "layout: column 3 opens parentheses inside parentheses; expected none");
  CHECK(refused("E(tt)|ttL") == "layout: column 5 closes parentheses without a factor; expected one such as *2");
  CHECK(refused("E()*2|ttL") == "layout: column 2 opens empty parentheses");
  CHECK(refused("Et*99999999999|L") == "layout: column 3 is a * with a number of more than 9 digits");
  CHECK(refused("Et*999999999|L") == "layout: column 12 makes too many layers or stages");
  CHECK(refused("Ett|ttL|") == "layout: column 8 begins stage 2; expected 2 stages");
  CHECK(refused("Et*4L") == "layout: column 6 ends the layout after 1 stage; expected 2");
  CHECK(refused("Ett|tttL") == "layout: column 7 is a t where the model has no layer left");
  CHECK(refused("Ett|tL") == "layout: column 7 ends the layout after 3 of the model's 4 layers; expected a t");
  CHECK(refused("Ett|ttL", placement::vee(1)) ==
        "a layout places stages on ranks one after another, which is a linear or looped placement; got a vee one");
}

TEST_CASE("model: reported cases") {
  const stage_costs uneven{.forward = {3.153, 3.150, 3.150, 3.150, 3.150, 3.150, 3.150, 3.901}};
  CHECK(makespan(make_1f1b_schedule({.pp = 8, .micro = 1, .forward_only = true}), uneven) == doctest::Approx(25.954));
  CHECK(makespan(make_1f1b_schedule({.pp = 8, .micro = 1000, .forward_only = true}), uneven) ==
        doctest::Approx(3923.053));

  const model m{.layers = {{.kind = "embedding", .forward = .1, .backward_input = .1, .backward_weight = .1},
                           {.count = 61},
                           {.kind = "head", .forward = .9, .backward_input = .9, .backward_weight = .9}}};
  const schedule s = make_interleaved_1f1b_schedule({.pp = 16, .micro = 64, .chunks = 2});
  CHECK(makespan(s, costs_of(m, parse_layout("Et|(tt|)*30L", m, s.placement), s.placement)) == doctest::Approx(849.3));
}

TEST_CASE("costs_of: VGG-16 cut in four, whose messages take longer than its ops") {
  model m{.time_unit = time_unit::ms, .layers = {}};
  const std::array forward{40.279, 58.897, 73.949, 78.749}, backward{24.613, 129.773, 147.911, 136.336},
      message{1644167168.0, 411041792.0, 411041792.0, 0.0};
  for (std::size_t i = 0; i < 4; ++i)
    m.layers.push_back({.kind = "cut", .forward = forward[i], .backward = backward[i], .message = message[i]});
  m.links = {{.bandwidth = 10e9}};
  const stage_costs c = costs_of(m, uniform_partition(m, 4), placement::linear(4));
  CHECK(measure(simulate(make_1f1b_schedule({.pp = 4, .micro = 8}), c), c).makespan ==
        doctest::Approx(3253.98).epsilon(1e-5));
}
