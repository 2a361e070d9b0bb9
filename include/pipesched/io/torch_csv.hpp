// SPDX-License-Identifier: MIT
#pragma once

// PyTorch's CSV of pipeline schedules, read and written. Row i is rank i; a cell is an action, or empty for idle time. Rows
// end in CR LF. The file has no header, and neither the schedule's name nor the number of micro-batches.
//
//   compute_only    0F0, 1I2, 1W2, 2B1, (0F1;7B0)OVERLAP_F_B, and empty cells
//   compute_comms   those, and 0SEND_F1 1RECV_F1 1SEND_B1 0RECV_B1 0WAIT_SEND_F1 1WAIT_SEND_B1 0UNSHARD 0RESHARD
//                   0REDUCE_GRAD 0WAIT_REDUCE_GRAD, and no empty cell; written by torch_comms_csv.hpp
//
// The files load in PyTorch's _PipelineScheduleRuntime. The reader is stricter than PyTorch's: it refuses trailing
// characters, numbers out of range and missing numbers, with row and column, both counted from 0. It does not check that
// the order is valid; verify() does, for the messages of a compute_comms file as well (torch_comms_verify.hpp).
// Source: torch/distributed/pipelining/schedules.py, _Action, from_str, _load_csv and _dump_csv.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <ios>
#include <istream>
#include <iterator>
#include <optional>
#include <ostream>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/notation.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/io/detail/csv_fields.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The actions of PyTorch's runtime other than computation.
enum class torch_pass : std::uint8_t {
  send_f,
  recv_f,
  send_b,
  recv_b,
  wait_send_f,
  wait_send_b,
  unshard,
  reshard,
  reduce_grad,
  wait_reduce_grad
};

inline constexpr std::string_view torch_pass_names[] = {"SEND_F",      "RECV_F",          "SEND_B",  "RECV_B",
                                                        "WAIT_SEND_F", "WAIT_SEND_B",     "UNSHARD", "RESHARD",
                                                        "REDUCE_GRAD", "WAIT_REDUCE_GRAD"};

/// An action of a compute_comms file that is not part of a schedule.
struct torch_action {
  torch_pass pass = torch_pass::send_f;
  std::uint16_t stage = 0;  ///< of this rank: the one that sends or receives
  std::uint32_t micro = 0;  ///< of messages and their waits; 0 for others
  std::uint32_t rank = 0;
  std::uint32_t before_cell = 0;  ///< the cell of the rank's row that follows

  friend constexpr bool operator==(const torch_action&, const torch_action&) = default;
};

/// A file's content: the schedule, and its other actions by rank, in the order of the row.
struct torch_csv {
  pipesched::schedule schedule;
  std::vector<torch_action> actions;
};

/// Number of actions by pass: `counts_of(file.actions)[std::size_t(torch_pass::unshard)]`.
constexpr auto counts_of(std::span<const torch_action> actions) {
  std::array<std::size_t, std::size(torch_pass_names)> counts{};
  for (const torch_action& a : actions) ++counts[static_cast<std::size_t>(a.pass)];
  return counts;
}

namespace detail {

// Appends the text of an action.
inline void append_torch_text(std::string& to, const torch_action& a) {
  const std::string_view name = torch_pass_names[static_cast<std::size_t>(a.pass)];
  char text[32];  // for two numbers of at most 5 and 10 digits, and a name of at most 16 characters
  char* end = write_number(text, std::uint32_t{a.stage});
  end = std::copy(name.begin(), name.end(), end);
  to.append(text, a.pass < torch_pass::unshard ? write_number(end, a.micro) : end);
}

}  // namespace detail

/// The text of an action, such as "0SEND_F1" or "0UNSHARD".
inline std::string to_string(const torch_action& a) {
  std::string text;
  detail::append_torch_text(text, a);
  return text;
}

