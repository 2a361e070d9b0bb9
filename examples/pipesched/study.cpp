// SPDX-License-Identifier: MIT

#include "study.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <pipesched/core/dependencies.hpp>
#include <pipesched/core/notation.hpp>
#include <pipesched/core/ops.hpp>
#include <pipesched/cost/pass_pairs.hpp>
#include <pipesched/cost/split_costs.hpp>
#include <pipesched/model/costs_of.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/simulate/closed_form_of.hpp>
#include <pipesched/simulate/explain.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <set>
#include <unordered_set>
#include <utility>

#include "command_line.hpp"
#include "inputs.hpp"
#include "models.hpp"

namespace tool {

using namespace pipesched;

study study_of(schedule s, const stage_costs& given, bool own_order) {
  std::string convention = describe_split(given, s.placement) + unit_after("; times in ", given.time_unit);
  if (const std::string note = note_on_backward(given); !note.empty()) convention += "; " + note;
  if (const std::string note = note_on_unused(unused_costs(s, given)); !note.empty()) convention += "; " + note;
  stage_costs costs = split_stage_costs(given, s.placement);
  return study_of(std::move(s), std::move(costs), std::move(convention), own_order);
}

study study_of(schedule s, stage_costs costs, std::string convention, bool own_order) {
  study of;
  of.costs = std::move(costs), of.convention = std::move(convention);
  of.times = simulate(std::move(s), of.costs, verified);
  of.measured = measure(of.times, of.costs, verified);
  of.bound = lower_bound(of.times.schedule, of.costs);
  of.formula = closed_form_of(of.times.schedule, of.costs, own_order);
  return of;
}

namespace {

// "1", or "1 to 2" where stages differ.
std::string range_of(const std::vector<double>& values, std::string_view unit) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const std::string low = fmt::format("{:.4g}", *least), high = fmt::format("{:.4g}", *most);
  return fmt::format("{}{}{}", low == high ? high : low + " to " + high, unit.empty() ? "" : " ", unit);
}

}  // namespace

std::string note_on_costs(const stage_costs& given, std::string_view unit, std::string_view convention) {
  std::size_t stages = 1;
  for (const auto* field : {&given.backward, &given.backward_input, &given.backward_weight})
    if (*field) stages = std::max(stages, (*field)->values().size());
  std::vector<double> whole, input, weight;
  for (std::uint32_t stage = 0; stage < stages; ++stage) {
    const auto times = given.backward_times(stage);
    whole.push_back(times.whole), input.push_back(times.input), weight.push_back(times.weight);
  }
  std::string text = "F " + range_of(given.forward.values(), unit);
  if (given.backward) text += ", B " + range_of(whole, unit);
  if (!given.backward || given.backward_input || given.backward_weight)
    text += ", I " + range_of(input, unit) + ", W " + range_of(weight, unit);
  if (given.overlapped) text += ", F with B or I " + range_of(given.overlapped->values(), unit);
  for (const pair_time& p : given.pairs)
    if (!p.stages) text += fmt::format(", {} {}", to_string(p.passes), range_of({p.time}, unit));
  const auto& transfers = given.transfer_time.values();
  if (std::any_of(transfers.begin(), transfers.end(), [](double t) { return t != 0; }))
    text += ", a message " + range_of(transfers, unit);
  return fmt::format("{}; {}", text, convention);
}

