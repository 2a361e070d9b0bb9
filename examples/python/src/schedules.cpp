// SPDX-License-Identifier: MIT
// Schedules, their proof, and questions about their ops.

#include <nanobind/operators.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/core/ops.hpp>
#include <pipesched/core/report.hpp>
#include <pipesched/core/schedule.hpp>
#include <pipesched/core/verify.hpp>

#include "module.hpp"
#include "record.hpp"
#include "rows.hpp"

namespace python {

namespace {

void define_report(nb::module_& m) {
  define_enum<rule>(m, "rule", "A rule that a schedule or program may break.", rule_names);
  define<violation>(m, "violation", "A broken rule, its place, and the expected value.",
                    field<&violation::rule>("rule"),
                    field<&violation::rank>("rank", "of the fault, or of the place of the missing op"),
                    field<&violation::cell, violation::no_cell>("cell", "index in the rank's row, or None"),
                    field<&violation::text>("text"))
      .def("__str__", [](const violation& v) { return to_string(v); });
  define<report>(m, "report", "The violations of a schedule or program. True without any.",
                 field<&report::violations>("violations", "the first ones"),
                 field<&report::further>("further", "number of violations after those"))
      .def("__bool__", [](const report& r) { return bool(r); })
      .def("names", &report::names, nb::arg("rule"), "True if one of the violations is of this rule.")
      .def("__str__", [](const report& r) { return r ? std::string("valid") : to_string(r); });
}

void require_iterable(nb::handle from, const char* expected) {
  if (!is_list_like(from)) refuse(expected, from);
}

// The cells of a row. The chunk of an op that is given as text is that of the placement.
std::vector<cell> cells_of(nb::handle row, const placement& where) {
  std::vector<cell> cells;
  require_iterable(row, "a row is a sequence of cells");
  for (nb::handle from : nb::iter(row)) {
    cell c = cell_of(from);
    if (nb::isinstance<nb::str>(from))
      for (op& o : c)
        if (o.stage < where.stages()) o.chunk = where.chunk_of(o.stage, o.micro);
    cells.push_back(c);
  }
  return cells;
}

// The arguments of the constructor.
struct schedule_arguments {
  pipesched::placement placement{};
  std::uint32_t micro = 0;
  nb::object cells{};
  std::string name{};
  bool forward_only = false;
  std::vector<stage_backward> backward{};
};

schedule make(const nb::args& positions, const nb::kwargs& keywords) {
  using a = schedule_arguments;
  static const record_entry entry{
      "schedule",
      {field<&a::placement>("placement"), field<&a::micro>("micro"), field<&a::cells>("cells"), field<&a::name>("name"),
       field<&a::forward_only>("forward_only"), field<&a::backward>("backward")}};
  a given;
  entry.fill(&given, positions, keywords, "schedule", 3);
  schedule s{.name = std::string_view(given.name),
             .placement = std::move(given.placement),
             .micro = given.micro,
             .forward_only = given.forward_only,
             .cells = {}};
  require_iterable(given.cells, "schedule: cells takes a sequence of rows of cells, one row per rank");
  for (nb::handle row : nb::iter(given.cells)) s.cells.append(cells_of(row, s.placement));
  s.backward = std::move(given.backward);
  return s;
}

// A schedule with the row of a rank that `change` makes of a list of its cells: what it returns, or else the list as it left it.
schedule edited(const schedule& s, std::int64_t rank, const nb::callable& change) {
  const std::size_t place = place_of(rank, s.size(), "rank");
  nb::list row;
  for (const cell& c : s[place]) row.append(nb::cast(c));
  const nb::object returned = change(row);
  schedule other = s;
  other.edit(place,
             [&](std::vector<cell>& cells) { cells = cells_of(returned.is_none() ? row : returned, s.placement); });
  return other;
}

std::string repr_of(const schedule& s) {
  using pipesched::detail::count_text;
  return pipesched::detail::concat({"<schedule ", s.name.view(), ": ", count_text(s.pp(), "rank"), ", ",
                                    count_text(s.stages(), "stage"), " (", to_string(s.placement.kind()), "), ",
                                    count_text(s.micro, "micro-batch"), s.forward_only ? ", forward only>" : ">"});
}

stage_backward backward_of(const schedule& s, std::uint32_t stage) {
  place_of(stage, s.backward.empty() ? s.stages() : s.backward.size(), "stage");
  return s.backward_of(stage);
}

void define_schedule(nb::module_& m) {
  define_enum<stage_backward>(m, "stage_backward", "The backward of a stage.", stage_backward_names);
  define_row<cell>(m, "cell_row", "The cells of one rank, in the order in which they run.", "cell")
      .def("__str__", [](const row_view<cell>& r) { return to_string(r.values); });
  nb::class_<schedule> type(
      m, "schedule",
      "The cells of every rank, in the order in which they run: len(s) ranks, s[rank] a sequence of cells.\n"
      "A value that does not change; edit() makes another one. verify() says whether it is valid.");
  add_sequence(type, {"rank", "cell_row", [](nb::handle s) { return nb::cast<const schedule&>(s).size(); },
                      [](nb::handle s, std::size_t rank) {
                        return nb::cast(row_of(s, nb::cast<const schedule&>(s).cells, rank));
                      }});
  type.def(
          "__init__",
          [](schedule* self, const nb::args& positions, const nb::kwargs& keywords) {
            new (self) schedule(make(positions, keywords));
          },
          nb::sig("def __init__(self, placement: placement, micro: int, cells: "
                  "collections.abc.Iterable[collections.abc.Iterable[cell | op | str]], "
                  "name: str = '', forward_only: bool = False, backward: Sequence[stage_backward] = ()) -> None"))
      .def_prop_ro(
          "name", [](const schedule& s) { return s.name.view(); }, "of the family")
      .def_ro("placement", &schedule::placement, "stages, ranks and replicas")
      .def_ro("micro", &schedule::micro, "micro-batches of the step")
      .def_ro("forward_only", &schedule::forward_only, "every op is an F")
      .def_prop_ro(
          "cells", [](nb::handle s) { return rows_of(s, nb::cast<const schedule&>(s).cells); }, "one row per rank",
          nb::sig("def cells(self) -> tuple[cell_row, ...]"))
      .def_prop_ro(
          "backward", [](const schedule& s) { return to_python(s.backward, {}); }, "by stage; empty: all are full",
          nb::sig("def backward(self) -> tuple[stage_backward, ...]"))
      .def_prop_ro("pp", &schedule::pp, "pipeline ranks")
      .def_prop_ro("ranks", &schedule::pp, "pipeline ranks, as placement.ranks")
      .def_prop_ro("stages", &schedule::stages)
      .def("backward_of", &backward_of, nb::arg("stage"), "The backward of a stage: none if it is forward only.")
      .def("chain", &schedule::chain, "The stages, for the dependencies between them.")
      .def(
          "is_last", [](const schedule& s, op o) { return backward_of(s, o.stage), s.is_last(o); }, nb::arg("op"),
          "True for the last op of its stage and micro-batch, after which its activation is not needed.")
      .def("edit", &edited, nb::arg("rank"), nb::arg("change"),
           nb::sig("def edit(self, rank: int, change: collections.abc.Callable[[list[cell]], "
                   "collections.abc.Iterable[cell | op | str] | None]) -> "
                   "schedule"),
           "The schedule with another row for a rank: `change` gets a list of its cells, and changes it or returns "
           "another.")
      .def(nb::self == nb::self, nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__",
           [](const schedule& s) {
             return nb::hash(nb::make_tuple(s.name.view(), s.micro, s.pp(), s.cells.all().size()));
           })
      .def("__str__", [](const schedule& s) { return to_string(s); })
      .def("__repr__", [](const schedule& p) { return repr_of(p); })
      .def("__getstate__",
           [](const schedule& s) {
             return nb::make_tuple(s.name.view(), s.placement, s.micro, s.forward_only, state_of(s.cells), s.backward);
           })
      .def("__setstate__", [](schedule& self, const nb::tuple& state) {
        schedule s{.name = nb::cast<std::string_view>(state[0]),
                   .placement = nb::cast<placement>(state[1]),
                   .micro = nb::cast<std::uint32_t>(state[2]),
                   .forward_only = nb::cast<bool>(state[3]),
                   .cells = rows_from_state<cell>(nb::cast<nb::tuple>(state[4])),
                   .backward = nb::cast<std::vector<stage_backward>>(state[5])};
        new (&self) schedule(std::move(s));
      });
  m.def(
      "parse_schedule",
      [](std::string_view text, const std::optional<placement>& where, std::string_view name) {
        return where ? parse_schedule(text, *where, name) : parse_schedule(text, name);
      },
      nb::arg("text"), nb::arg("where") = nb::none(), nb::arg("name") = "",
      "The schedule of one line of cells per rank, as str(schedule) writes them. Without `where`, the simplest "
      "placement with "
      "these stages on these ranks.");
  m.def(
      "to_string",
      [](const report& r, std::size_t max_lines) { return r ? std::string("valid") : to_string(r, max_lines); },
      nb::arg("r"), nb::arg("max_lines") = 10,
      "One line per violation, at most so many, and the number of all others.");
  m.def(
      "to_string", [](nb::handle value) { return nb::str(value); }, nb::arg("value"),
      "The text of a value: the same as str(value).");
}

void define_queries(nb::module_& m) {
  m.def(
      "verify", [](const schedule& s, std::size_t max) { return without_gil([&] { return verify(s, max); }); },
      nb::arg("s"), nb::arg("max_violations") = 100,
      "Proves a schedule valid, or reports the rules that it breaks. Linear in the number of ops.");
  m.def(
      "require_valid", [](const schedule& s) { without_gil([&] { require_valid(s); }); }, nb::arg("s"),
      "Raises ScheduleError with the first violation unless the schedule is valid.");
  m.def(
      "ops",
      [](const schedule& s, std::int64_t rank) {
        std::vector<op> all;
        for (const op& o : ops(s, place_of(rank, s.size(), "rank"))) all.push_back(o);
        return all;
      },
      nb::arg("s"), nb::arg("rank"), "The ops of a rank in order, those of an overlapped cell one after the other.");
  define<op_place>(m, "op_place", "The place of an op.", field<&op_place::rank>("rank"), field<&op_place::cell>("cell"),
                   field<&op_place::index>("index", "in its cell"));
  m.def(
      "find", [](const schedule& s, op which) { return find(s, which); }, nb::arg("s"), nb::arg("which"),
      "The place of an op, or None.");
  m.def(
      "predecessors", [](const schedule& s, op o) { return backward_of(s, o.stage), predecessors(s, o); }, nb::arg("s"),
      nb::arg("op"), "The ops that must run before this one.");
  m.def(
      "successors", [](const schedule& s, op o) { return backward_of(s, o.stage), successors(s, o); }, nb::arg("s"),
      nb::arg("op"), "The ops that must run after this one.");
  m.def(
      "walk",
      [](const schedule& s, const nb::callable& visit) {
        require_valid(s);
        walk(s, [&](std::uint32_t rank, std::size_t i, const cell& c) { visit(rank, i, c); });
      },
      nb::arg("s"), nb::arg("visit"),
      "Calls visit(rank, index, cell) for every cell of a valid schedule, each after those that it depends on.");
}

}  // namespace

void define_schedules(nb::module_& m) {
  define_report(m);
  define_schedule(m);
  define_queries(m);
}

}  // namespace python
