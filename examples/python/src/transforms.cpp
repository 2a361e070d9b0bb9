// SPDX-License-Identifier: MIT
// Transforms from one schedule to another.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/core/freeze.hpp>
#include <pipesched/core/recompute.hpp>
#include <pipesched/core/transform.hpp>
#include <pipesched/plan/memory_caps.hpp>
#include <pipesched/plan/place_recompute.hpp>
#include <pipesched/plan/refill.hpp>
#include <pipesched/plan/reorder_micro_batches.hpp>

#include "module.hpp"
#include "record.hpp"

namespace python {

namespace {

using costs_or_none = std::optional<stage_costs>;

void define_order(nb::module_& m) {
  m.def(
      "split_backward", [](const schedule& s) { return without_gil([&] { return split_backward(s); }); }, nb::arg("s"),
      "Splits every B into an I and, in the next cell, its W.");
  m.def(
      "merge_backward", [](const schedule& s) { return without_gil([&] { return merge_backward(s); }); }, nb::arg("s"),
      "Replaces every I that has a W by a B and removes every W.");
  m.def(
      "keep_forwards", [](const schedule& s) { return without_gil([&] { return keep_forwards(s); }); }, nb::arg("s"),
      "Keeps only the forwards, for evaluation.");
  m.def(
      "keep_micro_batches",
      [](const schedule& s, std::int64_t micro) { return without_gil([&] { return keep_micro_batches(s, micro); }); },
      nb::arg("s"), nb::arg("micro"), "Keeps the first micro-batches.");
  m.def(
      "delay_weights",
      [](const schedule& s, std::int64_t by) { return without_gil([&] { return delay_weights(s, by); }); },
      nb::arg("s"), nb::arg("by"), "Delays every W by as many W's of its rank.");
  define_enum<overlap_policy>(m, "overlap_policy", "The neighbours that overlap_neighbours() pairs.",
                              std::array{"everywhere", "where_ready"});
  m.def(
      "overlap_neighbours",
      [](const schedule& s, overlap_policy policy) {
        return without_gil([&] { return overlap_neighbours(s, policy); });
      },
      nb::arg("s"), nb::arg("policy") = overlap_policy::everywhere,
      "Puts every F and the B or I of another micro-batch right after it into one cell.");
  m.def(
      "concatenate",
      [](const schedule& a, const schedule& b) { return without_gil([&] { return concatenate(a, b); }); },
      nb::arg("first"), nb::arg("then"), "Two steps without a flush between them.");
  m.def(
      "freeze",
      [](const schedule& s, const std::vector<std::int64_t>& stages) {
        return without_gil([&] { return freeze(s, std::span<const std::int64_t>(stages)); });
      },
      nb::arg("s"), nb::arg("stages"), "Freezes the weights of these stages.");
}

void define_recompute(nb::module_& m) {
  using c = recompute_choice;
  define<c>(m, "recompute_choice", "The activations to recompute: of all stages and micro-batches by default.",
            field<&c::stages>("stages", "default: all"), field<&c::count>("count"),
            field<&c::of_every>("of_every", "of as many micro-batches the last `count`"),
            field<&c::first_whole>("first_whole", "micro-batches that are kept whole in front"),
            field<&c::inside_backward>("inside_backward", "no R: the backward recomputes itself, as RB or RI"));
  m.def(
      "recompute", [](const schedule& s, const c& which) { return without_gil([&] { return recompute(s, which); }); },
      nb::arg("s"), nb::arg("which") = c(), "Recomputes the chosen activations, each right before its backward.");
  m.def(
      "keep_activations", [](const schedule& s) { return without_gil([&] { return keep_activations(s); }); },
      nb::arg("s"), "Recomputes nothing: the inverse of recompute().");
  m.def(
      "place_recompute",
      [](const schedule& s, const costs_or_none& costs) {
        return without_gil([&] { return place_recompute(s, costs.value_or(stage_costs())); });
      },
      nb::arg("s"), nb::arg("costs") = nb::none(),
      "Moves every R into the stall before its backward where there is one.");
}

void define_costed(nb::module_& m) {
  define<memory_caps>(m, "memory_caps", "Limits of memory.",
                      field<&memory_caps::activations>("activations", "of a rank's whole share"),
                      field<&memory_caps::bytes>("bytes", "of activations, by rank"))
      .def_prop_ro("empty", &memory_caps::empty);
  m.def(
      "check", [](const memory_caps& caps, std::uint32_t ranks) { check(caps, ranks); }, nb::arg("caps"),
      nb::arg("ranks"));
  m.def(
      "refill",
      [](const schedule& s, const costs_or_none& costs, const memory_caps& caps) {
        return without_gil([&] { return refill(s, costs.value_or(stage_costs()), caps); });
      },
      nb::arg("s"), nb::arg("costs") = nb::none(), nb::arg("caps") = memory_caps(),
      "Splits every lone B and moves every lone W into a stall, within the memory of now or of `caps`.");
  m.def(
      "reorder_micro_batches",
      [](const schedule& s, const stage_costs& costs) {
        return without_gil([&] { return reorder_micro_batches(s, costs); });
      },
      nb::arg("s"), nb::arg("costs"),
      "The best of four orders of micro-batches by length, for costs with micro_batches.");
}

}  // namespace

void define_transforms(nb::module_& m) {
  define_order(m);
  define_recompute(m);
  define_costed(m);
}

}  // namespace python
