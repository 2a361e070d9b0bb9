// SPDX-License-Identifier: MIT
// Files for trainers.

#include <nanobind/stl/optional.h>

#include <pipesched/io/export_automodel.hpp>
#include <pipesched/io/export_jaxpp.hpp>
#include <pipesched/io/export_megatron.hpp>
#include <pipesched/io/export_torchtitan.hpp>

#include "module.hpp"
#include "record.hpp"

namespace python {

namespace {

using model_or_none = std::optional<divided_model>;

template <exported (*Export)(const schedule&, const model_or_none&)>
void define_export(nb::module_& m, const char* name, const char* text) {
  m.def(
      name,
      [](const schedule& s, const model_or_none& of) {
        return without_gil([&] {
          require_valid(s);
          if (of) check(of->model);
          return Export(s, of);
        });
      },
      nb::arg("s"), nb::arg("of") = nb::none(), text);
}

void define_values(nb::module_& m) {
  define<exported_file>(m, "exported_file", "A file for a trainer.", field<&exported_file::name>("name"),
                        field<&exported_file::text>("text"));
  define<exported>(m, "exported",
                   "The files for a trainer, and one sentence for each fact that they do not say; write_exported() "
                   "writes them.",
                   field<&exported::files>("files"), field<&exported::notes>("notes"));
  define<divided_model>(m, "divided_model", "A model and the layers of each stage.",
                        field<&divided_model::model>("model"), field<&divided_model::partition>("partition"));
  using o = megatron_order;
  define<o>(m, "megatron_order", "The flags of Megatron-LM that decide on the order.", field<&o::pp>("pp"),
            field<&o::micro>("micro"), field<&o::chunks>("chunks"),
            field<&o::group>("group", "micro-batches per group, with several chunks"),
            field<&o::overlap>("overlap", "F with B in the steady state"));
}

}  // namespace

void define_exports(nb::module_& m) {
  define_values(m);
  define_export<export_torchtitan>(
      m, "export_torchtitan",
      "Files for torchtitan: the CSV and its configuration. Without a model torchtitan divides the layers itself.");
  define_export<export_automodel>(
      m, "export_automodel",
      "Files for NeMo Automodel: the CSV and entries of a recipe. Without a model Automodel "
      "divides the layers itself.");
  define_export<export_megatron>(
      m, "export_megatron",
      "Flags for Megatron-LM, which makes the order itself: raises ScheduleError for an order that it does not make.");
  m.def(
      "export_jaxpp",
      [](const schedule& s, const std::optional<partition>& layers) {
        return without_gil([&] { return require_valid(s), export_jaxpp(s, layers); });
      },
      nb::arg("s"), nb::arg("layers") = nb::none(),
      "A schedule class for jaxpp, as a Python module, with the layers per stage, if given.");
  m.def(
      "megatron_order_of",
      [](const schedule& s) { return without_gil([&] { return require_valid(s), megatron_order_of(s); }); },
      nb::arg("s"), "The flags with which Megatron-LM makes this order.");
}

}  // namespace python
