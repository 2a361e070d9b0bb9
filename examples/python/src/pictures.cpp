// SPDX-License-Identifier: MIT
// Pictures: text, SVG, HTML, Chrome traces, fronts.

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <new>
#include <pipesched/cost/stage_costs.hpp>
#include <pipesched/render/chrome_trace.hpp>
#include <pipesched/render/front.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/render/svg.hpp>
#include <pipesched/render/text.hpp>

#include "extend.hpp"
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

// The fields of a panel, for == and pickle.
nb::tuple state_of_panel(const html_panel& p) {
  return nb::make_tuple(p.timeline, p.explanation, p.title, p.bytes, p.lengths, p.limits, p.measured, p.lower_bound,
                        p.name, p.planned);
}
html_panel panel_from_state(const nb::tuple& state) {
  html_panel p{.timeline = nb::cast<timeline>(state[0]),
               .explanation = nb::cast<explanation>(state[1]),
               .title = nb::cast<std::string>(state[2]),
               .bytes = nb::cast<std::vector<std::array<double, 10>>>(state[3]),
               .lengths = nb::cast<std::vector<double>>(state[4]),
               .limits = nb::cast<std::vector<double>>(state[5]),
               .measured = nb::cast<metrics>(state[6]),
               .lower_bound = nb::cast<double>(state[7]),
               .name = nb::cast<std::string>(state[8]),
               .planned = nb::cast<bool>(state[9])};
  const schedule& s = p.timeline.schedule;
  const auto is_cell = [&](const cell_ref& at) { return at.rank < s.pp() && at.index < s[at.rank].size(); };
  if ((!p.bytes.empty() && p.bytes.size() != s.stages()) || (!p.lengths.empty() && p.lengths.size() != s.micro) ||
      !std::ranges::all_of(p.explanation.critical_path, is_cell) ||
      !std::ranges::all_of(p.explanation.stalls, is_cell, &stall::before))
    throw nb::value_error("this pickle is damaged: its panel does not fit its timeline");
  return p;
}

// A panel is made by make_panel(): all that the page reads from its timeline fits it.
void define_panel(nb::module_& m) {
  using p = html_panel;
  nb::class_<p> type(m, "html_panel", "A timeline of a page, with what the page shows of it; from make_panel().");
  refuse_construction(type, "panels come from make_panel(timeline, costs)");
  type.attr("__hash__") = nb::none();  // its fields can change
  type.def("__repr__",
           [](const p& of) {
             const std::string_view name = of.name.empty() ? of.timeline.schedule.name.view() : of.name;
             return pipesched::detail::concat({"<html_panel ", name, ": ", of.title, ">"});
           })
      .def("__getstate__", &state_of_panel)
      .def("__setstate__", [](p& self, const nb::tuple& state) { new (&self) p(panel_from_state(state)); })
      .def(
          "__eq__",
          [](const p& self, nb::handle other) -> nb::object {
            p* same = nullptr;
            if (!nb::try_cast(other, same) || !same) return nb::borrow(Py_NotImplemented);
            return nb::cast(state_of_panel(self).equal(state_of_panel(*same)));
          },
          nb::arg().none(), nb::sig("def __eq__(self, other: object, /) -> bool"))
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
            field<&s::front>("front", "in rising order of their limits; empty: no front"),
            field<&s::memory>("memory", "the unit of these limits"));
}

void define_traces_and_fronts(nb::module_& m) {
  define<trace_style>(m, "trace_style", "The style of a trace.",
                      field<&trace_style::microseconds>("microseconds", "of one unit of time"));
  m.def(
      "render_chrome_trace",
      [](const timeline& t, const costs_or_none& costs, const std::optional<trace_style>& given) {
        const trace_style style = given.value_or(trace_style_of(costs ? costs->time_unit : time_unit::none));
        if (!costs) return without_gil([&] { return render_chrome_trace(t, style); });
        costs->check(t.schedule.stages(), t.schedule.pp(), t.schedule.micro);
        return without_gil([&] { return render_chrome_trace(t, *costs, style); });
      },
      nb::arg("t"), nb::arg("costs") = nb::none(), nb::arg("style") = nb::none(),
      "The timeline as a Chrome trace, for Perfetto. Without a style times are in the unit of the costs, in "
      "milliseconds without one.");
  m.def("trace_style_of", &trace_style_of, nb::arg("unit"),
        "The style of a trace for times in this unit; for none, that of milliseconds.");
  using p = front_point;
  define<p>(m, "front_point", "A point of a front of memory and time.", field<&p::memory>("memory"),
            field<&p::makespan>("makespan"), field<&p::lower_bound>("lower_bound"), field<&p::published>("published"),
            field<&p::published_makespan>("published_makespan"),
            field<&p::placement>("placement", "of the plan, if it is to be named"));
  using f = front_style;
  define<f>(m, "front_style", "The style of a front.", field<&f::width>("width"), field<&f::height>("height"),
            field<&f::title>("title"), field<&f::memory>("memory", "the unit of the limits"),
            field<&f::time_title>("time_title"), field<&f::time_unit>("time_unit", "s, ms or us; empty: not said"));
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
