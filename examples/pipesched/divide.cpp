// SPDX-License-Identifier: MIT
// The commands divide and model.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/io/model_json.hpp>
#include <pipesched/model/layout.hpp>
#include <pipesched/model/presets.hpp>
#include <pipesched/plan/divide.hpp>
#include <pipesched/program/fits.hpp>
#include <pipesched/simulate/lower_bound.hpp>
#include <pipesched/simulate/metrics.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <pipesched/support/concat.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "commands.hpp"
#include "files.hpp"
#include "inputs.hpp"
#include "memory.hpp"
#include "models.hpp"
#include "study.hpp"

namespace tool {

using namespace pipesched;

namespace {

using pipesched::detail::count_text;

std::string gap_text(double makespan, double bound) {
  const double gap = lower_bound_result{.makespan = bound}.gap(makespan);
  return std::isfinite(gap) ? fmt::format("{:.1f} %", 100 * gap) : "infinite";
}
std::string speedup_text(double before, double after) {
  return after > 0     ? fmt::format("{:.3f} times as fast", before / after)
         : before == 0 ? "no time in both"
                       : "no time any more";
}

std::string text_of(const model& m, const family& f, const division& d, const metrics& measured,
                    const memory_report& memory, const std::string& unused) {
  const schedule& s = d.schedule;
  const std::string unit = unit_after(" ", m.time_unit);
  std::string text = fmt::format("{}: {} on {}, {}, {}{}\n", f.name, count_text(layer_count(m), "layer"),
                                 count_text(s.stages(), "stage"), count_text(s.pp(), "rank"),
                                 count_text(s.micro, "micro-batch"), s.forward_only ? ", forward only" : "");
  text += describe_partition(d.partition, m, s.placement);
  if (!unused.empty()) text += unused + '\n';
  text += d.uniform_fits
              ? fmt::format("makespan {:.10g}{}, uniform {:.10g}{}: {}\n", d.makespan, unit, d.uniform_makespan, unit,
                            speedup_text(d.uniform_makespan, d.makespan))
              : fmt::format(
                    "makespan {:.10g}{}; the uniform partition does not fit the memory of the ranks, and would "
                    "take {:.10g}{}\n",
                    d.makespan, unit, d.uniform_makespan, unit);
  text += fmt::format("at least {:.10g} for any partition, gap {}; at least {:.10g} for this one, gap {}\n",
                      d.lower_bound, gap_text(d.makespan, d.lower_bound), d.partition_bound.makespan,
                      gap_text(d.makespan, d.partition_bound.makespan));
  if (!d.fits)
    text += fmt::format("no partition was found that fits the memory of the ranks: {}\n", to_string(memory, s));
  text += fmt::format("\n{:>5} {:>8} {:>12} {:>7} {:>12} {:>12} {:>12} {:>12}\n", "rank", "layers", "busy", "idle",
                      "weights", "activations", "buffers", "bytes");
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    const rank_metrics& r = measured.ranks[rank];
    std::uint32_t layers = 0;
    for (const std::uint16_t stage : s.placement.stages_of(rank)) layers += d.partition.layers[stage];
    const rank_memory& of = memory.ranks[rank];
    text += fmt::format("{:>5} {:>8} {:>12.6g} {:>5.1f} % {:>12.6g} {:>12.6g} {:>12.6g} {:>12.6g}\n", rank, layers,
                        r.busy, d.makespan > 0 ? 100 * (1 - r.busy / d.makespan) : 0, of.weights, of.activations,
                        of.buffers, of.total());
  }
  return text;
}

nlohmann::ordered_json json_of(const model& m, const division& d, const metrics& measured, const memory_report& memory,
                               const std::vector<std::string>& unused) {
  nlohmann::ordered_json j = {{"partition", d.partition.layers}};
  j["layers"] = layer_count(m);
  if (layout_refusal(d.partition, m, d.schedule.placement).empty())
    j["layout"] = to_layout(d.partition, m, d.schedule.placement);
  j["makespan"] = d.makespan, j["uniform_makespan"] = d.uniform_makespan;
  j["lower_bound"] = d.lower_bound, j["partition_bound"] = d.partition_bound.makespan;
  j["fits"] = d.fits, j["uniform_fits"] = d.uniform_fits, j["evaluations"] = d.evaluations;
  if (!unused.empty()) j["not_used"] = unused;
  for (std::size_t rank = 0; rank < measured.ranks.size(); ++rank)
    j["ranks"].push_back({{"busy", measured.ranks[rank].busy}, {"bytes", memory.ranks[rank].total()}});
  j["schedule"] = d.schedule;
  return j;
}

// The entries of a layer that the table has no column for; one line per layer that gives any of them.
std::string lines_on_recompute(const model& m) {
  std::string text;
  for (const layer& l : m.layers) {
    std::string entries;
    const auto add = [&](std::string_view name, double value) {
      entries += fmt::format("{}{} {:.6g}", entries.empty() ? "" : ", ", name, value);
    };
    const transient_bytes& t = l.transient;
    if (l.recompute) add("R", *l.recompute);
    if (l.kept_input > 0) add("kept_input", l.kept_input);
    if (t.forward > 0) add("transient F", t.forward);
    if (t.backward > 0) add("transient B", t.backward);
    if (t.backward_input) add("transient I", *t.backward_input);
    if (t.backward_weight) add("transient W", *t.backward_weight);
    if (t.recompute) add("transient R", *t.recompute);
    if (!entries.empty()) text += fmt::format("{}: {}\n", l.kind, entries);
  }
  return text;
}

std::string lines_on_machine(const model& m) {
  std::string text;
  if (m.allowed_pairs) {
    std::string pairs;
    for (const pass_pair p : m.allowed_pairs->pairs()) pairs += (pairs.empty() ? "" : ", ") + to_string(p);
    text += fmt::format("allowed pairs: {}\n", pairs.empty() ? "none" : pairs);
  }
  for (std::size_t r = 0; r < m.ranks.size(); ++r)
    text += fmt::format("{}: speed {:.6g}, {}\n", m.ranks.size() == 1 ? "every rank" : fmt::format("rank {}", r),
                        m.ranks[r].speed,
                        m.ranks[r].memory ? fmt::format("{:.6g} bytes", *m.ranks[r].memory) : "no limit of memory");
  for (const model_link& l : m.links)
    text += fmt::format("{}: latency {:.6g}, bandwidth {}, busy {}\n",
                        l.from ? fmt::format("link {} to {}", *l.from, *l.to) : "other links", l.latency,
                        l.bandwidth ? fmt::format("{:.6g}", *l.bandwidth) : "infinite", to_string(l.busy));
  if (!m.micro_batches.empty()) {
    const auto [least, most] = std::minmax_element(m.micro_batches.begin(), m.micro_batches.end());
    text += fmt::format("lengths of {}: {:.6g} to {:.6g}\n", count_text(m.micro_batches.size(), "micro-batch"), *least,
                        *most);
  }
  return text;
}

std::string table_of(const model& m) {
  std::string text = fmt::format("{}; times in {}\n\n{:<12} {:>6} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
                                 count_text(layer_count(m), "layer"),
                                 m.time_unit == time_unit::none ? "any one unit" : to_string(m.time_unit), "kind",
                                 "count", "F", "I", "W", "kept", "context", "weights", "message");
  double work = 0, weights = 0;
  for (const layer& l : m.layers) {
    const auto t = l.backward_times();
    text +=
        fmt::format("{:<12} {:>6} {:>10.5g} {:>10.5g} {:>10.5g} {:>10.4g} {:>10.4g} {:>10.4g} {:>10.4g}\n", l.kind,
                    l.count, l.forward, t.input, t.weight, l.kept, l.context.value_or(l.kept), l.weights, l.message);
    work += l.count * (l.forward + t.whole), weights += l.count * l.weights;
  }
  text += fmt::format("\nall layers: {:.10g} for a micro-batch, {:.6g} bytes of weights\n", work, weights);
  for (const layer_pair& p : m.pairs)
    text += fmt::format("pair {} of {} with {}: {:.6g}\n", to_string(p.passes), p.kinds[0], p.kinds[1], p.time);
  return text + lines_on_recompute(m) + lines_on_machine(m);
}

}  // namespace

