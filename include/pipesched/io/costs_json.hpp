// SPDX-License-Identifier: MIT
#pragma once

// Cost models as JSON, specified by costs.schema.json beside this header. Every entry may be left out; where an entry is a
// number, it may be an array with one number per stage:
//
//   {"format": "pipesched.costs", "version": 1,
//    "time_unit": "ms",                                       none, s, ms or us; default none: any one unit
//    "forward": 1, "backward": 2, "backward_input": 1, "backward_weight": 1, "recompute": 1,
//    "overlapped": 3, "overlap_efficiency": 0.9,              one of the two
//    "pairs": [{"ops": "FF", "time": 3}, {"ops": "FB", "stages": [0, 3], "time": 2.5}], "allowed_pairs": ["FB", "FI"],
//    "communication": {"forward": 0, "backward_input": 0, "backward_weight": 0},
//    "release": {"forward": 1, "backward": 3},
//    "transfer": 0, "message_bytes": 0, "bandwidth": 1,       per cut between stages
//    "transfers_busy": "none",
//    "links": [{"from": 0, "to": 1, "latency": 0, "bandwidth": 1, "busy": "none"}],
//    "rank_speeds": [1, 0.5], "micro_batches": [1, 0.7],      one per rank, one per micro-batch
//    "memory": {"kept_by_forward": 0, "freed_by_input": 0, "freed_by_weight": 0, "context": 0,    context in place of the two
//               "kept_input": 0, "weights": 0},
//    "transient": {"F": 0, "B": 0, "I": 0, "W": 0, "R": 0}}
//
// overlap_efficiency, pairs and allowed_pairs are for all stages, links, rank_speeds and micro_batches by rank and micro-batch.
// The meaning of each entry: stage_costs.

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <istream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/io/detail/document.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/nearest_name.hpp"

