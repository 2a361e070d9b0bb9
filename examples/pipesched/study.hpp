// SPDX-License-Identifier: MIT
#pragma once

// A simulated schedule with its numbers, as simulate and compare print them.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <pipesched/core/schedule.hpp>
#include <pipesched/cost/pass_pairs.hpp>
#include <pipesched/cost/stage_costs.hpp>
#include <pipesched/generate/closed_form.hpp>
#include <pipesched/model/model.hpp>
#include <pipesched/model/partition.hpp>
#include <pipesched/program/fits.hpp>
#include <pipesched/render/html_panel.hpp>
#include <pipesched/simulate/lower_bound.hpp>
#include <pipesched/simulate/metrics.hpp>
#include <pipesched/simulate/noise.hpp>
#include <pipesched/simulate/timeline.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace tool {

struct study {
  pipesched::stage_costs costs;  ///< per stage
  std::string convention;        ///< how `costs` came from the numbers given, and which are not used, in words
  pipesched::timeline times;
  pipesched::metrics measured;
  pipesched::lower_bound_result bound;
  std::optional<pipesched::closed_form> formula;
  std::optional<pipesched::memory_report> memory{};  ///< if the costs know any bytes, or limits are given
  std::optional<pipesched::noisy_makespan> noise{};  ///< if asked for
};

/// The memory of a study, against a limit for all ranks, one per rank, or none. Nothing if there are neither bytes nor limits.
std::optional<pipesched::memory_report> memory_of(const study& of, const std::vector<double>& limits);

/// Simulates a schedule with the costs given, split among the stages of its ranks.
/// @param own_order  the schedule comes from its family, with default parameters
/// @throws schedule_error if the schedule is not valid or the costs do not fit it.
study study_of(pipesched::schedule s, const pipesched::stage_costs& given, bool own_order);

/// The same with costs per stage and what to say of them. @pre verify(s) is true
study study_of(pipesched::schedule s, pipesched::stage_costs costs, std::string convention, bool own_order);

/// The makespan of a study under noise.
pipesched::noisy_makespan noise_of(const study& of, const pipesched::noise_options& options);

/// "each cell up to 5 % longer, 1000 draws, seed 1".
std::string describe(const pipesched::noise_options& options);

/// The panel of a study, with its bound and the room of its ranks. Takes its timeline.
pipesched::html_panel panel_of(study& of);

/// The names, as in JSON, of the costs given that no cell or message of the schedule has a use for.
std::vector<std::string> unused_costs(const pipesched::schedule& s, const pipesched::stage_costs& given);

/// The same for the entries of a model, with the layers of the stages.
std::vector<std::string> unused_entries(const pipesched::schedule& s, const pipesched::model& m,
                                        const pipesched::partition& p);

/// A search: its result, and what it has looked at.
struct plan_use {
  const pipesched::schedule& found;
  pipesched::pass_pair_set pairs;  ///< that may share a cell
  bool pairs_are_given = false;    ///< by an option
  bool may_recompute = false;
};
/// The entries of a model, or of costs, that a search has no use for.
std::vector<std::string> unused_by_plan(const plan_use& use, const pipesched::model& m, const pipesched::partition& p);
std::vector<std::string> unused_by_plan(const plan_use& use, const pipesched::stage_costs& given);

/// "not used here: overlapped and transfer", or an empty text.
std::string note_on_unused(const std::vector<std::string>& names);

/// "I = W = B/2, as only B is given", or an empty text.
std::string note_on_backward(const pipesched::stage_costs& given);

/// "F 97.39 ms, B 135.3 ms, F with B or I 129 ms; ...": the times given, from the least to the most where stages differ, and
/// how costs per stage come from them.
std::string note_on_costs(const pipesched::stage_costs& given, std::string_view unit, std::string_view convention);

/// The entry of one schedule in the output of simulate and compare.
nlohmann::ordered_json json_of(const study& of);
/// The same, with its ranks and its critical path.
nlohmann::ordered_json json_with_ranks(const study& of);

}  // namespace tool
