// SPDX-License-Identifier: MIT

#include "pipesched/render/text.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <sstream>
#include <string>

#include "pipesched/generate/families.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

TEST_CASE("render_text: one column a unit of time, overlapped cells in brackets, later stages in lower case") {
  CHECK(render_text(make_dualpipe_schedule({.pp = 2, .micro = 4})) ==
        "time    0              5              10\n"
        "rank 0  F0 f2 F1 b2    [f3&B0  ]b3    I1 W1\n"
        "rank 1  f2 F0 f3 B0    [F1&b2  ]B1    i3 w3\n");
}

TEST_CASE("render_text: waiting ranks show dots") {
  CHECK(render_text(make_gpipe_schedule({.pp = 2, .micro = 1})) ==
        "time    0              5\n"
        "rank 0  F0 .  .  .  B0\n"
        "rank 1  .  F0 B0    .  .\n");
}

TEST_CASE("render_text: long grids are folded, and each fold has its own axis") {
  CHECK(render_text(make_gpipe_schedule({.pp = 2, .micro = 1}), {.width = 17}) ==
        "time    0\n"
        "rank 0  F0 .  .\n"
        "rank 1  .  F0 B0\n"
        "\n"
        "time          5\n"
        "rank 0  .  B0\n"
        "rank 1     .  .\n");
}

TEST_CASE("render_text: with colours the characters are the same") {
  for_all_families(6, 9, [](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    std::string coloured = render_text(s, {.colour = true, .width = 60, .column = 4}), plain;
    for (std::size_t i = 0; i < coloured.size(); ++i) {
      if (coloured[i] == '\x1b') i = coloured.find('m', i) + 1;
      while (coloured[i] == '\x1b') i = coloured.find('m', i) + 1;
      plain += coloured[i];
      while (plain.size() > 1 && plain.back() == '\n' && plain[plain.size() - 2] == ' ')
        plain.erase(plain.size() - 2, 1);
    }
    CHECK(plain == render_text(s, {.width = 60, .column = 4}));
    CHECK(coloured.find("\x1b[38;5;16;48;5;222m") != std::string::npos);
  });
}

TEST_CASE("render_text: what is drawn is the schedule: every cell, as wide as it lasts, in order") {
  for_all_families(4, 12, [](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    const timeline t = simulate(s);
    std::istringstream lines(render_text(t, {.column = 4}));
    std::string line;
    std::getline(lines, line);
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
      std::getline(lines, line);
      line.resize(line.size() + 9, ' ');
      for (std::size_t i = 0; i < s[rank].size(); ++i) {
        const auto name = [](op o) {
          std::string text = letter(o.pass) + std::to_string(o.micro);
          if (o.chunk > 0) text[0] = static_cast<char>(std::tolower(text[0]));
          return text;
        };
        const cell& c = s[rank][i];
        const std::string expected = c.overlapped() ? '[' + name(c[0]) + '&' + name(c[1]) : name(c[0]);
        CHECK(line.substr(8 + 4 * static_cast<std::size_t>(t[rank][i].start), expected.size()) == expected);
      }
    }
  });
}

TEST_CASE("render_text: an invalid schedule is refused with its report") {
  schedule s = make_gpipe_schedule({.pp = 2, .micro = 1});
  std::swap(s[0][0], s[0][1]);
  CHECK(refusal_of([&] { render_text(s); }) ==
        "the schedule is not valid: rank 0, cell 0: order: 0B0 before 0F0 in cell 1; expected after it");
}

TEST_CASE("render_text: with real durations the shortest cell is one column, and a very long line is coarser") {
  const timeline t = simulate(make_gpipe_schedule({.pp = 2, .micro = 1}), stage_costs{.forward = 0.5, .backward = 1.5});
  CHECK(render_text(t) ==
        "time    0              3\n"
        "rank 0  F0 .  .  .  .  B0\n"
        "rank 1  .  F0 B0       .  .  .\n");
  const std::string large = render_text(make_gpipe_schedule({.pp = 1, .micro = 20000}));
  CHECK(large.find('\n') < 10001 * 7 + 8);
}

namespace {

// The longest line of a grid, without its line break.
std::size_t longest_line(const std::string& grid) {
  std::size_t longest = 0, from = 0;
  for (std::size_t to; (to = grid.find('\n', from)) != grid.npos; from = to + 1) longest = std::max(longest, to - from);
  return longest;
}

timeline one_f1b(std::int64_t pp, std::int64_t micro, double forward, double backward_input, double backward_weight) {
  return simulate(
      make_zb1p_schedule({.pp = pp, .micro = micro}),
      stage_costs{.forward = forward, .backward_input = backward_input, .backward_weight = backward_weight});
}

}  // namespace

