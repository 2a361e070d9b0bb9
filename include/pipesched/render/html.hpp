// SPDX-License-Identifier: MIT
#pragma once

// Timelines as one self-contained page that opens from disk, without a server or the network. It opens with a bar a
// schedule or the front of a plan; a click opens schedules, fitted to the window whatever the unit of time, under one axis,
// with the inputs and users of a cell, the longest stalls, the critical path and the live memory. The address keeps the
// view, and a button makes a picture of it. Mouse or keyboard; light and dark.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/render/detail/html_controls.hpp"
#include "pipesched/render/detail/html_data.hpp"
#include "pipesched/render/detail/html_events.hpp"
#include "pipesched/render/detail/html_headline.hpp"
#include "pipesched/render/detail/html_overview.hpp"
#include "pipesched/render/detail/html_schedule.hpp"
#include "pipesched/render/detail/html_style.hpp"
#include "pipesched/render/detail/pack_timeline.hpp"
#include "pipesched/render/html_panel.hpp"
#include "pipesched/render/html_style.hpp"
#include "pipesched/render/write.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

namespace detail {

class html_writer {
 public:
  html_writer(std::span<const html_panel> panels, const html_style& style) : panels_(panels), style_(style) {
    if (panels.empty()) throw schedule_error("a page shows at least one timeline; got none");
    for (const html_panel& p : panels) {
      require_timeline(p.timeline);
      if (!std::isfinite(p.lower_bound))
        throw schedule_error(concat({"a page shows finite bounds; got ", p.lower_bound}));
      for (const auto& of : p.bytes)
        for (double bytes : of)
          if (!std::isfinite(bytes))
            throw schedule_error(concat({"a page shows finite numbers of bytes; got ", bytes}));
      if (const std::size_t pp = p.timeline.schedule.pp(); !p.limits.empty() && p.limits.size() != pp)
        throw schedule_error(concat({"a panel has no limits, or ", pp, ", one per rank; got ", p.limits.size()}));
    }
    constexpr std::string_view units[] = {"", "s", "ms", "us"};
    if (std::find(std::begin(units), std::end(units), style.unit) == std::end(units))
      throw schedule_error(concat({"a page takes s, ms or us as the unit of time, or none; got \"", style.unit, "\""}));
    for (std::size_t i = 0; i < style.front.size(); ++i) check(style.front[i], i);
  }

  std::string write() {
    const std::string headline = headline_of(panels_, style_);
    out_ =
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";
    out_ += escaped(headline) + "</title>\n";
    out_ += html_style_text;
    out_ += html_before_headline;
    out_ += escaped(headline);
    out_ += html_before_notes;
    for (const std::string& note : style_.notes) out_ += "<li>" + escaped(note) + "</li>\n";
    out_ += html_after_notes;
    write_data(headline);
    for (const std::string_view part :
         {html_data_script, html_overview_script, html_schedule_script, html_controls_script, html_events_script})
      out_ += part;
    return std::move(out_);
  }

 private:
  void check(const html_front_point& p, std::size_t i) const {
    if (!std::isfinite(p.point.memory) || !std::isfinite(p.point.makespan) || !std::isfinite(p.point.lower_bound) ||
        (p.published && !std::isfinite(p.point.published_makespan)))
      throw schedule_error(concat({"a point of a front has finite numbers; point ", i, " has not"}));
    if (const std::size_t panel = std::max(p.plan, p.published.value_or(0)); panel >= panels_.size())
      throw schedule_error(
          concat({"a point of a front shows one of ", count_text(panels_.size(), "panel"), "; got panel ", panel}));
  }

  template <typename Range, typename F>
  void list(const Range& range, F&& f) {
    out_ += '[';
    bool first = true;
    for (const auto& each : range) {
      if (!std::exchange(first, false)) out_ += ',';
      f(each);
    }
    out_ += ']';
  }
  void key(std::string_view name) { out_ += concat({",\"", name, "\":"}); }
  // The value itself, which the script rounds as the headline does.
  void key(std::string_view name, double value) {
    key(name);
    std::array<char, 32> text{};
    out_.append(text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr);
  }
  // A string in a script: no quote, backslash or bracket of a tag ends it early.
  void quoted(std::string_view text) {
    out_ += '"';
    for (const char c : text)
      if (c == '"' || c == '\\')
        out_ += '\\', out_ += c;
      else if (c == '<')
        out_ += "\\u003c";
      else
        out_ += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    out_ += '"';
  }

  void write_data(std::string_view headline) {
    out_ += "{\"headline\":";
    quoted(headline);
    key("subject");
    quoted(style_.subject);
    key("sizes");
    quoted(sizes_of(panels_));
    key("unit");
    quoted(style_.unit);
    const memory_axis axis = memory_axis_of(style_.memory, style_.front.empty() ? 1 : style_.front.back().point.memory);
    key("memoryTitle");
    quoted(axis.title);
    key("memoryScale", axis.scale);
    key("front");
    list(style_.front, [&](const html_front_point& p) { write_point(p); });
    key("panels");
    list(panels_, [&](const html_panel& p) { write_panel(p); });
    out_ += '}';
  }

