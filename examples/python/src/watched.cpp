// SPDX-License-Identifier: MIT

#include "watched.hpp"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace python {

namespace {

constexpr std::chrono::milliseconds glance(50);

// The state that the two threads share.
struct shared_state {
  std::mutex mutex;
  std::condition_variable changed;
  progress_maker latest{};
  std::exception_ptr failure{};
  bool stop = false, done = false;
};

bool report_to(shared_state& shared, progress_maker p) {
  const std::scoped_lock lock(shared.mutex);
  shared.latest = std::move(p);
  return !shared.stop;
}

void run(const watched_work& work, shared_state& shared) {
  std::exception_ptr failure;
  try {
    work([&](progress_maker p) { return report_to(shared, std::move(p)); });
  } catch (...) {
    failure = std::current_exception();
  }
  const std::scoped_lock lock(shared.mutex);
  shared.failure = failure, shared.done = true;
  shared.changed.notify_all();
}

// Waits for a moment, or for the end of the work, and takes the latest progress. True at the end.
bool wait(shared_state& shared, progress_maker& latest) {
  const nb::gil_scoped_release released;
  std::unique_lock lock(shared.mutex);
  shared.changed.wait_for(lock, glance, [&] { return shared.done; });
  latest = std::exchange(shared.latest, nullptr);
  return shared.done;
}

}  // namespace

nb::object progress_function(const progress_argument& progress, double total) {
  if (progress.given.is(nb::handle(Py_False))) return nb::none();
  if (!progress.given.is(nb::handle(Py_True))) return progress.given;
  return nb::module_::import_("pipesched._progress").attr("bar")(total);
}

bool goes_on(const nb::object& function, const nb::object& progress) {
  return function.is_none() || !function(progress).is(nb::handle(Py_False));
}

void close(const nb::object& function) {
  if (nb::hasattr(function, "close")) function.attr("close")();
}

std::optional<nb::python_error> watch(const watched_work& work, const progress_argument& progress, double total) {
  const nb::object function = progress_function(progress, total);
  shared_state shared;
  std::thread worker([&] { run(work, shared); });
  std::optional<nb::python_error> error;
  for (bool done = false, stopped = false; !done;) {
    progress_maker latest;
    done = wait(shared, latest);
    try {
      if (!error && PyErr_CheckSignals() != 0) nb::raise_python_error();
      if (!error && !stopped && latest) stopped = !goes_on(function, latest());
    } catch (nb::python_error& raised) {
      error.emplace(std::move(raised));
    }
    const std::scoped_lock lock(shared.mutex);
    shared.stop = stopped || error;
  }
  {
    const nb::gil_scoped_release released;
    worker.join();
  }
  close(function);
  if (!error && shared.failure) std::rethrow_exception(shared.failure);
  return error;
}

void raise_with(nb::python_error error, const nb::object& result) {
  if (!result.is_valid() || !error.matches(PyExc_KeyboardInterrupt)) throw std::move(error);
  const nb::object type = nb::module_::import_("pipesched._progress").attr("Interrupted");
  const nb::object interrupted = type(result);
  PyErr_SetObject(type.ptr(), interrupted.ptr());
  nb::raise_python_error();
}

}  // namespace python
