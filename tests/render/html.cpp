// SPDX-License-Identifier: MIT
// The page's data, read back and compared with the timeline. tests/browser opens the page in a browser.

#include "pipesched/render/html.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/page_data.hpp"
#include "support/random_costs.hpp"

using namespace pipesched;
using namespace pipesched::tests;
using nlohmann::json;

namespace {

// Whole numbers in digits of 5 bits, the lowest first, 32 added to all but the last.
class number_reader {
 public:
  explicit number_reader(std::string text) : text_(std::move(text)) {}
  std::uint64_t next() {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::uint64_t n = 0;
    for (int shift = 0;; shift += 5) {
      const std::size_t digit = digits.find(text_.at(at_++));
      if (digit == digits.npos) FAIL("a character that is no digit");
      n |= static_cast<std::uint64_t>(digit % 32) << shift;
      if (digit < 32) return n;
    }
  }
  std::int64_t next_signed() {
    const auto n = static_cast<std::int64_t>(next());
    return n % 2 == 0 ? n / 2 : -(n + 1) / 2;
  }
  bool done() const { return at_ == text_.size(); }

 private:
  std::string text_;
  std::size_t at_ = 0;
};

// A cell as the page reads it: text, time, and the op, from 1, whose input it waits for.
struct read_cell {
  std::string text;
  double start, end;
  int waits;
};

std::vector<std::vector<read_cell>> rows_in(const json& panel) {
  number_reader in(panel["cells"]);
  std::vector<std::size_t> counts;
  for (std::size_t r = 0; r < panel["stages"].size(); ++r) counts.push_back(in.next());
  std::vector<std::size_t> words;
  while (!in.done()) {
    const std::uint64_t n = in.next();
    if (n % 2 == 0) {
      words.push_back(n / 2);
      continue;
    }
    const std::uint64_t back = in.next();
    for (std::uint64_t k = 0; k < n / 2; ++k) words.push_back(words.at(words.size() - back));
  }
  constexpr std::string_view names[] = {"?", "F", "B", "I", "W", "R", "RB", "RI"};
  std::vector<std::vector<read_cell>> rows;
  std::size_t at = 0;
  for (std::size_t rank = 0; rank < counts.size(); ++rank) {
    rows.emplace_back();
    std::map<std::pair<int, int>, int> next;
    double time = 0;
    for (std::size_t i = 0; i < counts[rank]; ++i) {
      const json& word = panel["words"][words.at(at++)];
      read_cell c{.text = "", .start = time += word[0].get<double>(), .end = 0, .waits = word[2]};
      c.end = time += word[1].get<double>();
      for (std::size_t o = 3; o < word.size(); o += 3) {
        const int pass = word[o], chunk = word[o + 1], kind = pass == 2 || pass == 3 || pass > 5 ? 0 : pass;
        const int micro = next[{kind, chunk}] += word[o + 2].get<int>();
        next[{kind, chunk}] = micro + 1;
        if (o > 3) c.text += ';';
        c.text += std::to_string(panel["stages"][rank][static_cast<std::size_t>(chunk)].get<int>());
        c.text += std::string(names[pass]) + std::to_string(micro);
      }
      if (word.size() > 6) c.text = '(' + c.text + ')';
      rows.back().push_back(c);
    }
  }
  CHECK(at == words.size());
  return rows;
}

void check_page(const html_panel& panel) {
  const json data = data_in(render_html(panel));
  REQUIRE(data["panels"].size() == 1);
  const json& read = data["panels"][0];
  const timeline& t = panel.timeline;
  const auto rows = rows_in(read);
  const double longest = panel.measured.makespan;
  REQUIRE(rows.size() == t.schedule.pp());
  std::size_t waiting = 0;
  const auto is_near = [&](double a, double b) { return std::fabs(a - b) <= 1e-9 * longest; };
  for (std::uint32_t rank = 0; rank < t.schedule.pp(); ++rank) {
    REQUIRE(rows[rank].size() == t[rank].size());
    for (std::uint32_t i = 0; i < t[rank].size(); ++i) {
      const read_cell& c = rows[rank][i];
      const bool same = c.text == to_string(t.schedule[rank][i]) && is_near(c.start, t[rank][i].start) &&
                        is_near(c.end, t[rank][i].end);
      if (!same) FAIL("cell ", i, " of rank ", rank, " is ", c.text, ", ", c.start, " to ", c.end);
      if (c.waits == 0) continue;
      const stall& s = panel.explanation.stalls.at(waiting++);
      if (s.before != cell_ref{rank, i} || s.waiting != t.schedule[rank][i][static_cast<std::size_t>(c.waits - 1)])
        FAIL("cell ", i, " of rank ", rank, " does not wait as the page says");
    }
  }
  REQUIRE(waiting == panel.explanation.stalls.size());
  number_reader path(read["path"]);
  std::int64_t rank = 0, index = 0;
  bool same_path = true;
  for (const cell_ref c : panel.explanation.critical_path) {
    rank += path.next_signed(), index += path.next_signed();
    same_path = same_path && rank == c.rank && index == c.index;
  }
  REQUIRE(same_path);
  REQUIRE(path.done());
  REQUIRE(read["pathLength"] == panel.explanation.critical_path.size());
}

std::size_t occurrences(const std::string& text, std::string_view what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("html: a reader of the page's data gets the timeline, its stalls and its critical path") {
  random_costs random(4);
  for_all_families(4, 9, [&](const family& f, const schedule_params& p) {
    CAPTURE(f.name);
    const schedule s = f.make(p);
    const uniform_costs costs{.transfer_time = 0.5};
    check_page(make_panel(simulate(s, costs), costs));
    const stage_costs uneven = random.make(s.stages());
    check_page(make_panel(simulate(s, uneven), uneven));
  });
}

TEST_CASE("html: a reader of the page's data gets measured times, no two alike") {
  timeline t = simulate(make_dualpipe_schedule({.pp = 4, .micro = 12}));
  std::mt19937 random(1);
  for (std::uint32_t rank = 0; rank < 4; ++rank)
    for (interval& i : t[rank]) {
      i.start += 1e-3 * static_cast<double>(random() % 1000) / 3;
      i.end += 0.4 + 1e-3 * static_cast<double>(random() % 1000) / 7;
    }
  check_page(make_panel(t));
}

TEST_CASE("html: long schedules take bytes per period, not per cell") {
  const auto bytes = [](const char* name, std::int64_t micro) {
    const uniform_costs costs{.transfer_time = 0.3};
    return render_html(make_panel(simulate(make_schedule(name, {.pp = 8, .micro = micro}), costs), costs)).size();
  };
  for (const char* name : {"1f1b", "dualpipe", "zbv", "interleaved_1f1b"}) {
    CAPTURE(name);
    CHECK(bytes(name, 2000) < bytes(name, 200) + 40000);  // of 28,800 to 86,400 cells, mostly the critical path
  }
}

TEST_CASE("html: nothing in a name can end the script, and nothing is fetched") {
  schedule s = make_gpipe_schedule({.pp = 2, .micro = 2});
  s.name = "</script><b>\"\\";
  html_panel panel = make_panel(simulate(std::move(s)));
  panel.title = "<!-- \"two\nlines\" \u00fc";
  const std::string page = render_html(panel);
  CHECK(data_in(page)["panels"][0]["name"] == "</script><b>\"\\");
  CHECK(data_in(page)["panels"][0]["title"] == "<!-- \"two lines\" \u00fc");
  CHECK(page.find("</script><b>") == page.npos);
  CHECK(occurrences(page, "http") == occurrences(page, "http://www.w3.org/2000/svg"));  // the name of a format
  for (const std::string_view word : {"fetch(", "import(", "XMLHttpRequest", "<link", "<script src", "@import"})
    CHECK(page.find(word) == page.npos);
}

TEST_CASE("html: limits are those of all ranks") {
  html_panel panel = make_panel(simulate(make_1f1b_schedule({.pp = 2, .micro = 4})));
  panel.limits = {5};
  CHECK_THROWS_WITH_AS(render_html(panel), "a panel has no limits, or 2, one per rank; got 1", schedule_error);
  panel.limits = {5, 6};
  CHECK(data_in(render_html(panel))["panels"][0]["limits"] == json({5, 6}));
}

TEST_CASE("html: shares of activations by replica and rank") {
  const auto hosted = [](const schedule& s) {
    return data_in(render_html(make_panel(simulate(s))))["panels"][0]["hosted"];
  };
  CHECK(hosted(make_zbv_schedule({.pp = 3, .micro = 8})) == json::parse("[[2,2,2]]"));
  CHECK(hosted(make_dualpipe_schedule({.pp = 2, .micro = 8})) == json::parse("[[1,1],[1,1]]"));
  CHECK(hosted(make_gpipe_schedule({.pp = 2, .micro = 8})) == json::parse("[[1,1]]"));
}

TEST_CASE("html: the numbers beside a bar are those of the metrics") {
  const stage_costs costs{.forward = 2};
  html_panel panel = make_panel(simulate(make_dualpipe_schedule({.pp = 4, .micro = 8}), costs), costs);
  panel.lower_bound = 30;
  const json read = data_in(render_html(panel))["panels"][0];
  const metrics m = measure(panel.timeline, costs);
  CHECK(read["makespan"] == m.makespan);
  CHECK(read["idle"].get<double>() == doctest::Approx(m.bubble_ratio));
  CHECK(read["peak"] == m.peak_activations);
  CHECK(read["copies"] == 2);
  CHECK(read["bound"] == 30);
}

TEST_CASE("html: the headline has the subject, the sizes that all share, and plans before families") {
  const auto headline = [](std::vector<html_panel> panels, const html_style& style) {
    return data_in(render_html(panels, style))["headline"].get<std::string>();
  };
  const stage_costs ms{.forward = 1000, .backward = 2000};
  const auto panel = [&](const char* name, std::int64_t micro = 8) {
    return make_panel(simulate(make_schedule(name, {.pp = 4, .micro = micro}), ms), ms);
  };
  const html_style style{.subject = "a <model>", .unit = "ms"};
  CHECK(headline({panel("1f1b")}, style) == "a <model>, 4 ranks, 8 micro-batches: 1f1b 33 s, idle 27.3 %");
  CHECK(headline({panel("1f1b"), panel("zb1p")}, style).starts_with("a <model>, 4 ranks, 8 micro-batches: zb1p "));
  CHECK(headline({panel("1f1b"), panel("zb1p", 9)}, {}).starts_with("4 ranks: zb1p "));
  html_panel planned = panel("gpipe");
  planned.planned = true, planned.name = "planned";
  CHECK(headline({panel("1f1b"), panel("zb1p"), planned}, style).find(": planned 33 s, zb1p ") != std::string::npos);
  CHECK(detail::time_text(4.0883e3, "ms") == "4.09 s");
  CHECK(detail::time_text(0.25, "ms") == "250 \u00b5s");
  CHECK(detail::time_text(0, "s") == "0 s");
  CHECK(detail::time_text(4088.3, "") == "4088");
  CHECK(detail::time_text(2.55e-5, "us") == "0.0255 ns");
  CHECK(detail::time_text(2.55e-8, "s") == "25.5 ns");
  CHECK(detail::time_text(0.9999, "s") == "1000 ms");
  CHECK(detail::time_text(12345678, "ms") == "12300 s");
  // The same as the browser test has of format().
  for (const auto& [value, text] : std::vector<std::pair<double, const char*>>{{19500000016., "1.95e+10"},
                                                                               {12345678, "12350000"},
                                                                               {0.5, "0.5"},
                                                                               {2.55e-5, "2.55e-5"},
                                                                               {1e-4, "0.0001"},
                                                                               {99999999, "1e+8"},
                                                                               {-3.25, "-3.25"},
                                                                               {0, "0"}})
    CHECK(detail::page_number(value, 4) == text);
}

TEST_CASE("html: the headline rounds as the page's script, numbers that lie exactly halfway away from zero") {
  // The same as the browser test has of format() and percent().
  CHECK(detail::page_number(2.5, 1) == "3");
  CHECK(detail::page_number(0.125, 2) == "0.13");
  CHECK(detail::page_number(-0.375, 2) == "-0.38");
  CHECK(detail::page_number(1.45, 2) == "1.4");  // the double below 1.45
  CHECK(detail::page_number(9.5, 1) == "10");
  CHECK(detail::page_number(1000.5, 4) == "1001");
  CHECK(detail::page_number(2500000, 1) == "3000000");
  CHECK(detail::page_number(8.5e20, 1) == "9e+20");
  CHECK(detail::page_number(5e-324, 1) == "5e-324");
  CHECK(detail::percent_text(0.0625) == "6.3 %");
  CHECK(detail::percent_text(0.06) == "6.0 %");
  CHECK(detail::percent_text(0.0025) == "0.3 %");
  CHECK(detail::time_text(2.5, "ms", 1) == "3 ms");
  CHECK(detail::time_text(1.0005, "ms", 4) == "1 ms");
  const html_panel panel = make_panel(simulate(make_gpipe_schedule({.pp = 2, .micro = 3})));  // idle a quarter
  CHECK(data_in(render_html(panel))["headline"].get<std::string>().ends_with(", idle 25.0 %"));
}

TEST_CASE("html: the page has the numbers of the headline to the last bit") {
  html_panel panel = make_panel(simulate(make_gpipe_schedule({.pp = 2, .micro = 3})));
  panel.lower_bound = 0.1 + 0.2;
  CHECK(data_in(render_html(panel))["panels"][0]["bound"].get<double>() == 0.1 + 0.2);
}

TEST_CASE("html: a front names its panels") {
  const std::vector<html_panel> panels(2, make_panel(simulate(make_gpipe_schedule({.pp = 2, .micro = 2}))));
  html_style style{
      .front = {{.point = {.memory = 1, .makespan = 9, .lower_bound = 8}, .plan = 1},
                {.point = {.memory = 2, .makespan = 7, .lower_bound = 6, .published = "gpipe", .published_makespan = 8},
                 .plan = 0,
                 .published = 1}}};
  const json data = data_in(render_html(panels, style));
  CHECK(data["headline"] == "2 ranks, 2 micro-batches: planned 9 to 7 with 1 to 2 live activations; gpipe 8");
  CHECK(data["front"][0]["published"] == -1);
  style.front[0].point.makespan = 7;
  CHECK(data_in(render_html(panels, style))["headline"] ==
        "2 ranks, 2 micro-batches: planned 7 with 1 to 2 live activations; gpipe 8");
  CHECK(data["front"][1]["publishedMakespan"] == 8);
  style.front[0].plan = 2;
  CHECK(refusal_of([&] { render_html(panels, style); }) == "a point of a front shows one of 2 panels; got panel 2");
  style.front[0] = {.point = {.memory = 1}, .plan = 0};
  CHECK(refusal_of([&] { render_html(panels, style); }) == "a point of a front has finite numbers; point 0 has not");
}

TEST_CASE("html: notes stand on the page, escaped; refusals") {
  const html_panel panel = make_panel(simulate(make_gpipe_schedule({.pp = 2, .micro = 2})));
  const std::vector<std::string> notes = {"left out: zbv: <needs> \"more\"", "left out: dualpipe: even pp"};
  const std::string page = render_html(panel, notes);
  CHECK(page.find(
            "<li>left out: zbv: &lt;needs&gt; &quot;more&quot;</li>\n<li>left out: dualpipe: even pp</li>\n</ul>") !=
        page.npos);
  CHECK(render_html(panel).find("<ul id=\"notes\"></ul>") != std::string::npos);
  CHECK(refusal_of([] { render_html(std::span<const html_panel>()); }) ==
        "a page shows at least one timeline; got none");
  CHECK(refusal_of([&] { render_html(std::span(&panel, 1), {.unit = "h"}); }) ==
        "a page takes s, ms or us as the unit of time, or none; got \"h\"");
  html_panel infinite = panel;
  infinite.bytes = {{std::numeric_limits<double>::infinity(), 0, 0, 0}};
  CHECK(refusal_of([&] { render_html(infinite); }) == "a page shows finite numbers of bytes; got inf");
  html_panel unbounded = panel;
  unbounded.lower_bound = std::numeric_limits<double>::infinity();
  CHECK(refusal_of([&] { render_html(unbounded); }) == "a page shows finite bounds; got inf");
  html_panel late = panel;
  late.timeline[0].back().end = 1e308;
  CHECK(refusal_of([&] { render_html(late); }) == "a page shows times up to 4e307; got 1e+308");
}