  void write_point(const html_front_point& p) {
    out_ += "{\"plan\":";
    out_ += concat({p.plan, ",\"published\":", p.published ? static_cast<std::int64_t>(*p.published) : -1});
    key("memory", p.point.memory);
    key("placement");
    quoted(p.point.placement);
    key("makespan", p.point.makespan);
    key("bound", p.point.lower_bound);
    key("publishedName");
    quoted(p.point.published);
    if (std::isfinite(p.point.published_makespan)) key("publishedMakespan", p.point.published_makespan);
    out_ += '}';
  }

  void write_panel(const html_panel& p) {
    const schedule& s = p.timeline.schedule;
    out_ += "\n{\"name\":";
    quoted(name_of(p));
    key("title");
    quoted(p.title);
    out_ += s.forward_only ? ",\"forwardOnly\":true" : ",\"forwardOnly\":false";
    out_ += p.planned ? ",\"planned\":true" : ",\"planned\":false";
    key("micro", s.micro);
    write_numbers(p);
    write_placement(s);
    key("memory");
    write_bytes(p);
    write_or_null("lengths", p.lengths);
    write_or_null("limits", p.limits);
    key("backward");
    list(s.backward, [&](stage_backward b) { out_ += concat({"\"", to_string(b), "\""}); });
    out_ += ",\n";
    timeline_packer(p.timeline, p.explanation.stalls).write(out_);
    key("pathLength", static_cast<double>(p.explanation.critical_path.size()));
    key("path");
    quoted(packed_cells(p.explanation.critical_path));
    out_ += '}';
  }
  void write_numbers(const html_panel& p) {
    const metrics& m = p.measured;
    key("makespan", m.makespan);
    key("idle", m.bubble_ratio);
    key("peak", m.peak_activations);
    key("bytes", m.peak_bytes);
    key("copies", m.parameter_copies);
    key("weights", m.weight_bytes);
    key("bound", p.lower_bound);
  }
  // The stages of each rank, and how many activations make a share of each rank, by replica.
  void write_placement(const schedule& s) {
    key("split", s.placement.replica_begin(1));
    key("stages");
    std::vector<std::uint32_t> ranks(s.pp());
    std::iota(ranks.begin(), ranks.end(), 0u);
    list(ranks, [&](std::uint32_t rank) {
      list(s.placement.stages_of(rank), [&](std::uint16_t stage) { out_ += concat({stage}); });
    });
    key("hosted");
    const auto units = activation_units(s.placement);
    std::vector<std::size_t> replicas(s.placement.replicas());
    std::iota(replicas.begin(), replicas.end(), std::size_t{0});
    list(replicas, [&](std::size_t replica) {
      list(units, [&](const activation_unit& unit) { out_ += concat({unit.share / unit.weight[replica]}); });
    });
  }
  void write_bytes(const html_panel& p) {
    if (p.bytes.empty()) {
      out_ += "null";
      return;
    }
    constexpr std::string_view names[] = {"{\"F\":",    ",\"B\":",    ",\"I\":",    ",\"W\":",    ",\"R\":",
                                          ",\"runF\":", ",\"runB\":", ",\"runI\":", ",\"runW\":", ",\"runR\":"};
    for (std::size_t i = 0; i < 10; ++i) {
      out_ += names[i];
      list(p.bytes, [&](const std::array<double, 10>& of) { append_value(out_, of[i]); });
    }
    out_ += '}';
  }
  void write_or_null(std::string_view name, const std::vector<double>& numbers) {
    key(name);
    if (numbers.empty())
      out_ += "null";
    else
      list(numbers, [&](double n) { std::isfinite(n) ? append_value(out_, n) : void(out_ += "null"); });
  }

  std::span<const html_panel> panels_;
  const html_style& style_;
  std::string out_;
};

}  // namespace detail

/// The page of one or more timelines. Linear in the number of cells.
/// @throws schedule_error without panels, for an unknown unit of time, a front of other panels or limits of other ranks, and
/// unless every timeline has one interval of finite times per cell and a valid schedule
inline std::string render_html(std::span<const html_panel> panels, const html_style& style) {
  return detail::html_writer(panels, style).write();
}
/// The same. @param notes lines of text, such as the families that a comparison leaves out and why
inline std::string render_html(std::span<const html_panel> panels, std::span<const std::string> notes = {}) {
  return render_html(panels, html_style{.notes = {notes.begin(), notes.end()}});
}
inline std::string render_html(const html_panel& panel, std::span<const std::string> notes = {}) {
  return render_html(std::span(&panel, 1), notes);
}

}  // namespace pipesched
