// SPDX-License-Identifier: MIT
// Plans of the inside of overlapped cells.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/plan/cell_costs.hpp>
#include <pipesched/plan/cell_plan.hpp>
#include <pipesched/plan/cell_presets.hpp>
#include <pipesched/plan/cell_tasks.hpp>
#include <pipesched/plan/cell_text.hpp>

#include "module.hpp"
#include "record.hpp"
#include "rows.hpp"

namespace python {

namespace {

void define_tasks(nb::module_& m) {
  define_enum<cell_resource>(m, "cell_resource", "The resource of a task.", std::array{"compute", "communication"});
  define<cell_task>(m, "cell_task", "A task of an op, after those before it in its chain.",
                    field<&cell_task::name>("name"), field<&cell_task::duration>("duration"),
                    field<&cell_task::resource>("resource"));
  define<movable_task>(m, "movable_task", "A task that may run at any time after another one.",
                       field<&movable_task::name>("name"), field<&movable_task::duration>("duration"),
                       field<&movable_task::after>("after", "index in the chain, or None"),
                       field<&movable_task::resource>("resource"));
  define<op_tasks>(m, "op_tasks", "The tasks of one op.", field<&op_tasks::chain>("chain"),
                   field<&op_tasks::movable>("movable"));
  define<task_ref>(m, "task_ref", "A task of a cell.", field<&task_ref::op>("op"), field<&task_ref::movable>("movable"),
                   field<&task_ref::index>("index"));
  define<timed_task>(m, "timed_task", "A task with its time.", field<&timed_task::task>("task"),
                     field<&timed_task::start>("start"), field<&timed_task::end>("end"));
  using p = planned_cell;
  define<p>(m, "planned_cell", "The tasks of a cell in order, and a proven bound of its length.",
            field<&p::tasks>("tasks"), field<&p::length>("length"), field<&p::lower_bound>("lower_bound"),
            field<&p::chains>("chains"), field<&p::states>("states"))
      .def_prop_ro("gap", &p::gap);
  define<cell_plan_options>(m, "cell_plan_options", "How cell_plan() searches.",
                            field<&cell_plan_options::efficiency>("efficiency"),
                            field<&cell_plan_options::max_states>("max_states"));
  define<layer_tasks>(m, "layer_tasks", "The tasks of a kind of layers.", field<&layer_tasks::kind>("kind"),
                      field<&layer_tasks::forward>("forward"), field<&layer_tasks::backward>("backward"),
                      field<&layer_tasks::weight>("weight"));
  define<pair_plan_options>(m, "pair_plan_options", "The pairs that with_planned_pairs() plans.",
                            field<&pair_plan_options::pairs>("pairs"), field<&pair_plan_options::cell>("cell"),
                            field<&pair_plan_options::layers>("layers"));
}

void require_op(std::size_t op) { place_of(static_cast<std::int64_t>(op), 2, "op"); }

// A cell whose tasks are those of two ops, and run from 0 to its length.
void require_tasks(const planned_cell& c, const op_tasks& a, const op_tasks& b) {
  for (const timed_task& t : c.tasks) {
    require_op(t.task.op);
    const op_tasks& of = t.task.op == 0 ? a : b;
    place_of(t.task.index, t.task.movable ? of.movable.size() : of.chain.size(), "task");
    if (!(t.start >= 0 && t.start <= t.end && t.end <= c.length))
      throw schedule_error("the tasks of a cell run between 0 and its length");
  }
}

void define_cell_plans(nb::module_& m) {
  m.def(
      "cell_plan",
      [](const op_tasks& a, const op_tasks& b, const cell_plan_options& o) {
        return without_gil([&] { return cell_plan(a, b, o); });
      },
      nb::arg("a"), nb::arg("b"), nb::arg("options") = cell_plan_options(),
      "The shortest order found of the tasks of two ops that overlap.");
  m.def("cell_in_order", &cell_in_order, nb::arg("a"), nb::arg("b"), nb::arg("order"), nb::arg("efficiency") = 1.0,
        "The times of the tasks in a given order.");
  m.def(
      "end_of", [](const planned_cell& c, std::size_t op) { return require_op(op), end_of(c, op); }, nb::arg("cell"),
      nb::arg("op"));
  m.def(
      "chain_end_of", [](const planned_cell& c, std::size_t op) { return require_op(op), chain_end_of(c, op); },
      nb::arg("cell"), nb::arg("op"));
  m.def(
      "check", [](const op_tasks& tasks, std::size_t op) { check(tasks, op); }, nb::arg("tasks"), nb::arg("op") = 0);
  m.def("tasks_of", &tasks_of, nb::arg("layers"), nb::arg("p"), "The tasks of a pass through layers.");
  m.def("stage_tasks", &stage_tasks, nb::arg("m"), nb::arg("p"), nb::arg("kinds"),
        "The tasks of the layers of every stage.");
  m.def(
      "with_planned_pairs",
      [](const stage_costs& costs, const std::vector<std::vector<layer_tasks>>& stages, const placement& where,
         const pair_plan_options& o) {
        return without_gil([&] { return with_planned_pairs(costs, stages, where, o); });
      },
      nb::arg("costs"), nb::arg("stages"), nb::arg("where"), nb::arg("options") = pair_plan_options(),
      "The costs with the prices of pairs that cell_plan() finds.");
  m.def(
      "with_planned_pairs",
      [](const model& of, const std::vector<layer_tasks>& kinds, const pair_plan_options& o) {
        return without_gil([&] { return with_planned_pairs(of, kinds, o); });
      },
      nb::arg("m"), nb::arg("kinds"), nb::arg("options") = pair_plan_options());
  m.def(
      "render_cell",
      [](const planned_cell& c, const op_tasks& a, const op_tasks& b, std::size_t columns) {
        return require_tasks(c, a, b), render_cell(c, a, b, columns);
      },
      nb::arg("cell"), nb::arg("a"), nb::arg("b"), nb::arg("columns") = 100, "The tasks of a cell as text.");
  m.def("deepseek_v3_layer_tasks", &deepseek_v3_layer_tasks);
  m.def("deepseek_v3_order", &deepseek_v3_order, nb::arg("layers") = 4);
  m.attr("deepseek_v3_pair") = deepseek_v3_pair;
}

}  // namespace

void define_cells(nb::module_& m) {
  define_tasks(m);
  define_cell_plans(m);
}

}  // namespace python