namespace {

// One cell of every kind that a cost model by stage can tell apart.
std::vector<cell> kinds_of_cells(const schedule& s) {
  std::unordered_set<std::uint64_t> seen;
  std::vector<cell> kinds;
  for (const cell& c : s.cells.all()) {
    std::uint64_t key = s.placement.replica_of(c[0].micro);
    for (op o : c) key = key << 19 | std::uint64_t{o.stage} << 3 | static_cast<std::uint64_t>(o.pass);
    if (seen.insert(key).second) kinds.push_back(c);
  }
  return kinds;
}

// Which prices of pairs the cells take: their own, or that of the same pair without recomputation.
std::vector<bool> used_pairs(const std::vector<cell>& kinds, const stage_costs& given) {
  std::vector<bool> used(given.pairs.size() + 1, false);  // the last: none
  const auto prices = [&](const cell& c) {
    std::size_t place = given.pairs.place_of(detail::key_of_pair(c[0].pass, c[0].stage, c[1].pass, c[1].stage));
    if (place == given.pairs.size()) place = given.pairs.place_of(detail::key_of_pair(c[0].pass, -1, c[1].pass, -1));
    used[place] = true;
    return place < given.pairs.size();
  };
  for (const cell& c : kinds)
    if (c.overlapped() && !prices(c)) prices(detail::split_recompute(c).second);
  used.pop_back();
  return used;
}

// Pairs of ranks between which messages go.
std::set<std::pair<std::uint32_t, std::uint32_t>> routes_of(const schedule& s, const std::vector<cell>& kinds) {
  std::set<std::pair<std::uint32_t, std::uint32_t>> routes;
  for (const cell& c : kinds)
    for (const op o : c)
      if (const auto out = output_of(o, s.chain()))
        routes.emplace(s.placement.rank_of(o.stage, o.micro), s.placement.rank_of(receiver_of(*out), out->micro));
  std::erase_if(routes, [](const auto& ends) { return ends.first == ends.second; });
  return routes;
}
std::vector<bool> used_links(const schedule& s, const std::vector<cell>& kinds, const stage_costs& given) {
  const auto routes = routes_of(s, kinds);
  std::vector<bool> used;
  for (const rank_link& l : given.links) used.push_back(routes.contains({l.from, l.to}));
  return used;
}

// "pairs[2]"; of many "60 of 64 links".
void add_unused(std::vector<std::string>& names, std::string_view list, const std::vector<bool>& used) {
  const auto unused = static_cast<std::size_t>(std::count(used.begin(), used.end(), false));
  if (unused > 4) return names.push_back(fmt::format("{} of {} {}", unused, used.size(), list));
  for (std::size_t i = 0; i < used.size(); ++i)
    if (!used[i]) names.push_back(fmt::format("{}[{}]", list, i));
}

// All that a cost model says about a schedule.
std::vector<double> readings(const schedule& s, const std::vector<cell>& kinds, const stage_costs& given) {
  const stage_costs costs = split_stage_costs(given, s.placement);
  const detail::recomputed_ops recomputed(s);
  std::vector<double> numbers;
  for (const cell& c : kinds) {
    const std::uint32_t rank = s.placement.rank_of(c[0].stage, c[0].micro);
    numbers.push_back(costs.duration(c, rank));
    for (std::size_t k = 0; k < c.size(); ++k) {
      const op o = c[k];
      numbers.push_back(costs.bytes(o));
      numbers.push_back(costs.transient(o));
      if (recomputed.any()) numbers.push_back(costs.bytes({pass::recompute, o.chunk, o.stage, o.micro}));
      const auto out = output_of(o, s.chain());
      if (!out) continue;
      numbers.push_back(costs.release(c, k, rank));
      const std::uint32_t from = s.placement.rank_of(o.stage, o.micro),
                          to = s.placement.rank_of(receiver_of(*out), out->micro);
      numbers.push_back(costs.message(*out));  // of a buffer
      if (from != to) numbers.push_back(costs.transfer(from, to, *out));
    }
  }
  for (std::uint32_t stage = 0; stage < s.stages(); ++stage) numbers.push_back(costs.weights(stage));
  return numbers;
}

// An entry has a use if the costs say something else with larger or with smaller numbers; or if they allow neither, as its numbers
// then bind others. `readings_with(change)` gets a function that changes a number.
template <typename ReadingsWith>
bool numbers_matter(const std::vector<double>& now, ReadingsWith&& readings_with) {
  bool allowed = false;
  for (double (*const change)(double) : {+[](double x) { return 2 * x + 1; }, +[](double x) { return x / 2; }}) {
    try {
      if (readings_with(change) != now) return true;
      allowed = true;
    } catch (const schedule_error&) {  // not these numbers
    }
  }
  return !allowed;
}

}  // namespace

