// SPDX-License-Identifier: MIT

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pipesched/core/recompute.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/io/export_automodel.hpp"
#include "pipesched/io/export_jaxpp.hpp"
#include "pipesched/io/export_megatron.hpp"
#include "pipesched/io/export_torchtitan.hpp"
#include "pipesched/io/read_schedule.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

divided_model divided_layers(std::vector<layer> layers, std::vector<std::uint32_t> per_stage) {
  return {.model = {.layers = std::move(layers)}, .partition = {std::move(per_stage)}};
}
divided_model six_layers(std::vector<std::uint32_t> per_stage) {
  return divided_layers({{.kind = "embedding"}, {.kind = "dense", .count = 4}, {.kind = "head"}}, std::move(per_stage));
}

std::string refusal_of_export(const schedule& s, exported (*make)(const schedule&, const std::optional<divided_model>&),
                              const std::optional<divided_model>& of = {}) {
  return refusal_of([&] { make(s, of); });
}

bool holds(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("exports for PyTorch's trainers: the name places the stages as the schedule does, the CSV is the schedule") {
  for_all_families(4, 6, [](const family& f, schedule_params p) {
    if (p.pp < 2 || p.forward_only || p.micro < p.pp) return;
    const schedule s = make_schedule(f, p);
    if (s.placement.replicas() > 1) return;
    CAPTURE(f.name);
    for (const auto make : {&export_torchtitan, &export_automodel}) {
      const exported e = make(s, std::nullopt);
      REQUIRE(e.files.size() == 2);
      CHECK(e.files[0].name == "schedule.csv");
      CHECK(read_schedule(std::istringstream(e.files[0].text)).schedule.cells == s.cells);
      const bool is_v = s.placement.rank_of(s.stages() - 1, 0) == 0;
      const std::string name = s.stages() == s.pp() ? "1F1B" : is_v ? "ZBVZeroBubble" : "Interleaved1F1B";
      CHECK((holds(e.files[1].text, "schedule = \"" + name + "\"") ||
             holds(e.files[1].text, "pp_schedule: " + name + " ")));
    }
  });
}

TEST_CASE(
    "exports for PyTorch's trainers: modules of the stages, with and without an embedding and a head in the model") {
  const schedule s = make_1f1b_schedule({.pp = 3, .micro = 4});
  const auto modules = [&](const divided_model& of) {
    const std::string text = export_torchtitan(s, of).files[1].text;
    return text.substr(text.find("[\n") + 2);
  };
  const std::string expected =
      "        [\"tok_embeddings\", \"layers.0\", \"layers.1\"],\n        [\"layers.2\"],\n"
      "        [\"layers.3\", \"norm\", \"lm_head\"],\n    ]\n";
  CHECK(modules(six_layers({3, 1, 2})) == expected);
  CHECK(modules(divided_layers({{.count = 4}}, {2, 1, 1})) == expected);
  CHECK(holds(export_automodel(s, six_layers({3, 1, 2})).files[1].text,
              "      - [\"model.layers.3\", \"model.norm\", \"lm_head\", \"model.rotary_emb\"]\n"));
}

TEST_CASE("exports for PyTorch's trainers: notes say what its runtime does not do") {
  using texts = std::vector<std::string>;
  const std::string compiled = "stages whose backward is split into I and W cannot be compiled by torch.compile";
  const std::string overlapped =
      " runs the two ops of a cell one after the other, unless a function of yours is registered for OVERLAP_F_B";
  CHECK(export_torchtitan(make_1f1b_schedule({.pp = 2, .micro = 2})).notes.empty());
  CHECK(export_torchtitan(make_zb1p_schedule({.pp = 2, .micro = 2})).notes == texts{compiled});
  CHECK(export_automodel(make_dualpipev_schedule({.pp = 2, .micro = 4})).notes ==
        texts{compiled, "Automodel" + overlapped});
}

TEST_CASE("exports for jaxpp: the layers per stage of a plan are in the file") {
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  CHECK(holds(export_jaxpp(s, partition{{5, 3}}).files[0].text, "\nLAYERS_OF_STAGE = (5, 3)  # "));
  CHECK(!holds(export_jaxpp(s).files[0].text, "LAYERS"));
  CHECK(holds(export_jaxpp(make_1f1b_schedule({.pp = 1, .micro = 1})).files[0].text,
              "# 1f1b: 1 rank, 1 stage, 1 micro-batch; "));
  CHECK(refusal_of([&] { export_jaxpp(s, partition{{5, 3, 1}}); }) == "layers of 3 stages; the schedule has 2 stages");
}

TEST_CASE("exports refuse in one sentence what a trainer cannot run") {
  const schedule one = make_1f1b_schedule({.pp = 2, .micro = 2});
  const schedule wave = make_hanayo_schedule({.pp = 2, .micro = 4, .waves = 2});
  CHECK(
      refusal_of_export(wave, export_torchtitan) ==
      "torchtitan places stages in a loop, or in a V of 2 stages per rank; got a wave placement of 4 stages per rank");
  CHECK(refusal_of_export(wave, export_automodel) ==
        "Automodel places stages in a loop, or in a V of 2 stages per rank; got a wave placement of 4 stages per rank");
  CHECK(refusal_of_export(wave, export_megatron) ==
        "Megatron-LM places stages in a loop; got a wave placement of 4 stages per rank");
  CHECK(refusal_of_export(make_zbv_schedule({.pp = 2, .micro = 4}), export_megatron) ==
        "Megatron-LM places stages in a loop; got a vee placement of 2 stages per rank");
  for (const auto make : {&export_torchtitan, &export_automodel, &export_megatron}) {
    CHECK(holds(refusal_of_export(make_dualpipe_schedule({.pp = 2, .micro = 4}), make), "holds every stage twice"));
    CHECK(holds(refusal_of_export(make_1f1b_schedule({.pp = 2, .micro = 2, .forward_only = true}), make),
                " trains; the schedule is forward only"));
    CHECK(holds(refusal_of_export(recompute(one), make),
                " has no op that recomputes, the module does so itself; got 0R0 on "));
  }
  CHECK(refusal_of_export(make_1f1b_schedule({.pp = 1, .micro = 2}), export_torchtitan) ==
        "torchtitan has a pipeline from 2 ranks on; got 1, nearest 2");
  CHECK(refusal_of_export(make_1f1b_schedule({.pp = 4, .micro = 2}), export_automodel) ==
        "Automodel needs as many micro-batches as ranks; got 2 for 4 ranks, nearest 4");
  const schedule three = make_looped_bfs_schedule({.pp = 2, .micro = 2, .chunks = 3});
  CHECK(refusal_of_export(three, export_torchtitan) ==
        "torchtitan makes 2 stages per rank unless the layers of each are given; got 3 stages per rank and no model");
  CHECK(refusal_of_export(three, export_torchtitan, six_layers({1, 1, 1, 1, 1, 1})).empty());
  CHECK(refusal_of_export(one, export_torchtitan, six_layers({6, 0})) ==
        "torchtitan has at least one module in every stage; stage 1 is empty");
  CHECK(refusal_of_export(one, export_torchtitan, six_layers({6})) == "a partition of 1 stage; expected 2");
  const divided_model with_mtp = divided_layers({{.count = 2}, {.kind = "mtp"}}, {1, 2});
  CHECK(refusal_of_export(one, export_torchtitan, with_mtp) ==
        "torchtitan has no pipeline with multi-token prediction; layer 2 of the model is of the kind mtp");
  CHECK(holds(export_megatron(one, with_mtp).files[0].text,
              "  --num-layers 2\n  --mtp-num-layers 1\n  --pipeline-model-parallel-layout \"Et|tmL\"\n"));
}

TEST_CASE(
    "export for Megatron-LM: the flags are found again for all that it runs, and the order is that of the family") {
  for (std::uint32_t pp = 2; pp <= 4; ++pp)
    for (std::uint32_t chunks = 2; chunks <= 3; ++chunks)
      for (std::uint32_t micro = pp; micro <= 12; ++micro)
        for (std::uint32_t group = pp; group <= micro; ++group) {
          if (const std::uint32_t rest = micro % group; rest > 0 && rest < pp) continue;
          for (const bool overlap : {false, true}) {
            const megatron_order m{.pp = pp, .micro = micro, .chunks = chunks, .group = group, .overlap = overlap};
            CAPTURE(pp);
            CAPTURE(chunks);
            CAPTURE(micro);
            CAPTURE(group);
            schedule s{.name = "megatron", .placement = placement::looped(pp, chunks), .micro = micro};
            for (std::uint32_t rank = 0; rank < pp; ++rank) s.cells.append(detail::megatron_row(m, rank));
            CHECK(verify(s));
            megatron_order found = megatron_order_of(s);
            const bool no_pair =
                std::none_of(s.cells.all().begin(), s.cells.all().end(), [](const cell& c) { return c.overlapped(); });
            if (no_pair) found.overlap = overlap;  // all forwards come first
            CHECK(found == m);
            if (micro % group != 0) continue;
            const schedule own = make_interleaved_1f1b_schedule(
                {.pp = pp, .micro = micro, .chunks = chunks, .group_size = group, .overlap = overlap});
            CHECK(own.cells == s.cells);
          }
        }
  for (std::int64_t pp = 1; pp <= 5; ++pp)
    for (std::int64_t micro = 1; micro <= 8; ++micro)
      CHECK(megatron_order_of(make_1f1b_schedule({.pp = pp, .micro = micro})).chunks == 1);
}

TEST_CASE("export for Megatron-LM: other orders are refused with the first cell that differs") {
  const auto refusal = [](const schedule& s) { return refusal_of([&] { megatron_order_of(s); }); };
  CHECK(refusal(make_gpipe_schedule({.pp = 2, .micro = 3})) ==
        "Megatron-LM runs 1F1B, interleaved or not; rank 0, cell 2 of gpipe is 0F2, expected 0B0");
  CHECK(refusal(make_zb1p_schedule({.pp = 2, .micro = 3})) ==
        "Megatron-LM runs 1F1B, interleaved or not; rank 0, cell 2 of zb1p is 0I0, expected 0B0");
  CHECK(holds(refusal(make_group_interleaved_schedule({.pp = 2, .micro = 4, .chunks = 2})),
              "Megatron-LM runs 1F1B, interleaved or not; rank 0, cell 4 of group_interleaved is "));
  CHECK(holds(refusal(make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2, .extra_warm_up = true})),
              "Megatron-LM runs 1F1B, interleaved or not; rank 0, cell "));
  CHECK(refusal(make_interleaved_1f1b_schedule({.pp = 4, .micro = 2, .chunks = 2})) ==
        "Megatron-LM needs at least pp micro-batches with several stages per rank; got 2 for pp = 4, nearest 4");
  CHECK(refusal(make_interleaved_1f1b_schedule({.pp = 1, .micro = 2, .chunks = 2})) ==
        "Megatron-LM has several stages per rank from 2 ranks on; got 2 stages on 1 rank");
  const schedule rest = make_interleaved_1f1b_schedule({.pp = 4, .micro = 9, .chunks = 2, .group_size = 4});
  CHECK(holds(refusal(rest), "got 1 of 9 after groups of 4 for pp = 4, nearest 8 or 12 micro-batches"));
  schedule swapped = make_1f1b_schedule({.pp = 2, .micro = 4});
  swapped.edit(1, [](auto& row) { std::swap(row[5], row[6]); });
  CHECK(holds(refusal(swapped), "rank 1, cell 5 of 1f1b is "));
}

TEST_CASE("export for jaxpp: the backward of stage 0 is not split") {
  CHECK(refusal_of([] { export_jaxpp(make_interleaved_zb_schedule({.pp = 2, .micro = 4, .chunks = 2})); }).empty());
  schedule apart = make_zb1p_schedule({.pp = 2, .micro = 3});
  apart.edit(0, [](auto& row) {
    const auto at =
        std::find_if(row.begin(), row.end(), [](const cell& c) { return c[0].pass == pass::backward_weight; });
    std::rotate(at, at + 1, row.end());
  });
  REQUIRE(verify(apart));
  CHECK(holds(refusal_of([&] { export_jaxpp(apart); }),
              "jaxpp does not split the backward of stage 0; 0I0 on rank 0, cell "));
  CHECK(holds(refusal_of([] { export_jaxpp(make_dualpipe_schedule({.pp = 2, .micro = 4})); }),
              "holds every stage twice"));
}
