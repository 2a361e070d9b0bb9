// SPDX-License-Identifier: MIT
// SVG, Chrome trace and HTML, read back and held against the timeline. What a browser makes of the page: tests/browser.

#include <doctest/doctest.h>

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "pipesched/render/chrome_trace.hpp"
#include "pipesched/render/html.hpp"
#include "pipesched/render/svg.hpp"
#include "support/families.hpp"
#include "support/random_costs.hpp"

using namespace pipesched;
using namespace pipesched::tests;
using nlohmann::json;

TEST_CASE("numbers in pictures: three decimals, no trailing zeroes") {
  CHECK(detail::number(0) == "0");
  CHECK(detail::number(66) == "66");
  CHECK(detail::number(-2.5) == "-2.5");
  CHECK(detail::number(0.125) == "0.125");
  CHECK(detail::number(1.0 / 3) == "0.333");
  CHECK(detail::number(0.9996) == "1");
  CHECK(detail::number(-0.0001) == "0");
  CHECK(detail::number(1234567.05) == "1234567.05");
  CHECK(detail::number(1e18) == "1000000000000000000.000000");
}

TEST_CASE("svg: dualpipe 8 x 20 is the published figure: every cell in its place, with its colour, number and title") {
  const timeline t = simulate(make_dualpipe_schedule({.pp = 8, .micro = 20}));
  const std::string svg = render_svg(t);
  const std::regex group("<g><title>([^:]+): ([0-9.]+) to ([0-9.]+)</title>(.*?)</g>");
  const std::regex part("<rect class=\"([FBIW])\" x=\"([0-9.]+)\" y=\"([0-9.]+)\" width=\"([0-9.]+)\"");
  auto found = std::sregex_iterator(svg.begin(), svg.end(), group);
  const double left = 24 + 7.5 * 6;
  for (std::uint32_t rank = 0; rank < 8; ++rank)
    for (std::size_t i = 0; i < t[rank].size(); ++i, ++found) {
      REQUIRE(found != std::sregex_iterator());
      const std::smatch& m = *found;
      const cell& c = t.schedule[rank][i];
      REQUIRE(m[1] == to_string(c));
      REQUIRE(std::stod(m[2]) == t[rank][i].start);
      REQUIRE(std::stod(m[3]) == t[rank][i].end);
      const std::string body = m[4];
      auto drawn = std::sregex_iterator(body.begin(), body.end(), part);
      double x = left + 22 * t[rank][i].start;
      for (op o : c) {
        REQUIRE(drawn != std::sregex_iterator());
        const std::smatch r = *drawn;
        ++drawn;
        REQUIRE(r[1] == std::string(1, letter(o.pass)));
        REQUIRE(std::stod(r[2]) == doctest::Approx(x));
        REQUIRE(std::stod(r[3]) == 32 + 22 * rank);
        REQUIRE(body.find(">" + std::to_string(o.micro) + "<") != body.npos);
        x += 22 * (o.pass == pass::backward ? 2 : 1);
      }
      REQUIRE(x == doctest::Approx(left + 22 * t[rank][i].end));
      REQUIRE((body.find("class=\"pair\"") != body.npos) == c.overlapped());
    }
  CHECK(found == std::sregex_iterator());
  CHECK(svg.find("dualpipe, 8 ranks, 20 micro-batches: makespan 66, idle 9.1 %, at most 9 activations per rank") !=
        svg.npos);
}

TEST_CASE("svg: the four colours differ in lightness, so that they can be told apart in grey") {
  std::vector<double> lightness;
  for (std::string_view colour : palette{}.fill) {
    const auto part = [&](std::size_t at) { return std::stoi(std::string(colour.substr(at, 2)), nullptr, 16) / 255.0; };
    lightness.push_back(0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5));
  }
  std::sort(lightness.begin(), lightness.end());
  for (std::size_t i = 1; i < lightness.size(); ++i) CHECK(lightness[i] - lightness[i - 1] > 0.07);
}

TEST_CASE("svg: well formed for every family, names escaped, a stretch of time") {
  for_all_families(4, 9, [](const family& f, const schedule_params& p) {
    timeline t = simulate(f.make(p));
    t.schedule.name = "<a & \"b\">";
    const std::string svg = render_svg(t, {.from = 0.5, .to = 5});
    std::vector<std::string> open;
    const std::regex tag("<(/?)([a-zA-Z]+)([^>]*?)(/?)>");
    for (auto m = std::sregex_iterator(svg.begin(), svg.end(), tag); m != std::sregex_iterator(); ++m) {
      if ((*m)[1] == "/") {
        REQUIRE(!open.empty());
        REQUIRE(open.back() == (*m)[2]);
        open.pop_back();
      } else if ((*m)[4] != "/") {
        open.push_back((*m)[2]);
      }
    }
    CHECK(open.empty());
    CHECK(svg.find("&lt;a &amp; &quot;b&quot;&gt;") != svg.npos);
  });
  const timeline t = simulate(make_gpipe_schedule({.pp = 2, .micro = 2}));
  CHECK(refusal_of([&] { render_svg(t, {.from = 5, .to = 5}); }) ==
        "a picture shows a stretch of time from 0 to the makespan 9; got 5 to 5");
}

