// SPDX-License-Identifier: MIT
// Ops, cells and placements.

#include <nanobind/operators.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/core/dependencies.hpp>
#include <pipesched/core/notation.hpp>
#include <pipesched/core/op.hpp>
#include <pipesched/core/placement.hpp>
#include <pipesched/program/program.hpp>

#include "module.hpp"
#include "record.hpp"
#include "rows.hpp"

namespace python {

cell cell_of(nb::handle from) {
  if (cell* c = nullptr; nb::try_cast(from, c) && c) return *c;
  if (op* o = nullptr; nb::try_cast(from, o) && o) return *o;
  std::string text;
  if (!nb::try_cast(from, text)) refuse("a cell, an op or a text such as 3F12", from);
  if (const auto c = parse_cell(text)) return *c;
  throw schedule_error(pipesched::detail::concat(
      {"\"", text.substr(0, 40), "\" is not a cell; expected an op such as 3F12, or two as (0F7;7B13)"}));
}

namespace {

// op("3F12") as well as op(pass_, chunk, stage, micro).
op op_from_text(std::string_view text) {
  if (const auto o = parse_op(text)) return *o;
  throw schedule_error(pipesched::detail::concat(
      {"\"", text.substr(0, 40), "\" is not an op; expected <stage><pass><micro>, such as 3F12"}));
}

}  // namespace

template <>
inline constexpr op (*reader_of_text<op>)(std::string_view) = &op_from_text;

namespace {

// A lone op from the same.
op op_of(nb::handle from) {
  const cell c = cell_of(from);
  if (c.overlapped()) refuse("one op", from);
  return c[0];
}

// The arguments of the constructor.
struct cell_arguments {
  nb::object first{}, second = nb::none();
};

cell cell_from(const nb::args& ops, const nb::kwargs& keywords) {
  using a = cell_arguments;
  static const record_entry entry{"cell", {field<&a::first>("first"), field<&a::second>("second")}};
  a given;
  entry.fill(&given, ops, keywords, "cell", 1);
  return given.second.is_none() ? cell_of(given.first) : cell(op_of(given.first), op_of(given.second));
}

void define_op(nb::module_& m) {
  define_enum<pass>(
      m, "pass_",
      "The pass of an op: forward (F), backward (B), backward_input (I), backward_weight (W), recompute (R), "
      "recompute_backward (RB), recompute_backward_input (RI).",
      std::array{"none", "forward", "backward", "backward_input", "backward_weight", "recompute", "recompute_backward",
                 "recompute_backward_input"});
  m.def(
      "name", [](pass p) { return name(p); }, nb::arg("p"), "F, B, I, W, R, RB or RI; \"?\" for none.");
  m.def(
      "letter", [](pass p) { return std::string(1, letter(p)); }, nb::arg("p"),
      "F, B, I, W or R: the letter without the recomputation.");
  m.def(
      "pass_of", [](std::string_view text) { return pass_of(text); }, nb::arg("name"),
      "The pass of a name; pass_.none for any other text.");
  m.def("without_recompute", &without_recompute, nb::arg("p"), "B for RB, I for RI, and any other pass itself.");
  m.def("with_recompute", &with_recompute, nb::arg("p"), "RB for B, RI for I, and any other pass itself.");
  m.def(
      "yields_input_gradient", [](pass p) { return yields_input_gradient(p); }, nb::arg("p"),
      "True for B, I, RB and RI.");
  m.def(
      "yields_weight_gradient", [](pass p) { return yields_weight_gradient(p); }, nb::arg("p"),
      "True for B, RB and W.");
  m.def(
      "recomputes", [](pass p) { return recomputes(p); }, nb::arg("p"), "True for R, RB and RI.");
  define<op>(m, "op",
             "One pass of one micro-batch through one stage. Its text is <stage><pass><micro>: op(\"3F12\") is "
             "op(\"forward\", stage=3, micro=12).",
             field<&op::pass>("pass_"), field<&op::chunk>("chunk", "index of the stage among the stages of its rank"),
             field<&op::stage>("stage", "0-based, in model order"),
             field<&op::micro>("micro", "0-based, over the whole step"))
      .def("__str__", [](const op& o) { return to_string(o); })
      .def(nb::self < nb::self)
      .def(nb::self > nb::self)
      .def(nb::self <= nb::self)
      .def(nb::self >= nb::self);
  m.def(
      "parse_op", [](std::string_view text) { return parse_op(text); }, nb::arg("text"),
      "The op of a text such as 3F12; None if the text is not an op.");
}

void define_cell(nb::module_& m) {
  nb::class_<cell> type(m, "cell",
                        "One op, or two that run overlapped. A sequence of its ops; its text is 3F12 or (0F7;7B13).");
  add_sequence(type, {"op", "op", [](nb::handle c) { return nb::cast<const cell&>(c).size(); },
                      [](nb::handle c, std::size_t i) { return nb::cast(nb::cast<const cell&>(c)[i]); }});
  type.def(
          "__init__",
          [](cell* self, const nb::args& ops, const nb::kwargs& keywords) {
            new (self) cell(cell_from(ops, keywords));
          },
          nb::sig("def __init__(self, first: op | cell | str, second: op | str | None = None) -> None"))
      .def_prop_ro("overlapped", &cell::overlapped, "True if two ops run overlapped.")
      .def("__str__", [](const cell& c) { return to_string(c); })
      .def("__repr__", [](const cell& c) { return "cell('" + to_string(c) + "')"; })
      .def("__hash__", [](const cell& c) { return std::hash<op>()(c[0]) * 31 + std::hash<op>()(c[1]); })
      .def("__reduce__",
           [](const cell& c) {
             const nb::object type = nb::borrow(nb::type<cell>());
             return c.overlapped() ? nb::make_tuple(type, nb::make_tuple(c[0], c[1]))
                                   : nb::make_tuple(type, nb::make_tuple(c[0]));
           })
      .def(nb::self == nb::self, nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def(nb::self < nb::self)
      .def(nb::self > nb::self)
      .def(nb::self <= nb::self)
      .def(nb::self >= nb::self);
  m.def(
      "parse_cell", [](std::string_view text) { return parse_cell(text); }, nb::arg("text"),
      "The cell of a text such as 3F12 or (0F7;7B13); None if the text is not a cell.");
}

void define_dependencies(nb::module_& m) {
  define_enum<tensor_kind>(m, "tensor_kind", "The kind of a tensor between stages.",
                           std::array{"activation", "gradient", "weight_gradient"});
  define<tensor_id>(m, "tensor_id", "A tensor by the stage that makes it.", field<&tensor_id::kind>("kind"),
                    field<&tensor_id::stage>("stage"), field<&tensor_id::micro>("micro"))
      .def(nb::self < nb::self)
      .def(nb::self > nb::self)
      .def(nb::self <= nb::self)
      .def(nb::self >= nb::self)
      .def("__str__", [](const tensor_id& t) { return to_string(t); });
  define<stage_chain>(m, "stage_chain", "The stages of a model, for the dependencies between them.",
                      field<&stage_chain::stages>("stages"),
                      field<&stage_chain::first_trained>("first_trained", "the stages before it are frozen"));
  m.def("has_output", &has_output, nb::arg("op"), nb::arg("of"), "True if the op makes a tensor for another stage.");
  m.def("product_of", &product_of, nb::arg("op"),
        "The tensor that an F, B or I makes, whether a stage needs it or not.");
  m.def("output_of", &output_of, nb::arg("op"), nb::arg("of"),
        "The tensor that the op makes for another stage, or None.");
  m.def("has_input", &has_input, nb::arg("op"), nb::arg("of"), "True if the op needs a tensor of another stage.");
  m.def("source_of", &source_of, nb::arg("op"), "The tensor that an F, B or I needs, were there a stage to make it.");
  m.def("input_of", &input_of, nb::arg("op"), nb::arg("of"), "The tensor of another stage that the op needs, or None.");
  m.def("receiver_of", &receiver_of, nb::arg("tensor"), "The stage that needs a tensor.");
  m.def("depends", &depends, nb::arg("later"), nb::arg("earlier"), nb::arg("of"),
        "True if the later op needs what the earlier one makes.");
}

void require_stage(const placement& p, std::uint32_t stage) { place_of(stage, p.stages(), "stage"); }

nb::tuple rank_of_stage(const placement& p, std::uint32_t replica) {
  place_of(replica, p.replicas(), "replica");
  const auto ranks = p.rank_of_stage(replica);
  return nb::cast<nb::tuple>(to_python(std::vector<std::uint16_t>(ranks.begin(), ranks.end()), {}));
}

// For pickle. Micro-batches that make the second replica begin where it does.
nb::tuple state_of_placement(const placement& p) {
  const std::int64_t micro = p.replicas() == 2 ? 2 * std::int64_t{p.replica_begin(1)} : 1;
  nb::list table;
  for (std::uint32_t replica = 0; p.ranks() > 0 && replica < p.replicas(); ++replica)
    table.append(rank_of_stage(p, replica));
  return nb::make_tuple(p.kind(), p.ranks(), p.stages(), micro, table);
}
placement placement_from_state(const nb::tuple& state) {
  const auto kind = nb::cast<placement_kind>(state[0]);
  const auto ranks = nb::cast<std::int64_t>(state[1]), stages = nb::cast<std::int64_t>(state[2]),
             micro = nb::cast<std::int64_t>(state[3]);
  if (ranks == 0) return {};
  if (kind != placement_kind::custom) return placement::of_kind(kind, ranks, stages, micro);
  return placement::custom(ranks, micro, nb::cast<std::vector<std::vector<std::uint16_t>>>(state[4]));
}

std::string repr_of(const placement& p) {
  return pipesched::detail::concat(
      {"<placement ", to_string(p.kind()), ": ", pipesched::detail::count_text(p.stages(), "stage"), " on ",
       pipesched::detail::count_text(p.ranks(), "rank"), p.replicas() == 2 ? ", two replicas>" : ">"});
}

void define_placement(nb::module_& m) {
  define_enum<placement_kind>(m, "placement_kind", "How stages lie on ranks.", placement_kind_names);
  m.attr("max_stages") = max_stages;
  m.attr("max_chunks") = max_chunks;
  nb::class_<placement>(m, "placement", "Which rank runs a stage, and which of the rank's chunks it is.")
      .def(nb::init<>())
      .def_static(
          "linear", [](std::int64_t ranks) { return placement::linear(ranks); }, nb::arg("ranks"), "Stage s on rank s.")
      .def_static(
          "looped", [](std::int64_t ranks, std::int64_t chunks) { return placement::looped(ranks, chunks); },
          nb::arg("ranks"), nb::arg("chunks"), "Stage s on rank s mod ranks.")
      .def_static("vee", &placement::vee, nb::arg("ranks"), "Stages r and 2 ranks - 1 - r on rank r.")
      .def_static(
          "wave", [](std::int64_t ranks, std::int64_t waves) { return placement::wave(ranks, waves); },
          nb::arg("ranks"), nb::arg("waves"), "The vee, repeated.")
      .def_static("bidirectional", &placement::bidirectional, nb::arg("ranks"), nb::arg("micro"),
                  "Stage s on rank s for the first half of the micro-batches, on ranks - 1 - s for the others.")
      .def_static("of_kind", &placement::of_kind, nb::arg("kind"), nb::arg("ranks"), nb::arg("stages"),
                  nb::arg("micro"), "The placement of a kind for a number of stages.")
      .def_static("custom", &placement::custom, nb::arg("ranks"), nb::arg("micro"), nb::arg("rank_of_stage"),
                  "Any placement: rank_of_stage[replica][stage], one row or two of the same length.")
      .def("for_micro", &placement::for_micro, nb::arg("micro"), "The same for another number of micro-batches.")
      .def("__str__", [](const placement& p) { return to_string(p); })
      .def_prop_ro("kind", &placement::kind)
      .def_prop_ro("ranks", &placement::ranks)
      .def_prop_ro("stages", &placement::stages)
      .def_prop_ro("replicas", &placement::replicas)
      .def(
          "replica_begin", [](const placement& p, std::uint32_t replica) { return p.replica_begin(replica); },
          nb::arg("replica"), "The first micro-batch of a replica, 0 or 1.")
      .def(
          "replica_of", [](const placement& p, std::uint32_t micro) { return p.replica_of(micro); }, nb::arg("micro"),
          "The replica that a micro-batch goes through.")
      .def(
          "rank_of",
          [](const placement& p, std::uint32_t stage, std::uint32_t micro) {
            return require_stage(p, stage), p.rank_of(stage, micro);
          },
          nb::arg("stage"), nb::arg("micro"), "The rank that runs a stage for a micro-batch.")
      .def(
          "chunk_of",
          [](const placement& p, std::uint32_t stage, std::uint32_t micro) {
            return require_stage(p, stage), p.chunk_of(stage, micro);
          },
          nb::arg("stage"), nb::arg("micro"), "The index of the stage among those of its rank.")
      .def(
          "has",
          [](const placement& p, std::uint32_t rank, std::uint32_t chunk, std::uint32_t stage, std::uint32_t micro) {
            require_stage(p, stage);
            return chunk < max_chunks && p.has(rank, static_cast<std::uint8_t>(chunk), stage, micro);
          },
          nb::arg("rank"), nb::arg("chunk"), nb::arg("stage"), nb::arg("micro"),
          "True if the micro-batch goes through the stage on this rank as this chunk.")
      .def("rank_of_stage", &rank_of_stage, nb::arg("replica") = 0, "The rank of every stage of a replica.")
      .def(
          "stages_of", [](const placement& p, std::uint32_t rank) { return p.stages_of(rank); }, nb::arg("rank"),
          "The stages of a rank, by chunk.")
      .def(nb::self == nb::self, nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", [](const placement& p) { return nb::hash(nb::make_tuple(p.ranks(), p.stages(), p.replicas())); })
      .def("__repr__", [](const placement& p) { return repr_of(p); })
      .def("__getstate__", &state_of_placement)
      .def("__setstate__",
           [](placement& self, const nb::tuple& state) { new (&self) placement(placement_from_state(state)); });
  m.def("same_stages_on_ranks", &same_stages_on_ranks, nb::arg("a"), nb::arg("b"),
        "True if every rank has the same stages in both placements.");
}

}  // namespace

void define_ops(nb::module_& m) {
  define_op(m);
  define_cell(m);
  define_dependencies(m);
  define_placement(m);
}

}  // namespace python
