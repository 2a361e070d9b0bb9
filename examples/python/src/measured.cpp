// SPDX-License-Identifier: MIT
// Measured times: events of a hook, traces and Primus' files, as steps, and costs from them.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <pipesched/io/measured_steps.hpp>
#include <pipesched/io/read_primus.hpp>
#include <pipesched/io/read_times.hpp>
#include <pipesched/simulate/fit_costs.hpp>
#include <pipesched/simulate/fit_model.hpp>

#include "extend.hpp"
#include "module.hpp"
#include "record.hpp"

namespace python {

namespace {

using named_texts = std::vector<std::pair<std::string, std::string>>;

void define_steps(nb::module_& m) {
  define_enum<rank_clocks>(m, "rank_clocks",
                           "Whether the times of all ranks come from one clock; without one, nothing is known of "
                           "transfers.",
                           std::array{"common", "own"});
  define<measured_cell>(m, "measured_cell", "A cell that a rank ran, at any time of the run.",
                        field<&measured_cell::rank>("rank"), field<&measured_cell::what>("what"),
                        field<&measured_cell::time>("time"));
  define<measured_steps>(m, "measured_steps", "The steps of a run.", field<&measured_steps::steps>("steps"),
                         field<&measured_steps::clocks>("clocks"),
                         field<&measured_steps::notes>("notes", "facts that the times do not show"));
  define<measured_times>(m, "measured_times", "Cells of a run, and the unit of their times.",
                         field<&measured_times::cells>("cells"), field<&measured_times::unit>("unit"),
                         field<&measured_times::notes>("notes"));
  m.def(
      "steps_of", [](const std::vector<measured_cell>& cells) { return without_gil([&] { return steps_of(cells); }); },
      nb::arg("cells"), "The steps of a run, each a timeline that starts at 0.");
  m.def("cell_of_action", &cell_of_action, nb::arg("name"),
        "The cell of the name of an event, such as 0F3, (0F7;7B13) or PP:0F3; None for other names.");
}

void define_readers(nb::module_& m) {
  extend(nb::type<measured_times>(), "from_text", "(text: str) -> measured_times", "The events of a hook, as JSON.",
         [](const std::string& text) { return without_gil([&] { return read_times(text); }); });
  m.def(
      "_read_traces", [](const named_texts& files) { return without_gil([&] { return read_traces(files); }); },
      nb::arg("files"), "The cells of traces, each with its name.");
  m.def(
      "_read_primus",
      [](const schedule& s, const named_texts& files) {
        return without_gil([&] { return require_valid(s), read_primus(s, files); });
      },
      nb::arg("s"), nb::arg("files"), "The steps of Primus' files by rank, each with its name.");
}

void define_fits(nb::module_& m) {
  m.def(
      "fit_costs", [](const timeline& t) { return without_gil([&] { return fit_costs(t); }); }, nb::arg("t"),
      "Costs by stage from a measured timeline.");
  m.def(
      "fit_costs",
      [](const std::vector<timeline>& times, rank_clocks clocks) {
        return without_gil([&] { return fit_costs(times, clocks); });
      },
      nb::arg("times"), nb::arg("clocks") = rank_clocks::common, "The same from several, as medians over all of them.");
  m.def(
      "estimates_of",
      [](const std::vector<timeline>& times, rank_clocks clocks) {
        return without_gil([&] { return estimates_of(times, clocks); });
      },
      nb::arg("times"), nb::arg("clocks") = rank_clocks::common,
      "One sentence for each kind of value of fit_costs() that was not measured.");
  define<model_fit>(m, "model_fit", "A model from measured timelines.", field<&model_fit::fitted>("fitted"),
                    field<&model_fit::alike>("alike", "kinds that the timelines do not tell apart"));
  m.def(
      "fit_model",
      [](const std::vector<timeline>& times, const std::vector<partition>& partitions, const model& of) {
        return without_gil([&] { return fit_model(times, partitions, of); });
      },
      nb::arg("times"), nb::arg("partitions"), nb::arg("m"),
      "The times of the kinds of layers from measured timelines, each with its partition.");
}

}  // namespace

void define_measured(nb::module_& m) {
  define_steps(m);
  define_readers(m);
  define_fits(m);
}

}  // namespace python
