// SPDX-License-Identifier: MIT
// SVG and Chrome trace, read back and compared with the timeline.

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "pipesched/render/chrome_trace.hpp"
#include "pipesched/render/html.hpp"
#include "pipesched/render/svg.hpp"
#include "pipesched/render/text.hpp"
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

TEST_CASE("svg: the colours differ in lightness and are distinct in grey") {
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
      std::map<int, std::pair<double, double>> live;  // now, highest; 1 is a micro-batch through all stages of the rank
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
          auto& [now, highest] = live[on.first];
          now = e["args"]["live"].get<double>();
          highest = std::max(highest, now);
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
        const double stages_per_rank = static_cast<double>(s.stages()) / s.pp();
        REQUIRE(live[static_cast<int>(rank)].second ==
                doctest::Approx(peak_activations(s[rank], s.forward_only) / stages_per_rank));
      }
    }
  });
}

TEST_CASE("pictures: a timeline whose intervals do not match its schedule, or are not finite, is refused") {
  const timeline good = simulate(make_gpipe_schedule({.pp = 2, .micro = 2}));
  std::vector<timeline> bad(5, good);
  bad[0].intervals = {};
  bad[1].schedule = make_gpipe_schedule({.pp = 2, .micro = 3});
  bad[2].schedule = make_gpipe_schedule({.pp = 3, .micro = 2});
  bad[3][1][0].end = std::numeric_limits<double>::quiet_NaN();
  bad[4][0][1].start = -std::numeric_limits<double>::infinity();
  for (const timeline& t : bad) {
    CHECK_THROWS_AS(render_text(t), schedule_error);
    CHECK_THROWS_AS(render_svg(t), schedule_error);
    CHECK_THROWS_AS(render_html({.timeline = t, .explanation = {}}), schedule_error);
    CHECK_THROWS_AS(render_chrome_trace(t), schedule_error);
    CHECK_THROWS_AS(render_chrome_trace(t, uniform_costs{}), schedule_error);
  }
  CHECK_NOTHROW(render_text(good));
  CHECK_NOTHROW(render_svg(good));
  CHECK_NOTHROW(render_html(make_panel(good)));
  CHECK_NOTHROW(render_chrome_trace(good));
  CHECK(trace_style_of(time_unit::s).microseconds == 1e6);
  CHECK(trace_style_of(time_unit::ms).microseconds == 1000);
  CHECK(trace_style_of(time_unit::us).microseconds == 1);
  CHECK(trace_style_of(time_unit::none).microseconds == trace_style{}.microseconds);
}

TEST_CASE(
    "pictures: costs of any magnitude give finite JSON, finite coordinates, and distinct texts for distinct times") {
  const double sizes[] = {0, 1e-320, 1e-300, 1e-6, 1, 1e6, 1e15, 1e300};
  for (double forward : sizes)
    for (double backward_input : sizes)
      for (double transfer : {0.0, 1e-320, 1e300}) {
        CAPTURE(forward);
        CAPTURE(backward_input);
        CAPTURE(transfer);
        const stage_costs costs{
            .forward = forward, .backward_input = backward_input, .backward_weight = 1, .transfer_time = transfer};
        const timeline t = simulate(make_zb1p_schedule({.pp = 2, .micro = 4}), costs);
        const std::string svg = render_svg(t);
        CHECK(svg.find("inf") == svg.npos);
        CHECK(svg.find("nan") == svg.npos);
        CHECK(svg.size() < 20000);
        const json trace = json::parse(render_chrome_trace(t, costs));
        std::vector<double> starts;
        for (const json& e : trace["traceEvents"])
          if (e["ph"] == "X" && e["pid"] == 0 && e["tid"] == 0) starts.push_back(e["ts"]);
        REQUIRE(starts.size() == t[0].size());
        for (std::size_t i = 0; i < starts.size(); ++i)
          CHECK(starts[i] == doctest::Approx(1000 * t[0][i].start).epsilon(1e-11));
        const std::string page = render_html(make_panel(t, costs));
        CHECK(page.find("inf,") == page.npos);
        CHECK(page.find("nan,") == page.npos);
      }
}

TEST_CASE("svg: the width is bounded, and the picture has a viewBox of its size") {
  const auto size_of = [](const std::string& svg) {
    std::smatch m;
    REQUIRE(
        std::regex_search(svg, m, std::regex(R"re(width="([0-9.]+)" height="([0-9.]+)" viewBox="0 0 (\S+) (\S+)")re")));
    CHECK(m[1] == m[3]);
    CHECK(m[2] == m[4]);
    return std::stod(m[1]);
  };
  CHECK(size_of(render_svg(simulate(make_gpipe_schedule({.pp = 2, .micro = 2})))) <= 700);
  for (std::int64_t micro : {64, 512}) {
    const schedule s = make_dualpipe_schedule({.pp = 8, .micro = micro});
    for (double scale : {1e-6, 1.0, 1e3, 1e9})
      CHECK(size_of(render_svg(simulate(
                s, stage_costs{.forward = scale, .backward_input = 1.3 * scale, .backward_weight = 0.7 * scale}))) <=
            1600);
  }
  // A cell that lasts next to nothing does not stretch the picture.
  const schedule s = make_zb1p_schedule({.pp = 2, .micro = 4});
  CHECK(size_of(render_svg(simulate(s, stage_costs{.backward_weight = 1e-320}))) ==
        size_of(render_svg(simulate(s, stage_costs{.backward_weight = 0}))));
  CHECK(refusal_of([&] { render_svg(simulate(s), {.width = -1}); }) ==
        "a picture has a width of up to 1e6 pixels; got -1");
  CHECK(refusal_of([&] { render_svg(simulate(s), {.row_height = 0}); }) ==
        "a picture has a row_height of up to 1e6 pixels; got 0");
}

