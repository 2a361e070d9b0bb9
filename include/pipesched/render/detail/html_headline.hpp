// SPDX-License-Identifier: MIT
#pragma once

// The headline of a page: "DeepSeek-V3, 8 ranks, 20 micro-batches: dualpipe 4.09 s, 1f1b 6.28 s".

#include <algorithm>
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

// A time in a unit that a person reads: "4.09 s" for 4088.3 ms.
inline std::string time_text(double time, std::string_view unit, int digits = 3) {
  std::string text;
  const double seconds = unit == "s" ? time : unit == "ms" ? time * 1e-3 : time * 1e-6;
  if (unit.empty()) {
    append_real(text, time, std::max(digits, 4));
    return text;
  }
  const bool whole = std::fabs(seconds) >= 1, thousandths = std::fabs(seconds) >= 1e-3;
  append_real(text, whole ? seconds : thousandths ? seconds * 1e3 : seconds * 1e6, digits);
  return text + (whole ? " s" : thousandths ? " ms" : " us");
}

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
    if (style.front.size() > 1)
      text += concat({" with ", label(least.point.memory), " to ", label(most.point.memory), " live activations"});
    if (most.published)
      text += concat({"; ", most.point.published, " ", time_text(most.point.published_makespan, style.unit)});
    return text;
  }
  const auto named = named_in_headline(panels);
  for (const html_panel* p : named)
    text += concat({text.empty() ? "" : ", ", name_of(*p), " ", time_text(p->measured.makespan, style.unit)});
  if (named.size() == 1)
    text += concat({", idle ", number(std::round(1000 * named[0]->measured.bubble_ratio) / 10), " %"});
  return text;
}

inline std::string headline_of(std::span<const html_panel> panels, const html_style& style) {
  const std::string subject = std::string(style.subject) + sizes_of(panels);
  return (subject.starts_with(", ") ? subject.substr(2) : subject) + ": " + results_of(panels, style);
}

}  // namespace pipesched::detail
