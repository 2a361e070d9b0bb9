// SPDX-License-Identifier: MIT
// JSON and PyTorch's CSV, as text; the Python package reads and writes the files.

#include <nanobind/stl/vector.h>

#include <istream>
#include <nlohmann/json.hpp>
#include <pipesched/io/costs_json.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/io/model_json.hpp>
#include <pipesched/io/program_json.hpp>
#include <pipesched/io/read_schedule.hpp>
#include <pipesched/io/torch_comms_csv.hpp>
#include <pipesched/io/torch_comms_verify.hpp>
#include <pipesched/io/torch_csv.hpp>
#include <sstream>

#include "extend.hpp"
#include "module.hpp"
#include "record.hpp"

namespace python {

namespace {

template <typename F>
std::string text_of(F&& write) {
  return without_gil([&] {
    std::ostringstream out;
    write(out);
    return std::move(out).str();
  });
}
template <typename F>
auto parsed(const std::string& text, F&& read) {
  return without_gil([&] {
    std::istringstream in(text);
    return read(in);
  });
}

void define_json() {
  const nb::handle of_schedule = nb::type<schedule>(), of_costs = nb::type<stage_costs>(), of_model = nb::type<model>();
  extend(of_schedule, "to_json", "(self) -> str", "The schedule as JSON.",
         [](const schedule& s) { return text_of([&](std::ostream& out) { write_json(out, s); }); });
  extend(of_schedule, "from_json", "(text: str) -> schedule", "The schedule of a JSON text.",
         [](std::string_view text) { return without_gil([&] { return read_json(text); }); });
  extend(nb::type<program>(), "to_json", "(self) -> str", "The program as JSON.",
         [](const program& p) { return text_of([&](std::ostream& out) { write_json(out, p); }); });
  extend(of_costs, "to_json", "(self) -> str", "The costs as JSON.",
         [](const stage_costs& costs) { return without_gil([&] { return nlohmann::ordered_json(costs).dump(); }); });
  extend(of_costs, "from_json", "(text: str) -> stage_costs", "The costs of a JSON text.",
         [](const std::string& text) { return parsed(text, [](std::istream& in) { return read_costs(in); }); });
  extend(of_model, "to_json", "(self) -> str", "The model as JSON.",
         [](const model& of) { return without_gil([&] { return model_document(of).dump(1); }); });
  extend(of_model, "from_json", "(text: str) -> model", "The model of a JSON text.",
         [](const std::string& text) { return parsed(text, [](std::istream& in) { return read_model(in); }); });
}

void define_csv(nb::module_& m) {
  define_enum<torch_pass>(m, "torch_pass", "An action of PyTorch's CSV that is no op.",
                          std::array{"send_f", "recv_f", "send_b", "recv_b", "wait_send_f", "wait_send_b", "unshard",
                                     "reshard", "reduce_grad", "wait_reduce_grad"});
  using a = torch_action;
  define<a>(m, "torch_action", "An action of PyTorch's CSV that is no op.", field<&a::pass>("pass_"),
            field<&a::stage>("stage"), field<&a::micro>("micro"), field<&a::rank>("rank"),
            field<&a::before_cell>("before_cell"))
      .def("__str__", [](const a& of) { return to_string(of); });
  define<torch_csv>(m, "torch_csv", "The schedule of a CSV file of PyTorch, and its other actions.",
                    field<&torch_csv::schedule>("schedule"), field<&torch_csv::actions>("actions"));
  extend(nb::type<torch_csv>(), "from_text", "(text: str) -> torch_csv", "The schedule of a CSV text of PyTorch.",
         [](const std::string& text) { return parsed(text, [](std::istream& in) { return read_torch_csv(in); }); });
  extend(nb::type<schedule>(), "to_torch_csv", "(self) -> str", "The compute_only form of PyTorch's CSV.",
         [](const schedule& s) { return text_of([&](std::ostream& out) { write_torch_csv(out, s); }); });
  define_enum<torch_waits>(m, "torch_waits", "Whether waits for sends are written.", std::array{"omitted", "written"});
  extend(
      nb::type<schedule>(), "to_torch_comms_csv", "(self, waits: torch_waits = ...) -> str",
      "The compute_comms form of PyTorch's CSV, with its messages.",
      [](const schedule& s, torch_waits waits) {
        return text_of([&](std::ostream& out) { write_torch_comms_csv(out, s, waits); });
      },
      nb::arg("waits") = torch_waits::written);
  m.def(
      "verify", [](const torch_csv& file, std::size_t max) { return without_gil([&] { return verify(file, max); }); },
      nb::arg("file"), nb::arg("max_violations") = 100, "Verifies the schedule and messages of a CSV file of PyTorch.");
  define_enum<schedule_format>(m, "schedule_format", "The format of a file.", std::array{"json", "torch_csv"});
  define<schedule_file>(m, "schedule_file", "The result of read_schedule().", field<&schedule_file::format>("format"),
                        field<&schedule_file::schedule>("schedule"), field<&schedule_file::actions>("actions"));
  extend(nb::type<schedule_file>(), "from_text", "(text: str) -> schedule_file",
         "A schedule as JSON or PyTorch's CSV, by its content.",
         [](const std::string& text) { return parsed(text, [](std::istream& in) { return read_schedule(in); }); });
}

}  // namespace

void define_files(nb::module_& m) {
  define_json();
  define_csv(m);
}

}  // namespace python
