// SPDX-License-Identifier: MIT
#pragma once

// Files for torchtitan: the schedule as PyTorch's CSV, and a Python function that sets the pipeline's entries of a
// configuration.
//
// Source: torchtitan/distributed/pipeline_parallel.py and torchtitan/config/configs.py (ParallelismConfig), commit b5bcd76,
// August 2026:
//   * The name of a schedule places the stages, also when a CSV gives the order: ZBVZeroBubble and DualPipeV in a V of exactly
//     two stages per rank, all others in a loop (_get_pp_rank_to_stage_indices_mapping).
//     A V goes by the name of ZBVZeroBubble here, overlapped or not: under the other name the loss is printed by a rank that
//     does not have it (torchtitan/components/metrics.py).
//   * 1F1B has one stage per rank. The number of stages is that of module_fqns_per_model_part; without it and without
//     layers_per_stage, 1 or 2 per rank by the name (_get_pipeline_metadata). layers_per_stage is checked even where
//     module_fqns_per_model_part replaces it, so it is left out.
//   * The CSV is compute_only and has num_pp_microbatches micro-batches (_build_pipeline_schedule).
//   * A degree of 1 turns the pipeline off.
//   * Modules: tok_embeddings, layers.0 and on, norm, lm_head (_generate_llm_fqn_per_model_part). Multi-token prediction and
//     pipelines exclude each other (torchtitan/models/deepseek_v3/MTP.md). Every stage has an optimizer of its own
//     parameters, so no stage may be empty (torchtitan/components/optimizer/optimizer.py).

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/io/detail/export_rules.hpp"
#include "pipesched/io/exported.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// schedule.csv and torchtitan_pipeline.py. Without a model torchtitan divides the layers itself.
/// @throws schedule_error for what torchtitan cannot run: stages that no name places so, fewer than 2 ranks, no training, ops
/// that recompute, more than 2 stages per rank without a model, layers without a module. Linear.
/// @pre verify(s) is true
inline exported export_torchtitan(const schedule& s, const std::optional<divided_model>& of = {}) {
  using detail::concat;
  detail::require_training(s, "torchtitan");
  const std::string_view name = detail::torch_schedule_name(s, "torchtitan");
  if (!of) detail::require_stages_of_trainer(s, "torchtitan");
  std::string text = concat(
      {"# ", detail::headline_of(s), ", for torchtitan.\n", "#   from torchtitan_pipeline import set_pipeline\n",
       "#   set_pipeline(config.parallelism)\n", "from pathlib import Path\n\n\n", "def set_pipeline(parallelism):\n",
       "    parallelism.pipeline_parallel_degree = ", s.pp(), "\n", "    parallelism.pipeline_parallel_schedule = \"",
       name, "\"  # places the stages; the order is that of the CSV\n",
       "    parallelism.pipeline_parallel_schedule_csv = ", "str(Path(__file__).with_name(\"schedule.csv\"))\n",
       "    parallelism.num_pp_microbatches = ", s.micro, "\n",
       "    parallelism.pipeline_parallel_layers_per_stage = None\n"});
  if (of) {
    const detail::module_names names{.trainer = "torchtitan",
                                     .no_mtp = "torchtitan has no pipeline with multi-token prediction",
                                     .first = {"tok_embeddings"},
                                     .last = {"norm", "lm_head"},
                                     .every = {},
                                     .layers = "layers."};
    text += "    parallelism.module_fqns_per_model_part = [\n";
    for (const auto& modules : detail::modules_of(*of, s.stages(), names))
      text += concat({"        ", detail::list_text(modules), ",\n"});
    text += "    ]\n";
  } else {
    text += "    parallelism.module_fqns_per_model_part = None  # divided by torchtitan\n";
  }
  return {.files = {detail::torch_csv_file(s), {"torchtitan_pipeline.py", std::move(text)}},
          .notes = detail::notes_on_torch(s, "torchtitan")};
}

}  // namespace pipesched