std::vector<std::string> unused_costs(const schedule& s, const stage_costs& given) {
  const std::vector<cell> kinds = kinds_of_cells(s);
  const std::vector<double> now = readings(s, kinds, given);
  const auto readings_with = [&](const auto& change_costs) {
    stage_costs other = given;
    change_costs(other);
    return readings(s, kinds, other);
  };
  std::vector<std::string> names;
  const auto look_at = [&](const per_stage& numbers, std::string_view name) {
    const auto matter_from = [&](std::size_t first) {
      return numbers_matter(now, [&](auto change) {
        std::vector<double> values = numbers.values();
        std::transform(values.begin() + static_cast<std::ptrdiff_t>(first), values.end(),
                       values.begin() + static_cast<std::ptrdiff_t>(first), change);
        return readings_with([&](stage_costs& other) {
          stage_costs::for_each_field(other, [&](auto& field, std::string_view which) {
            if (which == name) field = per_stage(values);
          });
        });
      });
    };
    const std::size_t last = numbers.values().size() - 1;
    if (!matter_from(0))
      names.emplace_back(name);
    else if (stage_costs::is_per_cut(name) && last > 0 && numbers.values()[last] != 0 && !matter_from(last))
      names.push_back(std::string(name) + "[" + std::to_string(last) + "]");
  };
  stage_costs::for_each_field(given, [&](const auto& field, std::string_view name) {
    if constexpr (requires { field.has_value(); }) {
      if (field) look_at(*field, name);
    } else {
      if (field != per_stage(0)) look_at(field, name);  // zero is the default
    }
  });
  if (given.overlap_efficiency && readings_with([](stage_costs& other) { other.overlap_efficiency.reset(); }) == now &&
      readings_with([](stage_costs& other) { other.overlap_efficiency = 1; }) == now)
    names.emplace_back("overlap_efficiency");
  add_unused(names, "pairs", used_pairs(kinds, given));
  add_unused(names, "links", used_links(s, kinds, given));
  if (given.allowed_pairs) names.emplace_back("allowed_pairs");
  return names;
}

