// SPDX-License-Identifier: MIT
#pragma once

// A schedule: the placement of the stages, and for each rank the cells that it runs, in order. A plain value without times
// and messages; simulate() and lower() derive those.

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/detail/placement_of_ops.hpp"
#include "pipesched/core/notation.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/fixed_string.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

/// The backward of a stage: none; for inputs alone, since its weights are frozen; or full, in one op or two.
enum class stage_backward : std::uint8_t { none, input, full };
inline constexpr std::array<std::string_view, 3> stage_backward_names = {"none", "input", "full"};
constexpr std::string_view to_string(stage_backward b) noexcept {
  return stage_backward_names[static_cast<std::size_t>(b)];
}

/// The stages of a model, for the dependencies between them. A number of stages is one in which all are trained.
struct stage_chain {
  std::uint32_t stages = 0;
  std::uint32_t first_trained = 0;  ///< the first one with a backward, which sends no gradient on

  constexpr stage_chain(std::uint32_t count = 0, std::uint32_t first = 0) noexcept  // NOLINT: a number is a chain
      : stages(count), first_trained(first) {}
};

/// The chain of as many stages with these backwards. Linear in the stages that are not trained.
constexpr stage_chain chain_of(std::uint32_t stages, std::span<const stage_backward> backward) noexcept {
  std::uint32_t first = 0;
  while (first < backward.size() && backward[first] == stage_backward::none) ++first;
  return {stages, first};
}

/// A range of rows, one per rank: `for (auto row : s)`, `s[rank]`, `s.size()`. All members may be read and changed;
/// verify() checks the whole.
struct schedule {
  fixed_string<63> name{};           ///< of the family, e.g. "dualpipe"
  pipesched::placement placement{};  ///< stages, ranks and replicas
  std::uint32_t micro = 0;           ///< micro-batches of the step, both replicas together
  bool forward_only = false;         ///< for evaluation: every op is an F
  rows<cell> cells{};                ///< one row per rank
  /// By stage; empty: all are full. Only the first stages may have none.
  std::vector<stage_backward> backward{};

  constexpr std::uint32_t pp() const noexcept { return placement.ranks(); }
  constexpr std::uint32_t stages() const noexcept { return placement.stages(); }

  /// The backward of a stage in this schedule: none if it is forward only. @pre stage < stages()
  constexpr stage_backward backward_of(std::integral auto stage) const noexcept {
    if (forward_only) return stage_backward::none;
    return backward.empty() ? stage_backward::full : backward[static_cast<std::size_t>(stage)];
  }
  constexpr stage_chain chain() const noexcept { return chain_of(stages(), backward); }
  /// True for the last op of its stage and micro-batch, after which its activation is not needed: B or W; F or I where no more
  /// comes. @pre o.stage < stages()
  constexpr bool is_last(op o) const noexcept {
    if (yields_weight_gradient(o.pass)) return true;
    const stage_backward has = backward_of(o.stage);
    return has != stage_backward::full &&
           (o.pass == pass::forward ? has == stage_backward::none : yields_input_gradient(o.pass));
  }

  constexpr std::span<const cell> operator[](std::integral auto rank) const noexcept { return cells[rank]; }
  constexpr std::span<cell> operator[](std::integral auto rank) noexcept { return cells[rank]; }

  constexpr std::size_t size() const noexcept { return cells.size(); }
  constexpr auto begin() noexcept { return cells.begin(); }
  constexpr auto end() noexcept { return cells.end(); }
  constexpr auto begin() const noexcept { return cells.begin(); }
  constexpr auto end() const noexcept { return cells.end(); }

  /// Replaces the row of a rank by what `change(row)` makes of it; `row` is a std::vector<cell>&. Linear in all cells.
  /// @pre rank < size()
  ///
  ///     s.edit(2, [](auto& row) { std::swap(row[3], row[4]); });
  template <std::invocable<std::vector<cell>&> Change>
  constexpr void edit(std::integral auto rank, Change&& change) {
    cells.edit(rank, std::forward<Change>(change));
  }

  friend constexpr bool operator==(const schedule&, const schedule&) = default;
};

/// One row of cells in the library's notation, separated by spaces.
constexpr std::string to_string(std::span<const cell> row) {
  std::string text;
  for (const cell& c : row) {
    if (!text.empty()) text += ' ';
    text += to_string(c);
  }
  return text;
}

/// One line per rank: "rank 0: 0F0 0F1 ...".
constexpr std::string to_string(const schedule& s) {
  std::string text;
  for (std::size_t rank = 0; rank < s.size(); ++rank) {
    char number[10]{};
    text += "rank ";
    text.append(number, detail::write_number(number, static_cast<std::uint32_t>(rank)));
    text += ": ";
    text += to_string(s[rank]);
    text += '\n';
  }
  return text;
}

namespace detail {

// Reads the text of a schedule.
class schedule_text {
 public:
  constexpr explicit schedule_text(std::string_view text) : rest_(text) {}

