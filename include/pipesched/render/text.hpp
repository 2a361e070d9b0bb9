// SPDX-License-Identifier: MIT
#pragma once

// A timeline as text, the grid of the papers: one line per rank, one column per unit of time.
//
//   F7   B12   I3   W3     a cell of the rank's first stage, as wide as it lasts
//   f7   b12   i3   w3     a cell of another stage of the rank
//   [F7&b13  ]             an overlapped cell
//   .                      the rank waits

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/render/write.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

struct text_style {
  bool colour = false;  ///< adds ANSI colours, with the same characters: orange F, green B and I, blue W, violet R
  std::size_t width =
      0;            ///< characters per line at most; a longer grid is folded. A line has one column at least. 0: no
                    ///< fold, and lines of at most 10000 columns, fewer from 5000 ranks on
  double unit = 0;  ///< time per column; a cell shorter than half of it may vanish. 0: the shortest cell's that
                    ///< lasts at least a hundredth of the longest, or more where a line is longer than that
  std::size_t column = 0;  ///< characters per column. 0: the longest name's, and a space unless there is colour; fewer
                           ///< where most cells last several columns
};

namespace detail {

class text_grid {
 public:
  text_grid(const timeline& t, const text_style& style) : t_(t), style_(style) {
    const std::size_t name_size = 1 + std::to_string(std::max(t.schedule.micro, 1u) - 1).size();
    unit_ = style.column > 0 ? style.column : column_for(std::max<std::size_t>(3, name_size + (style.colour ? 0 : 1)));
    margin_ = std::string_view("rank  ").size() + std::to_string(std::max(t.schedule.pp(), 1u) - 1).size() + 1;
    columns_ = 1;  // also where nothing takes time
    for (const interval& i : t.intervals.all()) columns_ = std::max(columns_, column(i.end));
  }

  std::string draw() {
    std::size_t fold = columns_;
    if (style_.width > 0) fold = std::max<std::size_t>(1, (std::max(style_.width, margin_) - margin_) / unit_);
    std::string text;
    for (from_ = 0; from_ < columns_; from_ += fold) {
      to_ = std::min(from_ + fold, columns_);
      if (from_ > 0) text += '\n';
      begin_line("time");
      draw_axis();
      end_line(text);
      for (std::uint32_t rank = 0; rank < t_.schedule.pp(); ++rank) {
        begin_line("rank " + std::to_string(rank));
        draw_rank(rank);
        end_line(text);
      }
    }
    return text;
  }

 private:
  struct glyph {
    char character = ' ';
    unsigned char colour = 0;  // of the 256 of terminals; 0: none
  };

  // Characters per column, so that cells of mean length have room for a name of that size and more.
  std::size_t column_for(std::size_t name_size) const {
    double busy = 0, cells = 0;
    for (const interval& i : t_.intervals.all())
      if (i.end > i.start) busy += i.end - i.start, ++cells;
    const double columns = cells > 0 ? busy / cells / style_.unit : 1;  // of a mean cell
    const double roomy = 3 * static_cast<double>(name_size) / std::max(columns, 1.0);
    return std::clamp<std::size_t>(static_cast<std::size_t>(roomy), 1, name_size);
  }
  std::size_t column(double time) const { return static_cast<std::size_t>(std::max(0.0, time / style_.unit) + 0.5); }

  void begin_line(std::string_view head) {
    line_.assign(margin_ + (to_ - from_) * unit_, {});
    for (std::size_t i = 0; i < head.size(); ++i) line_[i].character = head[i];
  }

  // Writes characters from a column of the whole grid on; leaves out those outside of this fold.
  void put(std::size_t at_column, std::string_view characters, unsigned char colour = 0) {
    put_at(at_column * unit_, characters, colour);
  }
  void put_at(std::size_t at, std::string_view characters, unsigned char colour) {
    for (std::size_t i = 0; i < characters.size(); ++i)
      if (at + i >= from_ * unit_ && at + i < to_ * unit_)
        line_[margin_ + at + i - from_ * unit_] = {characters[i], colour};
  }

  void end_line(std::string& text) const {
    std::size_t size = line_.size();
    while (size > 0 && line_[size - 1].character == ' ' && line_[size - 1].colour == 0) --size;
    unsigned char colour = 0;
    for (std::size_t i = 0; i < size; ++i) {
      if (style_.colour && line_[i].colour != colour) {
        colour = line_[i].colour;
        text += colour == 0 ? "\x1b[0m" : "\x1b[38;5;16;48;5;" + std::to_string(colour) + "m";
      }
      text += line_[i].character;
    }
    if (colour != 0) text += "\x1b[0m";
    while (!style_.colour && text.back() == ' ') text.pop_back();
    text += '\n';
  }