TEST_CASE("render_text: a cell that lasts next to nothing does not stretch the grid") {
  const std::string usual = render_text(one_f1b(2, 2, 1, 1, 0));
  CHECK(usual ==
        "time    0              5\n"
        "rank 0  F0 F1 .  I0 .  I1\n"
        "rank 1  .  F0 I0 F1 I1 .\n");
  for (double tiny : {1e-320, 1e-300, 1e-30, 1e-9, 0.004}) CHECK(render_text(one_f1b(2, 2, 1, 1, tiny)) == usual);
  // The same shape at any scale; the axis keeps its numbers short.
  CHECK(render_text(one_f1b(2, 2, 1e300, 1e300, 1)) ==
        "time    0              5e+300\n"
        "rank 0  F0 F1 .  I0 .  I1\n"
        "rank 1  .  F0 I0 F1 I1 .\n");
  CHECK(render_text(one_f1b(2, 2, 1e-6, 1e-6, 0)) ==
        "time    0              5e-06\n"
        "rank 0  F0 F1 .  I0 .  I1\n"
        "rank 1  .  F0 I0 F1 I1 .\n");
}

TEST_CASE("render_text: where most cells last many columns these are narrow, and a number is whole or left out") {
  CHECK(render_text(one_f1b(2, 3, 10, 16, 1)) ==
        "time    0                   20                  40                  60                  80                  "
        "100\n"
        "rank 0  F0        F1        ................I0              WF2        I1              W.........I2           "
        "   W\n"
        "rank 1  ..........F0        I0              F1        I1              WF2        I2              "
        "WW...............\n");
  const timeline t = one_f1b(4, 64, 10, 16, 1);
  CHECK(longest_line(render_text(t)) < 10 * t[0].size());
}

TEST_CASE("render_text: with costs of any size the lines are bounded, and within the width that is asked for") {
  const double sizes[] = {0, 1e-320, 1e-300, 1e-6, 1, 1e6, 1e15, 1e300};
  for (double f : sizes)
    for (double i : sizes)
      for (double w : sizes) {
        CAPTURE(f);
        CAPTURE(i);
        CAPTURE(w);
        const timeline t = one_f1b(4, 8, f, i, w);
        const std::string grid = render_text(t);
        CHECK(longest_line(grid) <= 8000);  // no duration is more than a hundred columns
        CHECK(std::count(grid.begin(), grid.end(), '\n') == 5);
        CHECK(longest_line(render_text(t, {.width = 80})) <= 80);
        CHECK(longest_line(render_text(t, {.width = 20})) <= 20);
      }
  CHECK(render_text(one_f1b(2, 2, 0, 0, 0)) == "time    0\nrank 0  .\nrank 1  .\n");
}

TEST_CASE("render_text: a line has one column at least, however narrow the terminal") {
  const timeline t = simulate(make_gpipe_schedule({.pp = 2, .micro = 2}));
  CHECK(longest_line(render_text(t, {.width = 1})) <= 8 + 3);
}

TEST_CASE("render_text: times that are not finite are refused") {
  timeline t = simulate(make_gpipe_schedule({.pp = 2, .micro = 1}));
  t[1][0].end = std::numeric_limits<double>::infinity();
  CHECK(refusal_of([&] { render_text(t); }) ==
        "a timeline needs finite times, each end at or after its start; got 1 to inf for cell 0 of rank 1");
  t[1][0] = {2, 1};
  CHECK(refusal_of([&] { render_text(t); }).ends_with("got 2 to 1 for cell 0 of rank 1"));
}

TEST_CASE("render_text: a unit of time that makes no grid is refused") {
  const timeline t = simulate(make_gpipe_schedule({.pp = 2, .micro = 1}));
  for (double unit : {-1.0, 1e-9, std::numeric_limits<double>::quiet_NaN()})
    CHECK(refusal_of([&] { render_text(t, {.unit = unit}); }).find("at most 10000 columns") != std::string::npos);
}

TEST_CASE("render_text: columns of very many characters are refused") {
  const schedule s = make_gpipe_schedule({.pp = 2, .micro = 2});
  CHECK(refusal_of([&] { render_text(s, {.column = 101}); }) ==
        "a text grid takes at most 100 characters per column; got 101, nearest 100");
  CHECK(render_text(s, {.column = 100}).find("F0") != std::string::npos);
}

TEST_CASE("render_text: many ranks get wider columns, so that a grid stays below 200 MB") {
  const std::string grid = render_text(make_gpipe_schedule({.pp = 20000, .micro = 1}));
  CHECK(grid.size() < 200'000'000);
  CHECK(std::count(grid.begin(), grid.end(), 'F') > 500);
}
