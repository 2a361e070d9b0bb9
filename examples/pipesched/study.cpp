// SPDX-License-Identifier: MIT

#include "study.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <pipesched/cost/pass_pairs.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/notation.hpp>
#include <pipesched/simulate/closed_form_of.hpp>
#include <pipesched/simulate/explain.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <utility>

#include "command_line.hpp"
#include "inputs.hpp"

namespace tool {

using namespace pipesched;

study study_of(schedule s, const stage_costs& given, bool own_order) {
  study of;
  of.costs = split_stage_costs(given, s.placement);
  of.convention = describe_split(given, s.placement);
  if (const std::string note = note_on_backward(given); !note.empty()) of.convention += "; " + note;
  if (const std::string note = note_on_unused(unused_costs(s, given)); !note.empty()) of.convention += "; " + note;
  of.times = simulate(std::move(s), of.costs, verified);
  of.measured = measure(of.times, of.costs);
  of.bound = lower_bound(of.times.schedule, of.costs);
  of.formula = closed_form_of(of.times.schedule, of.costs, own_order);
  return of;
}

namespace {

// The passes and cells of a schedule.
struct uses {
  explicit uses(const schedule& s) {
    for (const cell& c : s.cells.all()) {
      for (op o : c) passes[static_cast<std::size_t>(o.pass)] = true;
      if (!c.overlapped()) continue;
      overlapped = true;
      priced_as_pair = priced_as_pair || pass_pair_set::forward_with_backward().contains(pair_of(c));
    }
    const auto ranks = s.placement.rank_of_stage();
    for (std::uint16_t rank : ranks) messages = messages || rank != ranks[0];
  }
  bool has(pass p) const { return passes[static_cast<std::size_t>(p)]; }

  std::array<bool, 5> passes{};
  bool overlapped = false, priced_as_pair = false, messages = false;
};

bool is_used(std::string_view name, const uses& by, const stage_costs& given) {
  const bool halves = by.has(pass::backward_input);
  if (name == "backward") return by.has(pass::backward) || (halves && !(given.backward_input && given.backward_weight));
  if (name == "backward_input" || name == "backward_weight")
    return halves || (by.has(pass::backward) && !given.backward);
  if (name == "overlapped") return by.priced_as_pair;
  if (name == "overlap_efficiency" || name.starts_with("release.")) return by.overlapped;
  if (name.starts_with("communication.")) return by.overlapped && given.overlap_efficiency.has_value();
  if (name == "message_bytes" || name == "bandwidth") return by.messages && given.bandwidth.has_value();
  if (name == "transfer") return by.messages;
  return true;
}

}  // namespace

std::vector<std::string> unused_costs(const schedule& s, const stage_costs& given) {
  const uses by(s);
  std::vector<std::string> names;
  const auto look_at = [&](std::string_view name) {
    if (!is_used(name, by, given)) names.emplace_back(name);
  };
  stage_costs::for_each_field(given, [&](const auto& field, std::string_view name) {
    if constexpr (requires { field.has_value(); }) {
      if (field) look_at(name);
    } else {
      if (field != per_stage(0)) look_at(name);  // zero is the default
    }
  });
  if (given.overlap_efficiency) look_at("overlap_efficiency");
  for (std::size_t i = 0; i < given.pairs.size(); ++i) {
    const auto cells = s.cells.all();
    if (std::none_of(cells.begin(), cells.end(), [&](const cell& c) { return given.pairs[i].prices(c); }))
      names.push_back("pairs[" + std::to_string(i) + "]");
  }
  if (given.allowed_pairs) names.emplace_back("allowed_pairs");
  return names;
}

std::string note_on_unused(const std::vector<std::string>& names) {
  return names.empty() ? std::string() : "not used here: " + list_of({names.begin(), names.end()}, "and");
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
  nlohmann::ordered_json j = {
      {"formula", f.formula}, {"bubble", f.bubble},   {"peak_activations", whole_or_real(f.peak_activations)},
      {"holds", f.holds()},   {"assumes", f.assumes}, {"source", f.source}};
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
