// SPDX-License-Identifier: MIT
#pragma once

// A timeline as an SVG picture, the grid of the papers: a row a rank, orange F, green B (light for I), blue W, the number
// of the micro-batch in each cell, overlapped pairs in one black frame, idle time hatched. The four colours differ in
// lightness, so the picture survives a black-and-white printer; a bar under a cell marks a rank's later stages. Every cell
// has a <title> that a browser shows on hover.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "pipesched/error.hpp"
#include "pipesched/op.hpp"
#include "pipesched/render/write.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// Fills and text colours, by pass: F, B, I, W.
struct palette {
  std::array<std::string_view, 4> fill = {"#fbbf5b", "#74b257", "#c4e6a6", "#3f78b5"};
  std::array<std::string_view, 4> text = {"#000", "#000", "#000", "#fff"};
};

struct svg_style {
  double width = 0;  ///< of the cells in pixels; 0: 22 for the shortest cell, at most 3000 in all
  double row_height = 22;
  double from = 0;                                      ///< the stretch of time that is drawn ...
  double to = std::numeric_limits<double>::infinity();  ///< ... to its end by default
  std::string_view title{};                             ///< default: the facts of the timeline
  palette colours{};
};

namespace detail {

class svg_writer {
 public:
  svg_writer(const timeline& t, const svg_style& style) : t_(t), style_(style), metrics_(measure(t)) {
    from_ = style.from, to_ = std::min(style.to, metrics_.makespan);
    if (!(from_ >= 0 && from_ < to_))
      throw schedule_error("a picture shows a stretch of time from 0 to the makespan " + number(metrics_.makespan) +
                           "; got " + number(style.from) + " to " + number(style.to));
    double width = style.width;
    if (!(width > 0)) {
      double shortest = to_ - from_;
      for (const interval& i : t.intervals.all())
        if (i.end > i.start) shortest = std::min(shortest, i.end - i.start);
      width = std::clamp(22 * (to_ - from_) / shortest, 400.0, 3000.0);
    }
    scale_ = width / (to_ - from_);
    margin_ = 24 + 7.5 * static_cast<double>(concat({"rank ", t.schedule.pp()}).size());
  }

  std::string draw() {
    const double width = margin_ + x(to_) - x(from_) + 24;
    const double bottom = top + style_.row_height * t_.schedule.pp();
    out_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + number(std::max(width, 640.0)) + "\" height=\"" +
           number(bottom + 76) + "\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\">\n";
    out_ +=
        "<defs><pattern id=\"idle\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
        "patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"#fff\"/>"
        "<line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\" stroke=\"#bbb\" stroke-width=\"1.5\"/></pattern></defs>\n<style>";
    for (std::size_t i = 0; i < 4; ++i)
      out_ += concat({".", letters[i], "{fill:", style_.colours.fill[i], ";stroke:#333;stroke-width:.6}.", letters[i],
                      "t{fill:", style_.colours.text[i], ";text-anchor:middle}"});
    out_ += ".pair{fill:none;stroke:#000;stroke-width:2}.later{fill:#000}</style>\n";
    out_ += "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"12\" y=\"20\" font-size=\"14\">" +
            escaped(style_.title.empty() ? facts_of(t_, metrics_) : style_.title) + "</text>\n";
    for (std::uint32_t rank = 0; rank < t_.schedule.pp(); ++rank) draw_rank(rank);
    draw_axis(bottom);
    draw_legend(bottom + 58);
    return std::move(out_ += "</svg>\n");
  }

 private:
  static constexpr double top = 32;
  static constexpr std::array<std::string_view, 4> letters = {"F", "B", "I", "W"};

  static std::size_t index_of(op o) { return static_cast<std::size_t>(o.pass) - 1; }
  double x(double time) const { return margin_ + (std::clamp(time, from_, to_) - from_) * scale_; }

  void rect(std::string_view type, double left, double right, double y, double height) {
    out_ += concat({"<rect class=\"", type, "\" x=\""});
    append_number(out_, left);
    out_ += "\" y=\"";
    append_number(out_, y);
    out_ += "\" width=\"";
    append_number(out_, right - left);
    out_ += "\" height=\"";
    append_number(out_, height);
    out_ += "\"/>";
  }

