// SPDX-License-Identifier: MIT
#pragma once

// Measured times as JSON: events that a hook writes, and traces in the Trace Event Format.
//
//   [{"rank": 0, "action": "0F3", "start": 12.5, "end": 14.0}, ...]
//   {"time_unit": "ms", "events": [...]}                              none, s, ms or us; without it, none
//
// An action is a cell, "3F12" or "(0F7;7B13)", and PyTorch's text of it, "(0F7;7B13)OVERLAP_F_B". In a trace the complete events
// (ph X) with these names count, as render/chrome_trace.hpp and PyTorch write them:
//
//   3F12   (0F7;7B13)   PP:3F12   PP:(0F7;7B13)OVERLAP_F_B
//
// PP: is what PyTorch's _PipelineScheduleRuntime names its actions; others, such as PP:0SEND_F1, have no part in costs. PyTorch's
// profiler writes one file per process; where a file has gpu_user_annotation events, these count, the times of the device,
// and otherwise those of the host. A process is a rank; ranks are numbered by the first stage of their first micro-batch, which
// tells the two ranks apart that hold the same stages in DualPipe and Chimera.
// Source: torch/distributed/pipelining/schedules.py, _get_profiler_function_name and _step_microbatches, commit 00722e6; "Trace
// Event Format", Google: ts and dur in microseconds.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/notation.hpp"
#include "pipesched/io/detail/document.hpp"
#include "pipesched/io/measured_steps.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Cells of a run, and the unit of their times.
struct measured_times {
  std::vector<measured_cell> cells;
  pipesched::time_unit unit = time_unit::none;
  std::vector<std::string> notes{};
};

/// The cell of a name as above; nothing for other names.
inline std::optional<cell> cell_of_action(std::string_view name) {
  if (name.starts_with("PP:")) name.remove_prefix(3);
  constexpr std::string_view overlap = "OVERLAP_F_B";
  if (name.starts_with('(') && name.ends_with(overlap)) name.remove_suffix(overlap.size());
  const auto c = parse_cell(name);
  constexpr std::uint32_t max_micro = 1u << 28;
  if (c && std::any_of(c->begin(), c->end(), [](op o) { return o.micro >= max_micro; })) return std::nullopt;
  return c;
}

namespace detail {

[[noreturn]] inline void refuse_event(const std::string& at, std::string_view what) {
  throw entry_fault("times", at, what);
}

// Refuses entries of an object beside those known. @param at  its path; empty: the document
template <std::size_t N>
void require_known(const nlohmann::json& j, const std::string& at, const std::array<std::string_view, N>& known) {
  for (const auto& item : j.items())
    if (std::find(known.begin(), known.end(), item.key()) == known.end())
      refuse_unknown("times", concat({at, at.empty() ? "" : ".", item.key()}), item.key(), known);
}

inline double event_time(const nlohmann::json& event, const std::string& at, const char* name) {
  const auto found = event.find(name);
  if (found == event.end()) refuse_event(at, concat({"has no \"", name, "\""}));
  if (!found->is_number()) refuse_event(concat({at, ".", name}), "is not a number");
  return found->get<double>();
}

inline measured_cell cell_of_event(const nlohmann::json& event, const std::string& at) {
  if (!event.is_object())
    refuse_event(at, "is not an object such as {\"rank\": 0, \"action\": \"0F3\", \"start\": 1.5, \"end\": 2.5}");
  require_known(event, at, std::array<std::string_view, 4>{"rank", "action", "start", "end"});
  const auto rank = event.find("rank"), action = event.find("action");
  if (rank == event.end() || !rank->is_number_unsigned() || rank->get<std::uint64_t>() >= max_stages)
    refuse_event(concat({at, ".rank"}), "is not a rank; expected 0 to 65535");
  const auto what = action != event.end() && action->is_string() ? cell_of_action(action->get_ref<const std::string&>())
                                                                 : std::nullopt;
  if (!what) refuse_event(concat({at, ".action"}), "is not a cell; expected one such as 0F3 or (0F7;7B13)");
  const measured_cell m{.rank = rank->get<std::uint32_t>(),
                        .what = *what,
                        .time = {event_time(event, at, "start"), event_time(event, at, "end")}};
  if (m.time.end < m.time.start) refuse_event(concat({at, ".end"}), "is before its start");
  return m;
}

inline measured_times times_of_document(const nlohmann::json& j) {
  measured_times times;
  const nlohmann::json* events = &j;
  if (j.is_object()) {
    require_known(j, "", std::array<std::string_view, 2>{"time_unit", "events"});
    if (!j.contains("events")) throw schedule_error("times: there are no \"events\"");
    events = &j["events"];
    if (j.contains("time_unit")) {
      times.unit = value_named<time_unit>(j["time_unit"], time_unit_names, [] {
        refuse_event("time_unit", "is not a unit; expected none, s, ms or us");
      });
    }
  }
  if (!events->is_array()) refuse_event("events", "is not an array");
  if (events->empty())
    throw schedule_error(
        "times: no events; expected one such as {\"rank\": 0, \"action\": \"0F3\", \"start\": 1, \"end\": 2}");
  const std::string name = j.is_object() ? "events" : "";
  for (const auto& event : *events)
    times.cells.push_back(cell_of_event(event, concat({name, "[", times.cells.size(), "]"})));
  return times;
}

}  // namespace detail

