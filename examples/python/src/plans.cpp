// SPDX-License-Identifier: MIT
// Plans, fronts of memory and time, and divisions of a model among stages.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/generate/families.hpp>
#include <pipesched/plan/divide.hpp>
#include <pipesched/plan/model_pareto.hpp>
#include <pipesched/plan/model_plan.hpp>
#include <pipesched/plan/model_problem.hpp>
#include <pipesched/plan/pareto.hpp>
#include <pipesched/plan/plan.hpp>
#include <pipesched/plan/plan_in_memory.hpp>

#include "module.hpp"
#include "record.hpp"
#include "watched.hpp"

namespace python {

namespace {

using costs_or_none = std::optional<stage_costs>;

void define_limits(nb::module_& m) {
  define<plan_problem>(m, "plan_problem", "The step to plan.", field<&plan_problem::placement>("placement"),
                       field<&plan_problem::micro>("micro"), field<&plan_problem::forward_only>("forward_only"),
                       field<&plan_problem::recomputed>("recomputed", "by stage: its backwards recompute inside"));
  define<plan_progress>(m, "plan_progress", "How far a search has come.",
                        field<&plan_progress::evaluations>("evaluations"),
                        field<&plan_progress::makespan>("makespan", "of the best so far"),
                        field<&plan_progress::lower_bound>("lower_bound"));
  using l = plan_limits;
  define<l>(m, "plan_limits", "The limits of a plan, and how long plan() searches: the result depends on them alone.",
            field<&l::memory>("memory"), field<&l::pairs>("pairs", "passes that may share a cell"),
            field<&l::evaluations>("evaluations", "simulations of a whole step"), field<&l::seed>("seed"),
            field<&l::threads>("threads"), field<&l::starts>("starts", "schedules to begin with"));
  using r = plan_result;
  define<r>(m, "plan_result", "A valid schedule within the limits.", field<&r::schedule>("schedule"),
            field<&r::makespan>("makespan"), field<&r::bound>("bound"),
            field<&r::published>("published", "the best family within the limits"),
            field<&r::published_makespan>("published_makespan"),
            field<&r::published_schedule>("published_schedule", "its schedule; no ranks if none is"),
            field<&r::peak_activations>("peak_activations"), field<&r::evaluations>("evaluations"),
            field<&r::ops_simulated>("ops_simulated"));
}

constexpr const char* of_progress =
    "\n\n`progress` is called now and then with a plan_progress, and stops the search with the best so far if it "
    "returns False; True shows a bar. Ctrl-C raises Interrupted, whose `result` is the best so far.";

std::string with_progress(const char* doc) { return std::string(doc) + of_progress; }

// Does `f` with limits that report.
template <typename F>
auto planned(const progress_argument& progress, plan_limits limits, F&& f) {
  const auto evaluations = static_cast<double>(limits.evaluations);
  return watched(progress, evaluations, [&](const reporter& report) {
    limits.progress = [&](const plan_progress& p) { return report([p] { return nb::cast(p); }); };
    return f(limits);
  });
}

void define_plan(nb::module_& m) {
  define_limits(m);
  m.def(
      "plan",
      [](const plan_problem& problem, const costs_or_none& costs, const plan_limits& limits,
         const progress_argument& progress) {
        const stage_costs given = costs.value_or(stage_costs());
        return planned(progress, limits, [&](const plan_limits& l) { return plan(problem, given, l); });
      },
      nb::arg("problem"), nb::arg("costs") = nb::none(), nb::arg("limits") = plan_limits(),
      nb::arg("progress") = nb::none(),
      with_progress("The shortest schedule found for a placement and costs.").c_str());
  m.def(
      "plan_in_memory",
      [](const plan_problem& problem, const costs_or_none& costs, const std::vector<double>& memory,
         const plan_limits& limits, const progress_argument& progress) {
        const stage_costs given = costs.value_or(stage_costs());
        return planned(progress, limits,
                       [&](const plan_limits& l) { return plan_in_memory(problem, given, memory, l); });
      },
      nb::arg("problem"), nb::arg("costs"), nb::arg("memory"), nb::arg("limits") = plan_limits(),
      nb::arg("progress") = nb::none(),
      with_progress(
          "plan() within all bytes of the ranks: weights, what ops keep and need, and message buffers. `memory` has "
          "one number for all ranks, or one per rank.")
          .c_str());
}

void define_pareto(nb::module_& m) {
  using s = placed_step<>;
  define<s>(m, "placed_step", "A step on one placement, and what it costs there.", field<&s::problem>("problem"),
            field<&s::costs>("costs"));
  using p = pareto_point;
  define<p>(m, "pareto_point", "A limit of memory and the plan within it.",
            field<&p::cap>("cap", "of each rank: live activations, in shares, or bytes"),
            field<&p::plan>("plan", "its published schedule is the best one on any of the placements"),
            field<&p::step>("step", "the index of its step among those given"),
            field<&p::lower_bound>("lower_bound", "for any schedule of any of the steps within the limit"));
  m.def("placements_for", &placements_for, nb::arg("ranks"), nb::arg("micro"), nb::arg("per_rank") = 4,
        "Placements with up to `per_rank` stages per rank, each once.");
  m.def(
      "_pareto",
      [](const std::vector<placed_step<>>& steps, const std::vector<double>& caps, memory_unit unit,
         const plan_limits& limits, const progress_argument& progress) {
        return planned(progress, limits, [&](const plan_limits& l) { return pareto(steps, caps, unit, l); });
      },
      nb::arg("steps"), nb::arg("caps"), nb::arg("unit"), nb::arg("limits"), nb::arg("progress").none(),
      "One plan for each limit of memory.");
}

void define_model_plan(nb::module_& m) {
  using p = model_problem;
  define<p>(m, "model_problem", "The step of a model to plan.", field<&p::placement>("placement"),
            field<&p::micro>("micro"), field<&p::forward_only>("forward_only"),
            field<&p::may_recompute>("may_recompute"));
  define<divided_family>(m, "divided_family", "The best family with a partition.", field<&divided_family::name>("name"),
                         field<&divided_family::makespan>("makespan"));
  using r = model_plan;
  define<r>(m, "model_plan", "A partition, the stages that recompute, and a schedule.",
            field<&r::partition>("partition"), field<&r::recomputed>("recomputed", "by stage"),
            field<&r::costs>("costs"), field<&r::plan>("plan"), field<&r::lower_bound>("lower_bound"),
            field<&r::uniform>("uniform"), field<&r::divided>("divided"), field<&r::memory>("memory"),
            field<&r::evaluations>("evaluations"), field<&r::ops_simulated>("ops_simulated"));
  m.def(
      "plan",
      [](const model& of, const p& problem, const plan_limits& limits, const progress_argument& progress) {
        return planned(progress, limits, [&](const plan_limits& l) { return plan(of, problem, l); });
      },
      nb::arg("m"), nb::arg("problem"), nb::arg("limits") = plan_limits(), nb::arg("progress") = nb::none(),
      "The shortest step found for a model: its partition, recomputation and order.");
  using point = model_pareto_point;
  define<point>(m, "model_pareto_point", "A limit of bytes and the plan of a model within it.",
                field<&point::cap>("cap", "bytes of each rank"),
                field<&point::plan>("plan", "its families are the best ones on any of the placements"),
                field<&point::step>("step", "the index of its problem among those given"),
                field<&point::lower_bound>("lower_bound", "for all partitions and orders of all problems"));
  m.def(
      "_model_pareto",
      [](const model& of, const std::vector<p>& problems, const std::vector<double>& bytes, const plan_limits& limits,
         const progress_argument& progress) {
        return planned(progress, limits, [&](const plan_limits& l) { return pareto(of, problems, bytes, l); });
      },
      nb::arg("m"), nb::arg("problems"), nb::arg("bytes"), nb::arg("limits"), nb::arg("progress").none(),
      "One plan of a model for each limit of bytes.");
}

// Divides with a function of Python, which only this thread can call.
template <typename F>
division on_this_thread(const progress_argument& progress, divide_limits& limits, F&& f) {
  const nb::object function = progress_function(progress, static_cast<double>(limits.evaluations));
  std::optional<nb::python_error> error;
  limits.progress = [&](const divide_progress& p) {
    try {
      if (PyErr_CheckSignals() != 0) nb::raise_python_error();
      return goes_on(function, nb::cast(p));
    } catch (nb::python_error& raised) {
      error.emplace(std::move(raised));
      return false;
    }
  };
  try {
    division found = f();
    close(function);
    if (error) raise_with(std::move(*error), nb::cast(std::move(found)));
    return found;
  } catch (...) {
    close(function);
    throw;
  }
}

void define_divide(nb::module_& m) {
  define<divide_progress>(m, "divide_progress", "How far divide() is.",
                          field<&divide_progress::evaluations>("evaluations"),
                          field<&divide_progress::makespan>("makespan", "of the best partition so far"));
  define<divide_limits>(m, "divide_limits", "How long divide() searches.",
                        field<&divide_limits::evaluations>("evaluations"), field<&divide_limits::seed>("seed"));
  using d = division;
  define<d>(m, "division", "A partition of a model's layers among stages.", field<&d::partition>("partition"),
            field<&d::schedule>("schedule"), field<&d::costs>("costs"), field<&d::makespan>("makespan"),
            field<&d::uniform_makespan>("uniform_makespan"), field<&d::lower_bound>("lower_bound"),
            field<&d::partition_bound>("partition_bound"), field<&d::fits>("fits"),
            field<&d::uniform_fits>("uniform_fits"), field<&d::evaluations>("evaluations"));
  m.def(
      "_divide",
      [](const model& of, const schedule& s, divide_limits limits, const progress_argument& progress) {
        return watched(progress, static_cast<double>(limits.evaluations), [&](const reporter& report) {
          limits.progress = [&](const divide_progress& p) { return report([p] { return nb::cast(p); }); };
          return divide(of, s, limits);
        });
      },
      nb::arg("m"), nb::arg("s"), nb::arg("limits") = divide_limits(), nb::arg("progress") = nb::none(),
      "The best partition found for a schedule.");
  m.def(
      "_divide",
      [](const model& of, const placement& where, const nb::callable& make, divide_limits limits,
         const progress_argument& progress) {
        const auto call = [&](const stage_costs& costs) {
          const nb::object made = make(costs);
          schedule* found = nullptr;
          if (!nb::try_cast(made, found) || !found) refuse("divide: make(costs) returns a schedule", made);
          return *found;
        };
        return on_this_thread(progress, limits, [&] { return divide(of, where, call, limits); });
      },
      nb::arg("m"), nb::arg("where"), nb::arg("make"), nb::arg("limits") = divide_limits(),
      nb::arg("progress") = nb::none(),
      "The same for schedules that depend on the costs: make(costs) is called for every partition.");
}

}  // namespace

void define_plans(nb::module_& m) {
  define_plan(m);
  define_pareto(m);
  define_model_plan(m);
  define_divide(m);
}

}  // namespace python
