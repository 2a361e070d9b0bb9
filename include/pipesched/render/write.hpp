// SPDX-License-Identifier: MIT
#pragma once

// Helpers that all pictures share: numbers, escaped names, and the facts of a timeline in one line.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/notation.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/concat.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

// A number with at most three decimals and no trailing zeroes: pixels, percentages.
inline void append_number(std::string& to, double value) {
  if (!(std::fabs(value) < 1e15)) {
    to += std::to_string(value);
    return;
  }
  auto thousandths = static_cast<std::int64_t>(std::fabs(value) * 1000 + 0.5);
  if (value < 0 && thousandths != 0) to += '-';
  char whole[20];
  to.append(whole, write_number(whole, static_cast<std::uint64_t>(thousandths / 1000)));
  thousandths %= 1000;
  if (thousandths == 0) return;
  const char digits[] = {'.', static_cast<char>('0' + thousandths / 100),
                         static_cast<char>('0' + thousandths / 10 % 10), static_cast<char>('0' + thousandths % 10)};
  to.append(digits, thousandths % 10 != 0 ? 4 : thousandths % 100 != 0 ? 3 : 2);
}

inline std::string number(double value) {
  std::string text;
  append_number(text, value);
  return text;
}

// A time or an amount with so many significant digits, whatever its unit: 66, 0.125, 6.6e-05, 1e+300. Valid in JSON.
inline void append_digits(std::string& to, double value, int digits) {
  const double thousandths = std::fabs(value) * 1000;
  if (thousandths < 1e9 && std::fabs(thousandths - std::floor(thousandths + 0.5)) <= 1e-12 * thousandths)
    return append_number(to, value);  // the common case, several times as fast
  append_real(to, value, digits);
}

// Data that a program reads back: twelve digits.
inline void append_value(std::string& to, double value) { append_digits(to, value, 12); }

// A label that a person reads: seven digits.
inline void append_label(std::string& to, double value) { append_digits(to, value, 7); }
inline std::string label(double value) {
  std::string text;
  append_label(text, value);
  return text;
}

// Text inside XML, HTML or a script in HTML.
inline std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
  }
  return out;
}

inline void append_cell(std::string& to, const cell& c) {
  char text[max_cell_text];
  to.append(text, write_cell(text, c));
}

// "dualpipe, 8 ranks, 20 micro-batches: makespan 66, idle 9.1 %, at most 9 activations per rank".
inline std::string facts_of(const timeline& t, const metrics& m) {
  return concat({std::string_view(t.schedule.name), t.schedule.forward_only ? ", forward only, " : ", ",
                 count_text(t.schedule.pp(), "rank"), ", ", count_text(t.schedule.micro, "micro-batch"), ": makespan ",
                 label(m.makespan), ", idle ", number(std::round(1000 * m.bubble_ratio) / 10), " %, at most ",
                 label(m.peak_activations),
                 m.peak_activations == 1 ? " activation per rank" : " activations per rank"});
}

// Times of ticks at round distances, at most `max_ticks` + 1 of them.
inline std::vector<double> ticks(double from, double to, double max_ticks) {
  const double length = to - from, ten = std::pow(10, std::floor(std::log10(length / max_ticks)));
  double step = 10 * ten;
  for (const double round : {5 * ten, 2 * ten, ten})
    if (length / round <= max_ticks) step = round;
  if (!(step > 0)) return {from};  // too short for a round number
  std::vector<double> times;
  const double first = std::ceil(from / step);
  for (int i = 0; i <= static_cast<int>(max_ticks) && (first + i) * step <= from + length * (1 + 1e-12); ++i)
    times.push_back((first + i) * step);
  return times;
}

// The shortest cell, of those that last at least a hundredth of the longest; 0 where no cell takes time. Cells below
// that are lost in a picture in any case, and would stretch it without a bound.
inline double shortest_visible(const timeline& t) {
  double longest = 0;
  for (const interval& i : t.intervals.all()) longest = std::max(longest, i.end - i.start);
  double shortest = longest;
  for (const interval& i : t.intervals.all())
    if (const double length = i.end - i.start; length > 0 && length >= longest / 100)
      shortest = std::min(shortest, length);
  return shortest;
}

}  // namespace pipesched::detail
