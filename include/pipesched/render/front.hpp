// SPDX-License-Identifier: MIT
#pragma once

// The front of step time against memory as an SVG picture: plans as a stepped line, their lower bounds below it, so that the band
// between them is what is not known, and the best published family of each limit above it.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/cost/memory_unit.hpp"
#include "pipesched/render/write.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// A point of a front.
struct front_point {
  double memory = 0;                                          ///< its limit, in the unit of the style
  double makespan = std::numeric_limits<double>::infinity();  ///< of the plan
  double lower_bound = 0;                                     ///< of any schedule within the limit
  std::string published{};                                    ///< the best family; empty: none fits
  double published_makespan = std::numeric_limits<double>::infinity();
  std::string placement{};  ///< of the plan, if it is to be named
};

struct front_style {
  double width = 720, height = 420;  ///< in pixels
  std::string_view title{};
  memory_unit memory = memory_unit::activations;  ///< the unit of the limits
  std::string_view time_title = "makespan";
  std::string_view time_unit{};  ///< s, ms or us; empty: not said
};

namespace detail {

/// The axis of memory: its title, its unit, and the number by which limits are divided. @param most  the largest limit
struct memory_axis {
  std::string title;
  std::string_view unit;
  double scale;
};
inline memory_axis memory_axis_of(memory_unit unit, double most) {
  if (unit == memory_unit::activations) return {"limit of live activations per rank", "live activations", 1};
  const byte_scale scale = byte_scale_for(most);
  return {concat({"memory per rank, ", scale.name}), scale.name, scale.bytes};
}

class front_writer {
 public:
  front_writer(const std::vector<front_point>& points, const front_style& style) : points_(points), style_(style) {
    if (points.empty()) throw schedule_error("a picture of a front needs at least 1 point; got none");
    if (!(style.width >= 200 && style.width <= 1e5 && style.height >= 150 && style.height <= 1e5))
      throw schedule_error(
          concat({"a picture of a front has 200 by 150 to 1e5 pixels; got ", style.width, " by ", style.height}));
    for (std::size_t i = 0; i < points.size(); ++i) {
      if (!std::isfinite(points[i].memory) || !std::isfinite(points[i].makespan) ||
          !std::isfinite(points[i].lower_bound))
        throw schedule_error(concat({"a point of a front has finite numbers; point ", i, " has not"}));
      if (i > 0 && !(points[i].memory > points[i - 1].memory))
        throw schedule_error(concat(
            {"the limits of a front rise; point ", i, " has ", points[i].memory, " after ", points[i - 1].memory}));
    }
    axis_ = memory_axis_of(style.memory, points.back().memory);
    set_scales();
  }

  std::string write() {
    out_ += concat({"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", number(style_.width), " ",
                    number(style_.height), "\" width=\"", number(style_.width), "\" height=\"", number(style_.height),
                    "\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n<title>", escaped(title()),
                    "</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"});
    axes();
    band();
    line("#9a5b00", "2", " stroke-dasharray=\"5 4\"", &front_point::lower_bound);
    line("#1f4e8c", "2.5", "", &front_point::makespan);
    families();
    marks();
    legend();
    return std::move(out_) + "</svg>\n";
  }

 private:
  static constexpr std::string_view halo = " stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\"";
  static constexpr double left = 70, right = 24, top = 56, bottom = 52;

  std::string title() const { return std::string(style_.title.empty() ? "time against memory" : style_.title); }

  void set_scales() {
    double low = std::numeric_limits<double>::infinity(), high = 0;
    for (const front_point& p : points_) {
      low = std::min(low, p.lower_bound), high = std::max(high, p.makespan);
      if (std::isfinite(p.published_makespan)) published_ = true;
    }
    const double most = high;
    for (const front_point& p : points_)  // a family far above all plans does not set the scale
      if (p.published_makespan <= 1.25 * most) high = std::max(high, p.published_makespan);
    step_ = nice_step(std::max(high - low, 1e-9 * std::max(high, 1e-300)) / 6);
    low_ = std::floor(low / step_) * step_, high_ = std::ceil(high / step_) * step_;
    if (!(high_ > low_)) high_ = low_ + step_;
    first_ = points_.front().memory;
    last_ =
        points_.back().memory + (points_.size() > 1 ? 0.35 * (points_.back().memory - points_.rbegin()[1].memory) : 1);
  }
  // 1, 2 or 5 times a power of ten.
  static double nice_step(double at_least) {
    const double power = std::pow(10, std::floor(std::log10(at_least)));
    for (const double m : {1.0, 2.0, 5.0})
      if (m * power >= at_least) return m * power;
    return 10 * power;
  }

