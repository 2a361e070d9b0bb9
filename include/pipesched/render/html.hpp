// SPDX-License-Identifier: MIT
#pragma once

// Timelines as one self-contained page that opens from disk, without a server or the network. It opens fitted to the
// window, whatever the unit of time, and zooms and pans from there. Per cell it shows its ops and times, its wait, its
// inputs and users; per rank the live activations; per schedule the critical path. Several timelines share one time axis.
// Mouse or keyboard; light and dark.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/render/html_page.hpp"
#include "pipesched/render/write.hpp"
#include "pipesched/simulate/explain.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// One timeline of a page, its explanation and its title.
struct html_panel {
  pipesched::timeline timeline;
  pipesched::explanation explanation;
  std::string title{};
  /// By stage, of a micro-batch of length 1: cost_model's bytes() of F, B, I, W and R, then its transient(). Empty: the page
  /// counts activations instead.
  std::vector<std::array<double, 10>> bytes{};
  std::vector<double> lengths{};  ///< of micro-batches, by which bytes are multiplied; empty: 1 each
  std::vector<double> limits{};   ///< bytes that a rank has for them; empty: no limits
};

/// The panel of a simulated timeline. @pre t was simulated with these costs
template <cost_model Costs>
html_panel make_panel(timeline t, const Costs& costs) {
  html_panel p{.timeline = std::move(t), .explanation = {}};
  detail::require_timeline(p.timeline);
  p.explanation = explain(p.timeline, costs, verified);
  p.title = detail::facts_of(p.timeline, measure(p.timeline, uniform_costs{}, verified));
  const auto length_of = [&](std::uint32_t micro) -> double {
    if constexpr (requires { costs.length_of(micro); })
      return costs.length_of(micro);
    else
      return 1;
  };
  if constexpr (requires(op o) { costs.bytes(o); }) {
    bool any = false;
    for (std::uint32_t s = 0; s < p.timeline.schedule.stages(); ++s) {
      std::array<double, 10> of{};
      for (std::size_t i = 0; i < 5; ++i) {
        const op o{static_cast<pass>(i + 1), 0, static_cast<std::uint16_t>(s), 0};
        of[i] = detail::bytes_of(costs, o, o.pass) / length_of(0);
        of[i + 5] = detail::transient_of(costs, o) / length_of(0);
      }
      any = any || std::any_of(of.begin(), of.end(), [](double bytes) { return bytes != 0; });
      p.bytes.push_back(of);
    }
    if (!any) p.bytes.clear();
    for (std::uint32_t m = 0; any && !detail::micro_batches_alike(costs) && m < p.timeline.schedule.micro; ++m)
      p.lengths.push_back(length_of(m));
  }
  return p;
}

/// The panel of a measured timeline.
inline html_panel make_panel(timeline t) {
  html_panel p{.timeline = std::move(t), .explanation = {}};
  p.explanation = explain(p.timeline);
  p.title = detail::facts_of(p.timeline, measure(p.timeline, uniform_costs{}, verified));
  return p;
}

namespace detail {

class html_writer {
 public:
  std::string write(std::span<const html_panel> panels, std::span<const std::string> notes) {
    if (panels.empty()) throw schedule_error("a page shows at least one timeline; got none");
    for (const html_panel& p : panels) {
      require_timeline(p.timeline);
      for (const auto& of : p.bytes)
        for (double bytes : of)
          if (!std::isfinite(bytes))
            throw schedule_error(concat({"a page shows finite numbers of bytes; got ", bytes}));
    }
    out_ = html_page_head;
    for (const std::string& note : notes) out_ += "<li>" + escaped(note) + "</li>\n";
    out_ += html_page_middle;
    list(panels, [&](const html_panel& p) { write_panel(p); });
    return std::move(out_ += html_page_tail);
  }

 private:
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
  void whole(std::uint64_t n) { out_ += concat({n}); }

  // A string in a script: no quote, backslash or bracket of a tag ends it early.
  void quoted(std::string_view text) {
    out_ += '"';
    for (char c : text) out_ += c == '"' || c == '\\' || c == '<' || static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    out_ += '"';
  }

