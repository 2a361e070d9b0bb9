// SPDX-License-Identifier: MIT

#include "study.hpp"

#include <nlohmann/json.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/notation.hpp>
#include <pipesched/simulate/closed_form_of.hpp>
#include <pipesched/simulate/explain.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <utility>

namespace tool {

using namespace pipesched;

study study_of(schedule s, const stage_costs& given, bool own_order) {
  study of;
  of.costs = split_stage_costs(given, s.placement);
  of.convention = describe_split(given, s.placement);
  if (const std::string note = note_on_backward(given); !note.empty()) of.convention += "; " + note;
  of.times = simulate(std::move(s), of.costs, verified);
  of.measured = measure(of.times, of.costs);
  of.bound = lower_bound(of.times.schedule, of.costs);
  of.formula = closed_form_of(of.times.schedule, of.costs, own_order);
  return of;
}

std::string note_on_backward(const stage_costs& given) {
  return given.backward && !given.backward_input && !given.backward_weight ? "I = W = B/2, as only B is given" : "";
}

namespace {

// Peaks of activations are whole numbers in most schedules, and printed as such.
nlohmann::ordered_json whole_or_real(double number) {
  const auto whole = static_cast<std::int64_t>(number);
  return static_cast<double>(whole) == number ? nlohmann::ordered_json(whole) : nlohmann::ordered_json(number);
}

nlohmann::ordered_json json_of(const rank_metrics& r) {
  return {{"busy", r.busy},
          {"bubble", r.bubble},
          {"span", r.span},
          {"peak_activations", whole_or_real(r.peak_activations)},
          {"peak_activations_at", r.peak_activations_at},
          {"peak_bytes", r.peak_bytes},
          {"peak_bytes_at", r.peak_bytes_at},
          {"overlapped_fraction", r.overlapped_fraction}};
}

nlohmann::ordered_json json_of(const closed_form& f) {
  nlohmann::ordered_json j = {{"formula", f.formula},
                              {"bubble", f.bubble},
                              {"peak_activations", whole_or_real(f.peak_activations)},
                              {"holds", f.holds()},
                              {"assumes", f.assumes},
                              {"source", f.source}};
  if (!f.holds()) j["fails"] = f.fails;
  return j;
}

}  // namespace

nlohmann::ordered_json json_of(const study& of) {
  const schedule& s = of.times.schedule;
  const metrics& m = of.measured;
  nlohmann::ordered_json j = {{"name", s.name.view()},
                              {"pp", s.pp()},
                              {"stages", s.stages()},
                              {"micro", s.micro},
                              {"costs", of.convention},
                              {"makespan", m.makespan},
                              {"bubble_ratio", m.bubble_ratio},
                              {"bubble", m.bubble},
                              {"max_bubble", m.max_bubble},
                              {"span", m.span},
                              {"lower_bound", of.bound.makespan},
                              {"lower_bound_reason", of.bound.reason},
                              {"gap", of.bound.gap(m.makespan)}};
  if (of.formula) j["closed_form"] = json_of(*of.formula);
  j["peak_activations"] = whole_or_real(m.peak_activations);
  j["peak_bytes"] = m.peak_bytes;
  j["parameter_copies"] = m.parameter_copies;
  j["weight_bytes"] = m.weight_bytes;
  j["overlapped_fraction"] = m.overlapped_fraction;
  return j;
}

nlohmann::ordered_json json_with_ranks(const study& of) {
  nlohmann::ordered_json j = json_of(of);
  for (const rank_metrics& r : of.measured.ranks) j["ranks"].push_back(json_of(r));
  j["critical_path"] = nlohmann::ordered_json::array();
  for (cell_ref c : explain(of.times, of.costs).critical_path)
    j["critical_path"].push_back(to_string(of.times.schedule[c.rank][c.index]));
  return j;
}

}  // namespace tool
