// SPDX-License-Identifier: MIT
#pragma once

// A timeline as an SVG picture, the grid of the papers: one row per rank, orange F, green B (light for I), blue W, violet R, the
// number of the micro-batch in each cell that has room for it, overlapped pairs in one black frame, idle time hatched.
// The colours differ in lightness, so the picture survives a black-and-white printer. A bar under a cell marks the
// later stages of a rank, or replica 1. Every cell has a <title>, which a browser shows on hover. The picture has a
// viewBox and shrinks with its page.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "pipesched/core/op.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/render/write.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Fills and text colours, by pass: F, B, I, W, R.
struct palette {
  std::array<std::string_view, 5> fill = {"#fbbf5b", "#74b257", "#c4e6a6", "#3f78b5", "#cda5dc"};
  std::array<std::string_view, 5> text = {"#000", "#000", "#000", "#fff", "#000"};
};

struct svg_style {
  double width = 0;        ///< of the cells, in pixels. 0: 22 for the shortest cell, within
                           ///< 400 and 1500 in all
  double row_height = 22;  ///< in pixels
  double from = 0;         ///< start of the stretch of time that is drawn
  double to = std::numeric_limits<double>::infinity();  ///< its end; default: the makespan
  std::string_view title{};                             ///< default: name, size, makespan, idle share and peak
  palette colours{};
};

namespace detail {

class svg_writer {
 public:
  svg_writer(const timeline& t, const svg_style& style) : t_(t), style_(style) {
    require_timeline(t);
    metrics_ = measure(t, uniform_costs{}, verified);
    const double end = metrics_.makespan > 0 ? metrics_.makespan : 1;  // nothing takes time: an empty row per rank
    from_ = style.from, length_ = std::min(style.to, end) - style.from;
    if (!(from_ >= 0 && length_ > 0))
      throw schedule_error("a picture shows a stretch of time from 0 to the makespan " + label(metrics_.makespan) +
                           "; got " + label(style.from) + " to " + label(style.to));
    for (const auto& [value, name] : {std::pair(style.width, "width"), std::pair(style.row_height, "row_height")})
      if (!(value >= 0 && value <= 1e6) || (value == 0 && name == std::string_view("row_height")))
        throw schedule_error(concat({"a picture has a ", name, " of up to 1e6 pixels; got ", value}));
    cells_width_ = style.width > 0 ? style.width : default_width();
    margin_ = 24 + 7.5 * static_cast<double>(concat({"rank ", t.schedule.pp()}).size());
  }

  std::string draw() {
    const std::string title = style_.title.empty() ? facts_of(t_, metrics_) : std::string(style_.title);
    const double width = std::max({margin_ + cells_width_ + 24, 640.0, 24 + 7.2 * static_cast<double>(title.size())});
    const double bottom = top + style_.row_height * t_.schedule.pp();
    out_ +=
        "<defs><pattern id=\"idle\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
        "patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"#fff\"/>"
        "<line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\" stroke=\"#bbb\" stroke-width=\"1.5\"/></pattern></defs>\n<style>";
    for (std::size_t i = 0; i < passes_; ++i)
      out_ += concat({".", letters[i], "{fill:", style_.colours.fill[i], ";stroke:#333;stroke-width:.6}.", letters[i],
                      "t{fill:", style_.colours.text[i], "}"});
    out_ +=
        ".pair{fill:none;stroke:#000;stroke-width:2}.thin{stroke-width:.8}.later{stroke:#000;stroke-width:1.5}"
        ".idle{fill:url(#idle);stroke:#bbb;stroke-width:.5}</style>\n"
        "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"12\" y=\"20\" font-size=\"14\">" +
        escaped(title) + "</text>\n";
    for (std::uint32_t rank = 0; rank < t_.schedule.pp(); ++rank) draw_rank(rank);
    draw_axis(bottom);
    const double height = draw_legend(bottom + 58, width) + 18;
    const std::string w = number(width), h = number(height);
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + w + "\" height=\"" + h + "\" viewBox=\"0 0 " + w +
           ' ' + h +
           "\" style=\"max-width:100%;height:auto\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\">\n" +
           out_ + "</svg>\n";
  }

