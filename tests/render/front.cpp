// SPDX-License-Identifier: MIT
// Pictures of fronts.

#include "pipesched/render/front.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace pipesched;

namespace {

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++n;
  return n;
}

const std::vector<front_point> points = {
    {.memory = 6, .makespan = 100, .lower_bound = 80},
    {.memory = 7, .makespan = 90, .lower_bound = 80, .published = "<1f1b>", .published_makespan = 95},
    {.memory = 8, .makespan = 90, .lower_bound = 80, .published = "gpipe", .published_makespan = 900}};

}  // namespace

TEST_CASE("front: the axis of time has its unit") {
  const std::vector<front_point> point{{.memory = 6, .makespan = 100, .lower_bound = 80}};
  CHECK(render_front_svg(point).find(">makespan</text>") != std::string::npos);
  CHECK(render_front_svg(point, {.time_unit = "ms"}).find(">makespan, ms</text>") != std::string::npos);
}

TEST_CASE("front: a dot per plan, its makespan where it changes, families that do not set the scale") {
  const std::string svg = render_front_svg(points, {.title = "a & b"});
  CHECK(count(svg, "stroke-linecap=\"round\"") == 3);
  CHECK(count(svg, "<title>limit 7: planned 90, at least 80</title>") == 1);
  CHECK(count(svg, ">100</text>") == 2);  // on the axis, and at the first dot
  CHECK(count(svg, "&lt;1f1b&gt; 95</text>") == 1);
  CHECK(svg.find("gpipe") == svg.npos);
  CHECK(svg.find("a &amp; b") != svg.npos);
  CHECK(count(svg, "<text") == count(svg, "</text>"));
  CHECK(count(svg, "<g ") == count(svg, "</g>"));
}

TEST_CASE("front: one point, and times that are all alike, have a picture") {
  for (const double bound : {0.0, 5.0}) {
    const std::string svg = render_front_svg({{.memory = 1, .makespan = 5, .lower_bound = bound}});
    CHECK(svg.find("nan") == svg.npos);
    CHECK(svg.find("inf") == svg.npos);
  }
}

TEST_CASE("front: refuses no points, limits that do not rise, numbers that are not finite, and sizes out of range") {
  const auto refused = [](const std::vector<front_point>& p, const front_style& style = {}) {
    try {
      render_front_svg(p, style);
    } catch (const schedule_error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(refused({}) == "a picture of a front needs at least 1 point; got none");
  CHECK(refused({points[1], points[0]}) == "the limits of a front rise; point 1 has 6 after 7");
  CHECK(refused({{.memory = 1}}) == "a point of a front has finite numbers; point 0 has not");
  CHECK(refused(points, {.width = 10}) == "a picture of a front has 200 by 150 to 1e5 pixels; got 10 by 420");
}