TEST_CASE("svg: the time axis has round numbers in every unit of time") {
  const auto axis_of = [](double unit) {
    const std::string svg = render_svg(
        simulate(make_gpipe_schedule({.pp = 2, .micro = 4}), stage_costs{.forward = unit, .backward = 2 * unit}));
    std::vector<std::string> labels;
    const std::regex tick("<text [^>]*text-anchor=\"middle\">([0-9.e+-]+)</text>\n<(line|text)");
    for (auto m = std::sregex_iterator(svg.begin(), svg.end(), tick); m != std::sregex_iterator(); ++m)
      labels.push_back((*m)[1]);
    return labels;
  };
  CHECK(axis_of(1) == std::vector<std::string>{"0", "5", "10", "15"});
  CHECK(axis_of(1e-6) == std::vector<std::string>{"0", "5e-06", "1e-05", "1.5e-05"});
  CHECK(axis_of(1e3) == std::vector<std::string>{"0", "5000", "10000", "15000"});
  CHECK(axis_of(1e300) == std::vector<std::string>{"0", "5e+300", "1e+301", "1.5e+301"});
}

TEST_CASE("svg: the legend names whatever the picture has") {
  const auto has = [](const schedule& s, std::string_view words) {
    return render_svg(simulate(s)).find(">" + std::string(words) + "</text>") != std::string::npos;
  };
  const schedule dualpipe = make_dualpipe_schedule({.pp = 4, .micro = 8}),
                 zbv = make_zbv_schedule({.pp = 4, .micro = 8}), gpipe = make_gpipe_schedule({.pp = 4, .micro = 8});
  for (const schedule& s : {dualpipe, zbv, gpipe})
    for (const char* words : {"forward", "backward", "backward for inputs", "backward for weights", "overlapped pair",
                              "idle", "in a cell: its micro-batch"})
      CHECK(has(s, words));
  CHECK(has(dualpipe, "replica 1"));
  CHECK(!has(dualpipe, "a later stage of the rank"));
  CHECK(has(zbv, "a later stage of the rank"));
  CHECK(!has(zbv, "replica 1"));
  CHECK(!has(gpipe, "replica 1"));
  CHECK(!has(gpipe, "a later stage of the rank"));
}

TEST_CASE("svg: nothing takes time: an empty row per rank") {
  const timeline t = simulate(make_gpipe_schedule({.pp = 3, .micro = 2}), stage_costs{.forward = 0, .backward = 0});
  const std::string svg = render_svg(t);
  CHECK(svg.find(">rank 2</text>") != svg.npos);
  CHECK(svg.find("<g><title>") == svg.npos);
}

TEST_CASE("svg: the picture of the README is what the library draws") {
  std::ifstream file(PIPESCHED_SOURCE_DIR "/include/pipesched/render/dualpipe_8x20.svg");
  REQUIRE(file);
  std::stringstream text;
  text << file.rdbuf();
  // To renew it: pipesched simulate --family dualpipe --pp 8 --micro 20 --format svg -o include/pipesched/render/dualpipe_8x20.svg
  CHECK((text.str() == render_svg(simulate(make_dualpipe_schedule({.pp = 8, .micro = 20})))));
  CHECK(text.str().size() <= 60000);
}

TEST_CASE("pictures: peaks are activations of one micro-batch through a rank's whole share") {
  const auto title_of = [](const schedule& s) { return make_panel(simulate(s)).title; };
  CHECK(title_of(make_dualpipe_schedule({.pp = 8, .micro = 20})).ends_with(", at most 9 activations per rank"));
  CHECK(title_of(make_dualpipev_schedule({.pp = 8, .micro = 20})).ends_with(", at most 8.5 activations per rank"));
  CHECK(title_of(make_zbv_schedule({.pp = 4, .micro = 8})).ends_with(", at most 4 activations per rank"));
  const auto says_unit = [](const schedule& s) {
    return render_svg(simulate(s)).find(">1 activation: a micro-batch through all stages of a rank</text>") !=
           std::string::npos;
  };
  CHECK(says_unit(make_zbv_schedule({.pp = 4, .micro = 8})));
  CHECK(!says_unit(make_gpipe_schedule({.pp = 4, .micro = 8})));  // with one stage per rank there is nothing to say
}

TEST_CASE("chrome trace: a unit of time that makes no finite times is refused") {
  const timeline t = simulate(make_gpipe_schedule({.pp = 2, .micro = 2}), stage_costs{.forward = 1e300});
  for (double unit : {0.0, -1.0, 1e100, std::numeric_limits<double>::quiet_NaN()})
    CHECK(refusal_of([&] {
            render_chrome_trace(t, {.microseconds = unit});
          }).starts_with("a trace takes a unit of time above 0 microseconds"));
}