 private:
  static constexpr double top = 32;
  static constexpr std::array<std::string_view, 5> letters = {"F", "B", "I", "W", "R"};

  static std::size_t index_of(op o) { return static_cast<std::size_t>(without_recompute(o.pass)) - 1; }
  // A quotient of times: right for any unit, also where the length is too small to divide by.
  double x(double time) const { return margin_ + std::clamp((time - from_) / length_, 0.0, 1.0) * cells_width_; }

  // 22 pixels for the shortest cell, but for those that are a hundred times as short as the longest.
  double default_width() const {
    const double shortest = shortest_visible(t_);
    return shortest > 0 ? std::clamp(22 * (length_ / shortest), 400.0, 1500.0) : 400;
  }

  void rect(std::string_view type, double left, double right, double y, double height) {
    out_ += "<rect class=\"";
    out_ += type;
    out_ += "\" x=\"";
    append_number(out_, left);
    out_ += "\" y=\"";
    append_number(out_, y);
    out_ += "\" width=\"";
    append_number(out_, right - left);
    out_ += "\" height=\"";
    append_number(out_, height);
    out_ += "\"/>";
  }

  void bar(double left, double right, double y) {
    out_ += "<path class=\"later\" d=\"M";
    append_number(out_, left);
    out_ += ' ';
    append_number(out_, y);
    out_ += 'h';
    append_number(out_, right - left);
    out_ += "\"/>";
  }

  // A row far lower than a line of text carries none.
  bool has_text() const { return style_.row_height >= 10; }
  double baseline(double y) const { return y + std::floor(style_.row_height / 2 + 4.5); }

  void draw_rank(std::uint32_t rank) {
    const double y = top + style_.row_height * rank;
    if (has_text()) out_ += concat({"<text x=\"12\" y=\"", number(baseline(y)), "\">rank ", rank, "</text>\n"});
    rect("idle", margin_, margin_ + cells_width_, y, style_.row_height);
    out_ += "\n<g text-anchor=\"middle\">\n";
    for (std::size_t i = 0; i < t_[rank].size(); ++i)
      if (t_[rank][i].end > from_ && t_[rank][i].start - from_ < length_ && t_[rank][i].end > t_[rank][i].start)
        draw_cell(t_.schedule[rank][i], t_[rank][i], y);
    out_ += "</g>\n";
  }

  void draw_cell(const cell& c, const interval& when, double y) {
    out_ += "<g><title>";
    append_cell(out_, c);
    out_ += ": ";
    append_label(out_, when.start);
    out_ += " to ";
    append_label(out_, when.end);
    out_ += "</title>";
    const double left = x(when.start), right = x(when.end);
    // In a pair the width is divided: an F has one part, a B two, as in the papers.
    const double first = unit_duration(c[0].pass), second = c.overlapped() ? unit_duration(c[1].pass) : 0;
    const double middle = c.overlapped() ? left + (right - left) * first / (first + second) : right;
    draw_parts(c[0], left, middle, y);
    if (c.overlapped()) {
      draw_parts(c[1], middle, right, y);
      rect(right - left < 16 ? "pair thin" : "pair", left, right, y, style_.row_height);
    }
    out_ += "</g>\n";
  }

  // A backward that recomputes inside begins with a part in the colour of R.
  void draw_parts(op o, double left, double right, double y) {
    if (o.pass == without_recompute(o.pass)) return draw_op(o, left, right, y);
    const double again = left + (right - left) / unit_duration(o.pass);
    rect("R", left, again, y, style_.row_height);
    draw_op(with_pass(o, without_recompute(o.pass)), again, right, y);
  }

