// SPDX-License-Identifier: MIT
#pragma once

// The headline of a page: "DeepSeek-V3, 8 ranks, 20 micro-batches: dualpipe 4.09 s, 1f1b 6.28 s".

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/generate/1f1b.hpp"
#include "pipesched/render/html_panel.hpp"
#include "pipesched/render/html_style.hpp"
#include "pipesched/render/write.hpp"

namespace pipesched::detail {

inline std::string_view name_of(const html_panel& p) {
  return p.name.empty() ? std::string_view(p.timeline.schedule.name) : std::string_view(p.name);
}

// A number with so many decimals as toFixed() and toPrecision() of the page's script round it: away from zero if it lies exactly
// halfway, as 0.25 does, where std::to_chars() rounds to even.
inline std::string page_decimals(double value, std::chars_format format, int decimals) {
  std::array<char, 1500> text{};  // for all digits of any double
  const auto written = [&](double number, int precision) {
    return std::string(text.data(),
                       std::to_chars(text.data(), text.data() + text.size(), number, format, precision).ptr);
  };
  std::string exact = written(value, 1100);
  const std::size_t point = exact.find('.');
  if (point == exact.npos) return exact;  // not finite
  const std::size_t cut = point + 1 + static_cast<std::size_t>(decimals), rest = exact.find_first_not_of('0', cut + 1);
  const bool is_halfway = exact[cut] == '5' && (rest == exact.npos || exact[rest] == 'e');
  return written(is_halfway ? std::nextafter(value, 2 * value) : value, decimals);
}

// A number as format() of the page's script writes it: so many digits, and no exponent from 1e-4 to 1e8.
inline std::string page_number(double value, int digits) {
  if (value == 0) return "0";
  std::string scientific = page_decimals(value, std::chars_format::scientific, digits - 1);
  const std::size_t e = scientific.find('e');
  if (e == scientific.npos) return scientific;  // not finite
  int exponent = 0;
  std::from_chars(scientific.data() + e + (scientific[e + 1] == '+' ? 2 : 1), scientific.data() + scientific.size(),
                  exponent);
  const bool plain = exponent >= -4 && exponent < 8;
  std::string number = scientific.substr(0, e);
  if (plain && exponent < digits) {
    number = page_decimals(value, std::chars_format::fixed, std::max(0, digits - 1 - exponent));
  } else if (plain) {
    std::erase(number, '.');
    for (int i = digits - 1; i < exponent; ++i) number += '0';
  }
  if (number.find('.') != number.npos) {
    number.erase(number.find_last_not_of('0') + 1);
    if (number.back() == '.') number.pop_back();
  }
  return plain ? number : concat({number, exponent < 0 ? "e" : "e+", exponent});
}

// A time in a unit that a person reads, as the page's script: "4.09 s" for 4088.3 ms.
inline std::string time_text(double time, std::string_view unit, int digits = 3) {
  if (unit.empty()) return page_number(time, std::max(digits, 4));
  const double seconds = unit == "s" ? 1 : unit == "ms" ? 1e-3 : 1e-6, size = std::fabs(time) * seconds;
  if (size >= 1 || size == 0) return page_number(time * seconds, digits) + " s";
  if (size >= 1e-3) return page_number(time * (seconds / 1e-3), digits) + " ms";
  if (size >= 1e-6) return page_number(time * (seconds / 1e-6), digits) + " \u00b5s";
  return page_number(time * (seconds / 1e-9), digits) + " ns";
}

// A part as percent() of the page's script writes it: "27.3 %".
inline std::string percent_text(double part) { return page_decimals(100 * part, std::chars_format::fixed, 1) + " %"; }

// ", 8 ranks, 20 micro-batches", of the sizes that all panels share.
inline std::string sizes_of(std::span<const html_panel> panels) {
  const schedule& first = panels[0].timeline.schedule;
  const auto all = [&](auto&& same) {
    return std::all_of(panels.begin(), panels.end(), [&](const html_panel& p) { return same(p.timeline.schedule); });
  };
  std::string text;
  if (all([&](const schedule& s) { return s.pp() == first.pp(); })) text += ", " + count_text(first.pp(), "rank");
  if (all([&](const schedule& s) { return s.micro == first.micro; }))
    text += ", " + count_text(first.micro, "micro-batch");
  if (all([](const schedule& s) { return s.forward_only; })) text += ", forward only";
  return text;
}

// The shortest panel of those that may be taken, the first of equal ones; none may be.
template <typename Predicate>
const html_panel* shortest(std::span<const html_panel> panels, Predicate&& may) {
  const html_panel* best = nullptr;
  for (const html_panel& p : panels)
    if (may(p) && (best == nullptr || p.measured.makespan < best->measured.makespan)) best = &p;
  return best;
}

// The panels that a headline names: the plan or the shortest, the next one that is longer, and 1F1B, which readers know.
inline std::vector<const html_panel*> named_in_headline(std::span<const html_panel> panels) {
  const html_panel* first = shortest(panels, [](const html_panel& p) { return p.planned; });
  if (first == nullptr) first = shortest(panels, [](const html_panel&) { return true; });
  std::vector<const html_panel*> named = {first};
  const auto add = [&](const html_panel* p) {
    if (p != nullptr && std::find(named.begin(), named.end(), p) == named.end()) named.push_back(p);
  };
  add(shortest(panels, [&](const html_panel& p) {
    return !p.planned && (first->planned || p.measured.makespan > first->measured.makespan);
  }));
  add(shortest(panels, [](const html_panel& p) { return p.timeline.schedule.name.view() == one_f_one_b_family.name; }));
  return named;
}

inline std::string results_of(std::span<const html_panel> panels, const html_style& style) {
  std::string text;
  if (!style.front.empty()) {
    const html_front_point &least = style.front.front(), &most = style.front.back();
    const std::string longest = time_text(least.point.makespan, style.unit),
                      shortest = time_text(most.point.makespan, style.unit);
    text = "planned " + longest;
    if (longest != shortest) text += " to " + shortest;
    if (style.front.size() > 1) {
      const memory_axis axis = memory_axis_of(style.memory, most.point.memory);
      text += concat({" with ", page_number(least.point.memory / axis.scale, 4), " to ",
                      page_number(most.point.memory / axis.scale, 4), " ", axis.unit,
                      style.memory == memory_unit::bytes ? " per rank" : ""});
    }
    if (most.published)
      text += concat({"; ", most.point.published, " ", time_text(most.point.published_makespan, style.unit)});
    return text;
  }
  const auto named = named_in_headline(panels);
  for (const html_panel* p : named)
    text += concat({text.empty() ? "" : ", ", name_of(*p), " ", time_text(p->measured.makespan, style.unit)});
  if (named.size() == 1) text += ", idle " + percent_text(named[0]->measured.bubble_ratio);
  return text;
}

inline std::string headline_of(std::span<const html_panel> panels, const html_style& style) {
  const std::string subject = std::string(style.subject) + sizes_of(panels);
  return (subject.starts_with(", ") ? subject.substr(2) : subject) + ": " + results_of(panels, style);
}

}  // namespace pipesched::detail
