// SPDX-License-Identifier: MIT
#pragma once

// Cost models as JSON. Every entry is a number, or an array with one number a stage, and may be left out:
//
//   {"forward": 1, "backward_input": 1, "backward_weight": 1, "backward": 2, "overlapped": 3, "overlap_efficiency": 0.9,
//    "communication": {"forward": 0, "backward_input": 0, "backward_weight": 0},
//    "release": {"forward": 1, "backward": 3},
//    "transfer": 0, "message_bytes": 0, "bandwidth": 1,
//    "memory": {"kept_by_forward": 0, "freed_by_input": 0, "freed_by_weight": 0, "weights": 0}}
//
// overlap_efficiency is a number for all. What each means: stage_costs in cost_model.hpp.

#include <istream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/cost_model.hpp"
#include "pipesched/error.hpp"

namespace pipesched {

namespace detail {

template <typename Json>
double cost_number(const Json& j, std::string_view name) {
  if (!j.is_number()) throw schedule_error(concat({"costs: ", name, " is no number"}));
  return j.template get<double>();
}

// Takes the entry `name` ("memory.weights": in the object "memory") out of the document; nothing where there is none.
template <typename Json>
std::optional<Json> taken(Json& document, std::string_view name) {
  const std::size_t dot = name.find('.');
  const auto found = document.find(std::string(name.substr(0, dot)));
  if (found == document.end()) return std::nullopt;
  if (dot != name.npos) {
    if (!found->is_object()) throw schedule_error(concat({"costs: ", name.substr(0, dot), " is no object"}));
    return taken(*found, name.substr(dot + 1));
  }
  Json value = std::move(*found);
  document.erase(found);
  return value;
}

// The three whose default is not zero.
constexpr bool costs_of_pass(std::string_view name) {
  return name == "forward" || name == "backward_input" || name == "backward_weight";
}

}  // namespace detail

/// The costs of a document. @throws schedule_error on an unknown entry or one of the wrong type, with its name; whether the
/// numbers make sense is for stage_costs::check(), which simulate() calls.
template <typename Json>
void from_json(const Json& j, stage_costs& costs) {
  if (!j.is_object()) throw schedule_error("costs: expected an object such as {\"forward\": 1, \"transfer\": 0.1}");
  costs = {};
  Json rest = j;
  stage_costs::for_each_field(costs, [&](auto& field, std::string_view name) {
    const std::optional<Json> entry = detail::taken(rest, name);
    if (!entry) return;
    if (!entry->is_array()) {
      field = per_stage(detail::cost_number(*entry, name));
      return;
    }
    std::vector<double> values;
    for (const Json& value : *entry) values.push_back(detail::cost_number(value, name));
    field = per_stage(std::move(values));
  });
  if (const auto e = detail::taken(rest, "overlap_efficiency"))
    costs.overlap_efficiency = detail::cost_number(*e, "overlap_efficiency");
  for (const auto& [name, value] : rest.items()) {  // what is left, but for the groups emptied above
    if (value.empty() && (name == "communication" || name == "release" || name == "memory")) continue;
    const bool group = value.is_object() && !value.empty();
    throw schedule_error(detail::concat({"costs: unknown entry \"", name.substr(0, 40), group ? "." : "",
                                         group ? value.begin().key().substr(0, 40) : "", "\""}));
  }
}

/// The document of a cost model, without what is at its default.
template <typename Json>
void to_json(Json& j, const stage_costs& costs) {
  j = Json::object();
  stage_costs::for_each_field(costs, [&](const auto& field, std::string_view name) {
    Json value;
    if constexpr (requires { field.has_value(); }) {
      if (!field) return;
      value = field->values().size() == 1 ? Json(field->values()[0]) : Json(field->values());
    } else {
      value = field.values().size() == 1 ? Json(field.values()[0]) : Json(field.values());
      if (value == 0.0 && !detail::costs_of_pass(name)) return;  // zero is the default
    }
    const std::size_t dot = name.find('.');
    Json& place = dot == name.npos ? j : j[std::string(name.substr(0, dot))];
    place[std::string(dot == name.npos ? name : name.substr(dot + 1))] = std::move(value);
  });
  if (costs.overlap_efficiency) j["overlap_efficiency"] = *costs.overlap_efficiency;
}

/// Reads one document. @throws schedule_error when it is not JSON, or not of this form.
inline stage_costs read_costs(std::istream& in) {
  const auto document = nlohmann::json::parse(in, nullptr, false);
  if (document.is_discarded()) throw schedule_error("costs: not JSON");
  return document.get<stage_costs>();
}

}  // namespace pipesched
