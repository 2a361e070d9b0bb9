// SPDX-License-Identifier: MIT
#pragma once

// Models as JSON, specified by model.schema.json beside this header. Only the layers are needed:
//
//   {"format": "pipesched.model", "version": 1, "time_unit": "ms",
//    "layers": [{"kind": "moe", "count": 29, "forward": 2.28, "backward_input": 3.49, "backward_weight": 0.16,
//                "recompute": 2, "kept": 1e9, "kept_input": 1e7, "context": 1e9, "transient": {"F": 0, "B": 0},
//                "weights": 1e9, "message": 6e7}],
//    "pairs": [{"kinds": ["moe", "moe"], "ops": "FB", "time": 3.9}], "allowed_pairs": ["FB", "FI"],
//    "ranks": [{"speed": 1, "memory": 8e10}],                                         one for all, or one per rank
//    "links": [{"from": 0, "to": 1, "latency": 0.01, "bandwidth": 5e10, "busy": "none"}],     without from and to: others
//    "micro_batches": [1, 0.7]}
//
// The meaning and default of each entry: model/model.hpp.

#include <algorithm>
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
#include "pipesched/io/detail/document.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/nearest_name.hpp"

namespace pipesched {

namespace detail {

template <typename Self, typename F>
requires std::is_same_v<std::remove_const_t<Self>, transient_bytes>
void for_each_entry(Self& t, F&& f) {
  f("F", t.forward);
  f("B", t.backward);
  f("I", t.backward_input);
  f("W", t.backward_weight);
  f("R", t.recompute);
}
template <typename Self, typename F>
requires std::is_same_v<std::remove_const_t<Self>, layer>
void for_each_entry(Self& l, F&& f) {
  f("kind", l.kind);
  f("count", l.count);
  f("forward", l.forward);
  f("backward_input", l.backward_input);
  f("backward_weight", l.backward_weight);
  f("backward", l.backward);
  f("recompute", l.recompute);
  f("kept", l.kept);
  f("kept_input", l.kept_input);
  f("context", l.context);
  f("transient", l.transient);
  f("weights", l.weights);
  f("message", l.message);
}
template <typename Self, typename F>
requires std::is_same_v<std::remove_const_t<Self>, layer_pair>
void for_each_entry(Self& p, F&& f) {
  f("kinds", p.kinds);
  f("ops", p.passes);
  f("time", p.time);
}
template <typename Self, typename F>
requires std::is_same_v<std::remove_const_t<Self>, model_rank>
void for_each_entry(Self& r, F&& f) {
  f("speed", r.speed);
  f("memory", r.memory);
}
template <typename Self, typename F>
requires std::is_same_v<std::remove_const_t<Self>, model_link>
void for_each_entry(Self& l, F&& f) {
  f("from", l.from);
  f("to", l.to);
  f("latency", l.latency);
  f("bandwidth", l.bandwidth);
  f("busy", l.busy);
}
template <typename Self, typename F>
requires std::is_same_v<std::remove_const_t<Self>, model>
void for_each_entry(Self& m, F&& f) {
  f("time_unit", m.time_unit);
  f("layers", m.layers);
  f("pairs", m.pairs);
  f("allowed_pairs", m.allowed_pairs);
  f("ranks", m.ranks);
  f("links", m.links);
  f("micro_batches", m.micro_batches);
}

template <typename T>
concept has_entries = requires(T& t) {
  for_each_entry(t, [](std::string_view, auto&) {});
};

/// Reads values; a fault names the entry by its path.
class model_reader {
 public:
  using json = nlohmann::json;

  static void read(const json& j, const std::string& path, double& to) {
    if (!j.is_number()) refuse(path, "is not a number");
    to = j.get<double>();
    if (!(to >= 0)) refuse(path, "is negative; expected a finite number that is not negative, nearest 0");
  }
  static void read(const json& j, const std::string& path, std::uint32_t& to) {
    to = whole_number(j, path, max_layers, "is not a whole number; expected 1 to ");
  }
  static void read(const json& j, const std::string& path, std::optional<std::uint32_t>& to) {  // a rank
    to = whole_number(j, path, max_stages - 1, "is not a rank; expected 0 to ");
  }
  static void read(const json& j, const std::string& path, std::string& to) {
    if (!j.is_string()) refuse(path, "is not a text");
    to = j.get<std::string>();
  }
  static void read(const json& j, const std::string& path, time_unit& to) {
    to = value_named<time_unit>(j, time_unit_names,
                                [&] { refuse(path, "is not a unit; expected \"s\", \"ms\", \"us\" or \"none\""); });
  }
  static void read(const json& j, const std::string& path, link_busy& to) {
    to = value_named<link_busy>(j, link_busy_names, [&] {
      refuse(path, "is not a side of a link; expected \"none\", \"sender\" or \"both\"");
    });
  }
  static void read(const json& j, const std::string& path, pass_pair& to) {
    const auto pair = j.is_string() ? parse_pass_pair(j.get_ref<const std::string&>()) : std::nullopt;
    if (!pair) refuse(path, concat({"is not a pair; expected ", pass_pair_expected, ", such as \"FB\""}));
    to = *pair;
  }
  static void read(const json& j, const std::string& path, std::array<std::string, 2>& to) {
    if (!j.is_array() || j.size() != 2)
      refuse(path, "does not name two kinds; expected two, such as [\"moe\", \"moe\"]");
    for (std::size_t i = 0; i < 2; ++i) read(j[i], concat({path, "[", i, "]"}), to[i]);
  }
  static void read(const json& j, const std::string& path, pass_pair_set& to) {
    if (!j.is_array()) refuse(path, "is not an array; expected one such as [\"FB\", \"FI\"]");
    for (std::size_t i = 0; i < j.size(); ++i) {
      pass_pair p;
      const std::string at = concat({path, "[", i, "]"});
      read(j[i], at, p);
      if (to.contains(p)) refuse(at, repeated_pair(p));
      to.insert(p);
    }
  }
  template <typename T>
  static void read(const json& j, const std::string& path, std::optional<T>& to) {
    read(j, path, to.emplace());
  }
  template <typename T>
  static void read(const json& j, const std::string& path, std::vector<T>& to) {
    if (!j.is_array()) refuse(path, "is not an array");
    if (j.empty() && (std::is_same_v<T, double> || std::is_same_v<T, model_rank>))
      refuse(path, std::is_same_v<T, double> ? "is empty; expected one number per micro-batch"
                                             : "is empty; expected one entry for all ranks, or one per rank");
    for (const json& one : j) {
      const std::string at = concat({path, "[", to.size(), "]"});
      read(one, at, to.emplace_back());
    }
  }
  template <has_entries T>
  static void read(const json& j, const std::string& path, T& to) {
    if (!j.is_object()) refuse(path, "is not an object");
    if constexpr (std::is_same_v<T, layer_pair>)
      for (const std::string_view needed : {"kinds", "ops", "time"})
        if (!j.contains(needed))
          refuse(path, concat({"has no \"", needed, "\"; expected \"kinds\", \"ops\" and \"time\""}));
    for (const auto& item : j.items()) read_entry(item.key(), item.value(), path, to);
  }