namespace {

// Which prices of pairs of layers the cells take, on the stages that have these layers.
std::vector<bool> used_prices(const schedule& s, const std::vector<cell>& kinds, const model& m, const partition& p) {
  const auto durations = [&](const model& of) {
    const stage_costs costs = pipesched::costs_of(of, p, s.placement);
    std::vector<double> numbers;
    for (const cell& c : kinds)
      if (c.overlapped()) numbers.push_back(costs.unit_duration(c));
    return numbers;
  };
  pass_pair_set pairs;
  for (const cell& c : kinds)
    if (c.overlapped()) pairs.insert(pair_of(c)), pairs.insert(pair_of(detail::split_recompute(c).second));
  std::vector<bool> used;
  model other = m;
  const std::vector<double> now = durations(m);
  for (layer_pair& price : other.pairs) {
    if (pairs.contains(price.passes)) {
      const double time = std::exchange(price.time, 2 * price.time + 1);
      used.push_back(durations(other) != now);
      price.time = time;
    } else {
      used.push_back(false);
    }
  }
  return used;
}

// An entry of a layer that not every schedule has a use for; nullptr if the layer does not give it.
struct entry_of_layer {
  std::string_view name;
  double* (*given)(layer&);
};
template <auto Member>
double* given_time(layer& l) {
  return l.*Member ? &*(l.*Member) : nullptr;
}
template <auto Member>
double* given_bytes(layer& l) {
  return l.*Member > 0 ? &(l.*Member) : nullptr;
}
template <auto Member>
double* given_transient(layer& l) {
  if constexpr (requires { (l.transient.*Member).has_value(); })
    return l.transient.*Member ? &*(l.transient.*Member) : nullptr;
  else
    return l.transient.*Member > 0 ? &(l.transient.*Member) : nullptr;
}
constexpr entry_of_layer entries_of_layers[] = {{"backward_input", given_time<&layer::backward_input>},
                                                {"backward_weight", given_time<&layer::backward_weight>},
                                                {"backward", given_time<&layer::backward>},
                                                {"recompute", given_time<&layer::recompute>},
                                                {"kept_input", given_bytes<&layer::kept_input>},
                                                {"context", given_time<&layer::context>},
                                                {"transient.B", given_transient<&transient_bytes::backward>},
                                                {"transient.I", given_transient<&transient_bytes::backward_input>},
                                                {"transient.W", given_transient<&transient_bytes::backward_weight>},
                                                {"transient.R", given_transient<&transient_bytes::recompute>},
                                                {"message", given_bytes<&layer::message>}};

std::vector<std::string> unused_entries_of_layers(const schedule& s, const std::vector<cell>& kinds, const model& m,
                                                  const partition& p) {
  const auto readings_of = [&](const model& of) { return readings(s, kinds, costs_of(of, p, s.placement)); };
  const std::vector<double> now = readings_of(m);
  std::vector<std::string> names;
  for (const entry_of_layer& entry : entries_of_layers) {
    model given = m;
    if (std::none_of(given.layers.begin(), given.layers.end(), [&](layer& l) { return entry.given(l) != nullptr; }))
      continue;
    const auto readings_with = [&](auto change) {
      model other = m;
      for (layer& l : other.layers)
        if (double* const value = entry.given(l)) *value = change(*value);
      return readings_of(other);
    };
    if (!numbers_matter(now, readings_with)) names.emplace_back(entry.name);
  }
  return names;
}

}  // namespace

namespace {

// A search looks at backwards whole and in halves, and at all cells that it may use, whether its result has them or not.
void keep_unused_by_plan(std::vector<std::string>& names, const plan_use& use) {
  std::erase_if(names, [&](std::string_view name) {
    const auto is_of = [&](std::initializer_list<std::string_view> starts) {
      return std::any_of(starts.begin(), starts.end(), [&](std::string_view start) { return name.starts_with(start); });
    };
    if (name.find("pairs") != name.npos) return true;  // may_use() knows more of them
    if (is_of({"recompute", "kept_input", "transient.R"})) return use.may_recompute;
    return !use.found.forward_only &&
           is_of({"backward", "context", "transient.B", "transient.I", "transient.W", "overlap", "communication.",
                  "release.", "memory.freed", "memory.context"});
  });
}
bool may_use(const plan_use& use, pass_pair passes) {
  const pass_pair plain{without_recompute(passes.first), without_recompute(passes.second)};
  const bool of_forwards = passes.first == pass::forward && passes.second == pass::forward;
  return use.pairs.contains(plain) && (!use.found.forward_only || of_forwards) &&
         (use.may_recompute || plain == passes);
}
template <typename Prices>
void add_unused_pairs(std::vector<std::string>& names, const plan_use& use, const Prices& prices, bool are_allowed) {
  std::vector<bool> used;
  for (const auto& price : prices) used.push_back(may_use(use, price.passes));
  add_unused(names, "pairs", used);
  if (are_allowed && use.pairs_are_given) names.emplace_back("allowed_pairs");
}

}  // namespace

std::vector<std::string> unused_by_plan(const plan_use& use, const model& m, const partition& p) {
  std::vector<std::string> names = unused_entries(use.found, m, p);
  keep_unused_by_plan(names, use);
  add_unused_pairs(names, use, m.pairs, m.allowed_pairs.has_value());
  return names;
}
std::vector<std::string> unused_by_plan(const plan_use& use, const stage_costs& given) {
  std::vector<std::string> names = unused_costs(use.found, given);
  keep_unused_by_plan(names, use);
  add_unused_pairs(names, use, given.pairs, given.allowed_pairs.has_value());
  return names;
}

