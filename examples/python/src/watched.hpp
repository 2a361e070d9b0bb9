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

/// Runs `work`, which must not touch Python, and returns when it has ended: by itself, because `progress` returned False, or
/// because of Ctrl-C or an error in `progress`. Nothing runs afterwards.
/// @param progress  None, a function of the latest progress that is called now and then on this thread, or True for a bar
/// @param total  the end of the bar: evaluations, or draws
/// @return the error in Python that ended it, if one did, for raise_with()
/// @throws what the work throws, unless an error in Python ended it
std::optional<nb::python_error> watch(const watched_work& work, nb::handle progress, double total);

/// Raises the error that ended work. A KeyboardInterrupt becomes an Interrupted, which carries the result, if there is one.
[[noreturn]] void raise_with(nb::python_error error, const nb::object& result);

/// The progress function that the caller gave; a bar for True.
nb::object progress_function(nb::handle progress, double total);
/// Calls it. False if it wants to stop.
bool goes_on(const nb::object& function, const nb::object& progress);
/// Ends a bar.
void close(const nb::object& function);

template <typename F>
auto watched(nb::handle progress, double total, F&& f) {
  std::optional<std::invoke_result_t<F, const reporter&>> result;
  auto error = watch([&](const reporter& report) { result.emplace(f(report)); }, progress, total);
  if (error) raise_with(std::move(*error), result ? nb::cast(std::move(*result)) : nb::object());
  return std::move(*result);
}

}  // namespace python