TEST_CASE(
    "chrome trace: events on a track nest, flows start and end, times ascend, counters are the live activations") {
  random_costs random(12);
  for_all_families(4, 9, [&](const family& f, const schedule_params& p) {
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    CAPTURE(p.forward_only);
    const schedule s = f.make(p);
    const stage_costs costs = random.make(s.stages());
    const timeline t = simulate(s, costs);
    for (const bool measured : {false, true}) {
      const json trace = json::parse(measured ? render_chrome_trace(t) : render_chrome_trace(t, costs));
      using track = std::pair<int, int>;
      std::map<track, double> last, busy_until;
      std::map<int, std::size_t> cells;
      std::map<int, std::pair<int, int>> live;  // now, most
      std::map<std::uint64_t, std::string> flows;
      std::map<std::uint64_t, double> flow_time;
      std::set<track> named;
      for (const json& e : trace["traceEvents"]) {
        const std::string phase = e["ph"];
        const track on{e["pid"].get<int>(), e["tid"].get<int>()};
        REQUIRE((on.first >= 0 && on.first < p.pp));
        if (phase == "M") {
          if (e["name"] == "thread_name") named.insert(on);
          continue;
        }
        const double ts = e["ts"].get<double>();
        if (phase == "X") {
          REQUIRE(named.count(on) == 1);
          REQUIRE(ts >= last[on]);
          REQUIRE(ts >= busy_until[on] - 0.002);  // one after the other: they nest trivially; times have three decimals
          busy_until[on] = ts + e["dur"].get<double>();
          last[on] = ts;
          if (on.second == 0) {
            const std::size_t i = cells[on.first]++;
            REQUIRE(e["name"] == to_string(s[static_cast<std::size_t>(on.first)][i]));
            REQUIRE(ts == doctest::Approx(1000 * t[static_cast<std::size_t>(on.first)][i].start));
          }
        } else if (phase == "C") {
          auto& [now, most] = live[on.first];
          now = e["args"]["live"].get<int>();
          most = std::max(most, now);
          REQUIRE(now >= 0);
        } else {
          REQUIRE((phase == "s" || phase == "t" || phase == "f"));
          flows[e["id"].get<std::uint64_t>()] += phase;
          flow_time[e["id"].get<std::uint64_t>()] = std::max(flow_time[e["id"].get<std::uint64_t>()], ts);
        }
      }
      for (auto [id, phases] : flows) {
        std::sort(phases.begin(), phases.end());
        REQUIRE(phases == "fst");  // one start, one step through the message, one end
      }
      for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
        REQUIRE(cells[static_cast<int>(rank)] == s[rank].size());
        REQUIRE(live[static_cast<int>(rank)].first == 0);
        REQUIRE(live[static_cast<int>(rank)].second == static_cast<int>(peak_activations(s[rank], s.forward_only)));
      }
    }
  });
}

TEST_CASE("html: the data in the page is the timeline, and nothing in a name can end the script") {
  for_all_families(4, 9, [](const family& f, const schedule_params& p) {
    schedule s = f.make(p);
    s.name = "</script><b>\"\\";
    const uniform_costs costs{.transfer_time = 0.5};
    const html_panel panel = make_panel(simulate(std::move(s), costs), costs);
    const std::string page = render_html(panel);
    const std::string begin = "const DATA = ";
    const std::size_t from = page.find(begin) + begin.size(), to = page.find(";\nconst $ =");
    const json data = json::parse(page.substr(from, to - from));
    REQUIRE(data.size() == 1);
    const timeline& t = panel.timeline;
    REQUIRE(data[0]["rows"].size() == t.schedule.pp());
    for (std::uint32_t rank = 0; rank < t.schedule.pp(); ++rank) {
      REQUIRE(data[0]["rows"][rank][0] == to_string(t.schedule[rank]));
      for (std::size_t i = 0; i < t[rank].size(); ++i) {
        REQUIRE(data[0]["rows"][rank][1][2 * i] == t[rank][i].start);
        REQUIRE(data[0]["rows"][rank][1][2 * i + 1] == t[rank][i].end);
      }
    }
    REQUIRE(data[0]["path"].size() == panel.explanation.critical_path.size());
    REQUIRE(data[0]["gaps"].size() == panel.explanation.stalls.size());
    CHECK(page.find("</script><b>") == page.npos);
    CHECK(page.find("http") == page.npos);  // nothing is fetched
  });
}
