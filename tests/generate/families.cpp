// SPDX-License-Identifier: MIT
// GPipe, 1F1B and ZB1P, and what holds for all families.

#include <doctest/doctest.h>

#include <array>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "laws.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/generate/families.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"

using namespace pipesched;
using namespace pipesched::tests;

static_assert(verify(make_gpipe_schedule({.pp = 4, .micro = 8})));
static_assert(verify(make_1f1b_schedule({.pp = 4, .micro = 8})));
static_assert(verify(make_zb1p_schedule({.pp = 4, .micro = 8})));
static_assert(verify(make_zb1p_schedule({.pp = 4, .micro = 2, .forward_only = true})));
static_assert(make_schedule("1f1b", {.pp = 2, .micro = 3}) == make_1f1b_schedule({.pp = 2, .micro = 3}));

TEST_CASE("gpipe: all forwards, then all backwards") {
  CHECK(text_rows(make_gpipe_schedule({.pp = 2, .micro = 3})) ==
        std::vector<std::string>{"0F0 0F1 0F2 0B0 0B1 0B2", "1F0 1F1 1F2 1B0 1B1 1B2"});
}

TEST_CASE("1f1b: rank r starts with pp - r forwards") {
  CHECK(text_rows(make_1f1b_schedule({.pp = 3, .micro = 4})) ==
        std::vector<std::string>{"0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3", "1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3",
                                 "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3"});
}

TEST_CASE("zb1p: the ZB-H1 order of the zero-bubble authors' scheduler") {
  CHECK(text_rows(make_zb1p_schedule({.pp = 4, .micro = 8})) == golden_rows("zb_h1_greedy_pp4_m8"));
}

TEST_CASE("zb1p: equals its definition step by step, at every size up to 12 x 30") {
  for (std::int64_t pp = 1; pp <= 12; ++pp)
    for (std::int64_t micro = 1; micro <= 30; ++micro) {
      CAPTURE(pp);
      CAPTURE(micro);
      const schedule s = make_zb1p_schedule({.pp = pp, .micro = micro});
      for (std::int64_t rank = 0; rank < pp; ++rank) {
        std::string text;
        const auto say = [&](char letter, std::int64_t k) {
          text += (text.empty() ? "" : " ") + std::to_string(rank) + letter + std::to_string(k);
        };
        std::int64_t forwards = 0, weights = 0;
        while (forwards < pp - rank && forwards < micro) say('F', forwards++);
        for (std::int64_t k = 0; k < micro; ++k) {
          say('I', k);
          if (k >= rank) say('W', weights++);
          if (forwards < micro) say('F', forwards++);
        }
        while (weights < micro) say('W', weights++);
        REQUIRE(to_string(s[static_cast<std::size_t>(rank)]) == text);
      }
    }
}

TEST_CASE("forward only: the forwards of the training order, in that order") {
  for_all_families(6, 14, [](const family& f, schedule_params p) {
    if (!p.forward_only) return;
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    const schedule evaluation = f.make(p);
    p.forward_only = false;
    const schedule training = f.make(p);
    for (std::size_t rank = 0; rank < training.pp(); ++rank) {
      std::vector<cell> forwards;
      for (const cell& c : training[rank])
        for (op o : c)
          if (o.pass == pass::forward) forwards.push_back(o);
      REQUIRE(forwards == std::vector(evaluation[rank].begin(), evaluation[rank].end()));
    }
  });
}

TEST_CASE("every family: the row of one rank equals that of the schedule") {
  for_all_families(5, 9, [](const family& f, const schedule_params& p) {
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    const schedule s = f.make(p);
    for (std::int64_t rank = 0; rank < p.pp; ++rank) {
      const auto row = s[static_cast<std::size_t>(rank)];
      REQUIRE(f.row(p, rank) == std::vector(row.begin(), row.end()));
    }
    for (const std::int64_t wrong : {std::int64_t{-1}, p.pp})
      REQUIRE(refusal_of([&] { f.row(p, wrong); }) ==
              std::string(f.name) + " needs a rank from 0 to pp - 1 = " + std::to_string(p.pp - 1) +
                  "; got rank = " + std::to_string(wrong) + ", nearest " + std::to_string(wrong < 0 ? 0 : p.pp - 1));
  });
}