  void draw_op(op o, double left, double right, double y) {
    const std::string_view type = letters[index_of(o)];
    rect(type, left, right, y, style_.row_height);
    if (o.chunk > 0 && right - left > 4) bar(left + 2, right - 2, y + style_.row_height - 2);
    const std::string micro = concat({o.micro});
    if (!has_text() || right - left < 6.7 * static_cast<double>(micro.size()) + 2) return;
    out_ += style_.colours.text[index_of(o)] == "#000" ? concat({"<text x=\""})  // black needs no class
                                                       : concat({"<text class=\"", type, "t\" x=\""});
    append_number(out_, (left + right) / 2);
    out_ += "\" y=\"";
    append_number(out_, baseline(y));
    out_ += concat({"\">", micro, "</text>"});
  }

  void draw_axis(double y) {
    for (double tick : ticks(from_, from_ + length_, std::max(2.0, cells_width_ / 70))) {
      const std::string at = number(x(tick));
      out_ += concat({"<line x1=\"", at, "\" x2=\"", at, "\" y1=\"", number(y), "\" y2=\"", number(y + 5),
                      "\" stroke=\"#333\"/><text x=\"", at, "\" y=\"", number(y + 18), "\" text-anchor=\"middle\">",
                      label(tick), "</text>\n"});
    }
    out_ += "<text x=\"12\" y=\"" + number(y + 18) + "\">time</text>\n";
  }

  // Begins a new line where the width is used up; returns the baseline of the last one.
  double draw_legend(double y, double width) {
    double left = 12;
    const auto entry = [&](std::string_view words, auto draw_sample) {
      const double needed = 26 + 6.6 * static_cast<double>(words.size());
      if (left > 12 && left + needed > width - 12) left = 12, y += 22;
      draw_sample();
      out_ += concat({"<text x=\"", number(left + 26), "\" y=\"", number(y + 1), "\">", words, "</text>\n"});
      left += needed + 16;
    };
    constexpr std::string_view words[] = {"forward", "backward", "backward for inputs", "backward for weights",
                                          "recompute"};
    for (std::size_t i = 0; i < passes_; ++i) entry(words[i], [&] { rect(letters[i], left, left + 20, y - 11, 15); });
    entry("overlapped pair", [&] {
      rect("F", left, left + 8, y - 11, 15);
      rect("B", left + 8, left + 20, y - 11, 15);
      rect("pair", left, left + 20, y - 11, 15);
    });
    entry("idle", [&] { rect("idle", left, left + 20, y - 11, 15); });
    const placement& stages = t_.schedule.placement;
    const bool two = stages.replicas() == 2;
    const bool more = stages.stages() > stages.ranks();
    if (two || more)
      entry(two ? more ? "replica 1, or a later stage of the rank" : "replica 1" : "a later stage of the rank",
            [&] { bar(left + 2, left + 18, y - 3); });
    entry("in a cell: its micro-batch", [&] {
      out_ += concat({"<text x=\"", number(left + 10), "\" y=\"", number(y + 1), "\" text-anchor=\"middle\">7</text>"});
    });
    if (more && style_.title.empty()) entry("1 activation: a micro-batch through all stages of a rank", [] {});
    return y;
  }

  const timeline& t_;
  const svg_style& style_;
  metrics metrics_;
  std::size_t passes_ = recomputed_ops(t_.schedule).any() ? 5 : 4;  // with R if there is one
  double from_ = 0, length_ = 0;                                    // of the stretch of time
  double margin_ = 0, cells_width_ = 0;                             // pixels before the cells, and of the cells
  std::string out_;
};

}  // namespace detail

/// Draws the picture. Linear in the number of cells.
/// @throws schedule_error unless the timeline has one interval of finite times per cell and a valid schedule, the stretch of
/// time is not empty, and every size is a number from 0 to 1e6.
inline std::string render_svg(const timeline& t, const svg_style& style = {}) {
  return detail::svg_writer(t, style).draw();
}

}  // namespace pipesched
