// SPDX-License-Identifier: MIT
// Pages of plans and of fronts.

#include <nanobind/stl/vector.h>

#include <pipesched/render/plan_page.hpp>

#include "module.hpp"
#include "record.hpp"

namespace python {

void define_plan_pages(nb::module_& m) {
  using panels = std::vector<html_panel>;
  m.def(
      "_page_of_plan",
      [](const plan_result& plan, const stage_costs& costs, const panels& beside, const html_style& style) {
        costs.check(plan.schedule.stages(), plan.schedule.pp(), plan.schedule.micro);
        return without_gil([&] { return page_of_plan(plan, costs, beside, style); });
      },
      nb::arg("plan"), nb::arg("costs"), nb::arg("beside"), nb::arg("style"), "The page of a plan.");
  m.def(
      "_page_of_plan",
      [](const model_plan& plan, const panels& beside, const html_style& style) {
        return without_gil([&] { return page_of_plan(plan, beside, style); });
      },
      nb::arg("plan"), nb::arg("beside"), nb::arg("style"));
  m.def(
      "_page_of_front",
      [](const std::vector<pareto_point>& front, const std::vector<placed_step<>>& steps, const html_style& style) {
        return without_gil([&] { return page_of_front(front, steps, style); });
      },
      nb::arg("front"), nb::arg("steps"), nb::arg("style"), "The page of a front.");
  m.def(
      "_page_of_front",
      [](const std::vector<model_pareto_point>& front, const html_style& style) {
        return without_gil([&] { return page_of_front(front, style); });
      },
      nb::arg("front"), nb::arg("style"));
  m.def("points_of", nb::overload_cast<const std::vector<pareto_point>&>(&points_of), nb::arg("front"),
        "The points of a front, as its pictures take them.");
  m.def("points_of", nb::overload_cast<const std::vector<model_pareto_point>&>(&points_of), nb::arg("front"));
  m.def(
      "room_of", &room_of, nb::arg("r"),
      "Bytes that each rank has for activations and running ops beside its weights and buffers; empty without limits.");
}

}  // namespace python