TEST_CASE("every family: its own functions make its schedule and its rows, with the parameters that they take") {
  const pipeline_params p{.pp = 4, .micro = 9};
  const interleaved_params i{.pp = 4, .micro = 9, .chunks = 3};
  const hanayo_params h{.pp = 4, .micro = 9, .waves = 2};
  const zb_params z{.pp = 4, .micro = 9, .costs = {.forward = 2}};
  std::size_t all = 0;
  const auto check = [&](const family& f, const auto& params, auto make, auto make_row) {
    CAPTURE(f.name);
    const schedule s = f.make(params);
    CHECK(s.name == f.name);
    CHECK(make(params) == s);
    for (std::int64_t rank = 0; rank < 4; ++rank) {
      const auto row = s[rank];
      CHECK(make_row(params, rank) == std::vector(row.begin(), row.end()));
    }
    CHECK(find_family(f.name).make(params) == s);
    ++all;
  };
  check(gpipe_family, p, make_gpipe_schedule, [](const auto& of, auto rank) { return make_gpipe_row(of, rank); });
  check(one_f_one_b_family, p, make_1f1b_schedule, [](const auto& of, auto rank) { return make_1f1b_row(of, rank); });
  check(interleaved_1f1b_family, i, make_interleaved_1f1b_schedule,
        [](const auto& of, auto rank) { return make_interleaved_1f1b_row(of, rank); });
  check(group_interleaved_family, i, make_group_interleaved_schedule,
        [](const auto& of, auto rank) { return make_group_interleaved_row(of, rank); });
  check(looped_bfs_family, i, make_looped_bfs_schedule,
        [](const auto& of, auto rank) { return make_looped_bfs_row(of, rank); });
  check(zb1p_family, p, make_zb1p_schedule, [](const auto& of, auto rank) { return make_zb1p_row(of, rank); });
  check(zb_greedy_family, z, make_zb_greedy_schedule,
        [](const auto& of, auto rank) { return make_zb_greedy_row(of, rank); });
  check(zb_greedy_1p_family, z, make_zb_greedy_1p_schedule,
        [](const auto& of, auto rank) { return make_zb_greedy_1p_row(of, rank); });
  check(zb_greedy_2p_family, z, make_zb_greedy_2p_schedule,
        [](const auto& of, auto rank) { return make_zb_greedy_2p_row(of, rank); });
  check(zb_h1_family, p, make_zb_h1_schedule, [](const auto& of, auto rank) { return make_zb_h1_row(of, rank); });
  check(zb_h2_family, p, make_zb_h2_schedule, [](const auto& of, auto rank) { return make_zb_h2_row(of, rank); });
  check(interleaved_zb_family, i, make_interleaved_zb_schedule,
        [](const auto& of, auto rank) { return make_interleaved_zb_row(of, rank); });
  check(zbv_family, p, make_zbv_schedule, [](const auto& of, auto rank) { return make_zbv_row(of, rank); });
  check(zbv_greedy_family, z, make_zbv_greedy_schedule,
        [](const auto& of, auto rank) { return make_zbv_greedy_row(of, rank); });
  check(v_half_family, p, make_v_half_schedule, [](const auto& of, auto rank) { return make_v_half_row(of, rank); });
  check(v_min_family, p, make_v_min_schedule, [](const auto& of, auto rank) { return make_v_min_row(of, rank); });
  check(v_1f1b_family, p, make_v_1f1b_schedule, [](const auto& of, auto rank) { return make_v_1f1b_row(of, rank); });
  check(dualpipe_family, p, make_dualpipe_schedule,
        [](const auto& of, auto rank) { return make_dualpipe_row(of, rank); });
  check(dualpipev_family, p, make_dualpipev_schedule,
        [](const auto& of, auto rank) { return make_dualpipev_row(of, rank); });
  check(chimera_family, p, make_chimera_schedule, [](const auto& of, auto rank) { return make_chimera_row(of, rank); });
  check(hanayo_family, h, make_hanayo_schedule, [](const auto& of, auto rank) { return make_hanayo_row(of, rank); });
  CHECK(all == std::size(families));
}

TEST_CASE("every family: the peak that it states holds for all its parameters") {
  const auto per_rank = stage_costs{.forward = 2, .backward_input = 3, .backward_weight = 1, .transfer_time = .5};
  stage_costs bytes = per_rank;
  bytes.kept_by_forward = 8, bytes.freed_by_input = 5;
  int exact = 0;
  for_all_families(5, 12, [&](const family& f, const schedule_params& sizes) {
    if (sizes.forward_only) return;
    const auto check = [&](auto&& change) {
      schedule_params p = sizes;
      change(p);
      p = keep_taken(p, f.limits);
      CAPTURE(f.name);
      CAPTURE(p.pp);
      CAPTURE(p.micro);
      schedule s;
      try {
        s = f.make(p);
      } catch (const schedule_error&) {
        return;  // not every group suits every family
      }
      CHECK(s.stages() == p.pp * f.stages_per_rank(p) / s.placement.replicas() * (f.limits.even_pp ? 2 : 1));
      REQUIRE(broken_peak(f, s, p) == "");
      exact += f.peak(p, 0).exact;
    };
    for (const std::int64_t n : {1, 2, 3}) check([&](schedule_params& p) { p.chunks = n, p.waves = n; });
    for (const std::int64_t n : {2, 3, 4, 6, 8}) check([&](schedule_params& p) { p.group_size = n; });
    check([](schedule_params& p) { p.extra_warm_up = true; });
    check([](schedule_params& p) { p.overlap = true, p.group_size = 6, p.chunks = 3; });
    for (const double limit : {1.0, 1.5, 3.0, 20.0})
      for (const stage_costs& costs : {per_rank, bytes})
        check([&](schedule_params& p) { p.costs = costs, p.memory_limit = limit; });
  });
  CHECK(exact > 1000);
}