namespace pipesched {

namespace detail {

[[noreturn]] inline void refuse_entry(std::string_view path, std::string_view what) {
  throw entry_fault("costs", path, what);
}

template <typename Names>
[[noreturn]] void refuse_name(std::string_view path, const Names& known) {
  refuse_unknown("costs", path, path, known);
}

template <typename Json>
double cost_number(const Json& j, std::string_view path) {
  if (!j.is_number()) refuse_entry(path, "is not a number");
  const double value = j.template get<double>();
  if (!(value >= 0)) refuse_entry(path, "is negative; expected a finite number that is not negative, nearest 0");
  return value;
}

// Of a speed, a bandwidth, or a length.
template <typename Json>
double positive_number(const Json& j, std::string_view path) {
  const double value = cost_number(j, path);
  if (value == 0) refuse_entry(path, "is 0; expected more than 0");
  return value;
}

template <typename Json>
per_stage cost_numbers(const Json& j, const std::string& path) {
  const auto number = [&](const Json& value, std::string_view at) {
    return path == "bandwidth" ? positive_number(value, at) : cost_number(value, at);
  };
  if (!j.is_array()) return number(j, path);
  if (j.empty()) refuse_entry(path, "is empty; expected a number, or one per stage");
  std::vector<double> values;
  for (const Json& value : j) values.push_back(number(value, concat({path, "[", values.size(), "]"})));
  return per_stage(std::move(values));
}

template <typename Json>
std::vector<double> cost_factors(const Json& j, const std::string& path) {
  if (!j.is_array()) refuse_entry(path, "is not an array; expected one number each");
  if (j.empty()) refuse_entry(path, "is empty; expected one number each");
  std::vector<double> values;
  for (const Json& value : j) values.push_back(positive_number(value, concat({path, "[", values.size(), "]"})));
  return values;
}

template <typename Json>
link_busy busy_of_text(const Json& j, std::string_view path) {
  return value_named<link_busy>(j, link_busy_names, [&] {
    refuse_entry(path, "is not a side of a link; expected \"none\", \"sender\" or \"both\"");
  });
}

template <typename Json>
time_unit time_unit_of_text(const Json& j, std::string_view path) {
  return value_named<time_unit>(
      j, time_unit_names, [&] { refuse_entry(path, "is not a unit; expected \"s\", \"ms\", \"us\" or \"none\""); });
}

template <typename Json>
rank_link link_of_entry(const Json& j, const std::string& path) {
  if (!j.is_object())
    refuse_entry(path, "is not an object; expected one such as {\"from\": 0, \"to\": 1, \"latency\": 0.1}");
  for (std::string_view needed : {"from", "to"})
    if (!j.contains(needed)) refuse_entry(path, concat({"has no \"", needed, "\"; expected \"from\" and \"to\""}));
  rank_link link;
  for (const auto& item : j.items()) {
    const std::string at = concat({path, ".", item.key()});
    if (item.key() == "from" || item.key() == "to") {
      if (!item.value().is_number_unsigned() || item.value().template get<std::uint64_t>() >= max_stages)
        refuse_entry(at, "is not a rank; expected 0 to 65535");
      (item.key() == "from" ? link.from : link.to) = item.value().template get<std::uint32_t>();
    } else if (item.key() == "latency") {
      link.latency = cost_number(item.value(), at);
    } else if (item.key() == "bandwidth") {
      link.bandwidth = positive_number(item.value(), at);
    } else if (item.key() == "busy") {
      link.busy = busy_of_text(item.value(), at);
    } else {
      refuse_name(at, std::array<std::string, 5>{path + ".from", path + ".to", path + ".latency", path + ".bandwidth",
                                                 path + ".busy"});
    }
  }
  return link;
}

template <typename Json>
pass_pair pair_of_text(const Json& j, std::string_view path) {
  const auto pair = j.is_string() ? parse_pass_pair(j.template get_ref<const std::string&>()) : std::nullopt;
  if (!pair) refuse_entry(path, concat({"is not a pair; expected ", pass_pair_expected, ", such as \"FB\""}));
  return *pair;
}

template <typename Json>
pair_time pair_of_entry(const Json& j, const std::string& path) {
  static constexpr std::array<std::string_view, 3> known{"ops", "stages", "time"};
  if (!j.is_object()) refuse_entry(path, "is not an object; expected one such as {\"ops\": \"FF\", \"time\": 3}");
  pair_time pair;
  for (const auto& item : j.items()) {
    const std::string& name = item.key();
    const Json& value = item.value();
    const std::string at = concat({path, ".", name});
    if (name == "ops") {
      pair.passes = pair_of_text(value, at);
    } else if (name == "time") {
      pair.time = cost_number(value, at);
    } else if (name == "stages") {
      if (!value.is_array() || value.size() != 2)
        refuse_entry(at, "does not name two stages; expected [first, second]");
      pair.stages.emplace();
      for (std::size_t i = 0; i < 2; ++i) {
        if (!value[i].is_number_unsigned() || value[i].template get<std::uint64_t>() > 0xFFFF)
          refuse_entry(concat({at, "[", i, "]"}), "is not a stage; expected 0 to 65535");
        (*pair.stages)[i] = value[i].template get<std::uint16_t>();
      }
    } else {
      refuse_name(at, std::array<std::string, 3>{path + ".ops", path + ".stages", path + ".time"});
    }
  }
  for (std::string_view needed : {known[0], known[2]})
    if (!j.contains(needed)) refuse_entry(path, concat({"has no \"", needed, "\"; expected \"ops\" and \"time\""}));
  return pair;
}

// Refuses an entry for the cells or ranks of another one and a link that leads nowhere, which a schema cannot say.
inline void refuse_repeated(const stage_costs& costs) {
  const auto check_list = [](std::string_view name, const auto& list) {
    for (std::size_t i = 0; i < list.size(); ++i)
      if (const std::string fault = fault_among(list, i); !fault.empty())
        refuse_entry(concat({name, "[", i, "]"}), fault);
  };
  check_list("pairs", costs.pairs), check_list("links", costs.links);
}

// All names of entries, those in groups with the group's: "memory.weights".
inline std::vector<std::string_view> names_of_costs() {
  std::vector<std::string_view> names{
      "overlap_efficiency", "pairs",         "allowed_pairs", "links",  "transfers_busy",
      "rank_speeds",        "micro_batches", "time_unit",     "format", "version"};
  const stage_costs costs;
  stage_costs::for_each_field(costs, [&](const auto&, std::string_view name) { names.push_back(name); });
  return names;
}

// Reads the entry of that name; false if it is not one of numbers.
template <typename Json>
bool read_field(stage_costs& costs, const std::string& name, const Json& value) {
  bool known = false;
  stage_costs::for_each_field(costs, [&](auto& field, std::string_view of) {
    if (of != name) return;
    field = cost_numbers(value, name);
    known = true;
  });
  return known;
}

template <typename Json>
void read_entry(stage_costs& costs, const std::string& name, const Json& value) {
  if (name == "time_unit") {
    costs.time_unit = time_unit_of_text(value, name);
  } else if (name == "overlap_efficiency") {
    const double e = cost_number(value, name);
    if (!(e > 0 && e <= 1))
      refuse_entry(name, concat({"is ", e, "; expected more than 0 and at most 1, nearest ", e > 1 ? "1" : "0.01"}));
    costs.overlap_efficiency = e;
  } else if (name == "pairs") {
    if (!value.is_array()) refuse_entry(name, "is not an array; expected one such as [{\"ops\": \"FF\", \"time\": 3}]");
    for (const Json& one : value)
      costs.pairs.push_back(pair_of_entry(one, concat({"pairs[", costs.pairs.size(), "]"})));
  } else if (name == "allowed_pairs") {
    if (!value.is_array()) refuse_entry(name, "is not an array; expected one such as [\"FB\", \"FI\"]");
    costs.allowed_pairs.emplace();
    for (std::size_t i = 0; i < value.size(); ++i) {
      const std::string at = concat({"allowed_pairs[", i, "]"});
      const pass_pair p = pair_of_text(value[i], at);
      if (costs.allowed_pairs->contains(p)) refuse_entry(at, repeated_pair(p));
      costs.allowed_pairs->insert(p);
    }
  } else if (name == "links") {
    if (!value.is_array())
      refuse_entry(name, "is not an array; expected one such as [{\"from\": 0, \"to\": 1, \"latency\": 0.1}]");
    for (const Json& one : value)
      costs.links.push_back(link_of_entry(one, concat({"links[", costs.links.size(), "]"})));
  } else if (name == "transfers_busy") {
    costs.transfers_busy = busy_of_text(value, name);
  } else if (name == "rank_speeds") {
    costs.rank_speeds = cost_factors(value, name);
  } else if (name == "micro_batches") {
    costs.micro_batches = cost_factors(value, name);
  } else if (!read_field(costs, name, value)) {
    refuse_name(name, names_of_costs());
  }
}

constexpr bool is_group_of_costs(std::string_view name) {
  return name == "communication" || name == "release" || name == "memory" || name == "transient";
}

inline double finite(double value, std::string_view name) {
  if (!std::isfinite(value)) refuse_entry(name, "is not finite; JSON has no such number");
  return value;
}

template <typename Json>
void write_pairs(Json& j, const stage_costs& costs) {
  for (const pair_time& p : costs.pairs) {
    if (p.passes.first == pass::none || p.passes.second == pass::none)
      refuse_entry("pairs", detail::concat({"has an entry without two passes; expected ", pass_pair_expected}));
    Json pair = {{"ops", to_string(p.passes)}, {"time", finite(p.time, "pairs")}};
    if (p.stages) pair["stages"] = *p.stages;
    j["pairs"].push_back(std::move(pair));
  }
  if (!costs.allowed_pairs) return;
  j["allowed_pairs"] = Json::array();
  for (const pass_pair p : costs.allowed_pairs->pairs()) j["allowed_pairs"].push_back(to_string(p));
}

// Links, speeds of ranks, lengths of micro-batches.
template <typename Json>
void write_machine(Json& j, const stage_costs& costs) {
  if (costs.transfers_busy != link_busy::none) j["transfers_busy"] = to_string(costs.transfers_busy);
  for (const rank_link& l : costs.links) {
    Json link = {{"from", l.from}, {"to", l.to}, {"latency", finite(l.latency, "links")}};
    if (l.bandwidth) link["bandwidth"] = finite(*l.bandwidth, "links");
    if (l.busy != link_busy::none) link["busy"] = to_string(l.busy);
    j["links"].push_back(std::move(link));
  }
  for (const auto& [name, factors] :
       {std::pair{"rank_speeds", &costs.rank_speeds}, {"micro_batches", &costs.micro_batches}}) {
    if (factors->empty()) continue;
    for (const double factor : *factors) finite(factor, name);
    j[name] = *factors;
  }
}

}  // namespace detail

/// Reads the costs of a document. stage_costs::check(), which simulate() calls, then checks the numbers against the number
/// of stages. @throws schedule_error that names the entry when it is unknown, of the wrong type or a negative number, or when a
/// speed, length or bandwidth is 0, and for another format or version.
template <typename Json>
void from_json(const Json& j, stage_costs& costs) {
  if (!j.is_object())
    throw detail::entry_fault("costs", "", "expected an object such as {\"forward\": 1, \"transfer\": 0.1}");
  detail::require_format(j, "costs", "pipesched.costs");
  costs = {};
  for (const auto& item : j.items()) {
    if (item.key() == "format" || item.key() == "version") continue;
    if (const std::size_t dot = item.key().find('.'); dot != std::string::npos)
      throw detail::entry_fault("costs", item.key(), "expected objects, such as {\"memory\": {\"weights\": 0}}",
                                detail::unknown_entry{});
    if (!detail::is_group_of_costs(item.key())) {
      detail::read_entry(costs, item.key(), item.value());
      continue;
    }
    if (!item.value().is_object()) detail::refuse_entry(item.key(), "is not an object");
    for (const auto& entry : item.value().items())
      if (const std::string name = item.key() + "." + entry.key(); !detail::read_field(costs, name, entry.value()))
        detail::refuse_name(name, detail::names_of_costs());
  }
}

/// Makes the document of a cost model, without entries at their defaults; reading it gives an equal cost model.
/// @throws schedule_error if a number is infinite or NaN
template <typename Json>
void to_json(Json& document, const stage_costs& costs) {
  Json j = Json::object();  // a constructor that calls this does not release `document` after an exception
  stage_costs::for_each_field(costs, [&](const auto& field, std::string_view name) {
    const per_stage* numbers = nullptr;
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, per_stage>) {
      if (name == "forward" || field != per_stage(0)) numbers = &field;
    } else {
      if (field) numbers = &*field;
    }
    if (numbers == nullptr) return;
    if (numbers->values().empty()) detail::refuse_entry(name, "is empty; expected a number, or one per stage");
    for (double value : numbers->values()) detail::finite(value, name);
    const std::size_t dot = name.find('.');
    Json& place = dot == name.npos ? j : j[std::string(name.substr(0, dot))];
    Json& entry = place[std::string(dot == name.npos ? name : name.substr(dot + 1))];
    entry = numbers->values().size() == 1 ? Json(numbers->values()[0]) : Json(numbers->values());
  });
  if (costs.time_unit != time_unit::none) j["time_unit"] = to_string(costs.time_unit);
  if (costs.overlap_efficiency)
    j["overlap_efficiency"] = detail::finite(*costs.overlap_efficiency, "overlap_efficiency");
  detail::write_pairs(j, costs);
  detail::write_machine(j, costs);
  document = std::move(j);
}

/// Reads one document. @throws schedule_error with entry, line and column when the text is not JSON or not of this form, a link
/// is from a rank to itself, or two entries are for the same cells or ranks.
inline stage_costs read_costs(std::istream& in) {
  const std::string text = detail::text_of(in, "costs");
  detail::document_parser parser(text, "costs", "{\"forward\": 1, \"transfer\": 0.1}");
  const nlohmann::json document = parser.parse();
  try {
    const auto costs = document.get<stage_costs>();
    detail::refuse_repeated(costs);
    return costs;
  } catch (const detail::entry_fault& e) {
    throw schedule_error(e.what() + parser.place_of(e.path));
  }
}
inline stage_costs read_costs(std::istream&& in) { return read_costs(in); }

}  // namespace pipesched
