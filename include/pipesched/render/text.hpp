// SPDX-License-Identifier: MIT
#pragma once

// A timeline as text, the grid of the papers: a line a rank, a column a unit of time.
//
//   F7   B12   I3   W3     a cell, as wide as it lasts, of the rank's first stage
//   f7   b12   i3   w3     the same of another of its stages
//   [F7&b13  ]             an overlapped cell
//   .                      the rank waits

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/op.hpp"
#include "pipesched/schedule.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

struct text_style {
  bool colour = false;    ///< ANSI colours behind the same characters: orange F, green B and I, blue W
  std::size_t width = 0;  ///< characters a line at most; longer grids are folded. 0: never
  double unit = 0;  ///< time that one column stands for; a cell that is shorter than half of it may vanish. 0: the
                    ///< shortest cell's, or more where a line would be longer than 10000 columns
  std::size_t column = 0;  ///< characters a column. 0: as the longest name needs, and a space where there is no colour
};

namespace detail {

class text_grid {
 public:
  text_grid(const timeline& t, const text_style& style) : t_(t), style_(style) {
    const std::size_t name_size = 1 + std::to_string(std::max(t.schedule.micro, 1u) - 1).size();
    unit_ = style.column > 0 ? style.column : std::max<std::size_t>(3, name_size + (style.colour ? 0 : 1));
    margin_ = std::string_view("rank  ").size() + std::to_string(std::max(t.schedule.pp(), 1u) - 1).size() + 1;
    for (const interval& i : t.intervals.all()) columns_ = std::max(columns_, column(i.end));
  }

  std::string draw() {
    std::size_t fold = columns_;
    if (style_.width > margin_) fold = std::max<std::size_t>(1, (style_.width - margin_) / unit_);
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

  std::size_t column(double time) const { return static_cast<std::size_t>(std::max(0.0, time / style_.unit) + 0.5); }

  void begin_line(std::string_view head) {
    line_.assign(margin_ + (to_ - from_) * unit_, {});
    for (std::size_t i = 0; i < head.size(); ++i) line_[i].character = head[i];
  }

  // Puts characters at a column of the whole grid and on; what is not in this fold falls away.
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

  void draw_axis() {
    const std::size_t step = columns_ * unit_ > 4000 ? 50 : 5;
    for (std::size_t c = (from_ + step - 1) / step * step; c < to_; c += step)
      put(c, std::to_string(static_cast<long long>(static_cast<double>(c) * style_.unit + 0.5)));
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
    const std::string first = name(c[0]);
    if (!c.overlapped()) return put_at(at, fitted(first, width), colour_of(c[0]));
    const std::string left = fitted('[' + first + '&', std::min(width - 1, first.size() + 2));
    put_at(at, left, colour_of(c[0]));
    put_at(at + left.size(), fitted(name(c[1]), width - 1 - left.size()) + ']', colour_of(c[1]));
  }

  static std::string name(op o) {
    constexpr char to_lower_case = 'a' - 'A';
    return static_cast<char>(letter(o.pass) + (o.chunk == 0 ? 0 : to_lower_case)) + std::to_string(o.micro);
  }
  static std::string fitted(std::string text, std::size_t width) {
    text.resize(width, ' ');
    return text;
  }
  // The first chunk of a rank in light colours, the others in dark ones.
  static unsigned char colour_of(op o) {
    const bool light = o.chunk == 0;
    switch (o.pass) {
      case pass::forward: return light ? 222 : 215;
      case pass::backward: return light ? 114 : 77;
      case pass::backward_input: return light ? 157 : 120;
      case pass::backward_weight: return light ? 153 : 111;
      case pass::none: break;
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

/// The grid of a timeline. @pre t is true. Linear in ranks x (cells + columns).
/// @throws schedule_error when the unit is negative or no number, or makes a line longer than 10000 columns.
inline std::string render_text(const timeline& t, text_style style = {}) {
  constexpr double max_columns = 10000;
  double end = 0, shortest = 0;
  for (const interval& i : t.intervals.all()) {
    end = std::max(end, i.end);
    if (i.end > i.start && (shortest == 0 || i.end - i.start < shortest)) shortest = i.end - i.start;
  }
  if (style.unit == 0) style.unit = std::max({shortest, end / max_columns, 1e-300});
  if (!(style.unit > 0) || !(end / style.unit <= max_columns * (1 + 1e-9)))
    throw schedule_error("a text grid takes a unit of time that gives at most 10000 columns; got " +
                         std::to_string(style.unit) + " for " + std::to_string(end) + ", nearest " +
                         std::to_string(end / max_columns));
  return detail::text_grid(t, style).draw();
}

/// The grid of a schedule, every F, I and W lasting one column, a B two, an overlapped cell the sum of its ops; a
/// report where the schedule is not valid.
inline std::string render_text(const schedule& s, const text_style& style = {}) {
  const timeline t = simulate(s);
  return render_text(t, style);
}

}  // namespace pipesched
