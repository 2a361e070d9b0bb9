// SPDX-License-Identifier: MIT
#pragma once

// Long work on a thread of its own, while the caller's thread lets other Python threads run, calls a progress function, and looks
// for Ctrl-C.

#include <nanobind/nanobind.h>

#include <functional>
#include <optional>
#include <type_traits>

#include "module.hpp"

namespace python {

/// How far the work is, as a Python value; called where Python may be touched.
using progress_maker = std::function<nb::object()>;
/// The work: it reports how far it is with `report`, which returns false once it is to stop.
using reporter = std::function<bool(progress_maker)>;
using watched_work = std::function<void(const reporter& report)>;

/// The argument `progress` of long work: None or False, a function of the latest progress, or True for a bar.
struct progress_argument {
  nb::object given = nb::none();
};

/// Runs `work`, which must not touch Python, and returns when it has ended: by itself, because `progress` returned False, or
/// because of Ctrl-C or an error in `progress`. Nothing runs afterwards.
/// @param progress  its function is called now and then, on this thread
/// @param total  the end of the bar: evaluations, or draws
/// @return the error in Python that ended it, if one did, for raise_with()
/// @throws what the work throws, unless an error in Python ended it
std::optional<nb::python_error> watch(const watched_work& work, const progress_argument& progress, double total);

/// Raises the error that ended work. A KeyboardInterrupt becomes an Interrupted, which carries the result, if there is one.
[[noreturn]] void raise_with(nb::python_error error, const nb::object& result);

/// The progress function that the caller gave; a bar for True.
nb::object progress_function(const progress_argument& progress, double total);
/// Calls it. False if it wants to stop.
bool goes_on(const nb::object& function, const nb::object& progress);
/// Ends a bar.
void close(const nb::object& function);

template <typename F>
auto watched(const progress_argument& progress, double total, F&& f) {
  std::optional<std::invoke_result_t<F, const reporter&>> result;
  auto error = watch([&](const reporter& report) { result.emplace(f(report)); }, progress, total);
  if (error) raise_with(std::move(*error), result ? nb::cast(std::move(*result)) : nb::object());
  return std::move(*result);
}

}  // namespace python

template <>
struct nanobind::detail::type_caster<python::progress_argument> {
  NB_TYPE_CASTER(python::progress_argument, const_name("collections.abc.Callable | bool"))

  bool from_python(handle from, std::uint8_t, cleanup_list*) noexcept {
    if (!from.is_none() && !PyBool_Check(from.ptr()) && !PyCallable_Check(from.ptr())) return false;
    value.given = borrow(from);
    return true;
  }
  static handle from_cpp(const python::progress_argument& p, rv_policy, cleanup_list*) noexcept {
    return handle(p.given).inc_ref();
  }
};