std::vector<std::string> unused_entries(const schedule& s, const model& m, const partition& p) {
  const std::vector<cell> kinds = kinds_of_cells(s);
  std::vector<std::string> names = unused_entries_of_layers(s, kinds, m, p);
  add_unused(names, "pairs", used_prices(s, kinds, m, p));
  if (m.allowed_pairs) names.emplace_back("allowed_pairs");
  auto routes = routes_of(s, kinds);
  std::vector<bool> used;
  for (const model_link& l : m.links) used.push_back(!l.from || routes.erase({*l.from, *l.to}) > 0);
  for (std::size_t i = 0; i < m.links.size(); ++i)
    if (!m.links[i].from) used[i] = !routes.empty();  // for all that have none of their own
  add_unused(names, "links", used);
  return names;
}

std::optional<memory_report> memory_of(const study& of, const std::vector<double>& limits) {
  const auto any = [&](const per_stage& numbers) { return numbers != per_stage(0); };
  const stage_costs& c = of.costs;
  if (limits.empty() && of.measured.peak_bytes == 0 && of.measured.weight_bytes == 0 && !any(c.message_bytes))
    return std::nullopt;
  return fits(lower(of.times.schedule, {}, verified), c, limits);
}

html_panel panel_of(study& of) {
  html_panel panel = make_panel(std::move(of.times), of.costs);
  panel.lower_bound = of.bound.makespan;
  if (of.memory) panel.limits = room_of(*of.memory);
  return panel;
}

noisy_makespan noise_of(const study& of, const noise_options& options) {
  return simulate_noise(of.times.schedule, of.costs, options, verified);
}

std::string describe(const noise_options& options) {
  return fmt::format("each cell up to {:.6g} % longer, {}, seed {}", 100 * options.noise,
                     pipesched::detail::count_text(options.draws, "draw"), options.seed);
}

std::string note_on_unused(const std::vector<std::string>& names) {
  return names.empty() ? std::string() : "not used here: " + list_of({names.begin(), names.end()}, "and");
}

std::string note_on_backward(const stage_costs& given) {
  return given.backward && !given.backward_input && !given.backward_weight ? "I = W = B/2, as only B is given" : "";
}

namespace {

nlohmann::ordered_json json_of(const rank_memory& r) {
  nlohmann::ordered_json j = {
      {"weights", r.weights}, {"activations", r.activations}, {"buffers", r.buffers}, {"total", r.total()}};
  if (std::isfinite(r.limit)) j["limit"] = r.limit, j["fits"] = !r.first_too_large;
  return j;
}

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

nlohmann::ordered_json json_of(const noisy_makespan& n) {
  return {{"noise", n.options.noise},
          {"draws", n.options.draws},
          {"seed", n.options.seed},
          {"mean", n.mean},
          {"standard_deviation", n.standard_deviation},
          {"percentile_5", n.percentile_5},
          {"median", n.median},
          {"percentile_95", n.percentile_95}};
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
  if (of.noise) j["noise"] = json_of(*of.noise);
  return j;
}

nlohmann::ordered_json json_with_ranks(const study& of) {
  nlohmann::ordered_json j = json_of(of);
  for (const rank_metrics& r : of.measured.ranks) j["ranks"].push_back(json_of(r));
  for (std::size_t rank = 0; of.memory && rank < of.memory->ranks.size(); ++rank)
    j["ranks"][rank]["memory"] = json_of(of.memory->ranks[rank]);
  j["critical_path"] = nlohmann::ordered_json::array();
  for (cell_ref c : explain(of.times, of.costs, verified).critical_path)
    j["critical_path"].push_back(to_string(of.times.schedule[c.rank][c.index]));
  return j;
}

}  // namespace tool