  // Labels are rounded to whole units of time where that keeps them at least two apart.
  void draw_axis() {
    const std::size_t step = columns_ * unit_ > 4000 ? 50 : unit_ < 3 ? 20 : 5;  // wider than any label
    const double distance = static_cast<double>(step) * style_.unit;
    for (std::size_t c = (from_ + step - 1) / step * step; c < to_; c += step) {
      const double time = static_cast<double>(c) * style_.unit;
      const bool whole = distance >= 2 && time < 1e15;
      const std::string text = whole ? number(std::floor(time + 0.5)) : concat({time});
      const std::size_t at = margin_ + (c - from_) * unit_, end = at + text.size();
      if (style_.width > 0 && end > style_.width) break;  // a label cut short would be another number
      if (end > line_.size()) line_.resize(end);
      for (std::size_t i = 0; i < text.size(); ++i) line_[at + i].character = text[i];
    }
  }

  void draw_rank(std::uint32_t rank) {
    for (std::size_t c = from_; c < to_; ++c) put(c, ".");
    const auto row = t_[rank];
    const auto visible =
        std::partition_point(row.begin(), row.end(), [&](const interval& i) { return column(i.end) <= from_; });
    for (auto i = static_cast<std::size_t>(visible - row.begin()); i < row.size(); ++i) {
      const std::size_t first = column(row[i].start), last = column(row[i].end);
      if (first >= to_) break;
      if (first < last) draw_cell(t_.schedule[rank][i], first * unit_, (last - first) * unit_);
    }
  }

  void draw_cell(const cell& c, std::size_t at, std::size_t width) {
    if (!c.overlapped()) return put_at(at, fitted(name(c[0]), width), colour_of(c[0]));
    const std::string first = name(c[0]), left = fitted('[' + first + '&', std::min(width - 1, first.size() + 2));
    put_at(at, left, colour_of(c[0]));
    put_at(at + left.size(), fitted(name(c[1]), width - 1 - left.size()) + ']', colour_of(c[1]));
  }

  static std::string name(op o) {
    constexpr char to_lower_case = 'a' - 'A';
    std::string text(pipesched::name(o.pass));
    if (o.chunk > 0)
      for (char& c : text) c = static_cast<char>(c + to_lower_case);
    return text + std::to_string(o.micro);
  }
  // A name in so many characters: without its number where that has no room, as a number cut short would be another.
  static std::string fitted(std::string text, std::size_t width) {
    if (text.size() > width) text.erase(std::min(text.find_first_of("0123456789"), text.size()));
    text.resize(width, ' ');
    return text;
  }
  // The first chunk of a rank in light colours, the others in dark ones.
  static unsigned char colour_of(op o) {
    const bool light = o.chunk == 0;
    switch (without_recompute(o.pass)) {
      case pass::forward: return light ? 222 : 215;
      case pass::backward: return light ? 114 : 77;
      case pass::backward_input: return light ? 157 : 120;
      case pass::backward_weight: return light ? 153 : 111;
      case pass::recompute: return light ? 183 : 140;
      default: break;
    }
    return 0;
  }

  const timeline& t_;
  text_style style_;
  std::size_t unit_ = 0, margin_ = 0, columns_ = 0;  // characters a column, characters before column 0, columns
  std::size_t from_ = 0, to_ = 0;                    // the columns of this fold
  std::vector<glyph> line_;
};

}  // namespace detail

/// Draws the grid of a timeline. Linear in ranks x (cells + columns).
/// @throws schedule_error unless the timeline has one interval of finite times per cell and a valid schedule, and the unit is
/// positive or 0 and makes no line longer than 10000 columns, or 50 million columns over all ranks; for more than 100 characters
/// per column.
inline std::string render_text(const timeline& t, text_style style = {}) {
  detail::require_timeline(t);
  constexpr std::size_t max_column = 100;
  if (style.column > max_column)
    throw schedule_error(detail::concat({"a text grid takes at most ", max_column, " characters per column; got ",
                                         style.column, ", nearest ", max_column}));
  const double max_columns = std::min(10000., std::max(1., std::floor(5e7 / static_cast<double>(t.intervals.size()))));
  double end = 0;
  for (const interval& i : t.intervals.all()) end = std::max(end, i.end);
  if (style.unit == 0) {
    style.unit = std::max(detail::shortest_visible(t), end / max_columns);
    if (end / style.unit > max_columns || !(style.unit > 0))
      style.unit = end > 0 ? end : 1;  // denormal, or no time at all
  }
  if (!(style.unit > 0) || !(end / style.unit <= max_columns * (1 + 1e-9)))
    throw schedule_error(detail::concat({"a text grid of ", detail::count_text(t.intervals.size(), "rank"),
                                         " takes a unit of time that gives at most ", max_columns, " columns; got ",
                                         style.unit, " for ", end, ", nearest ", end / max_columns}));
  return detail::text_grid(t, style).draw();
}

/// Draws the grid of a schedule: every F, I and W lasts one column, a B two, an overlapped cell the sum of its ops.
/// @throws schedule_error with the first violation if the schedule is not valid.
inline std::string render_text(const schedule& s, const text_style& style = {}) {
  return render_text(simulate(s), style);
}

}  // namespace pipesched