  std::string limit(const front_point& p) const { return label(p.memory / axis_.scale); }
  double x(double memory) const { return left + (memory - first_) / (last_ - first_) * (style_.width - left - right); }
  double y(double time) const { return top + (high_ - time) / (high_ - low_) * (style_.height - top - bottom); }

  void text(double at_x, double at_y, std::string_view anchor, std::string_view what, std::string_view more = "") {
    out_ += concat({"<text x=\"", number(at_x), "\" y=\"", number(at_y), "\" text-anchor=\"", anchor, "\"", more, ">",
                    escaped(what), "</text>\n"});
  }
  void rule(double x1, double y1, double x2, double y2, std::string_view colour) {
    out_ += concat({"<path d=\"M", number(x1), " ", number(y1), "L", number(x2), " ", number(y2), "\" stroke=\"",
                    colour, "\"/>\n"});
  }

  void axes() {
    text(left, 22, "start", title(), " font-size=\"15\" font-weight=\"bold\"");
    const double end = style_.width - right, floor = style_.height - bottom;
    for (std::size_t i = 0; low_ + static_cast<double>(i) * step_ <= high_ * (1 + 1e-12); ++i) {
      const double time = low_ + static_cast<double>(i) * step_;
      rule(left, y(time), end, y(time), i == 0 ? "#333" : "#e3e3e3");
      text(left - 8, y(time) + 4, "end", label(time));
    }
    double last = -1e9;
    for (const front_point& p : points_) {
      rule(x(p.memory), floor, x(p.memory), floor + 5, "#333");
      const double room = 7.0 * static_cast<double>(limit(p).size()) + 6;
      if (x(p.memory) - last < room) continue;
      last = x(p.memory);
      text(x(p.memory), floor + 18, "middle", limit(p));
    }
    text((left + end) / 2, style_.height - 12, "middle", axis_.title);
    const std::string unit = style_.time_unit.empty() ? "" : concat({", ", style_.time_unit});
    text(18, (top + floor) / 2, "middle", concat({style_.time_title, unit}),
         concat({" transform=\"rotate(-90 18 ", number((top + floor) / 2), ")\""}));
  }

  // A stepped line: a limit allows all that a smaller one does.
  template <typename Value>
  std::string steps(Value&& value, bool backwards = false) const {
    std::vector<std::string> corners;
    for (std::size_t i = 0; i < points_.size(); ++i) {
      const double next = i + 1 < points_.size() ? points_[i + 1].memory : last_;
      corners.push_back(concat({number(x(points_[i].memory)), " ", number(y(value(points_[i])))}));
      corners.push_back(concat({number(x(next)), " ", number(y(value(points_[i])))}));
    }
    if (backwards) std::reverse(corners.begin(), corners.end());
    std::string path;
    for (const std::string& c : corners) path += (path.empty() ? "" : "L") + c;
    return path;
  }
  void band() {
    out_ += concat({"<path d=\"M", steps([](const front_point& p) { return p.makespan; }), "L",
                    steps([](const front_point& p) { return p.lower_bound; }, true), "Z\" fill=\"#dfe8f4\"/>\n"});
  }
  void line(std::string_view colour, std::string_view width, std::string_view more, double front_point::*value) {
    out_ += concat({"<path d=\"M", steps([&](const front_point& p) { return p.*value; }), "\" fill=\"none\" stroke=\"",
                    colour, "\" stroke-width=\"", width, "\"", more, "/>\n"});
  }

