// SPDX-License-Identifier: MIT
#pragma once

// A schedule class for jaxpp, as a Python module.
//
// Source: src/jaxpp/schedules.py, types.py and core.py of NVIDIA/jaxpp, commit cf9e386, April 2026:
//   * A schedule is a frozen dataclass with num_stages and is_partial_bwd; tasks(n_mubatches) gives the tasks of each rank, a Task or
//     a FusedTask in order, and get_mpmd_idx(stage) the rank (BaseSchedule). Any placement with one rank per stage can be said.
//   * With is_partial_bwd every backward is BWD_I and BWD_W; without it, BWD (clusters_to_tasks). A whole B of a schedule that
//     splits others is therefore a FusedTask of both.
//   * Stage 0 has no BWD_W of its own: each of its BWD_I must have its BWD_W right after it, in the same list
//     (check_and_strip_adjecent_bwd_a_bwd_w).
//   * A model marks the ends of its stages itself (pipeline_enter_stage), so layers per stage are for the reader of the file.
//   * The tasks of a FusedTask run in their order, when all of them are ready (reorder_nodes_with_schedule).

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/io/detail/export_rules.hpp"
#include "pipesched/io/exported.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

// Each I of stage 0 is a cell of its own, and its W is the next cell.
inline void require_whole_first_stage(const schedule& s) {
  const std::uint32_t rank = s.placement.rank_of(0, 0);
  const auto row = s[rank];
  for (std::size_t i = 0; i < row.size(); ++i)
    for (const op o : row[i]) {
      if (o.stage != 0 || o.pass != pass::backward_input) continue;
      const op W{.pass = pass::backward_weight, .chunk = o.chunk, .stage = 0, .micro = o.micro};
      if (!row[i].overlapped() && i + 1 < row.size() && row[i + 1] == cell(W)) continue;
      throw schedule_error(concat({"jaxpp does not split the backward of stage 0; ", to_string(row[i]), " on rank ",
                                   rank, ", cell ", i, ", needs ", to_string(W), " as the next cell, got ",
                                   i + 1 < row.size() ? to_string(row[i + 1]) : "none"}));
    }
}

// "(0, 1, 1, 0)", "(0,)". @pre not empty
template <typename Numbers>
std::string tuple_as_python(const Numbers& numbers) {
  std::string text;
  std::size_t count = 0;
  for (const auto n : numbers) text += concat({count++ == 0 ? "(" : ", ", n});
  return text + (count == 1 ? ",)" : ")");
}

inline std::string rows_as_python(const schedule& s) {
  std::string text = "ROWS = (\n";
  for (const auto row : s) text += concat({"    \"", to_string(row), "\",\n"});
  return text + ")\nRANK_OF_STAGE = " + tuple_as_python(s.placement.rank_of_stage()) + "\n";
}

inline std::string layers_as_python(const partition& p, std::size_t stages) {
  if (p.stages() != stages)
    throw schedule_error(
        concat({"layers of ", count_text(p.stages(), "stage"), "; the schedule has ", count_text(stages, "stage")}));
  return concat({"LAYERS_OF_STAGE = ", tuple_as_python(p.layers), "  # to be those that the model marks\n"});
}

inline constexpr std::string_view jaxpp_class = R"python(

def _tasks_of(cell):
    tasks = [
        Task.make(int(stage), int(micro), kind)
        for stage, letter, micro in re.findall(r"(\d+)([FBIW])(\d+)", cell)
        for kind in KINDS[letter]
    ]
    return tasks[0] if len(tasks) == 1 else FusedTask(tasks)


@dataclass(eq=True, frozen=True)
class Schedule(BaseSchedule):
    num_stages: int = len(RANK_OF_STAGE)

    def __post_init__(self):
        super().__post_init__()
        if self.num_stages != len(RANK_OF_STAGE):
            raise ValueError(f"this schedule has {len(RANK_OF_STAGE)} stages, not {self.num_stages}")
        object.__setattr__(self, "is_partial_bwd", PARTIAL)

    def get_mpmd_idx(self, stage_id):
        return RANK_OF_STAGE[stage_id]

    def tasks(self, n_mubatches):
        if n_mubatches != MICRO_BATCHES:
            raise ValueError(f"this schedule has {MICRO_BATCHES} micro-batches, not {n_mubatches}")
        return [[_tasks_of(cell) for cell in row.split()] for row in ROWS]
)python";

}  // namespace detail

/// jaxpp_schedule.py, with the class Schedule: `treduce(..., schedule=Schedule())`, and the layers per stage, if given.
/// @throws schedule_error for what jaxpp cannot run: no training, ops that recompute, stages on two ranks, a split backward of
/// stage 0; and for layers of another number of stages. Linear.
/// @pre verify(s) is true
inline exported export_jaxpp(const schedule& s, const std::optional<partition>& layers = {}) {
  using detail::concat;
  detail::require_training(s, "jaxpp");
  const bool partial = detail::splits_backwards(s);
  if (partial) detail::require_whole_first_stage(s);
  std::string text =
      concat({"# ", detail::headline_of(s), ", for jaxpp.\n", "#   from jaxpp_schedule import Schedule\n",
              "#   jaxpp.treduce(..., schedule=Schedule())\n", "import re\n", "from dataclasses import dataclass\n\n",
              "from jaxpp.schedules import BaseSchedule, FusedTask, Task\n", "from jaxpp.types import TaskType\n\n",
              "MICRO_BATCHES = ", s.micro, "\n"});
  text += partial
              ? "PARTIAL = True  # every backward is made of BWD_I and BWD_W\n"
                "KINDS = {\n    \"F\": (TaskType.FWD,),\n    \"I\": (TaskType.BWD_I,),\n    \"W\": (TaskType.BWD_W,),\n"
                "    \"B\": (TaskType.BWD_I, TaskType.BWD_W),\n}\n"
              : "PARTIAL = False\nKINDS = {\"F\": (TaskType.FWD,), \"B\": (TaskType.BWD,)}\n";
  text += detail::rows_as_python(s);
  if (layers) text += detail::layers_as_python(*layers, s.stages());
  text += detail::jaxpp_class;
  return {.files = {{"jaxpp_schedule.py", std::move(text)}}};
}

}  // namespace pipesched
