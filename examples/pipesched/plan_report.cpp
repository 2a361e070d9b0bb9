// SPDX-License-Identifier: MIT
// Output of the command plan.

#include "plan_report.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <pipesched/io/json.hpp>
#include <pipesched/model/layout.hpp>
#include <pipesched/model/partition.hpp>
#include <pipesched/simulate/lower_bound.hpp>
#include <utility>

#include "files.hpp"
#include "models.hpp"

namespace tool {

using namespace pipesched;

namespace {

volatile std::sig_atomic_t is_interrupted = 0;
// The second Ctrl-C ends the command at once.
extern "C" void interrupt(int signal) {
  is_interrupted = 1;
  std::signal(signal, SIG_DFL);
}

}  // namespace

std::string evaluations_text(double evaluations) {
  return pipesched::detail::count_text(std::llround(evaluations), "evaluation");
}

progress_line::progress_line() : shown_(isatty(STDERR_FILENO) != 0) {
  is_interrupted = 0;
  std::signal(SIGINT, interrupt);
}
progress_line::~progress_line() {
  std::signal(SIGINT, SIG_DFL);
  if (last_ >= 0) std::fputs("\r\x1b[K", stderr);
}
bool progress_line::operator()(const plan_progress& p, std::uint64_t evaluations) {
  const auto part = static_cast<int>(100 * p.evaluations / static_cast<double>(evaluations));
  if (is_interrupted != 0) {
    if (!std::exchange(told_, true))
      add_note(fmt::format("interrupted after {}; the best so far", evaluations_text(p.evaluations)));
    return false;
  }
  if (!shown_ || part == last_ || !std::isfinite(p.makespan)) return true;
  last_ = part;
  std::fputs(fmt::format("\r{:3} %  makespan {:.10g}  at least {:.10g}  ", part, p.makespan, p.lower_bound).c_str(),
             stderr);
  return true;
}

namespace {

std::string percent(double part) { return std::isfinite(part) ? fmt::format("{:.2f} %", 100 * part) : "-"; }
double gap_of(double makespan, double bound) { return lower_bound_result{.makespan = bound}.gap(makespan); }

// The numbers of the stages that recompute.
std::vector<std::size_t> stages_of(const std::vector<bool>& recomputed) {
  std::vector<std::size_t> stages;
  for (std::size_t s = 0; s < recomputed.size(); ++s)
    if (recomputed[s]) stages.push_back(s);
  return stages;
}

std::string row_of_family(const char* what, const divided_family& f, double planned) {
  if (f.name.empty()) return fmt::format("{:<20} {:>12}\n", what, "none fits");
  return fmt::format("{:<20} {:>12.8g} {:>9}  {}\n", what, f.makespan, percent(1 - planned / f.makespan), f.name);
}

}  // namespace

std::string row_titles() {
  return fmt::format("{:>8} {:>12} {:>12} {:>8} {:>9} {}", "peak", "makespan", "at least", "gap", "gain",
                     "over the best family");
}
std::string row_of(const plan_result& p) {
  const bool known = std::isfinite(p.published_makespan);
  return fmt::format("{:>8.6g} {:>12.8g} {:>12.8g} {:>8} {:>9} {}", p.peak_activations, p.makespan, p.bound.makespan,
                     percent(p.bound.gap(p.makespan)), known ? percent(1 - p.makespan / p.published_makespan) : "-",
                     known ? fmt::format("{} {:.8g}", p.published, p.published_makespan) : "no family fits");
}

nlohmann::ordered_json json_of(const plan_result& p) {
  nlohmann::ordered_json j = {{"makespan", p.makespan},           {"lower_bound", p.bound.makespan},
                              {"gap", p.bound.gap(p.makespan)},   {"evaluations", p.evaluations},
                              {"ops_simulated", p.ops_simulated}, {"peak_activations", p.peak_activations}};
  if (std::isfinite(p.published_makespan)) j["published"] = {{"name", p.published}, {"makespan", p.published_makespan}};
  j["schedule"] = p.schedule;
  return j;
}

nlohmann::ordered_json json_of(const model& m, const model_plan& p) {
  nlohmann::ordered_json j = {{"makespan", p.plan.makespan},
                              {"lower_bound", p.lower_bound},
                              {"gap", gap_of(p.plan.makespan, p.lower_bound)},
                              {"partition_bound", p.plan.bound.makespan},
                              {"evaluations", p.evaluations},
                              {"ops_simulated", p.ops_simulated},
                              {"peak_activations", p.plan.peak_activations},
                              {"partition", p.partition.layers},
                              {"layers", layer_count(m)}};
  const placement& where = p.plan.schedule.placement;
  if (layout_refusal(p.partition, m, where).empty()) j["layout"] = to_layout(p.partition, m, where);
  if (!p.recomputed.empty()) j["recomputed"] = stages_of(p.recomputed);
  if (!p.uniform.name.empty()) j["uniform"] = {{"name", p.uniform.name}, {"makespan", p.uniform.makespan}};
  if (!p.divided.name.empty()) j["divided"] = {{"name", p.divided.name}, {"makespan", p.divided.makespan}};
  j["ranks"] = json_of(p.memory);
  j["schedule"] = p.plan.schedule;
  return j;
}

std::string text_of(const memory_report& memory) {
  std::string text = fmt::format("{:>5} {:>12} {:>12} {:>12} {:>12} {:>12}\n", "rank", "weights", "activations",
                                 "buffers", "bytes", "limit");
  for (std::size_t r = 0; r < memory.ranks.size(); ++r) {
    const rank_memory& of = memory.ranks[r];
    text += fmt::format("{:>5} {:>12.6g} {:>12.6g} {:>12.6g} {:>12.6g} {:>12}\n", r, of.weights, of.activations,
                        of.buffers, of.total(), std::isfinite(of.limit) ? fmt::format("{:.6g}", of.limit) : "none");
  }
  return text;
}

nlohmann::ordered_json json_of(const memory_report& memory) {
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array();
  for (const rank_memory& r : memory.ranks) ranks.push_back({{"bytes", r.total()}});
  return ranks;
}

std::string text_of(const model& m, const model_plan& p) {
  const double planned = p.plan.makespan;
  std::string text = fmt::format("{:<20} {:>12} {:>9}\n", "", "makespan", "gain");
  text += row_of_family("uniform partition", p.uniform, planned);
  text += row_of_family("best for a family", p.divided, planned);
  text += fmt::format("{:<20} {:>12.8g}\n", "planned", planned);
  text += fmt::format("{:<20} {:>12.8g} {:>9}  for any partition\n", "at least", p.lower_bound,
                      percent(gap_of(planned, p.lower_bound)));
  text += fmt::format("{:<20} {:>12.8g} {:>9}  for this one\n\n", "", p.plan.bound.makespan,
                      percent(p.plan.bound.gap(planned)));
  text += describe_partition(p.partition, m, p.plan.schedule.placement);
  if (!p.recomputed.empty())
    text += fmt::format("stages that recompute: {}\n", fmt::join(stages_of(p.recomputed), ","));
  text += "\n" + text_of(p.memory);
  return text + fmt::format("\n{}\n\n", evaluations_text(p.evaluations));
}

}  // namespace tool
