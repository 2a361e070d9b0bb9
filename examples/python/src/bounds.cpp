// SPDX-License-Identifier: MIT
// Proven lower bounds of makespans.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/simulate/lower_bound.hpp>
#include <pipesched/simulate/schedule_class.hpp>

#include "module.hpp"
#include "record.hpp"

namespace python {

void define_bounds(nb::module_& m) {
  using c = schedule_class;
  define<c>(m, "schedule_class", "The schedules that a lower bound holds for.",
            field<&c::split_backward>("split_backward", "B may be split into I and W"),
            field<&c::pairs>("pairs", "passes that may share a cell"), field<&c::either_order>("either_order"),
            field<&c::forward_only>("forward_only"), field<&c::recompute>("recompute"), field<&c::backward>("backward"),
            field<&c::memory_cap>("memory_cap", "live activations per rank, in shares"),
            field<&c::memory_limits>("memory_limits", "bytes, by rank or one for all"));
  m.def("schedule_class_of", &schedule_class_of, nb::arg("s"), "The smallest class that holds the schedule.");
  using r = lower_bound_result;
  define<r>(m, "lower_bound_result", "A lower bound of makespans, and its reason.", field<&r::makespan>("makespan"),
            field<&r::rank>("rank"), field<&r::reason>("reason"), field<&r::first_forward>("first_forward"),
            field<&r::first_backward>("first_backward"), field<&r::forwards>("forwards"),
            field<&r::max_pairs>("max_pairs"), field<&r::min_pairs>("min_pairs"), field<&r::max_live>("max_live"))
      .def("gap", &r::gap, nb::arg("of"), "Distance of a makespan from the bound: (of - makespan) / makespan.");
  m.def(
      "lower_bound",
      [](const schedule& s, const std::optional<stage_costs>& costs) {
        return without_gil([&] { return lower_bound(s, costs.value_or(stage_costs())); });
      },
      nb::arg("s"), nb::arg("costs") = nb::none(), "No order of such cells is shorter.");
  m.def(
      "lower_bound",
      [](const placement& where, std::uint32_t micro, const std::optional<stage_costs>& costs,
         const std::optional<c>& of) {
        return without_gil([&] {
          const stage_costs given = costs.value_or(stage_costs());
          return of ? lower_bound(where, micro, given, *of) : lower_bound(where, micro, given);
        });
      },
      nb::arg("where"), nb::arg("micro"), nb::arg("costs") = nb::none(), nb::arg("of") = nb::none(),
      "No schedule of the class on the placement is shorter.");
  m.def("describe_bound", &describe_bound, nb::arg("b"), "The reason of a bound in words, with its numbers.");
  m.def("format_optimality_gap", &format_optimality_gap, nb::arg("makespan"), nb::arg("bound"));
}

}  // namespace python
