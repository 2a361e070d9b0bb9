// SPDX-License-Identifier: MIT
// Families and their makers, all derived from the library's table of families.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/cost/stage_costs.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/generate/recognize.hpp>
#include <pipesched/generate/schedule_params.hpp>
#include <pipesched/simulate/closed_form_of.hpp>

#include "extend.hpp"
#include "module.hpp"
#include "record.hpp"
#include "rows.hpp"

namespace python {

namespace {

// The parameters of all families are a record of their own, so that their keywords are read and refused in one place.
const record_entry& params_entry() {
  using p = schedule_params;
  static const record_entry entry{
      "schedule_params",
      {field<&p::pp>("pp"), field<&p::micro>("micro"), field<&p::forward_only>("forward_only"),
       field<&p::chunks>("chunks"), field<&p::group_size>("group_size"), field<&p::extra_warm_up>("extra_warm_up"),
       field<&p::overlap>("overlap"), field<&p::waves>("waves"), field<&p::costs>("costs"),
       field<&p::memory_limit>("memory_limit")}};
  return entry;
}

schedule_params params_of(const char* function, const nb::args& positions, const nb::kwargs& keywords) {
  schedule_params p{};
  params_entry().fill(&p, positions, keywords, function, 2);
  return p;
}

// "pp: int, micro: int, *, forward_only: bool = False, waves: int | None = None"
std::string parameters_of(const family& f) {
  std::string text = "pp: int, micro: int, forward_only: bool = False";
  for (const parameter which : all_parameters) {
    if (!f.limits.takes.contains(which)) continue;
    const auto fields = params_entry().fields;
    const auto entry =
        std::ranges::find(fields, to_string(which), [](const field_entry& e) { return std::string_view(e.name); });
    const std::string type = entry->type();
    text += std::string(", ") + entry->name + ": " + type + (type == "bool" ? " = False" : " = None");
  }
  return text;
}

schedule make(const family& f, const schedule_params& p) {
  return without_gil([&] { return make_schedule(f, p); });
}

void define_maker(nb::module_& m, const family& f) {
  const std::string schedule_name = "make_" + std::string(f.name) + "_schedule",
                    row_name = "make_" + std::string(f.name) + "_row";
  const std::string_view kept_name = interned(schedule_name), kept_row_name = interned(row_name);
  const std::string doc = std::string(f.summary) + (f.source.empty() ? "" : "\n\nSource: " + std::string(f.source));
  const std::string parameters = parameters_of(f);
  m.def(
      kept_name.data(),
      [&f, kept_name](const nb::args& a, const nb::kwargs& k) { return make(f, params_of(kept_name.data(), a, k)); },
      nb::sig(("def " + schedule_name + "(" + parameters + ") -> schedule").c_str()), doc.c_str());
  m.def(
      kept_row_name.data(),
      [&f, kept_row_name](std::int64_t rank, const nb::args& a, const nb::kwargs& k) {
        const schedule_params p = params_of(kept_row_name.data(), a, k);
        return without_gil([&] { return f.row(p, rank); });
      },
      nb::arg("rank"), nb::arg("args"), nb::arg("kwargs"),
      nb::sig(("def " + row_name + "(rank: int, " + parameters + ") -> list[cell]").c_str()),
      ("The row of one rank alone. " + std::string(f.summary)).c_str());
}

std::vector<std::string_view> parameters_taken(const family& f) {
  std::vector<std::string_view> names;
  for (const parameter which : all_parameters)
    if (f.limits.takes.contains(which)) names.push_back(to_string(which));
  return names;
}

void define_family(nb::module_& m) {
  nb::class_<family> type(m, "family", "A named rule that makes schedules.");
  refuse_construction(type, "families are those of the library: find_family(name)");
  type.def_ro("name", &family::name)
      .def_ro("summary", &family::summary, "one line")
      .def_ro("source", &family::source, "of the order: paper, section or figure; code")
      .def_prop_ro(
          "parameters", [](const family& f) { return to_python(parameters_taken(f), {}); },
          "the parameters that it takes besides pp, micro and forward_only",
          nb::sig("def parameters(self) -> tuple[str, ...]"))
      .def_prop_ro(
          "even_pp", [](const family& f) { return f.limits.even_pp; }, "needs an even number of ranks")
      .def(
          "make",
          [](const family& f, const nb::args& a, const nb::kwargs& k) {
            return make(f, params_of("family.make", a, k));
          },
          nb::sig("def make(self, pp: int, micro: int, **parameters: typing.Any) -> schedule"),
          "The schedule of the family.")
      .def(
          "stages_per_rank",
          [](const family& f, const nb::args& a, const nb::kwargs& k) {
            const schedule_params p = params_of("family.stages_per_rank", a, k);
            return require(f, p), f.stages_per_rank(p);
          },
          nb::sig("def stages_per_rank(self, pp: int, micro: int, **parameters: typing.Any) -> int"))
      .def(
          "place",
          [](const family& f, const nb::args& a, const nb::kwargs& k) {
            const schedule_params p = params_of("family.place", a, k);
            return require(f, p), f.place(p);
          },
          nb::sig("def place(self, pp: int, micro: int, **parameters: typing.Any) -> placement"),
          "The placement of its stages.")
      .def("__repr__",
           [](const family& f) { return "<family " + std::string(f.name) + ": " + std::string(f.summary) + '>'; })
      .def("__reduce__", [](const family& f) {
        return nb::make_tuple(nb::module_::import_("pipesched._search").attr("family_of"), nb::make_tuple(f.name));
      });
  m.def("find_family", &find_family, nb::arg("name"), nb::rv_policy::reference, "The family of a name.");
  nb::list all;
  for (const family& f : families) all.append(nb::cast(&f, nb::rv_policy::reference));
  m.attr("families") = nb::tuple(all);
  m.def(
      "make_schedule",
      [](std::string_view name, const nb::args& a, const nb::kwargs& k) {
        return make(find_family(name), params_of("make_schedule", a, k));
      },
      nb::arg("name"), nb::arg("args"), nb::arg("kwargs"),
      nb::sig(
          "def make_schedule(name: str, pp: int, micro: int, forward_only: bool = False, *, chunks: int | None = None, "
          "group_size: int | None = None, extra_warm_up: bool = False, overlap: bool = False, waves: int | None = "
          "None, "
          "costs: stage_costs | None = None, memory_limit: float | None = None) -> schedule"),
      "The schedule of the family of a name. Families refuse parameters that they do not take.");
  for (const family& f : families) define_maker(m, f);
  m.def(
      "recognize_family", [](const schedule& s, std::string_view first) { return recognize_family(s, first); },
      nb::arg("s"), nb::arg("first") = "", "The name of the family that makes this order; empty if none does.");
}

void define_formulas(nb::module_& m) {
  using t = pass_times;
  define<t>(m, "pass_times", "Times of whole passes through a rank's share.", field<&t::F>("F"), field<&t::I>("I"),
            field<&t::W>("W"), field<&t::B>("B"), field<&t::FB>("FB"));
  using c = closed_form;
  define<c>(m, "closed_form", "A published formula at given times.", field<&c::formula>("formula"),
            field<&c::source>("source"), field<&c::assumes>("assumes"), field<&c::bubble>("bubble"),
            field<&c::peak_activations>("peak_activations"),
            field<&c::fails>("fails", "the first assumption that does not hold; empty if all hold"),
            field<&c::of_span>("of_span"))
      .def_prop_ro("holds", &c::holds, "True if all that it assumes holds.");
  m.def(
      "closed_form_of",
      [](const schedule& s, std::optional<stage_costs> costs, bool own_order) {
        if (costs) costs->check(s.stages(), s.pp(), s.micro);
        require_valid(s);
        return closed_form_of(s, costs.value_or(stage_costs()), own_order);
      },
      nb::arg("s"), nb::arg("costs") = nb::none(), nb::arg("own_order") = false,
      "The published formula of the family that the schedule is named after, or None.");
}

}  // namespace

void define_families(nb::module_& m) {
  define_family(m);
  define_formulas(m);
}

}  // namespace python
