// SPDX-License-Identifier: MIT
#pragma once

// Output of the command plan: progress, tables and JSON.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <pipesched/model/model.hpp>
#include <pipesched/plan/model_problem.hpp>
#include <pipesched/plan/pareto.hpp>
#include <pipesched/plan/plan.hpp>
#include <string>
#include <string_view>

namespace tool {

/// Of a search that Ctrl-C has stopped, in text and on pages; JSON has "interrupted": true.
inline constexpr std::string_view interrupted_note = "interrupted: the best so far";

/// A line on standard error that is written over, if that is a terminal.
class progress_line {
 public:
  progress_line();
  ~progress_line();
  progress_line(const progress_line&) = delete;
  progress_line& operator=(const progress_line&) = delete;

  bool operator()(const pipesched::plan_progress& p, std::uint64_t evaluations);
  /// True if the search has been stopped by Ctrl-C.
  bool stopped() const { return told_; }

 private:
  bool shown_ = false, told_ = false;
  int last_ = -1;
};

/// "200 evaluations".
std::string evaluations_text(double evaluations);

/// The columns of a plan, without a line break: peak, makespan, bound, gap, gain over the best family.
std::string row_titles();
std::string row_of(const pipesched::plan_result& p);

nlohmann::ordered_json json_of(const pipesched::plan_result& p);
nlohmann::ordered_json json_of(const pipesched::model& m, const pipesched::model_plan& p);

/// A table of the bytes of every rank, and the same as JSON.
std::string text_of(const pipesched::memory_report& memory);
nlohmann::ordered_json json_of(const pipesched::memory_report& memory);

/// A plan for a model: partition, recomputation, makespans, and the bytes of every rank.
std::string text_of(const pipesched::model& m, const pipesched::model_plan& p);

}  // namespace tool