TEST_CASE("every family: a published formula is in the README of simulate/, all others are in none of its rows") {
  std::ifstream in(PIPESCHED_SOURCE_DIR "/include/pipesched/simulate/README.md");
  std::string table;
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("| `")) table += line + '\n';
  for (const family& f : families) {
    CAPTURE(f.name);
    const auto form = closed_form_of(f, {.pp = 4, .micro = 8}, {});
    std::string row;
    std::istringstream lines(table);
    for (std::string line; std::getline(lines, line);)
      if (line.find('`' + std::string(f.name) + '`') < line.find('|', 2)) row = line;
    CHECK(row.empty() == !form.has_value());
    if (form) CHECK(row.find("| " + std::string(form->formula)) != row.npos);
  }
}

TEST_CASE("every family: the table of the README of generate/ is that of the list") {
  std::ifstream in(PIPESCHED_SOURCE_DIR "/include/pipesched/generate/README.md");
  std::string table, expected;
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("| `") && line.find("`make_") != line.npos) table += line + '\n';
  for (const family& f : families) {
    std::string takes;
    for (parameter which : all_parameters)
      if (f.limits.takes.contains(which)) takes += (takes.empty() ? "`" : ", `") + std::string(to_string(which)) + '`';
    const auto column = [](const std::string& text) { return text + (text.empty() ? "|" : " |"); };
    expected += "| `" + std::string(f.name) + "` | `make_" + std::string(f.name) + "_schedule` | " +
                column(f.limits.even_pp ? "even pp" : "") + ' ' + column(takes) + ' ' + std::string(f.summary) + " |\n";
  }
  CHECK(table == expected);
}

TEST_CASE("every family: says where its order is published") {
  for (const family& f : families) {
    CAPTURE(f.name);
    CHECK(f.source.size() > 20);
    CHECK(static_cast<bool>(f.peak));
    CHECK(static_cast<bool>(f.emit) == !f.search);
  }
}

TEST_CASE("sinks: a plain callable is one, and sees the cells of a run one by one") {
  std::vector<cell> collected;
  auto collect = [&](cell c) { collected.push_back(c); };
  const stage_ops s(1);
  repeat(collect, 2, s.F(1), s.B(0));
  CHECK(to_string(std::span<const cell>(collected)) == "1F1 1B0 1F2 1B1");
}

TEST_CASE("bad parameters: every family refuses them with value, rule and nearest legal value") {
  for (const family& f : families) {
    CAPTURE(f.name);
    const auto refused = [&](std::int64_t pp, std::int64_t micro) {
      return refusal_of([&] { f.make({.pp = pp, .micro = micro}); });
    };
    for (std::int64_t bad : {std::int64_t{0}, std::int64_t{-3}, std::int64_t{1} << 16 | 2, INT64_MAX, INT64_MIN}) {
      CAPTURE(bad);
      CHECK(refused(bad, 4).find(std::string(f.name) + " needs ") == 0);
      CHECK(refused(bad, 4).find("got pp = " + std::to_string(bad) + ", nearest ") != std::string::npos);
    }
    for (std::int64_t bad : {std::int64_t{0}, std::int64_t{-3}, INT64_MIN})
      CHECK(refused(4, bad).find("got micro = " + std::to_string(bad) + ", nearest 1") != std::string::npos);
    for (std::int64_t bad : {std::int64_t{1} << 32, std::int64_t{1} << 27, INT64_MAX})
      CHECK(refused(4, bad).find("micro = " + std::to_string(bad) + ", nearest micro = ") != std::string::npos);
  }
}

TEST_CASE("bad parameters: the nearest legal value named is legal") {
  CHECK(make_gpipe_row({.pp = 65536, .micro = 4096}, 65535).size() == 2 * 4096);
  CHECK(refusal_of([] { make_gpipe_row({.pp = 65536, .micro = 4097}, 0); }) ==
        "gpipe needs stages x micro-batches of at most 2^28; got 65536 stages x micro = 4097, nearest micro = 4096");
}

