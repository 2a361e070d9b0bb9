// SPDX-License-Identifier: MIT
// Pictures: text, SVG, HTML, Chrome traces, fronts.

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/cost/stage_costs.hpp>
#include <pipesched/render/chrome_trace.hpp>
#include <pipesched/render/front.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/render/svg.hpp>
#include <pipesched/render/text.hpp>

#include "module.hpp"
#include "record.hpp"

namespace python {

namespace {

using costs_or_none = std::optional<stage_costs>;

void define_text_and_svg(nb::module_& m) {
  using t = text_style;
  define<t>(m, "text_style", "The style of a text grid.", field<&t::colour>("colour", "ANSI colours"),
            field<&t::width>("width", "characters per line at most; 0: no fold"),
            field<&t::unit>("unit", "time per column; 0: that of the shortest cell"),
            field<&t::column>("column", "characters per column; 0: the longest name's"));
  m.def(
      "render_text",
      [](const timeline& of, const t& style) { return without_gil([&] { return render_text(of, style); }); },
      nb::arg("t"), nb::arg("style") = t(), "The grid of a timeline: one line per rank, one column per unit of time.");
  m.def(
      "render_text",
      [](const schedule& s, const t& style) { return without_gil([&] { return render_text(s, style); }); },
      nb::arg("s"), nb::arg("style") = t());
  define<palette>(m, "palette", "Fills and text colours of F, B, I, W and R.", field<&palette::fill>("fill"),
                  field<&palette::text>("text"));
  using s = svg_style;
  define<s>(
      m, "svg_style", "The style of a picture.", field<&s::width>("width", "pixels of the cells; 0: by their number"),
      field<&s::row_height>("row_height"), field<&s::from>("from_", "start of the stretch of time"),
      field<&s::to>("to", "its end; default: the makespan"), field<&s::title>("title"), field<&s::colours>("colours"));
  m.def(
      "render_svg",
      [](const timeline& of, const s& style) { return without_gil([&] { return render_svg(of, style); }); },
      nb::arg("t"), nb::arg("style") = s(), "The picture of a timeline as SVG.");
}

std::string page_of(const std::vector<html_panel>& panels, const html_style& style) {
  return without_gil([&] { return render_html(panels, style); });
}

// A panel is made by make_panel(): all that the page reads from its timeline fits it.
void define_panel(nb::module_& m) {
  using p = html_panel;
  nb::class_<p>(m, "html_panel", "A timeline of a page, with what the page shows of it; from make_panel().")
      .def_ro("timeline", &p::timeline)
      .def_ro("explanation", &p::explanation)
      .def_ro("bytes", &p::bytes, "by stage: of F, B, I, W and R kept, then of each while it runs")
      .def_ro("lengths", &p::lengths, "of micro-batches; empty: 1 each")
      .def_ro("measured", &p::measured, "the numbers beside its bar")
      .def_rw("title", &p::title)
      .def_rw("limits", &p::limits, "bytes of memory by rank; empty: no limits")
      .def_rw("lower_bound", &p::lower_bound, "of any order of such cells; 0: unknown")
      .def_rw("name", &p::name, "beside its bar; empty: the schedule's")
      .def_rw("planned", &p::planned, "by plan(): in a colour of its own");
}

void define_pages(nb::module_& m) {
  define_panel(m);
  m.def(
      "make_panel",
      [](const timeline& t, const costs_or_none& costs) {
        if (!costs) return without_gil([&] { return make_panel(t); });
        costs->check(t.schedule.stages(), t.schedule.pp(), t.schedule.micro);
        return without_gil([&] { return make_panel(t, *costs); });
      },
      nb::arg("t"), nb::arg("costs") = nb::none(), "A timeline as a panel of a page.");
  m.def("render_html", &page_of, nb::arg("panels"), nb::arg("style"), "An interactive page, without a server.");
  m.def(
      "render_html",
      [](const std::vector<html_panel>& panels, const std::vector<std::string>& notes) {
        return page_of(panels, {.notes = notes});
      },
      nb::arg("panels"), nb::arg("notes") = std::vector<std::string>());
  m.def(
      "render_html",
      [](const html_panel& panel, const std::vector<std::string>& notes) { return page_of({panel}, {.notes = notes}); },
      nb::arg("panel"), nb::arg("notes") = std::vector<std::string>());
}

void define_page_of_front(nb::module_& m) {
  using p = html_front_point;
  define<p>(m, "html_front_point", "A point of a front, with the panels of its plan and of the published schedule.",
            field<&p::point>("point"), field<&p::plan>("plan", "index among the panels"),
            field<&p::published>("published", "the same; None if no family fits"));
  using s = html_style;
  define<s>(m, "html_style", "All that a page says besides its timelines.",
            field<&s::subject>("subject", "the begin of the headline"),
            field<&s::unit>("unit", "of all times: s, ms, us; empty: none"),
            field<&s::notes>("notes", "lines of text; the first says what the costs are of"),
            field<&s::front>("front", "in rising order of their limits; empty: no front"));
}

void define_traces_and_fronts(nb::module_& m) {
  define<trace_style>(m, "trace_style", "The style of a trace.",
                      field<&trace_style::microseconds>("microseconds", "of one unit of time"));
  m.def(
      "render_chrome_trace",
      [](const timeline& t, const costs_or_none& costs, const trace_style& style) {
        if (!costs) return without_gil([&] { return render_chrome_trace(t, style); });
        costs->check(t.schedule.stages(), t.schedule.pp(), t.schedule.micro);
        return without_gil([&] { return render_chrome_trace(t, *costs, style); });
      },
      nb::arg("t"), nb::arg("costs") = nb::none(), nb::arg("style") = trace_style(),
      "The timeline as a Chrome trace, for Perfetto.");
  using p = front_point;
  define<p>(m, "front_point", "A point of a front of memory and time.", field<&p::memory>("memory"),
            field<&p::makespan>("makespan"), field<&p::lower_bound>("lower_bound"), field<&p::published>("published"),
            field<&p::published_makespan>("published_makespan"));
  using f = front_style;
  define<f>(m, "front_style", "The style of a front.", field<&f::width>("width"), field<&f::height>("height"),
            field<&f::title>("title"), field<&f::memory_title>("memory_title"), field<&f::time_title>("time_title"));
  m.def("render_front_svg", &render_front_svg, nb::arg("points"), nb::arg("style") = f(),
        "Makespans by memory as SVG, with their bound and the best published family.");
}

}  // namespace

void define_pictures(nb::module_& m) {
  define_text_and_svg(m);
  define_traces_and_fronts(m);
  define_page_of_front(m);
  define_pages(m);
}

}  // namespace python