 private:
  [[noreturn]] static void refuse(const std::string& path, std::string_view what) {
    throw entry_fault("model", path, what);
  }

  static std::uint32_t whole_number(const json& j, const std::string& path, std::size_t most,
                                    std::string_view expected) {
    if (!j.is_number_unsigned() || j.get<std::uint64_t>() > most) refuse(path, concat({expected, most}));
    return j.get<std::uint32_t>();
  }

  template <typename T>
  static void read_entry(const std::string& name, const json& value, const std::string& path, T& to) {
    const std::string at = path.empty() ? name : path + "." + name;
    bool known = path.empty() && (name == "format" || name == "version");
    std::vector<std::string_view> names;
    for_each_entry(to, [&](std::string_view of, auto& field) {
      names.push_back(of);
      if (of != name) return;
      known = true;
      read(value, at, field);
    });
    if (known) return;
    refuse_unknown("model", at, name, names);
  }
};

/// Writes what differs from the default.
template <typename Json>
class model_writer {
 public:
  static Json of(double value) {
    if (!std::isfinite(value)) throw schedule_error("model: a number is not finite; JSON has no such number");
    return value;
  }
  static Json of(std::uint32_t value) { return value; }
  static Json of(const std::string& value) { return value; }
  static Json of(time_unit value) { return std::string(to_string(value)); }
  static Json of(link_busy value) { return std::string(to_string(value)); }
  static Json of(pass_pair value) { return to_string(value); }
  static Json of(const std::array<std::string, 2>& value) { return value; }
  static Json of(const pass_pair_set& value) {
    Json j = Json::array();
    for (const pass_pair p : value.pairs()) j.push_back(to_string(p));
    return j;
  }
  template <typename T>
  static Json of(const std::optional<T>& value) {
    return of(*value);
  }
  template <typename T>
  static Json of(const std::vector<T>& value) {
    Json j = Json::array();
    for (const T& one : value) j.push_back(of(one));
    return j;
  }
  template <has_entries T>
  static Json of(const T& value) {
    Json j = Json::object();
    const T defaults{};
    for_each_entry(defaults, [&](std::string_view name, const auto& unchanged) {
      for_each_entry(value, [&](std::string_view of_value, const auto& field) {
        if constexpr (std::is_same_v<decltype(unchanged), decltype(field)>) {
          if (name == of_value && (!(field == unchanged) || is_always_written<T>(name)))
            j[std::string(name)] = of(field);
        }
      });
    });
    return j;
  }

 private:
  template <typename T>
  static bool is_always_written(std::string_view name) {
    return (std::is_same_v<T, layer> && (name == "kind" || name == "forward")) || std::is_same_v<T, layer_pair>;
  }
};

}  // namespace detail

/// Reads one document, and checks it. @throws schedule_error with entry, line and column when the text is not JSON or not of
/// this form; as check() does
inline model read_model(std::istream& in) {
  const std::string text = detail::text_of(in, "model");
  detail::document_parser parser(text, "model", "{\"layers\": [{\"count\": 32, \"forward\": 1, \"backward\": 2}]}");
  const nlohmann::json document = parser.parse();
  model m;
  try {
    if (!document.is_object())
      throw detail::entry_fault("model", "", "expected an object such as {\"layers\": [{\"count\": 32}]}");
    detail::require_format(document, "model", "pipesched.model");
    if (!document.contains("layers"))
      throw detail::entry_fault("model", "", "there is no \"layers\"; expected an array of them");
    detail::model_reader::read(document, "", m);
    check(m);
  } catch (const detail::entry_fault& e) {
    throw schedule_error(e.what() + parser.place_of(e.path));
  } catch (const model_error& e) {
    throw schedule_error(e.what() + parser.place_of(e.path));
  }
  return m;
}
inline model read_model(std::istream&& in) { return read_model(in); }

/// Makes the document of a model, without entries at their defaults; reading it gives an equal model.
/// @throws schedule_error if a number is infinite or NaN
inline nlohmann::ordered_json model_document(const model& m) {
  nlohmann::ordered_json j = {{"format", "pipesched.model"}, {"version", 1}};
  j.update(detail::model_writer<nlohmann::ordered_json>::of(m));
  return j;
}

}  // namespace pipesched
