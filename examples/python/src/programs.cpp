// SPDX-License-Identifier: MIT
// Programs: messages, buffers and slots of a schedule.

#include <nanobind/operators.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/program/describe.hpp>
#include <pipesched/program/fits.hpp>
#include <pipesched/program/launch_order.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/program/program.hpp>
#include <pipesched/program/verify.hpp>

#include "module.hpp"
#include "record.hpp"
#include "rows.hpp"

namespace python {

namespace {

void define_program_parts(nb::module_& m) {
  define_enum<action_kind>(m, "action_kind", "The kind of an action.",
                           std::array{"receive", "compute", "send", "accumulate"});
  define_enum<lane>(m, "lane", "The lane of an action.", std::array{"compute", "send", "receive"});
  define_enum<pool>(m, "pool", "A pool of slots.",
                    std::array{"activation", "context", "kept_input", "tensor", "reduction", "sent_gradient"});
  define<channel>(m, "channel", "A directed pair of ranks with its messages.", field<&channel::from>("from_"),
                  field<&channel::to>("to"), field<&channel::messages>("messages"),
                  field<&channel::receive_buffers>("receive_buffers"), field<&channel::send_buffers>("send_buffers"));
  using a = action;
  define<a>(m, "action", "One step of a rank: a cell, a message, or a sum of gradients.", field<&a::kind>("kind"),
            field<&a::chunk>("chunk"), field<&a::other_chunk>("other_chunk"), field<&a::what>("what", "the message"),
            field<&a::channel, no_slot>("channel"), field<&a::buffer, no_slot>("buffer"),
            field<&a::index>("index", "the cell, or the stage of a sum"));
  using o = op_slots;
  define<o>(m, "op_slots", "The slots of an op, None where it has none.", field<&o::activation, no_slot>("activation"),
            field<&o::context, no_slot>("context"), field<&o::kept_input, no_slot>("kept_input"),
            field<&o::input, no_slot>("input"), field<&o::output, no_slot>("output"));
  define<pool_sizes>(m, "pool_sizes", "The sizes of a rank's pools.", field<&pool_sizes::sizes>("sizes", "by pool"))
      .def("__getitem__", [](const pool_sizes& p, pool which) { return p[which]; })
      .def_prop_ro("owned_buffers", &pool_sizes::owned_buffers)
      .def_prop_ro("buffers", &pool_sizes::buffers);
  m.attr("pool_names") = to_python(pool_names, {});
  m.def("lane_of", &lane_of, nb::arg("kind"), "The lane of an action of this kind.");
  m.def("is_message", &is_message, nb::arg("a"));
  m.def("is_weight_gradient", &is_weight_gradient, nb::arg("a"));
  m.def("larger", &larger, nb::arg("a"), nb::arg("b"), "The larger size of each pool.");
}

// An action of a rank, which must exist.
std::size_t action_at(const program& p, std::uint32_t rank, std::int64_t at) {
  return place_of(at, p.actions[place_of(rank, p.actions.size(), "rank")].size(), "action");
}

void define_program(nb::module_& m) {
  define_row<action>(m, "action_row", "The actions of one rank.", "action");
  define_row<std::array<op_slots, 2>>(m, "slots_row", "The slots of the two ops of every cell of one rank.",
                                      "tuple[op_slots, op_slots]");
  nb::class_<program> type(m, "program",
                           "A schedule with its messages, buffers and slots, as lower() makes it: a sequence of the "
                           "actions of every rank.");
  refuse_construction(type, "programs come from lower(schedule)");
  add_sequence(type, {"rank", "action_row", [](nb::handle p) { return nb::cast<const program&>(p).actions.size(); },
                      [](nb::handle p, std::size_t rank) {
                        return nb::cast(row_of(p, nb::cast<const program&>(p).actions, rank));
                      }});
  type.def_ro("schedule", &program::schedule)
      .def_prop_ro(
          "channels", [](const program& p) { return to_python(p.channels, {}); },
          nb::sig("def channels(self) -> tuple[channel, ...]"))
      .def_prop_ro(
          "actions", [](nb::handle p) { return rows_of(p, nb::cast<const program&>(p).actions); },
          nb::sig("def actions(self) -> tuple[action_row, ...]"), "one row per rank")
      .def_prop_ro(
          "slots", [](nb::handle p) { return rows_of(p, nb::cast<const program&>(p).slots); },
          nb::sig("def slots(self) -> tuple[slots_row, ...]"), "of every cell, one row per rank")
      .def_prop_ro(
          "pools", [](const program& p) { return to_python(p.pools, {}); },
          nb::sig("def pools(self) -> tuple[pool_sizes, ...]"), "one per rank")
      .def("__hash__",
           [](nb::handle p) {
             const program& of = nb::cast<const program&>(p);
             return nb::hash(nb::make_tuple(p.attr("schedule"), of.channels.size(), of.actions.all().size()));
           })
      .def(nb::self == nb::self, nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__repr__",
           [](const program& p) {
             return pipesched::detail::concat({"<program of ", p.schedule.name.view(), ": ",
                                               pipesched::detail::count_text(p.schedule.pp(), "rank"), ", ",
                                               pipesched::detail::count_text(p.channels.size(), "channel"), ", ",
                                               pipesched::detail::count_text(p.actions.all().size(), "action"), ">"});
           })
      .def("__getstate__",
           [](const program& p) {
             return nb::make_tuple(p.schedule, p.channels, state_of(p.actions), state_of(p.slots), p.pools);
           })
      .def("__setstate__", [](program& self, const nb::tuple& state) {
        program p{.schedule = nb::cast<schedule>(state[0]),
                  .channels = nb::cast<std::vector<channel>>(state[1]),
                  .actions = rows_from_state<action>(nb::cast<nb::tuple>(state[2])),
                  .slots = rows_from_state<std::array<op_slots, 2>>(nb::cast<nb::tuple>(state[3])),
                  .pools = nb::cast<std::vector<pool_sizes>>(state[4])};
        new (&self) program(std::move(p));
      });
  define<lower_options>(m, "lower_options", "How a schedule is lowered.",
                        field<&lower_options::depth>("depth", "buffers per channel and end"),
                        field<&lower_options::tied>("tied", "groups of stages that share their weights"));
  m.def(
      "lower", [](const schedule& s, const lower_options& o) { return without_gil([&] { return lower(s, o); }); },
      nb::arg("s"), nb::arg("options") = lower_options(), "The program of a schedule.");
  m.def(
      "verify", [](const program& p, std::size_t max) { return without_gil([&] { return verify(p, max); }); },
      nb::arg("p"), nb::arg("max_violations") = 100, "Proves that a program ends, or reports what is wrong.");
  m.def(
      "require_valid", [](const program& p) { without_gil([&] { require_valid(p); }); }, nb::arg("p"));
  m.def("fingerprint", &fingerprint, nb::arg("p"), "A number that differs for programs that differ.");
  m.def(
      "describe",
      [](const program& p, std::uint32_t rank, std::int64_t at) { return describe(p, rank, action_at(p, rank, at)); },
      nb::arg("p"), nb::arg("rank"), nb::arg("at"), "The place of an action in words.");
}

void define_launches(nb::module_& m) {
  define<launch>(m, "launch", "When an action is launched.", field<&launch::action>("action"),
                 field<&launch::issue_before>("issue_before"));
  m.def(
      "launch_order",
      [](const program& p, const std::optional<stage_costs>& costs) {
        const auto order = without_gil([&] { return launch_order(p, costs.value_or(stage_costs())); });
        std::vector<std::vector<launch>> all;
        for (const auto row : order) all.emplace_back(row.begin(), row.end());
        return all;
      },
      nb::arg("p"), nb::arg("costs") = nb::none(), "An order of launches for every rank that does not deadlock.");
}

void define_memory(nb::module_& m) {
  using r = rank_memory;
  define<r>(m, "rank_memory", "Bytes that a rank needs.", field<&r::weights>("weights"),
            field<&r::activations>("activations"), field<&r::buffers>("buffers"), field<&r::limit>("limit"),
            field<&r::first_too_large>("first_too_large", "the first cell that does not fit"),
            field<&r::excess>("excess"))
      .def_prop_ro("total", &r::total);
  define<memory_report>(m, "memory_report", "Bytes that each rank needs. True if they fit.",
                        field<&memory_report::ranks>("ranks"))
      .def("__bool__", [](const memory_report& of) { return bool(of); })
      .def(
          "describe",
          [](const memory_report& of, const schedule& s) {
            require_valid(s);
            for (std::size_t rank = 0; rank < of.ranks.size(); ++rank)
              if (const auto i = of.ranks[rank].first_too_large)
                place_of(static_cast<std::int64_t>(*i),
                         s[place_of(static_cast<std::int64_t>(rank), s.size(), "rank")].size(), "cell");
            return to_string(of, s);
          },
          nb::arg("s"), "The first rank that does not fit, in words; empty if all do.");
  m.def(
      "fits",
      [](const schedule& s, const std::optional<stage_costs>& costs, const std::vector<double>& memory,
         const lower_options& options) {
        return without_gil([&] { return fits(s, costs.value_or(stage_costs()), memory, options); });
      },
      nb::arg("s"), nb::arg("costs") = nb::none(), nb::arg("memory") = std::vector<double>(),
      nb::arg("options") = lower_options(), "The bytes that each rank needs, against its memory.");
  m.def(
      "fits",
      [](const program& p, const std::optional<stage_costs>& costs, const std::vector<double>& memory) {
        return without_gil([&] { return fits(p, costs.value_or(stage_costs()), memory); });
      },
      nb::arg("p"), nb::arg("costs") = nb::none(), nb::arg("memory") = std::vector<double>());
}

}  // namespace

void define_programs(nb::module_& m) {
  define_program_parts(m);
  define_program(m);
  define_launches(m);
  define_memory(m);
}

}  // namespace python