  // A dot for every plan; its makespan is written where it is another than before.
  void marks() {
    double free_from = 0, level = 0, written = 0;
    const auto overlaps = [&](double at, double height) { return at < free_from && std::abs(height - level) < 15; };
    for (const front_point& p : points_) {
      const std::string value = p.placement.empty() ? label(p.makespan) : concat({label(p.makespan), " ", p.placement});
      out_ += concat({"<path d=\"M", number(x(p.memory)), " ", number(y(p.makespan)),
                      "h0\" stroke=\"#1f4e8c\" stroke-width=\"8\" stroke-linecap=\"round\"><title>limit ", limit(p),
                      ": planned ", value, ", at least ", label(p.lower_bound), "</title></path>\n"});
      // Beside the point, or up to the right edge; below it if the placement is named, where no family's name is.
      const double width = 7.0 * static_cast<double>(value.size());
      const double at = std::min(x(p.memory) + 6, style_.width - width - 4);
      if (p.makespan == written || overlaps(at, y(p.makespan))) continue;
      written = p.makespan, free_from = at + width + 4, level = y(p.makespan);
      text(at, y(p.makespan) + (p.placement.empty() ? -8 : 18), "start", value, concat({" fill=\"#1f4e8c\"", halo}));
    }
  }
  // The best family of each limit, named where it is another than before.
  void families() {
    std::string before;
    double free_from = 0, level = 0;
    const auto overlaps = [&](double at, double height) { return at < free_from && std::abs(height - level) < 15; };
    for (const front_point& p : points_) {
      if (!std::isfinite(p.published_makespan) || p.published_makespan > high_) continue;
      const double at_x = x(p.memory), at_y = y(p.published_makespan);
      out_ += concat({"<path d=\"M", number(at_x - 5), " ", number(at_y),
                      "l5 -5l5 5l-5 5z\" fill=\"#fff\" stroke=\"#b3261e\" stroke-width=\"1.5\"><title>",
                      escaped(p.published), " ", label(p.published_makespan), "</title></path>\n"});
      const std::string name = concat({p.published, " ", label(p.published_makespan)});
      const double width = 7.0 * static_cast<double>(name.size());
      const double at = std::min(at_x + 2, style_.width - width - 4);
      if (name == before || overlaps(at, at_y)) continue;
      before = name, free_from = at + width + 4, level = at_y;
      text(at, at_y - 10, "start", name, concat({" fill=\"#b3261e\"", halo}));
    }
  }
  void legend() {
    double at = left;
    const auto entry = [&](std::string_view mark, std::string_view what) {
      out_ += concat({"<g transform=\"translate(", number(at), " 40)\">", mark, "</g>\n"});
      text(at + 30, 44, "start", what);
      at += 30 + 6.6 * static_cast<double>(what.size()) + 20;
    };
    entry("<path d=\"M0 0H24\" stroke=\"#1f4e8c\" stroke-width=\"2.5\"/>", "planned");
    entry("<path d=\"M0 0H24\" stroke=\"#9a5b00\" stroke-width=\"2\" stroke-dasharray=\"5 4\"/>",
          "no schedule is shorter (proved)");
    if (published_)
      entry("<path d=\"M7 0l5 -5l5 5l-5 5z\" fill=\"#fff\" stroke=\"#b3261e\" stroke-width=\"1.5\"/>",
            "best published family");
  }

  const std::vector<front_point>& points_;
  const front_style& style_;
  memory_axis axis_;
  double low_ = 0, high_ = 1, step_ = 1, first_ = 0, last_ = 1;
  bool published_ = false;
  std::string out_;
};

}  // namespace detail

/// A picture of a front, in the order of its limits of memory. Families whose step takes more than a quarter longer than the
/// longest plan are left out.
/// @throws schedule_error for no points, limits that do not rise, numbers that are not finite, and sizes out of range
inline std::string render_front_svg(const std::vector<front_point>& points, const front_style& style = {}) {
  return detail::front_writer(points, style).write();
}

}  // namespace pipesched