  void draw_rank(std::uint32_t rank) {
    const double y = top + style_.row_height * rank;
    out_ += "<text x=\"12\" y=\"" + number(y + style_.row_height * 0.7) + "\">rank " + concat({rank}) + "</text>\n";
    out_ += "<rect fill=\"url(#idle)\" stroke=\"#bbb\" stroke-width=\".5\" x=\"" + number(x(from_)) + "\" y=\"" +
            number(y) + "\" width=\"" + number(x(to_) - x(from_)) + "\" height=\"" + number(style_.row_height) +
            "\"/>\n";
    for (std::size_t i = 0; i < t_[rank].size(); ++i)
      if (t_[rank][i].end > from_ && t_[rank][i].start < to_ && t_[rank][i].end > t_[rank][i].start)
        draw_cell(t_.schedule[rank][i], t_[rank][i], y);
  }

  void draw_cell(const cell& c, const interval& when, double y) {
    out_ += "<g><title>";
    append_cell(out_, c);
    out_ += ": ";
    append_number(out_, when.start);
    out_ += " to ";
    append_number(out_, when.end);
    out_ += "</title>";
    const double left = x(when.start), right = x(when.end);
    // In a pair each op gets a share of the width: an F one part, a B two, as in the papers.
    const double first = c[0].pass == pass::backward ? 2 : 1,
                 second = c.overlapped() && c[1].pass == pass::backward ? 2 : 1;
    const double middle = c.overlapped() ? left + (right - left) * first / (first + second) : right;
    draw_op(c[0], left, middle, y);
    if (c.overlapped()) {
      draw_op(c[1], middle, right, y);
      rect("pair", left, right, y, style_.row_height);
    }
    out_ += "</g>\n";
  }

  void draw_op(op o, double left, double right, double y) {
    const std::string_view type = letters[index_of(o)];
    rect(type, left, right, y, style_.row_height);
    if (o.chunk > 0 && right - left > 4) rect("later", left + 2, right - 2, y + style_.row_height - 3, 1.5);
    const std::string micro = concat({o.micro});
    if (right - left < 6.7 * static_cast<double>(micro.size()) + 2) return;
    out_ += concat({"<text class=\"", type, "t\" x=\""});
    append_number(out_, (left + right) / 2);
    out_ += "\" y=\"";
    append_number(out_, y + style_.row_height * 0.68);
    out_ += concat({"\">", micro, "</text>"});
  }

  void draw_axis(double y) {
    const double step = tick_distance(to_ - from_, std::max(2.0, (x(to_) - x(from_)) / 70));
    for (double tick = std::ceil(from_ / step) * step; tick <= to_ * (1 + 1e-12); tick += step) {
      out_ += "<line x1=\"" + number(x(tick)) + "\" x2=\"" + number(x(tick)) + "\" y1=\"" + number(y) + "\" y2=\"" +
              number(y + 5) + "\" stroke=\"#333\"/><text x=\"" + number(x(tick)) + "\" y=\"" + number(y + 18) +
              "\" text-anchor=\"middle\">" + number(tick) + "</text>\n";
    }
    out_ += "<text x=\"12\" y=\"" + number(y + 18) + "\">time</text>\n";
  }

  void draw_legend(double y) {
    constexpr std::string_view words[] = {"forward", "backward", "backward for inputs", "backward for weights"};
    double left = 12;
    const auto entry = [&](std::string_view word) {
      out_ += concat({"<text x=\"", number(left + 26), "\" y=\"", number(y + 1), "\">", word, "</text>\n"});
      left += 46 + 6.4 * static_cast<double>(word.size());
    };
    for (std::size_t i = 0; i < 4; ++i) {
      rect(letters[i], left, left + 20, y - 11, 15);
      entry(words[i]);
    }
    rect("F", left, left + 8, y - 11, 15);
    rect("B", left + 8, left + 20, y - 11, 15);
    rect("pair", left, left + 20, y - 11, 15);
    entry("overlapped");
    out_ += concat({"<rect fill=\"url(#idle)\" stroke=\"#bbb\" x=\"", number(left), "\" y=\"", number(y - 11),
                    "\" width=\"20\" height=\"15\"/>"});
    entry("idle");
    rect("later", left + 2, left + 18, y - 2, 1.5);
    entry("a later stage of the rank");
  }

  const timeline& t_;
  const svg_style& style_;
  metrics metrics_;
  double from_ = 0, to_ = 0, scale_ = 1, margin_ = 0;
  std::string out_;
};

}  // namespace detail

/// The picture. @pre t is true. Linear in the number of cells drawn.
/// @throws schedule_error when the stretch of time asked for is empty.
inline std::string render_svg(const timeline& t, const svg_style& style = {}) {
  return detail::svg_writer(t, style).draw();
}

}  // namespace pipesched
