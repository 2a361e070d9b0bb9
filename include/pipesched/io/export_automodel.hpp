// SPDX-License-Identifier: MIT
#pragma once

// Files for NeMo Automodel: the schedule as PyTorch's CSV, and the pipeline's entries of a recipe in YAML.
//
// Source: nemo_automodel/components/distributed/pipelining/ (functional.py, config.py) and recipes/llm/train_ft.py, commit
// 36044ad, August 2026:
//   * The name of a schedule places the stages, also when a CSV gives the order: ZBVZeroBubble in a V of exactly two stages per
//     rank, all others in a loop, DualPipeV among them (split_model_into_stages). A V with overlapped cells therefore goes by the
//     name of ZBVZeroBubble.
//   * One stage per rank for 1F1B, and 2 for the others unless layers_per_stage or module_fqns_per_model_part say otherwise
//     (calculate_virtual_stages).
//   * The CSV is compute_only. It has as many micro-batches as step_scheduler.local_batch_size / pp_microbatch_size, and at least
//     as many as ranks (train_ft.py). A pipeline has more than one rank (pipeline_model).
//   * Modules of a Hugging Face text model: model.embed_tokens, model.layers.0 and on, model.norm, lm_head, and model.rotary_emb
//     in every stage (generate_hf_model_fqn_per_model_part). Every stage has an optimizer of its own parameters, so no stage may
//     be empty (components/optim/optimizer.py).

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/io/detail/export_rules.hpp"
#include "pipesched/io/exported.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// schedule.csv and pipeline.yaml. Without a model Automodel divides the layers itself.
/// @throws schedule_error for what Automodel cannot run: stages that no name places so, fewer than 2 ranks, fewer
/// micro-batches than ranks, no training, ops that recompute, more than 2 stages per rank without a model, layers without a
/// module. Linear.
/// @pre verify(s) is true
inline exported export_automodel(const schedule& s, const std::optional<divided_model>& of = {}) {
  using detail::concat;
  detail::require_training(s, "Automodel");
  const std::string_view name = detail::torch_schedule_name(s, "Automodel");
  if (s.micro < s.pp())
    throw schedule_error(concat({"Automodel needs as many micro-batches as ranks; got ", s.micro, " for ", s.pp(),
                                 " ranks, nearest ", s.pp()}));
  if (!of) detail::require_stages_of_trainer(s, "Automodel");
  std::string text = concat({"# ", detail::headline_of(s), ", for NeMo Automodel.\n", "step_scheduler:\n",
                             "  local_batch_size: ", s.micro, "  # micro-batches times pp_microbatch_size\n",
                             "distributed:\n", "  pp_size: ", s.pp(), "\n", "  pipeline:\n", "    pp_schedule: ", name,
                             "  # places the stages; the order is that of the CSV\n",
                             "    pp_schedule_csv: schedule.csv  # seen from where the recipe runs\n",
                             "    pp_microbatch_size: 1\n", "    layers_per_stage: null\n"});
  if (of) {
    const detail::module_names names{.trainer = "Automodel",
                                     .no_mtp = "Automodel has no common names for modules of multi-token prediction",
                                     .first = {"model.embed_tokens"},
                                     .last = {"model.norm", "lm_head"},
                                     .every = {"model.rotary_emb"},
                                     .layers = "model.layers."};
    text += "    module_fqns_per_model_part:\n";
    for (const auto& modules : detail::modules_of(*of, s.stages(), names))
      text += concat({"      - ", detail::list_text(modules), "\n"});
  } else {
    text += "    module_fqns_per_model_part: null  # divided by Automodel\n";
  }
  return {.files = {detail::torch_csv_file(s), {"pipeline.yaml", std::move(text)}},
          .notes = detail::notes_on_torch(s, "Automodel")};
}

}  // namespace pipesched