TEST_CASE("an unknown family is refused with the nearest name, or with all names if none is near") {
  const auto refused = [](const char* name) { return refusal_of([&] { make_schedule(name, {.pp = 2, .micro = 4}); }); };
  const auto suggested = [](const std::string& given, const std::string& meant) {
    return "no schedule is called \"" + given + "\"; did you mean " + meant + "?";
  };
  for (const auto& [given, meant] : {std::pair{"dualpip", "dualpipe"},
                                     {"DualPipe", "dualpipe"},
                                     {"DualPipeV", "dualpipev"},
                                     {"1F1B", "1f1b"},
                                     {"zbv-greedy", "zbv_greedy"},
                                     {"ZB-H1", "zb_h1"},
                                     {"gpiep", "gpipe"},
                                     {"chimaera", "chimera"},
                                     {"Interleaved-1F1B", "interleaved_1f1b"},
                                     {"zvb", "zbv"}})
    CHECK(refused(given) == suggested(given, meant));
  for (const char* far :
       {"x", "", "pipedream", "zz", "a name that is longer than any family's by a good deal, and then some"})
    CHECK(refused(far) ==
          "no schedule is called \"" + std::string(far) +
              "\"; known: gpipe, 1f1b, interleaved_1f1b, "
              "group_interleaved, looped_bfs, zb1p, zb_greedy, zb_greedy_1p, zb_greedy_2p, zb_h1, zb_h2, "
              "interleaved_zb, zbv, zbv_greedy, v_half, v_min, v_1f1b, dualpipe, dualpipev, chimera, hanayo");
  for (const family& f : families) CHECK(&find_family(f.name) == &f);
}

TEST_CASE("a parameter that a family does not take is refused, with the families that take it") {
  const auto refused = [](const char* name, const schedule_params& p) {
    return refusal_of([&] { make_schedule(name, p); });
  };
  CHECK(refused("1f1b", {.pp = 4, .micro = 8, .chunks = 7}) ==
        "1f1b takes no chunks; got chunks = 7 (interleaved_1f1b, group_interleaved, looped_bfs and interleaved_zb take "
        "it)");
  CHECK(refused("1f1b", {.pp = 4, .micro = 8, .waves = 9}) == "1f1b takes no waves; got waves = 9 (hanayo takes it)");
  CHECK(refused("1f1b", {.pp = 4, .micro = 8, .memory_limit = 0.1}) ==
        "1f1b takes no memory_limit; got memory_limit = 0.1 (zb_greedy and zbv_greedy take it)");
  CHECK(refused("zb_greedy_1p", {.pp = 4, .micro = 8, .memory_limit = 3}) ==
        "zb_greedy_1p takes no memory_limit; got memory_limit = 3 (zb_greedy and zbv_greedy take it)");
  CHECK(refused("interleaved_zb", {.pp = 4, .micro = 8, .overlap = true}) ==
        "interleaved_zb takes no overlap; got overlap = true (interleaved_1f1b takes it)");
  CHECK(refused("zbv", {.pp = 4, .micro = 8, .extra_warm_up = true}) ==
        "zbv takes no extra_warm_up; got extra_warm_up = true (interleaved_1f1b takes it)");
  CHECK(refused("looped_bfs", {.pp = 4, .micro = 8, .group_size = 4}) ==
        "looped_bfs takes no group_size; got group_size = 4 (interleaved_1f1b, group_interleaved and interleaved_zb "
        "take it)");
  CHECK(refused("zb_h1", {.pp = 4, .micro = 8, .costs = stage_costs{}}) ==
        "zb_h1 takes no costs; got costs (zb_greedy, zb_greedy_1p, zb_greedy_2p and zbv_greedy take it)");
  for (const family& f : families)
    for (parameter which : all_parameters) {
      schedule_params p{.pp = 4, .micro = 8};
      switch (which) {
        case parameter::chunks: p.chunks = 3; break;
        case parameter::group_size: p.group_size = f.name == "group_interleaved" ? 3 : 8; break;
        case parameter::extra_warm_up: p.extra_warm_up = true; break;
        case parameter::overlap: p.overlap = true; break;
        case parameter::waves: p.waves = 2; break;
        case parameter::costs: p.costs = stage_costs{.forward = 2}; break;
        case parameter::memory_limit: p.memory_limit = 2; break;
      }
      CAPTURE(f.name);
      CAPTURE(to_string(which));
      CHECK(is_given(p, which));
      CHECK(is_given(keep_taken(p, f.limits), which) == f.limits.takes.contains(which));
      CHECK(f.make(keep_taken(p, f.limits)).name == f.name);
      if (f.limits.takes.contains(which))
        CHECK(f.make(p) != f.make({.pp = 4, .micro = 8}));  // taken, and it counts
      else
        CHECK(refused(f.name.data(), p).find(std::string(f.name) + " takes no " + std::string(to_string(which))) == 0);
    }
}
