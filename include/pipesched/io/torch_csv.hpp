// SPDX-License-Identifier: MIT
#pragma once

// PyTorch's CSV of pipeline schedules, both ways. Row i is rank i; a cell is an action, or empty for idle time; every row
// ends in CR LF; there is no header, and neither the name nor the number of micro-batches is in the file.
//
//   compute_only    0F0, 1I2, 1W2, 2B1, (0F1;7B0)OVERLAP_F_B, and empty cells
//   compute_comms   those, and 0SEND_F1 1RECV_F1 1SEND_B1 0RECV_B1 0WAIT_SEND_F1 1WAIT_SEND_B1 0UNSHARD 0RESHARD
//                   0REDUCE_GRAD 0WAIT_REDUCE_GRAD, and no empty cell; torch_comms_csv.hpp writes it
//
// Written files load in PyTorch's _PipelineScheduleRuntime. Reading is stricter than PyTorch's: whatever is left
// over in a cell, too large a number or missing is refused with row and column, counted from 0; verify() tells the rest.
// Source: torch/distributed/pipelining/schedules.py, _Action and its from_str, _load_csv and _dump_csv.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <istream>
#include <iterator>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/notation.hpp"
#include "pipesched/placement.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// What PyTorch does beside computing.
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

/// An action of a compute_comms file that is not part of a schedule here.
struct torch_action {
  torch_pass pass = torch_pass::send_f;
  std::uint16_t stage = 0;
  std::uint32_t micro = 0;  ///< of messages; 0 for the others
  std::uint32_t rank = 0;
  std::uint32_t before_cell = 0;  ///< it stands before this cell of the rank's row

  friend constexpr bool operator==(const torch_action&, const torch_action&) = default;
};

/// What a file holds: the schedule, and the actions that a schedule does not have. Nothing is lost silently.
struct torch_csv {
  pipesched::schedule schedule;
  std::vector<torch_action> actions;
};

namespace detail {

// PyTorch's OVERLAP_F_B is of an F with a B or I.
inline bool torch_overlaps(const cell& c) {
  return (c[0].pass == pass::forward && yields_input_gradient(c[1].pass)) ||
         (c[1].pass == pass::forward && yields_input_gradient(c[0].pass));
}

class torch_csv_reader {
 public:
  torch_csv read(std::istream& in) {
    for (std::string line; std::getline(in, line);) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      read_row(line);
    }
    if (in.bad()) throw schedule_error("the stream cannot be read");
    if (rows_.empty()) throw schedule_error("no rows; expected one a rank");
    if (first_empty_ && !result_.actions.empty())
      throw schedule_error(concat({"row ", first_empty_->first, ", column ", first_empty_->second,
                                   ": an empty cell; a file with communication has none"}));
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
    fail(concat({"\"", shown, text.size() > 40 ? "..." : "",
                 "\" is no action; expected one such as 0F1, (0F1;7B0)OVERLAP_F_B, 0SEND_F1 or 0UNSHARD"}));
  }

  void read_row(std::string_view line) {
    row_.clear();
    column_ = 0;
    while (true) {
      const std::size_t comma = line.find(',');
      std::string_view text = line.substr(0, comma);
      while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
      while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
      if (!text.empty() && text != "\"\"")
        read_cell(text);
      else if (!first_empty_)
        first_empty_ = {rows_.size(), column_};
      if (comma == line.npos) break;
      line.remove_prefix(comma + 1);
      ++column_;
    }
    rows_.push_back(row_);
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
    for (op o : *c) {
      claim(o.stage);
      if (o.micro == 0xFFFF'FFFF) fail("a micro-batch of 4294967295; expected at most 4294967294");
      result_.schedule.micro = std::max(result_.schedule.micro, o.micro + 1);
      trains_ = trains_ || o.pass != pass::forward;
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

  // A stage lives on the row where it is first seen.
  void claim(std::uint16_t stage) {
    if (stage >= row_of_.size()) row_of_.resize(std::size_t{stage} + 1, nobody);
    if (row_of_[stage] == nobody) row_of_[stage] = static_cast<std::uint32_t>(rows_.size());
    if (row_of_[stage] != rows_.size())
      fail(concat({"stage ", stage, " is on row ", row_of_[stage], ", too; expected every stage on one rank"}));
  }

  void place() {
    std::vector<std::uint16_t> table;
    for (std::size_t stage = 0; stage < row_of_.size(); ++stage) {
      if (row_of_[stage] == nobody)
        throw schedule_error(concat({"stage ", stage, " is on no row, though there is a stage ", row_of_.size() - 1}));
      if (row_of_[stage] >= max_stages) throw schedule_error("more than 65536 rows");
      table.push_back(static_cast<std::uint16_t>(row_of_[stage]));
    }
    for (std::size_t row = 0; row < rows_.size(); ++row)
      if (rows_[row].empty())
        throw schedule_error(concat({"row ", row, " holds no computation; expected some on every rank"}));
    result_.schedule.name = "torch_csv";
    result_.schedule.forward_only = !trains_;
    result_.schedule.placement = recognised(std::ssize(rows_), std::ssize(table), table);
  }

  // The placement by its usual name, if it has one.
  static placement recognised(std::int64_t ranks, std::int64_t stages, const std::vector<std::uint16_t>& table) {
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
  bool trains_ = false;
};

}  // namespace detail

/// Reads either form; which one it is shows in whether there are actions. The schedule is named "torch_csv"; its
/// micro-batches are counted from 0 to the highest there is; one without any backward is forward only. Whether the order is
/// valid is for verify(). @throws schedule_error with row and column. Linear in the size of the text.
inline torch_csv read_torch_csv(std::istream& in) { return detail::torch_csv_reader().read(in); }
inline torch_csv read_torch_csv(std::istream&& in) { return read_torch_csv(in); }

namespace detail {

inline void require_torch_placement(const schedule& s) {
  if (s.placement.replicas() > 1)
    throw schedule_error(concat({"PyTorch's CSV has each stage on one rank, and ", s.name.view(),
                                 " holds every stage twice; dualpipev and hanayo hold it once"}));
}

inline std::string torch_text(const cell& c, std::uint32_t rank) {
  if (c.overlapped() && !torch_overlaps(c))
    throw schedule_error(concat({"PyTorch overlaps an F with a B or I; got ", to_string(c), " on rank ", rank}));
  char name[max_cell_text];
  std::string text(name, write_cell(name, c));
  if (c.overlapped()) text += "OVERLAP_F_B";
  return text;
}

}  // namespace detail

/// Writes the compute_only form, without idle cells. @throws schedule_error when stages are held twice, as DualPipe's are,
/// or a cell overlaps anything but an F with a B or I: the format has neither.
inline void write_torch_csv(std::ostream& out, const schedule& s) {
  detail::require_torch_placement(s);
  std::string text;
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    text.clear();
    for (const cell& c : s[rank]) {
      if (!text.empty()) text += ',';
      text += detail::torch_text(c, rank);
    }
    out << (text += "\r\n");
  }
}

}  // namespace pipesched
