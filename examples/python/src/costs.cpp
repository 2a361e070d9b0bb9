// SPDX-License-Identifier: MIT
// Costs by stage.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/core/dependencies.hpp>
#include <pipesched/cost/memory_unit.hpp>
#include <pipesched/cost/presets.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/cost/stage_costs.hpp>

#include "module.hpp"
#include "record.hpp"
#include "rows.hpp"

namespace python {

namespace {

void define_cost_parts(nb::module_& m) {
  define_enum<link_busy>(m, "link_busy", "The ranks that a message keeps busy: none, its sender, or both.",
                         link_busy_names);
  define_enum<memory_unit>(m, "memory_unit", "How the memory of a rank is counted.", memory_unit_names);
  define_enum<time_unit>(m, "time_unit", "The unit of the times of a model or of costs.", time_unit_names);
  define<pair_time>(m, "pair_time", "Duration of an overlapped cell of two passes, such as \"FB\".",
                    field<&pair_time::passes>("passes"),
                    field<&pair_time::stages>("stages", "of the two passes; default: any"),
                    field<&pair_time::time>("time"));
  define<rank_link>(m, "rank_link", "A link between two ranks, in one direction.", field<&rank_link::from>("from_"),
                    field<&rank_link::to>("to"), field<&rank_link::latency>("latency"),
                    field<&rank_link::bandwidth>("bandwidth", "bytes per unit of time; default: infinite"),
                    field<&rank_link::busy>("busy"));
  m.def(
      "pair_of",
      [](const cell& c) {
        if (!c.overlapped()) refuse("an overlapped cell", nb::cast(c));
        return to_string(pair_of(c));
      },
      nb::arg("cell"), "The passes of an overlapped cell, such as \"FB\".");
}

nb::class_<stage_costs> define_stage_costs(nb::module_& m) {
  using c = stage_costs;
  return define<c>(
      m, "stage_costs",
      "Costs by stage: times in any one unit, sizes in bytes. A number is for every stage alike; None takes the "
      "default.",
      field<&c::forward>("forward", "time of F"),
      field<&c::backward_input>("backward_input", "time of I; default 1, or what B leaves"),
      field<&c::backward_weight>("backward_weight", "time of W; default 1, or what B leaves"),
      field<&c::backward>("backward", "time of B; default I + W. Alone: I = W = B/2"),
      field<&c::recompute>("recompute", "time of R; default: that of F"),
      field<&c::overlapped>("overlapped", "time of an overlapped cell of F and B; default: the sum"),
      field<&c::overlap_efficiency>("overlap_efficiency",
                                    "0: an overlapped cell takes the sum, 1: what cannot be hidden"),
      field<&c::pairs>("pairs", "prices of overlapped cells"),
      field<&c::allowed_pairs>("allowed_pairs", "the cells that a planner may use; default: FB, FI and those of pairs"),
      field<&c::forward_communication>("forward_communication", "the part of F that is communication"),
      field<&c::backward_input_communication>("backward_input_communication", "the part of I that is communication"),
      field<&c::backward_weight_communication>("backward_weight_communication", "the part of W that is communication"),
      field<&c::release_forward>("release_forward",
                                 "time until F's output leaves an overlapped cell; default: its end"),
      field<&c::release_backward>("release_backward", "the same for the output of B or I"),
      field<&c::transfer_time>("transfer_time", "time of a message over the cut after a stage"),
      field<&c::message_bytes>("message_bytes", "bytes of a message over the cut after a stage"),
      field<&c::bandwidth>("bandwidth", "bytes per unit of time; default: infinite"),
      field<&c::transfers_busy>("transfers_busy"), field<&c::links>("links", "links that differ"),
      field<&c::rank_speeds>("rank_speeds", "by rank; default 1"),
      field<&c::micro_batches>("micro_batches", "relative lengths; default 1"),
      field<&c::kept_by_forward>("kept_by_forward", "bytes kept from F until B or W"),
      field<&c::freed_by_input>("freed_by_input", "bytes that I frees"),
      field<&c::freed_by_weight>("freed_by_weight", "bytes that W frees; default: the rest"),
      field<&c::context>("context", "bytes kept from I until W; default: those of F"),
      field<&c::kept_input>("kept_input", "bytes kept by an F that is recomputed"),
      field<&c::weight_bytes>("weight_bytes", "parameters, gradients and optimizer state"),
      field<&c::transient_forward>("transient_forward", "bytes on top while F runs"),
      field<&c::transient_backward>("transient_backward", "bytes on top while B runs"),
      field<&c::transient_backward_input>("transient_backward_input", "the same for I; default: as B"),
      field<&c::transient_backward_weight>("transient_backward_weight", "the same for W; default: as B"),
      field<&c::transient_recompute>("transient_recompute", "the same for R; default: as F"),
      field<&c::time_unit>("time_unit", "of all times, for output; default none"));
}

// Refuses an op beyond the numbers that are given, rather than read past them.
void require_reach(const stage_costs& costs, const cell& c, std::uint32_t rank) {
  for (const op& o : c) {
    stage_costs::for_each_field(costs, [&](const auto& field, std::string_view) {
      const per_stage* numbers = nullptr;
      if constexpr (requires { field.has_value(); }) {
        if (field.has_value()) numbers = &*field;
      } else {
        numbers = &field;
      }
      if (numbers && numbers->values().size() != 1) place_of(o.stage, numbers->values().size(), "stage");
    });
    if (!costs.micro_batches.empty()) place_of(o.micro, costs.micro_batches.size(), "micro-batch");
  }
  if (!costs.rank_speeds.empty()) place_of(rank, costs.rank_speeds.size(), "rank");
}

}  // namespace

void define_costs(nb::module_& m) {
  define_cost_parts(m);
  define_stage_costs(m)
      .def(
          "duration",
          [](const stage_costs& c, nb::handle of, std::uint32_t rank) {
            const cell which = cell_of(of);
            return require_reach(c, which, rank), c.duration(which, rank);
          },
          nb::arg("cell"), nb::arg("rank") = 0, "Time that a rank is busy with a cell.")
      .def(
          "check", [](const stage_costs& c, std::uint32_t stages) { c.check(stages); }, nb::arg("stages"),
          "Raises ScheduleError unless the numbers make sense for as many stages.")
      .def(
          "check",
          [](const stage_costs& c, std::uint32_t stages, std::uint32_t ranks, std::uint32_t micro) {
            c.check(stages, ranks, micro);
          },
          nb::arg("stages"), nb::arg("ranks"), nb::arg("micro"));
  m.def("deepseek_v3_costs", &deepseek_v3_costs, "Costs of DeepSeek-V3 as its authors profiled it, in milliseconds.");
  m.def("split_stage_costs", &split_stage_costs, nb::arg("given"), nb::arg("where"),
        "Costs of a rank's whole share, divided among its stages. Fields with a number per stage stay.");
  m.def("describe_split", &describe_split, nb::arg("given"), nb::arg("where"),
        "How split_stage_costs() takes these costs, in words.");
}

}  // namespace python
