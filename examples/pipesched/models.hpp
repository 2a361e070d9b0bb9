// SPDX-License-Identifier: MIT
#pragma once

// Models, partitions and what is done to a schedule before it runs: frozen stages and recomputation.

#include <cstdint>
#include <functional>
#include <optional>
#include <pipesched/core/placement.hpp>
#include <pipesched/core/schedule.hpp>
#include <pipesched/cost/stage_costs.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/model/model.hpp>
#include <pipesched/model/partition.hpp>
#include <pipesched/plan/divide.hpp>
#include <pipesched/render/html_style.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "command_line.hpp"

namespace tool {

/// --freeze, --recompute and what goes with it.
const std::vector<option>& transform_options();
bool transforms(const arguments& args);

/// The schedule with its frozen stages and its recomputation. @param costs  per stage, for --place-recompute
/// @throws schedule_error for texts and stages that make no sense, and for options that change nothing
pipesched::schedule transformed(const arguments& args, pipesched::schedule s, const pipesched::stage_costs& costs);

/// The model of a file or of that name.
/// @throws schedule_error if it cannot be read
pipesched::model model_of(const std::string& name);

/// Whether any bytes are known.
bool knows_bytes(const pipesched::model& m);
bool knows_bytes(const pipesched::stage_costs& costs);

/// The model of --model, nothing without one. --memory is the memory of each of its ranks, but with --pareto.
/// @throws schedule_error if it cannot be read, beside costs, for --partition without a model, or for --memory or --pareto where
/// its layers take no bytes
std::optional<pipesched::model> given_model(const arguments& args);

/// The bytes of --memory, several only with --pareto; empty without the option. @throws schedule_error where the costs have no
/// bytes
std::vector<double> limits_of_costs(const arguments& args, const pipesched::stage_costs& costs);

/// Subject and unit of a page: the model or the costs given, by name.
pipesched::html_style page_style_of(const arguments& args, pipesched::time_unit unit);

/// A unit of times after a separator: "; ms"; empty for none.
std::string unit_after(std::string_view separator, pipesched::time_unit unit);

/// Two lines: the layers per stage, and on placements that have layouts that of Megatron-LM, or why it takes no such layout.
std::string describe_partition(const pipesched::partition& p, const pipesched::model& m,
                               const pipesched::placement& where);

/// --model and --partition.
const std::vector<option>& model_options();
/// --memory.
extern const option memory_option;

/// The partition that the text of --partition names: "uniform", numbers with commas between them, or a layout.
/// @throws schedule_error for other texts, and if it does not fit the model and the placement
pipesched::partition partition_of_text(const std::string& text, const pipesched::model& m,
                                       const pipesched::placement& where);

/// Bytes as "80e9", "80GB" (10^9) or "74GiB" (2^30), with k, M, G or T. @throws schedule_error for other texts and 0
double bytes_of_text(std::string_view option, const std::string& text);

/// A schedule for the costs of a partition.
struct schedule_source {
  std::function<pipesched::schedule(const pipesched::stage_costs&)> make;
  pipesched::placement placement;
  std::uint32_t micro = 0;
  bool takes_costs = false;  ///< `make` depends on them
};
schedule_source source_of(const pipesched::family& f, const pipesched::schedule_params& p);
schedule_source source_of(pipesched::schedule s);

/// The length of a search for the best partition: shorter where a schedule is made anew for each.
pipesched::divide_limits divide_limits_of(const arguments& args, const schedule_source& source);

/// The best partition for the schedule as it will run: transformed(), and in the memory of the model's ranks.
pipesched::division divided(const arguments& args, const pipesched::model& m, const schedule_source& source,
                            const pipesched::divide_limits& limits);
/// The schedule as it will run, its costs and its partition: that of --partition, which may be "best".
struct divided_schedule {
  pipesched::schedule schedule;
  pipesched::stage_costs costs;
  pipesched::partition partition;
  std::optional<pipesched::division> best{};  ///< if it was searched
};
divided_schedule divided_by(const arguments& args, const std::string& partition, const pipesched::model& m,
                            const schedule_source& source);

}  // namespace tool
