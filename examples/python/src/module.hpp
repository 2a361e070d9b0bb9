// SPDX-License-Identifier: MIT
#pragma once

// The parts of the module, each in a source of its own, and what they share.

#include <nanobind/nanobind.h>

#include <optional>
#include <pipesched/cost/stage_costs.hpp>
#include <string_view>

#include "convert.hpp"

namespace python {

void define_ops(nb::module_& m);
void define_schedules(nb::module_& m);
void define_costs(nb::module_& m);
void define_models(nb::module_& m);
void define_families(nb::module_& m);
void define_transforms(nb::module_& m);
void define_simulation(nb::module_& m);
void define_measured(nb::module_& m);
void define_bounds(nb::module_& m);
void define_programs(nb::module_& m);
void define_plans(nb::module_& m);
void define_cells(nb::module_& m);
void define_pictures(nb::module_& m);
void define_plan_pages(nb::module_& m);
void define_files(nb::module_& m);
void define_exports(nb::module_& m);

/// Runs `f` while other Python threads run. `f` must not touch Python; what it reads must be immutable or its own.
template <typename F>
auto without_gil(F&& f) {
  const nb::gil_scoped_release released;
  return f();
}

/// A cell from a cell, an op, or a text such as "3F12" or "(0F7;7B13)". @throws schedule_error for another text
cell cell_of(nb::handle from);

/// An enumeration of the library, with its own names for the values from 0 on.
template <typename Enum, typename Names>
void define_enum(nb::module_& m, const char* type_name, const char* doc, const Names& names) {
  nb::enum_<Enum> type(m, type_name, doc);
  int value = 0;
  for (const std::string_view name : names) type.value(name.data(), static_cast<Enum>(value++));
}

}  // namespace python
