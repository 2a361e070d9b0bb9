// SPDX-License-Identifier: MIT
#pragma once

// Rules that several trainers share: what they train, how they place stages, and the names of a model's modules.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/io/detail/json_text.hpp"
#include "pipesched/io/exported.hpp"
#include "pipesched/io/torch_csv.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// @throws schedule_error unless every stage has its forwards and whole backwards, once, and nothing is recomputed
inline void require_training(const schedule& s, std::string_view trainer) {
  if (s.forward_only) throw schedule_error(concat({trainer, " trains; the schedule is forward only"}));
  if (s.placement.replicas() > 1)
    throw schedule_error(concat({trainer, " has each stage on one rank, and ", s.name.view(),
                                 " holds every stage twice; dualpipev and hanayo hold it once"}));
  for (const stage_backward b : s.backward)
    if (b != stage_backward::full)
      throw schedule_error(concat({trainer, " runs a whole backward for every stage; here some are frozen"}));
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (const cell& c : s[rank])
      for (const op o : c)
        if (recomputes(o.pass))
          throw schedule_error(concat({trainer, " has no op that recomputes, the module does so itself; got ",
                                       to_string(o), " on rank ", rank, "; keep_activations() drops it"}));
}

/// "a wave placement of 4 stages per rank".
inline std::string describe_placement(const placement& where) {
  const std::uint32_t ranks = where.ranks(), stages = where.stages();
  const std::string count = stages % ranks == 0
                                ? concat({count_text(stages / ranks, "stage"), " per rank"})
                                : concat({count_text(stages, "stage"), " on ", count_text(ranks, "rank")});
  return concat({"a ", to_string(where.kind()), " placement of ", count});
}

/// PyTorch's name of a schedule with the same placement: 1F1B, Interleaved1F1B or ZBVZeroBubble.
/// @throws schedule_error for other placements, and for fewer than 2 ranks
inline std::string_view torch_schedule_name(const schedule& s, std::string_view trainer) {
  const auto name_of = [](placement_kind kind) -> std::string_view {
    switch (kind) {
      case placement_kind::linear: return "1F1B";
      case placement_kind::looped: return "Interleaved1F1B";
      case placement_kind::vee: return "ZBVZeroBubble";
      default: return {};
    }
  };
  const std::string_view name = name_of(simplest_kind(s.placement).kind());
  if (name.empty())
    throw schedule_error(concat(
        {trainer, " places stages in a loop, or in a V of 2 stages per rank; got ", describe_placement(s.placement)}));
  if (s.pp() < 2) throw schedule_error(concat({trainer, " has a pipeline from 2 ranks on; got 1, nearest 2"}));
  return name;
}

/// @throws schedule_error for more stages than a trainer makes that divides the layers itself
inline void require_stages_of_trainer(const schedule& s, std::string_view trainer) {
  if (s.stages() > 2 * s.pp())
    throw schedule_error(concat({trainer, " makes 2 stages per rank unless the layers of each are given; got ",
                                 count_text(s.stages() / s.pp(), "stage"), " per rank and no model"}));
}

/// "zbv: 4 ranks, 8 stages, 8 micro-batches; written by pipesched", on one line.
inline std::string headline_of(const schedule& s) {
  return concat({printable(s.name.view(), 63), ": ", count_text(s.pp(), "rank"), ", ", count_text(s.stages(), "stage"),
                 ", ", count_text(s.micro, "micro-batch"), "; written by pipesched"});
}

inline bool splits_backwards(const schedule& s) {
  for (const cell& c : s.cells.all())
    for (const op o : c)
      if (o.pass == pass::backward_weight) return true;
  return false;
}

inline bool overlaps_cells(const schedule& s) {
  const auto& cells = s.cells.all();
  return std::any_of(cells.begin(), cells.end(), [](const cell& c) { return c.overlapped(); });
}

/// One sentence for each part of the schedule that PyTorch's runtime runs otherwise, or only with stages of some kind.
/// Source: pytorch/pytorch#161904 and #159591; its own schedules with I and W refuse compiled stages, a CSV does not.
inline std::vector<std::string> notes_on_torch(const schedule& s, std::string_view trainer) {
  std::vector<std::string> notes;
  if (splits_backwards(s))
    notes.emplace_back("stages whose backward is split into I and W cannot be compiled by torch.compile");
  if (overlaps_cells(s))
    notes.push_back(
        concat({trainer,
                " runs the two ops of a cell one after the other, unless a function of yours is registered for "
                "OVERLAP_F_B"}));
  return notes;
}

inline exported_file torch_csv_file(const schedule& s) {
  std::ostringstream text;
  write_torch_csv(text, s);
  return {"schedule.csv", text.str()};
}

/// The modules of a trainer's models: the layers are `layers` and a number.
struct module_names {
  std::string_view trainer;
  std::string_view no_mtp;                      ///< the reason why layers for multi-token prediction have no module
  std::vector<std::string> first, last, every;  ///< beside the layers, of the first stage, the last one, and all
  std::string layers;
};

/// The modules of each stage. A model without an embedding or a head gets them on its first and last stage.
/// @throws schedule_error if the partition does not fit, a stage has no module, or a layer is for multi-token prediction
inline std::vector<std::vector<std::string>> modules_of(const divided_model& of, std::size_t stages,
                                                        const module_names& names) {
  require_partition(of.partition, of.model, stages);
  const std::vector<layer> layers = expanded(of.model.layers);
  std::vector<std::vector<std::string>> modules;
  std::size_t at = 0, number = 0;
  for (const std::uint32_t count : of.partition.layers) {
    std::vector<std::string>& own = modules.emplace_back();
    const auto append = [&](const std::vector<std::string>& more) { own.insert(own.end(), more.begin(), more.end()); };
    if (modules.size() == 1 && layers.front().kind != "embedding") append(names.first);
    for (const std::size_t end = at + count; at < end; ++at) {
      const std::string& kind = layers[at].kind;
      if (kind == "mtp")
        throw schedule_error(concat({names.no_mtp, "; layer ", at, " of the model is of the kind mtp"}));
      const bool is_first = kind == "embedding", is_last = kind == "head";
      if ((is_first && at > 0) || (is_last && at + 1 < layers.size()))
        throw schedule_error(concat({names.trainer, " has one embedding, which comes first, and one head, which comes ",
                                     "last; layer ", at, " of the model is of the kind ", kind}));
      if (is_first)
        append(names.first);
      else if (is_last)
        append(names.last);
      else
        own.push_back(concat({names.layers, number++}));
    }
    if (modules.size() == stages && layers.back().kind != "head") append(names.last);
    if (own.empty())
      throw schedule_error(
          concat({names.trainer, " has at least one module in every stage; stage ", modules.size() - 1, " is empty"}));
    append(names.every);
  }
  return modules;
}

/// ["a", "b"], which is a list in Python, YAML and JSON. @pre the names need no escapes
inline std::string list_text(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += concat({text.empty() ? "[\"" : ", \"", name, "\""});
  return text + "]";
}

}  // namespace pipesched::detail
