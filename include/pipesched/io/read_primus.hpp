// SPDX-License-Identifier: MIT
#pragma once

// Measured times as Primus dumps them with dump_pp_data: one file per rank, pp_rank_0.json and on, in milliseconds.
//
//   {"1": {"total": 2640.4, "memory": 78.4, "fwd_start": [...], "fwd_end": [...], "fwd_minibatch": [...], "fwd_chunk": [...],
//          "bwd_start": ..., "wgrad_start": ...}, "2": ...}                                   one entry per step
//
// The lists are in the order of execution. Micro-batch and chunk are there with Primus' own schedules only, so the schedule that
// ran is needed: the k-th forward of a rank is its k-th F, the k-th bwd its k-th B or I, the k-th wgrad its k-th W. Every rank has
// its own clock. An F and a B that ran combined have the same times.
// Source: primus/backends/megatron/core/pipeline_parallel/pp_visualizer.py of AMD-AGI/Primus, commit fd1eeab, August 2026.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/io/detail/json_text.hpp"
#include "pipesched/io/measured_steps.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

class primus_rank {
 public:
  primus_rank(const schedule& s, std::uint32_t rank, std::string file) : s_(s), rank_(rank), file_(std::move(file)) {}

  // The times of the cells, by the number of the step.
  std::map<std::uint64_t, std::vector<interval>> read(std::string_view text) {
    nlohmann::json j;
    try {
      j = nlohmann::json::parse(text);
    } catch (const nlohmann::json::exception& e) {
      fail(not_json(e.what()));
    }
    if (!j.is_object() || j.empty()) fail("no steps; expected {\"1\": {\"fwd_start\": [...], ...}}");
    std::map<std::uint64_t, std::vector<interval>> steps;
    for (const auto& item : j.items()) {
      std::string_view digits = item.key();
      const auto number = read_number(digits, 0xFFFF'FFFF);
      if (!number || !digits.empty()) fail(concat({"step ", in_quotes(item.key()), " is not a number"}));
      step_ = item.key();
      steps[*number] = read_step(item.value());
    }
    return steps;
  }

 private:
  struct measured_op {
    op what;
    interval time;
  };

  [[noreturn]] void fail(std::string_view what) const { throw schedule_error(concat({file_, ": ", what})); }
  [[noreturn]] void fail_in_step(std::string_view what) const { fail(concat({"step ", step_, ": ", what})); }

  const nlohmann::json& list(const nlohmann::json& step, const std::string& name) const {
    static const nlohmann::json none = nlohmann::json::array();
    const auto found = step.find(name);
    if (found == step.end()) return none;
    if (!found->is_array()) fail_in_step(concat({name, " is not an array"}));
    return *found;
  }
  double number(const nlohmann::json& of, const std::string& name, std::size_t k) const {
    if (!of[k].is_number()) fail_in_step(concat({name, "[", k, "] is not a number"}));
    return of[k].get<double>();
  }

  // The ops of the row for which `takes` is true, with their times.
  template <typename Takes>
  void read_kind(const nlohmann::json& step, const std::string& kind, Takes takes, std::vector<measured_op>& to) const {
    const auto& start = list(step, kind + "_start");
    const auto& end = list(step, kind + "_end");
    std::vector<op> ops;
    for (const cell& c : s_[rank_])
      std::copy_if(c.begin(), c.end(), std::back_inserter(ops), [&](op o) { return takes(o.pass); });
    for (const auto* one : {&start, &end})
      if (one->size() != ops.size())
        fail_in_step(concat({one->size(), one == &start ? " starts" : " ends", " of ", kind, "; rank ", rank_, " of ",
                             s_.name.view(), " has ", ops.size()}));
    for (std::size_t k = 0; k < ops.size(); ++k) {
      to.push_back({ops[k], {number(start, kind + "_start", k), number(end, kind + "_end", k)}});
      if (to.back().time.end < to.back().time.start) fail_in_step(concat({kind, "_end[", k, "] is before its start"}));
      require_entry(step, kind + "_minibatch", k, ops[k].micro, ops[k]);
      require_entry(step, kind + "_chunk", k, ops[k].chunk, ops[k]);
    }
  }
  void require_entry(const nlohmann::json& step, const std::string& name, std::size_t k, std::uint64_t expected,
                     op o) const {
    const auto& of = list(step, name);
    if (of.empty()) return;
    if (k < of.size() && of[k].is_number_unsigned() && of[k].template get<std::uint64_t>() == expected) return;
    fail_in_step(concat({name, "[", k, "] is ", k < of.size() ? printable(of[k].dump(), 20) : "missing", "; ",
                         to_string(o), " of ", s_.name.view(), " has ", expected}));
  }

  std::vector<interval> read_step(const nlohmann::json& step) const {
    if (!step.is_object()) fail_in_step("is not an object");
    std::vector<measured_op> ops;
    read_kind(
        step, "fwd", [](pass p) { return p == pass::forward; }, ops);
    read_kind(
        step, "bwd", [](pass p) { return yields_input_gradient(p); }, ops);
    read_kind(
        step, "wgrad", [](pass p) { return p == pass::backward_weight; }, ops);
    std::map<op, interval> time_of;
    for (const measured_op& m : ops) time_of.emplace(m.what, m.time);
    std::vector<interval> times;
    for (const cell& c : s_[rank_]) times.push_back(time_of_cell(c, time_of));
    require_order(times);
    return times;
  }
  interval time_of_cell(const cell& c, const std::map<op, interval>& time_of) const {
    for (const op o : c)
      if (!time_of.contains(o)) fail_in_step(concat({to_string(o), " has no times in Primus' files"}));
    if (c.overlapped() && time_of.at(c[0]) != time_of.at(c[1]))
      fail_in_step(concat({to_string(c), " is one cell of ", s_.name.view(), ", and its ops ran apart"}));
    return time_of.at(c[0]);
  }
  void require_order(const std::vector<interval>& times) const {
    for (std::size_t i = 1; i < times.size(); ++i) {
      if (times[i] == times[i - 1] && times[i].end > times[i].start)
        fail_in_step(concat({to_string(s_[rank_][i - 1]), " and ", to_string(s_[rank_][i]),
                             " ran combined, and are two cells of ", s_.name.view()}));
      if (times[i].start < times[i - 1].start)
        fail_in_step(concat({to_string(s_[rank_][i]), " ran before ", to_string(s_[rank_][i - 1]),
                             ", and comes after it in ", s_.name.view()}));
    }
  }

  const schedule& s_;
  std::uint32_t rank_;
  std::string file_, step_;
};

}  // namespace detail

