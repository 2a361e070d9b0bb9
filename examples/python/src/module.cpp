// SPDX-License-Identifier: MIT
// The extension module of the Python package: every part of the library, and its errors as exceptions.

#include "module.hpp"

#include <exception>
#include <new>
#include <pipesched/model/model.hpp>
#include <pipesched/plan/plan.hpp>
#include <pipesched/support/error.hpp>
#include <pipesched/version.hpp>
#include <string>

NB_MODULE(_pipesched, m) {
  using namespace python;
  nb::set_leak_warnings(false);  // a value that a user's other modules keep until the end is no fault
  m.attr("library_version") = std::string(pipesched::library_version);
  static nb::handle schedule_error_type, model_error_type, no_fit_error_type;
  schedule_error_type = nb::exception<pipesched::schedule_error>(m, "ScheduleError", PyExc_ValueError).release();
  nb::setattr(
      schedule_error_type, "__doc__",
      nb::str("Invalid input. Its text is one sentence: the value got, the rule that it breaks and, if there is "
              "one, the nearest legal value."));
  model_error_type = nb::exception<pipesched::model_error>(m, "ModelError", schedule_error_type).release();
  nb::setattr(model_error_type, "__doc__", nb::str("Invalid input in a model; `path` names its entry."));
  nb::setattr(model_error_type, "path", nb::str(""));
  no_fit_error_type = nb::exception<pipesched::no_fit_error>(m, "NoFitError", schedule_error_type).release();
  nb::setattr(
      no_fit_error_type, "__doc__",
      nb::str("Nothing that a search has found fits into the memory; `evaluations` says how many it has spent."));
  nb::setattr(no_fit_error_type, "evaluations", nb::float_(0.0));
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const pipesched::model_error& e) {
      const nb::object error = model_error_type(e.what());
      nb::setattr(error, "path", nb::str(e.path.c_str()));
      PyErr_SetObject(model_error_type.ptr(), error.ptr());
    } catch (const pipesched::no_fit_error& e) {
      const nb::object error = no_fit_error_type(e.what());
      nb::setattr(error, "evaluations", nb::float_(e.evaluations));
      PyErr_SetObject(no_fit_error_type.ptr(), error.ptr());
    }
  });
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::bad_alloc&) {
      PyErr_SetString(PyExc_MemoryError, "there is not enough memory; fewer ranks, stages or micro-batches take less");
    } catch (const nb::cast_error&) {
      PyErr_SetString(PyExc_TypeError, "a function given to pipesched returned a value of another type than asked");
    }
  });
  define_ops(m);
  define_schedules(m);
  define_costs(m);
  define_models(m);
  define_families(m);
  define_transforms(m);
  define_simulation(m);
  define_measured(m);
  define_bounds(m);
  define_programs(m);
  define_plans(m);
  define_cells(m);
  define_pictures(m);
  define_plan_pages(m);
  define_files(m);
  define_exports(m);
}
