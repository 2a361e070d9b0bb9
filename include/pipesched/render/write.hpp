// SPDX-License-Identifier: MIT
#pragma once

// The few pieces of text that all pictures share: numbers, escaped names, the facts of a timeline in a line.

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include "pipesched/error.hpp"
#include "pipesched/notation.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched::detail {

// A number with at most three decimals and no trailing zeroes; in exponent form where it is very large.
inline void append_number(std::string& to, double value) {
  if (!(std::fabs(value) < 1e15)) {
    to += std::to_string(value);
    return;
  }
  auto thousandths = static_cast<std::int64_t>(std::fabs(value) * 1000 + 0.5);
  if (value < 0 && thousandths != 0) to += '-';
  to += concat({thousandths / 1000});
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

// "dualpipe, 8 ranks, 20 micro-batches: makespan 66, idle 9.1 %, at most 9 activations a rank".
inline std::string facts_of(const timeline& t, const metrics& m) {
  return concat({std::string_view(t.schedule.name), t.schedule.forward_only ? ", forward only, " : ", ",
                 t.schedule.pp(), " ranks, ", t.schedule.micro, " micro-batches: makespan ", number(m.makespan),
                 ", idle ", number(std::round(1000 * m.bubble_ratio) / 10), " %, at most ", m.peak_activations,
                 " activations a rank"});
}

// A round distance between ticks so that at most `most` of them cover `length`.
inline double tick_distance(double length, double most) {
  if (!(length > 0)) return 1;
  const double ten = std::pow(10, std::floor(std::log10(length / most)));
  for (double step : {ten, 2 * ten, 5 * ten})
    if (length / step <= most) return step;
  return 10 * ten;
}

}  // namespace pipesched::detail