int divide(const arguments& args) {
  const output to = output_of(args, "divide", divide_formats);
  const auto family_name = args.text("--family");
  if (!args.has("--model") || !family_name) throw schedule_error("divide needs --model and --family");
  const model m = *given_model(args);
  const family& f = find_family(*family_name);
  const schedule_params p = params_of(args, "divide");
  require(f, keep_taken(p, f.limits));
  const double bytes = bytes_to_study(f, p);
  require_memory(args, f, p, bytes);
  const schedule_source source = source_of(f, p);
  divide_limits limits = divide_limits_of(args, source);
  if (const auto n = whole_number_in(args, "--evaluations", 1, std::int64_t{1} << 40))
    limits.evaluations = static_cast<std::uint64_t>(*n);
  if (const auto seed = whole_number_in(args, "--seed", 0, std::int64_t{1} << 53))
    limits.seed = static_cast<std::uint64_t>(*seed);
  const division d = divided(args, m, source, limits);
  const memory_report memory = fits(d.schedule, d.costs, memory_limits(m, d.schedule.pp()));
  const std::vector<std::string> unused = unused_entries(d.schedule, m, d.partition);
  if (to.format == "layout") {
    if (!d.fits)
      throw schedule_error("no partition was found that fits the memory of the ranks: " +
                           to_string(memory, d.schedule));
    if (!unused.empty()) add_note(note_on_unused(unused));
    write_output(to.file, to_layout(d.partition, m, d.schedule.placement) + "\n");
    return 0;
  }
  const metrics measured = measure(simulate(d.schedule, d.costs, verified), d.costs, verified);
  write_output(to.file, to.format == "json" ? json_of(m, d, measured, memory, unused).dump(2) + "\n"
                                            : text_of(m, f, d, measured, memory, note_on_unused(unused)));
  return 0;
}

int show_model(const arguments& args) {
  const output to = output_of(args, "model", model_formats);
  const pipesched::model m = model_of(args.operands[0]);
  write_output(to.file, to.format == "json" ? model_document(m).dump(2) + "\n" : table_of(m));
  return 0;
}

}  // namespace tool