/// The steps of a run of the schedule. @param files  names and texts, by rank
/// @throws schedule_error, with file and step, unless the lists are those of the schedule's ops in its order, and all ranks have
/// the same steps. @pre verify(s) is true
inline measured_steps read_primus(const schedule& s, const std::vector<std::pair<std::string, std::string>>& files) {
  using detail::concat;
  if (files.size() != s.pp())
    throw schedule_error(concat({detail::count_text(files.size(), "file"), " of ranks; ", s.name.view(), " has ",
                                 detail::count_text(s.pp(), "rank")}));
  std::vector<std::map<std::uint64_t, std::vector<interval>>> ranks;
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    ranks.push_back(detail::primus_rank(s, rank, files[rank].first).read(files[rank].second));
    for (const auto& [step, times] : ranks[0])
      if (!ranks[rank].contains(step) || ranks[rank].size() != ranks[0].size())
        throw schedule_error(concat({files[rank].first, ": ", detail::count_text(ranks[rank].size(), "step"), "; ",
                                     files[0].first, " has ", ranks[0].size(), ", among them ", step}));
  }
  measured_steps measured{.steps = {}, .clocks = rank_clocks::own};
  measured.notes.emplace_back("transfers are unknown: every rank has its own clock");
  for (const auto& [step, of_rank_0] : ranks[0]) {
    timeline t{.schedule = s};
    for (const auto& rank : ranks) t.intervals.append(rank.at(step));
    measured.steps.push_back(std::move(t));
  }
  detail::note_overlaps(measured);
  return measured;
}

}  // namespace pipesched