  // Advances to the next line with text in it, and past its label.
  constexpr bool next_line(std::size_t rank) {
    while (!rest_.empty()) {
      const std::size_t end = std::min(rest_.find('\n'), rest_.size());
      line_ = rest_.substr(0, end);
      at_ = 0;
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      ++line_number_;
      skip_blanks();
      if (at_ == line_.size()) continue;
      if (line_.substr(at_).starts_with("rank ")) read_label(rank);
      return true;
    }
    return false;
  }

  // The next cell of the line.
  constexpr std::optional<cell> next_cell() {
    skip_blanks();
    if (at_ == line_.size()) return std::nullopt;
    begin_ = at_;
    while (at_ < line_.size() && !is_blank(line_[at_])) ++at_;
    const std::string_view text = line_.substr(begin_, at_ - begin_);
    const std::optional<cell> c = parse_cell(text);
    if (!c) fail(concat({"\"", text.substr(0, 40), "\"; expected an op such as 3F12, or two as (0F7;7B13)"}));
    return c;
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw schedule_error(concat({"line ", line_number_, ", column ", begin_ + 1, ": ", what}));
  }

 private:
  static constexpr bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
  constexpr void skip_blanks() {
    while (at_ < line_.size() && is_blank(line_[at_])) ++at_;
  }
  constexpr void read_label(std::size_t rank) {
    begin_ = at_;
    std::string_view label = line_.substr(at_ + 5);
    const auto number = read_number(label, max_stages);
    if (number != rank || !label.starts_with(':'))
      fail(concat({"a label that is not that of the next rank; expected \"rank ", rank, ":\""}));
    at_ = line_.size() - label.size() + 1;
  }

  std::string_view rest_, line_;
  std::size_t line_number_ = 0, begin_ = 0, at_ = 0;
};

}  // namespace detail

namespace detail {

// Reads the cells and the number of micro-batches, without chunks; forward only if every op is an F.
constexpr schedule parse_cells(std::string_view text, std::uint32_t stages) {
  constexpr std::uint32_t max_micro = 0xFFFF'FFFE;
  schedule s{.forward_only = true};
  schedule_text lines(text);
  std::vector<cell> row;
  for (; lines.next_line(s.size()); s.cells.append(row)) {
    row.clear();
    while (std::optional<cell> c = lines.next_cell()) {
      for (const op o : *c) {
        if (o.stage >= stages) lines.fail(concat({to_string(o), "; expected a stage below ", stages}));
        if (o.micro >= max_micro) lines.fail(concat({to_string(o), "; expected a micro-batch below ", max_micro}));
        s.micro = std::max(s.micro, o.micro + 1);
        s.forward_only = s.forward_only && o.pass == pass::forward;
      }
      row.push_back(*c);
    }
  }
  return s;
}

constexpr void set_chunks(schedule& s) {
  for (cell& c : s.cells.all())
    for (op& o : c) o.chunk = s.placement.chunk_of(o.stage, o.micro);
}

}  // namespace detail

/// Parses one line of cells per rank, as to_string(schedule) writes them; the labels "rank 0:" may be left out, and empty
/// lines are skipped. `micro` is the highest number of a micro-batch plus one, and the schedule is forward only if every op
/// is an F: `parse_schedule(to_string(s), s.placement, s.name) == s` for every valid schedule without frozen stages. The text
/// does not hold those: set `backward`. The result may be invalid; verify() says so.
/// @throws schedule_error with line and column on a word that is not a cell, on a stage that the placement does not have,
/// and unless there are as many lines as ranks
constexpr schedule parse_schedule(std::string_view text, placement where, fixed_string<63> name = {}) {
  schedule s = detail::parse_cells(text, where.stages());
  if (s.size() != where.ranks())
    throw schedule_error(detail::concat({"the text of a schedule for ", detail::count_text(where.ranks(), "rank"),
                                         " has as many lines; got ", s.size()}));
  s.name = name;
  s.placement = std::move(where);
  detail::set_chunks(s);
  return s;
}

/// The same with a stage on the rank that runs its ops, or on two ranks, each for one half of the micro-batches:
/// `parse_schedule(to_string(s), s.name) == s` up to the kind of the placement, which is the simplest with these stages on
/// these ranks. (Of two replicas the text shows both from 2 micro-batches on.)
/// @throws schedule_error also for a stage without ops, or on ranks that no placement gives it
constexpr schedule parse_schedule(std::string_view text, fixed_string<63> name = {}) {
  schedule s = detail::parse_cells(text, max_stages);
  s.name = name;
  s.placement = detail::placement_of_ops(static_cast<std::uint32_t>(s.size()), s.micro, [&](auto&& f) {
    for (std::uint32_t rank = 0; rank < s.size(); ++rank)
      for (const cell& c : s[rank])
        for (const op o : c) f(rank, o);
  });
  detail::set_chunks(s);
  return s;
}

}  // namespace pipesched