namespace detail {

// PyTorch's OVERLAP_F_B takes an F with a B or I.
inline bool torch_overlaps(const cell& c) {
  return (c[0].pass == pass::forward && yields_input_gradient(c[1].pass)) ||
         (c[1].pass == pass::forward && yields_input_gradient(c[0].pass));
}

class torch_csv_reader {
 public:
  torch_csv read(std::istream& in) {
    try {
      for (csv_fields fields(in); fields.next();) {
        if (!fields.quote_is_closed()) fail("a quote that is never closed; expected \" at the end of the cell");
        if (!fields.field().empty())
          read_cell(fields.field());
        else if (!first_empty_)
          first_empty_ = {rows_.size(), column_};
        ++column_;
        if (fields.ends_row()) end_row();
      }
    } catch (const std::ios_base::failure& e) {
      throw schedule_error(concat({"the stream cannot be read: ", e.what()}));
    }
    if (rows_.empty()) throw schedule_error("empty; expected one row per rank, such as 0F0,0F1,0B0,0B1");
    if (first_empty_ && !result_.actions.empty())
      throw schedule_error(concat({"row ", first_empty_->first, ", column ", first_empty_->second,
                                   ": an empty cell; expected none in a file with communication"}));
    refuse_letters_of_2024();
    place();
    for (const auto& row : rows_) result_.schedule.cells.append(row);
    for (cell& c : result_.schedule.cells.all())
      for (op& o : c) o.chunk = result_.schedule.placement.chunk_of(o.stage, o.micro);
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw schedule_error(concat({"row ", rows_.size(), ", column ", column_, ": ", what}));
  }
  [[noreturn]] void refuse(std::string_view text) const {
    std::string shown(text.substr(0, 40));
    for (char& c : shown)
      if (c < ' ' || c > '~') c = '?';
    if (is_whole_backward_of_2024(text))
      fail(concat({"\"", shown,
                   "\" has the letters of PyTorch in 2024: BW was the full backward and B the backward for ",
                   "inputs; expected B for BW, and I for B"}));
    fail(concat({"\"", shown, text.size() > 40 ? "..." : "",
                 "\" is not an action; expected one such as 0F1, (0F1;7B0)OVERLAP_F_B, 0SEND_F1 or 0UNSHARD"}));
  }

  void end_row() {
    rows_.push_back(std::move(row_));
    row_.clear();
    column_ = 0;
  }