/// Reads the events of a hook.
/// @throws schedule_error, with line and column, for a text that is not of this form, and without events
inline measured_times read_times(std::string_view text) {
  detail::document_parser parser(text, "times", "{\"events\": [{\"rank\": 0, \"action\": \"0F3\", ...}]}");
  const nlohmann::json j = parser.parse();
  try {
    return detail::times_of_document(j);
  } catch (const detail::entry_fault& e) {
    throw schedule_error(e.what() + parser.place_of(e.path));
  }
}

namespace detail {

// The cells of one process of a trace.
struct traced_process {
  std::string name;  // for errors and notes
  bool of_pytorch = false;
  std::vector<measured_cell> of_host, of_device;

  const std::vector<measured_cell>& cells() const { return of_device.empty() ? of_host : of_device; }
  std::uint16_t first_stage() const {
    std::pair<std::uint32_t, std::uint16_t> first = {0xFFFF'FFFF, 0xFFFF};
    for (const measured_cell& m : cells())
      for (const op o : m.what) first = std::min(first, {o.micro, o.stage});
    return first.second;
  }
};

// A trace without what its events have in objects of their own.
inline nlohmann::json parse_trace(const std::string& file, std::string_view text) {
  using json = nlohmann::json;
  try {
    return json::parse(text, [](int depth, json::parse_event_t event, json&) {
      return depth < 3 || (event != json::parse_event_t::object_start && event != json::parse_event_t::array_start);
    });
  } catch (const json::exception& e) {
    throw schedule_error(concat({file, ": ", text.empty() ? "empty; expected a trace" : not_json(e.what())}));
  }
}

inline std::string text_of_entry(const nlohmann::json& event, const char* name) {
  const auto found = event.find(name);
  if (found == event.end()) return {};
  return found->is_string() ? found->get<std::string>() : found->dump();
}

// Adds the event to its process, if it is an action; true if so.
inline bool add_traced(const nlohmann::json& event, const std::string& at, const std::string& file, bool one_process,
                       std::map<std::string, traced_process>& processes) {
  if (!event.is_object() || text_of_entry(event, "ph") != "X") return false;
  const auto what = cell_of_action(text_of_entry(event, "name"));
  if (!what) return false;
  const double start = event_time(event, at, "ts"), duration = event_time(event, at, "dur");
  if (!(duration >= 0)) refuse_event(concat({at, ".dur"}), "is negative");
  const std::string pid = one_process ? "" : text_of_entry(event, "pid");
  traced_process& process = processes[concat({file, "\n", pid})];
  process.name = one_process ? file : concat({file, ", process ", pid});
  process.of_pytorch = one_process;
  const measured_cell m{.what = *what, .time = {start, start + duration}};
  (text_of_entry(event, "cat") == "gpu_user_annotation" ? process.of_device : process.of_host).push_back(m);
  return true;
}

}  // namespace detail

/// Reads traces, one or more files of a run with their names.
/// @throws schedule_error without files, for a text that is no trace or has no action, or if two processes run the same stage
inline measured_times read_traces(const std::vector<std::pair<std::string, std::string>>& names_and_texts) {
  std::map<std::string, detail::traced_process> processes;
  for (const auto& [file, text] : names_and_texts) {
    const nlohmann::json j = detail::parse_trace(file, text);
    const nlohmann::json& events = j.is_object() && j.contains("traceEvents") ? j["traceEvents"] : j;
    if (!events.is_array()) throw schedule_error(detail::concat({file, ": no trace; expected \"traceEvents\""}));
    const bool one_process = j.is_object() && j.contains("distributedInfo");  // of PyTorch's profiler
    std::size_t i = 0, actions = 0;
    for (const auto& event : events) {
      const std::string at = detail::concat({"traceEvents[", i++, "]"});
      try {
        actions += detail::add_traced(event, at, file, one_process, processes) ? 1 : 0;
      } catch (const detail::entry_fault& e) {
        throw schedule_error(detail::concat({file, ": ", e.what()}));
      }
    }
    if (actions == 0)
      throw schedule_error(
          detail::concat({file, ": no event is named after an action, such as 0F3, (0F7;7B13) or PP:0F3"}));
  }
  if (processes.empty()) throw schedule_error("read_traces() needs at least 1 file; got 0, nearest 1");
  std::vector<const detail::traced_process*> ordered;
  for (const auto& [key, process] : processes) ordered.push_back(&process);
  std::sort(ordered.begin(), ordered.end(),
            [](const auto* a, const auto* b) { return a->first_stage() < b->first_stage(); });
  measured_times times{.cells = {}, .unit = time_unit::us};
  for (std::size_t rank = 0; rank < ordered.size(); ++rank) {
    if (rank > 0 && ordered[rank - 1]->first_stage() == ordered[rank]->first_stage())
      throw schedule_error(
          detail::concat({"stage ", ordered[rank]->first_stage(), " ran in two processes: ", ordered[rank - 1]->name,
                          " and ", ordered[rank]->name, "; expected those of one pipeline"}));
    if (ordered[rank]->of_pytorch && ordered[rank]->of_device.empty() && times.notes.empty())
      times.notes.push_back(detail::concat({ordered[rank]->name,
                                            " has times of the host, no gpu_user_annotation "
                                            "events; a GPU ends its work later"}));
    for (measured_cell m : ordered[rank]->cells()) m.rank = static_cast<std::uint32_t>(rank), times.cells.push_back(m);
  }
  return times;
}

}  // namespace pipesched