  void write_panel(const html_panel& p) {
    const timeline& t = p.timeline;
    const schedule& s = t.schedule;
    out_ += "\n{\"title\":";
    quoted(p.title);
    out_ += s.forward_only ? ",\"forwardOnly\":true" : ",\"forwardOnly\":false";
    out_ += concat({",\"split\":", s.placement.replica_begin(1), ",\"chunks\":["});
    for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica) {
      if (replica > 0) out_ += ',';
      const std::uint32_t micro = replica == 0 ? 0 : s.placement.replica_begin(1);
      std::uint32_t stage = 0;
      list(s.placement.rank_of_stage(replica), [&](std::uint16_t) { whole(s.placement.chunk_of(stage++, micro)); });
    }
    out_ += "],\"hosted\":";
    const auto units = activation_units(s.placement);
    out_ += '[';
    for (std::size_t replica = 0; replica < s.placement.replicas(); ++replica) {
      if (replica > 0) out_ += ',';
      list(units, [&](const activation_unit& unit) { whole(std::uint64_t(unit.share / unit.weight[replica])); });
    }
    out_ += ']';
    out_ += ",\"memory\":";
    if (p.bytes.empty()) {
      out_ += "null";
    } else {
      constexpr std::string_view names[] = {"{\"F\":",    ",\"B\":",    ",\"I\":",    ",\"W\":",    ",\"R\":",
                                            ",\"runF\":", ",\"runB\":", ",\"runI\":", ",\"runW\":", ",\"runR\":"};
      for (std::size_t i = 0; i < 10; ++i) {
        out_ += names[i];
        list(p.bytes, [&](const std::array<double, 10>& of) { append_value(out_, of[i]); });
      }
      out_ += '}';
    }
    for (const auto& [key, numbers] : {std::pair(",\"lengths\":", &p.lengths), {",\"limits\":", &p.limits}}) {
      out_ += key;
      if (numbers->empty())
        out_ += "null";
      else
        list(*numbers,
             [&](double number) { std::isfinite(number) ? append_value(out_, number) : void(out_ += "Infinity"); });
    }
    out_ += ",\"backward\":";
    list(s.backward, [&](stage_backward b) { out_ += concat({"\"", to_string(b), "\""}); });
    out_ += ",\"rows\":[";
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
      out_ += rank == 0 ? "\n[\"" : ",\n[\"";
      for (std::size_t i = 0; i < s[rank].size(); ++i) {
        if (i > 0) out_ += ' ';
        append_cell(out_, s[rank][i]);
      }
      out_ += "\",";
      list(t[rank], [&](const interval& i) {
        append_value(out_, i.start);
        out_ += ',';
        append_value(out_, i.end);
      });
      out_ += ']';
    }
    out_ += "],\n\"gaps\":";
    list(p.explanation.stalls, [&](const stall& g) {
      out_ += concat({"[", g.before.rank, ",", g.before.index, ",", g.made_in.rank, ",", g.made_in.index, ",\""});
      append_cell(out_, g.made_by);
      out_ += "\"]";
    });
    out_ += ",\n\"path\":";
    list(p.explanation.critical_path, [&](cell_ref c) { out_ += concat({"[", c.rank, ",", c.index, "]"}); });
    out_ += '}';
  }

  std::string out_;
};

}  // namespace detail

/// The page of one or more timelines, one below the other under one time axis. Linear in the number of cells.
/// @param notes lines of text under the page's buttons, such as the families that a comparison leaves out and why
/// @throws schedule_error without panels, and unless every timeline has one interval of finite times per cell and a valid
/// schedule
inline std::string render_html(std::span<const html_panel> panels, std::span<const std::string> notes = {}) {
  return detail::html_writer().write(panels, notes);
}
inline std::string render_html(const html_panel& panel, std::span<const std::string> notes = {}) {
  return render_html(std::span(&panel, 1), notes);
}

}  // namespace pipesched
