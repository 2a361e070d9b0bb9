// SPDX-License-Identifier: MIT
// Models of layers, partitions, and the costs of both.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/model/costs_of.hpp>
#include <pipesched/model/gpt.hpp>
#include <pipesched/model/layout.hpp>
#include <pipesched/model/model.hpp>
#include <pipesched/model/partition.hpp>
#include <pipesched/model/presets.hpp>
#include <pipesched/support/nearest_name.hpp>

#include "module.hpp"
#include "record.hpp"

namespace python {

namespace {

// Lists with an entry per stage or rank are no longer than a placement can be.
void require_count(std::size_t count, const char* what) {
  if (count > max_stages)
    throw schedule_error(pipesched::detail::concat(
        {"there are at most ", max_stages, " ", what, "; got ", count, ", nearest ", max_stages}));
}

// @throws schedule_error, with the nearest name; None in place of a model would be no model to those who take one
model model_called(std::string_view name) {
  if (auto found = find_model(name)) return *std::move(found);
  const std::string_view nearest = nearest_name(name, model_names);
  std::string known;
  for (const std::string_view each : model_names) known.append(known.empty() ? "" : ", ").append(each);
  throw schedule_error(
      pipesched::detail::concat({"no model is called \"", name, nearest.empty() ? "\"; known: " : "\"; did you mean ",
                                 nearest.empty() ? std::string_view(known) : nearest, nearest.empty() ? "" : "?"}));
}

void require_ranks(const model& of, std::size_t ranks) {
  require_count(ranks, "ranks");
  if (of.ranks.size() > 1 && ranks > of.ranks.size())
    throw schedule_error(
        pipesched::detail::concat({"this model has ", pipesched::detail::count_text(of.ranks.size(), "rank"),
                                   "; got rank ", ranks - 1, ", nearest ", of.ranks.size() - 1}));
}

void define_layers(nb::module_& m) {
  define<transient_bytes>(m, "transient_bytes", "Bytes on top while an op runs, by pass.",
                          field<&transient_bytes::forward>("forward"), field<&transient_bytes::backward>("backward"),
                          field<&transient_bytes::backward_input>("backward_input", "default: as backward"),
                          field<&transient_bytes::backward_weight>("backward_weight", "default: as backward"),
                          field<&transient_bytes::recompute>("recompute", "default: as forward"));
  define<layer>(m, "layer", "One layer of a model, or `count` of the same kind in a row.", field<&layer::kind>("kind"),
                field<&layer::count>("count"), field<&layer::forward>("forward", "time of F"),
                field<&layer::backward_input>("backward_input", "time of I"),
                field<&layer::backward_weight>("backward_weight", "time of W"),
                field<&layer::backward>("backward", "time of B; alone: I = W = B/2"),
                field<&layer::recompute>("recompute", "time of R; default: that of F"),
                field<&layer::kept>("kept", "bytes kept from F until B or W"),
                field<&layer::kept_input>("kept_input", "bytes kept by an F that is recomputed"),
                field<&layer::context>("context", "bytes kept from I until W; default: kept"),
                field<&layer::transient>("transient"),
                field<&layer::weights>("weights", "bytes of parameters, gradients and optimizer state"),
                field<&layer::message>("message", "bytes of the message after the layer"));
  define<layer_pair>(m, "layer_pair", "The time of a pair of kinds of layers, overlapped.",
                     field<&layer_pair::kinds>("kinds"), field<&layer_pair::passes>("passes"),
                     field<&layer_pair::time>("time"));
  define<model_rank>(m, "model_rank", "A rank: its speed, and bytes of memory.", field<&model_rank::speed>("speed"),
                     field<&model_rank::memory>("memory"));
  define<model_link>(m, "model_link", "A link between two ranks, or all links that have none of their own.",
                     field<&model_link::from>("from_"), field<&model_link::to>("to"),
                     field<&model_link::latency>("latency"),
                     field<&model_link::bandwidth>("bandwidth", "bytes per second; default: infinite"),
                     field<&model_link::busy>("busy"));
}

void define_model(nb::module_& m) {
  m.def("units_per_second", &units_per_second, nb::arg("unit"));
  define<model>(m, "model", "A model of layers and the machine that it runs on.", field<&model::time_unit>("time_unit"),
                field<&model::layers>("layers"), field<&model::pairs>("pairs"),
                field<&model::allowed_pairs>("allowed_pairs", "the cells that a planner may use"),
                field<&model::ranks>("ranks", "one for all, or one per rank"), field<&model::links>("links"),
                field<&model::micro_batches>("micro_batches", "relative lengths; default 1"));
  m.attr("max_layers") = max_layers;
  m.def("layer_count", &layer_count, nb::arg("m"), "The number of layers, each counted `count` times.");
  m.def(
      "rank_at", [](const model& of, std::size_t rank) { return require_ranks(of, rank + 1), rank_at(of, rank); },
      nb::arg("m"), nb::arg("rank"));
  m.def(
      "memory_limits",
      [](const model& of, std::size_t ranks) { return require_ranks(of, ranks), memory_limits(of, ranks); },
      nb::arg("m"), nb::arg("ranks"), "Bytes of memory per rank; empty if not given.");
  m.def(
      "expanded", [](const std::vector<layer>& layers) { return check(model{.layers = layers}), expanded(layers); },
      nb::arg("layers"), "The layers with each of `count` on its own.");
  m.def(
      "check", [](const model& of) { check(of); }, nb::arg("m"), "Raises ScheduleError if the numbers make no sense.");
}

void define_partitions(nb::module_& m) {
  define<partition>(m, "partition", "Layers per stage.", field<&partition::layers>("layers"))
      .def_prop_ro("stages", &partition::stages)
      .def("__str__", [](const partition& p) { return to_string(p); });
  m.def("first_layers", &first_layers, nb::arg("p"), "The first layer of every stage, and the number of all layers.");
  m.def(
      "uniform_partition",
      [](const model& of, std::size_t stages) {
        return require_count(stages, "stages"), uniform_partition(of, stages);
      },
      nb::arg("m"), nb::arg("stages"), "As many layers on every stage.");
  m.def("require_partition", &require_partition, nb::arg("p"), nb::arg("m"), nb::arg("stages"));
  m.def("require_lengths", &require_lengths, nb::arg("m"), nb::arg("micro"),
        "Raises ModelError unless the model has as many lengths as micro-batches, or none.");
  m.def("costs_of", &costs_of, nb::arg("m"), nb::arg("p"), nb::arg("where"),
        "The costs by stage of a model under a partition.");
  m.def(
      "layout_letter", [](std::string_view kind) { return std::string(1, layout_letter(kind)); }, nb::arg("kind"),
      "The letter of a kind of layers in Megatron-LM's layouts.");
  m.def("has_layout", &has_layout, nb::arg("where"), "True if Megatron-LM's layouts have the placement.");
  m.def("parse_layout", &parse_layout, nb::arg("text"), nb::arg("m"), nb::arg("where"),
        "The partition of a layout of Megatron-LM.");
  m.def("layout_refusal", &layout_refusal, nb::arg("p"), nb::arg("m"), nb::arg("where"),
        "Why to_layout() refuses a partition; empty if it does not.");
  m.def("to_layout", &to_layout, nb::arg("p"), nb::arg("m"), nb::arg("where"), "The layout of Megatron-LM.");
}

void define_presets(nb::module_& m) {
  define<gpt_sizes>(m, "gpt_sizes", "The sizes of a GPT.", field<&gpt_sizes::layers>("layers"),
                    field<&gpt_sizes::hidden>("hidden"), field<&gpt_sizes::heads>("heads"),
                    field<&gpt_sizes::sequence>("sequence"), field<&gpt_sizes::vocabulary>("vocabulary"),
                    field<&gpt_sizes::micro_batch>("micro_batch"),
                    field<&gpt_sizes::tensor_parallel>("tensor_parallel"),
                    field<&gpt_sizes::bytes_per_parameter>("bytes_per_parameter"),
                    field<&gpt_sizes::selective_recomputation>("selective_recomputation"),
                    field<&gpt_sizes::operations_per_second>("operations_per_second"));
  define<gpt_totals>(m, "gpt_totals", "The numbers of a GPT by published formulas.",
                     field<&gpt_totals::parameters>("parameters"), field<&gpt_totals::operations>("operations"),
                     field<&gpt_totals::layer_activations>("layer_activations"),
                     field<&gpt_totals::recomputed_share>("recomputed_share"),
                     field<&gpt_totals::recomputed_overhead>("recomputed_overhead"),
                     field<&gpt_totals::recomputed_operations>("recomputed_operations"));
  m.def("totals_of", &totals_of, nb::arg("g"));
  m.def("gpt_model", &gpt_model, nb::arg("g"), "A GPT computed from its sizes.");
  m.def("deepseek_v3_model", &deepseek_v3_model, nb::arg("layers") = 58);
  m.def("gemma_model", &gemma_model);
  m.def("deepseek_like_model", &deepseek_like_model);
  m.attr("model_names") = to_python(model_names, {});
  m.def("find_model", &model_called, nb::arg("name"), "The model of a name in model_names.");
}

}  // namespace

void define_models(nb::module_& m) {
  define_layers(m);
  define_model(m);
  define_partitions(m);
  define_presets(m);
}

}  // namespace python