  static bool is_whole_backward_of_2024(std::string_view text) {
    const auto stage = read_number(text, 0xFFFF);
    if (!stage || !text.starts_with("BW")) return false;
    text.remove_prefix(2);
    return read_number(text, 0xFFFF'FFFE) && text.empty();
  }

  // A W beside a B of the same stage and micro-batch, in a file without I: that B was written as the backward for inputs.
  void refuse_letters_of_2024() const {
    if (has_input_ || weight_passes_.empty()) return;
    std::set<std::pair<std::uint16_t, std::uint32_t>> whole;
    for (const auto& row : rows_)
      for (const cell& c : row)
        for (op o : c)
          if (o.pass == pass::backward) whole.insert({o.stage, o.micro});
    for (const auto& [row, column, o] : weight_passes_)
      if (whole.contains({o.stage, o.micro}))
        throw schedule_error(concat({"row ", row, ", column ", column, ": ", to_string(o), " beside ", o.stage, "B",
                                     o.micro, " in a file without I has the letters of PyTorch in 2024, where B was ",
                                     "the backward for inputs; expected I for B, and B for BW"}));
  }

  void read_cell(std::string_view text) {
    constexpr std::string_view overlap = "OVERLAP_F_B";
    std::optional<cell> c;
    if (text.front() == '(') {
      if (!text.ends_with(overlap)) refuse(text);
      c = parse_cell(text.substr(0, text.size() - overlap.size()));
      if (c && !torch_overlaps(*c)) refuse(text);
    } else {
      c = parse_cell(text);
      if (!c && read_action(text)) return;
    }
    if (!c) refuse(text);
    for (op o : *c)
      if (recomputes(o.pass)) refuse(text);
    for (op o : *c) {
      claim(o.stage);
      if (o.micro == 0xFFFF'FFFF) fail("a micro-batch of 4294967295; expected at most 4294967294");
      result_.schedule.micro = std::max(result_.schedule.micro, o.micro + 1);
      trains_ = trains_ || o.pass != pass::forward;
      if (o.pass == pass::backward_weight && !has_input_) weight_passes_.push_back({rows_.size(), column_, o});
      has_input_ = has_input_ || o.pass == pass::backward_input;
    }
    row_.push_back(*c);
  }

  bool read_action(std::string_view text) {
    const auto stage = read_number(text, 0xFFFF);
    if (!stage) return false;
    for (std::size_t i = 0; i < std::size(torch_pass_names); ++i) {
      if (!text.starts_with(torch_pass_names[i])) continue;
      std::string_view rest = text.substr(torch_pass_names[i].size());
      torch_action a{.pass = static_cast<torch_pass>(i),
                     .stage = static_cast<std::uint16_t>(*stage),
                     .rank = static_cast<std::uint32_t>(rows_.size()),
                     .before_cell = static_cast<std::uint32_t>(row_.size())};
      if (a.pass < torch_pass::unshard) {
        const auto micro = read_number(rest, 0xFFFF'FFFE);
        if (!micro) return false;
        a.micro = *micro;
      }
      if (!rest.empty()) return false;
      claim(a.stage);
      result_.actions.push_back(a);
      return true;
    }
    return false;
  }

  // Assigns a stage to the row that names it first.
  void claim(std::uint16_t stage) {
    if (stage >= row_of_.size()) row_of_.resize(std::size_t{stage} + 1, nobody);
    if (row_of_[stage] == nobody) row_of_[stage] = static_cast<std::uint32_t>(rows_.size());
    if (row_of_[stage] != rows_.size())
      fail(concat({"stage ", stage, " is on row ", row_of_[stage], ", too; expected each stage on one rank"}));
  }

  void place() {
    std::vector<std::uint16_t> table;
    for (std::size_t stage = 0; stage < row_of_.size(); ++stage) {
      if (row_of_[stage] == nobody)
        throw schedule_error(
            concat({"stage ", stage, " is on no row; expected all stages up to ", row_of_.size() - 1}));
      if (row_of_[stage] >= max_stages)
        throw schedule_error("more than 65536 rows; expected one per rank, at most 65536");
      table.push_back(static_cast<std::uint16_t>(row_of_[stage]));
    }
    for (std::size_t row = 0; row < rows_.size(); ++row)
      if (rows_[row].empty())
        throw schedule_error(concat({"row ", row, " has no computation; expected some on each rank"}));
    result_.schedule.name = "torch_csv";
    result_.schedule.forward_only = !trains_;
    result_.schedule.placement = placement_of(std::ssize(rows_), std::ssize(table), table);
  }

  // The placement of the usual kind, if the table is one of it.
  static placement placement_of(std::int64_t ranks, std::int64_t stages, const std::vector<std::uint16_t>& table) {
    for (placement_kind kind :
         {placement_kind::linear, placement_kind::vee, placement_kind::looped, placement_kind::wave}) {
      const std::int64_t whole = kind == placement_kind::vee || kind == placement_kind::wave ? 2 * ranks : ranks;
      if (stages % whole != 0 || (kind == placement_kind::linear && stages != ranks) ||
          (kind == placement_kind::vee && stages != whole) || stages / ranks > max_chunks)
        continue;
      placement p = placement::of_kind(kind, ranks, stages, 1);
      if (std::equal(table.begin(), table.end(), p.rank_of_stage().begin())) return p;
    }
    return placement::custom(ranks, 1, {table});
  }

  static constexpr std::uint32_t nobody = 0xFFFF'FFFF;

  torch_csv result_{};
  std::vector<std::vector<cell>> rows_;
  std::vector<cell> row_;
  std::vector<std::uint32_t> row_of_;  // [stage]
  std::optional<std::pair<std::size_t, std::size_t>> first_empty_;
  std::size_t column_ = 0;
  bool trains_ = false, has_input_ = false;

  struct located_op {
    std::size_t row, column;
    op what;
  };
  std::vector<located_op> weight_passes_;  // while no I has been read
};

}  // namespace detail

/// Reads either form; a compute_comms file has actions. The schedule is named "torch_csv", has as many micro-batches as the
/// highest number says, and is forward only if it has no backward. verify() checks the order.
/// @throws schedule_error with row and column. Time and memory are linear in the size of the text.
inline torch_csv read_torch_csv(std::istream& in) { return detail::torch_csv_reader().read(in); }
inline torch_csv read_torch_csv(std::istream&& in) { return read_torch_csv(in); }

namespace detail {

inline void require_torch_placement(const schedule& s) {
  if (s.placement.replicas() > 1)
    throw schedule_error(concat({"PyTorch's CSV has each stage on one rank, and ", s.name.view(),
                                 " holds every stage twice; dualpipev and hanayo hold it once"}));
  if (!s.backward.empty())
    throw schedule_error("PyTorch's CSV has a whole backward for every stage; here some are frozen");
}

inline void require_torch_cell(const cell& c, std::uint32_t rank) {
  for (const op o : c)
    if (recomputes(o.pass))
      throw schedule_error(concat({"PyTorch has no action that recomputes, the module does so itself; got ",
                                   to_string(o), " on rank ", rank, "; keep_activations() drops it"}));
  if (c.overlapped() && !torch_overlaps(c))
    throw schedule_error(concat({"PyTorch overlaps an F with a B or I; got ", to_string(c), " on rank ", rank}));
}

// Appends the text of a cell.
inline void append_torch_text(std::string& to, const cell& c) {
  char name[max_cell_text];
  to.append(name, write_cell(name, c));
  if (c.overlapped()) to += "OVERLAP_F_B";
}

}  // namespace detail

/// Writes the compute_only form, without idle cells.
/// @throws schedule_error for what the format cannot express: stages held twice, as DualPipe's are, frozen stages, ops
/// that recompute, and overlapped cells other than an F with a B or I.
inline void write_torch_csv(std::ostream& out, const schedule& s) {
  detail::require_torch_placement(s);
  std::string text;
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    text.clear();
    for (const cell& c : s[rank]) {
      if (!text.empty()) text += ',';
      detail::require_torch_cell(c, rank);
      detail::append_torch_text(text, c);
    }
    out << (text += "\r\n");
  }
}

}  // namespace pipesched
