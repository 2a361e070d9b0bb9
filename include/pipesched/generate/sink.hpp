// SPDX-License-Identifier: MIT
#pragma once

// A family is one rule, `emit_<family>(params, rank, sink)`, that hands the cells of one rank to a sink, in order.
// The same rule fills a schedule, makes the row of a single rank, or counts cells. Rules speak in runs:
//
//   repeat(sink, n, a, b)    a b a b ... a b: n times, every op's micro one higher each time
//
// which is how papers describe schedules ("then (M/2-P+r+1) x (F0&B1, F1&B0)"), and what makes counting free and
// filling as fast as storing.

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "pipesched/generate/params.hpp"
#include "pipesched/op.hpp"
#include "pipesched/placement.hpp"
#include "pipesched/rows.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// What a rule writes to: callable with a cell. A sink may also have a member `repeat(n, cells...)` with the meaning
/// of the free function and take whole runs.
template <typename Sink>
concept cell_sink = std::invocable<Sink&, cell>;

/// The cell with every op's micro-batch number one higher.
constexpr cell next_micro(cell c) noexcept {
  for (op& o : c) ++o.micro;
  return c;
}

namespace detail {

template <typename Sink, typename... Cells>
concept takes_runs = requires(Sink& sink, std::int64_t n, Cells... cells) {
  sink.repeat(n, cells...);
};

}  // namespace detail

/// Emits the cells `n` times over, every op's micro one higher each time; nothing if n <= 0.
/// `repeat(sink, 2, F0, B0)` emits F0 B0 F1 B1.
template <cell_sink Sink, std::same_as<cell>... Cells>
constexpr void repeat(Sink& sink, std::int64_t n, Cells... cells) {
  if constexpr (detail::takes_runs<Sink, Cells...>) {
    if (n > 0) sink.repeat(n, cells...);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      (sink(cells), ...);
      ((cells = next_micro(cells)), ...);
    }
  }
}

/// Makes the ops of one stage, so that rules read like the papers: `F(k)` is the forward of the k-th micro-batch
/// that this stage sees.
struct stage_ops {
  constexpr stage_ops(std::int64_t stage_number, std::int64_t chunk_number = 0, std::int64_t first_micro = 0)
      : chunk(static_cast<std::uint8_t>(chunk_number)),
        stage(static_cast<std::uint16_t>(stage_number)),
        first(first_micro) {}

  constexpr cell F(std::int64_t k) const noexcept { return make(pass::forward, k); }
  constexpr cell B(std::int64_t k) const noexcept { return make(pass::backward, k); }
  constexpr cell I(std::int64_t k) const noexcept { return make(pass::backward_input, k); }
  constexpr cell W(std::int64_t k) const noexcept { return make(pass::backward_weight, k); }

  constexpr op make(pass p, std::int64_t k) const noexcept {
    return {p, chunk, stage, static_cast<std::uint32_t>(first + k)};
  }

  std::uint8_t chunk;
  std::uint16_t stage;
  std::int64_t first;
};

/// Both ops in one overlapped cell: F&B.
constexpr cell overlap(cell a, cell b) noexcept { return {a[0], b[0]}; }

/// Sink: how many cells the rule emits.
struct cell_counter {
  std::size_t count = 0;
  constexpr void operator()(cell) noexcept { ++count; }
  template <typename... Cells>
  constexpr void repeat(std::int64_t n, Cells...) noexcept {
    count += static_cast<std::size_t>(n) * sizeof...(Cells);
  }
};

/// Sink: stores the cells from `next` on, where there is room for all of them.
struct cell_writer {
  cell* next;

  constexpr void operator()(cell c) noexcept { *next++ = c; }

  // A cell is two 64-bit words and a micro-batch number the upper half of one (on little-endian machines), so a run
  // is two stores and two additions a cell.
  template <typename... Cells>
  constexpr void repeat(std::int64_t n, Cells... cells) noexcept {
    using words = std::array<std::uint64_t, 2>;
    constexpr std::size_t period = sizeof...(Cells);
    words now[period] = {std::bit_cast<words>(cells)...};
    words step[period] = {std::bit_cast<words>(step_of(cells))...};
    cell* to = next;
    for (; n > 0; --n)
      for (std::size_t i = 0; i < period; ++i) {
        *to++ = std::bit_cast<cell>(now[i]);
        now[i][0] += step[i][0];
        now[i][1] += step[i][1];
      }
    next = to;
  }

 private:
  static constexpr cell step_of(const cell& c) noexcept {
    constexpr op one{.micro = 1};
    return {one, c.overlapped() ? one : op{}};
  }
};

/// Sink: passes on the ops of the micro-batches below a limit, one for chunk 0 and one for the others, and of those the
/// forwards alone if asked to; an overlapped cell that loses an op becomes a plain one.
class cell_filter {
 public:
  /// What the filter passes cells on to. One type for all sinks, so that a rule behind a filter is compiled once.
  struct target {
    constexpr virtual void put(cell c) = 0;

   protected:
    constexpr ~target() = default;
  };
  template <cell_sink Sink>
  struct to final : target {
    constexpr explicit to(Sink& s) : sink(s) {}
    constexpr void put(cell c) override { sink(c); }
    Sink& sink;
  };

  constexpr cell_filter(target& out, std::int64_t below_on_chunk_0, std::int64_t below_on_others, bool forward_only)
      : out_(out), below_{below_on_chunk_0, below_on_others}, forward_only_(forward_only) {}

  constexpr void operator()(cell c) {
    detail::filter_cell(
        c, [&](op o) { return keeps(o); }, [&](cell kept) { out_.put(kept); });
  }
  /// What a run has beyond the limits costs nothing.
  template <std::same_as<cell>... Cells>
  constexpr void repeat(std::int64_t n, Cells... cells) {
    const std::int64_t rounds = std::min(n, std::max({rounds_of(cells)...}));
    for (std::int64_t i = 0; i < rounds; ++i) {
      ((*this)(cells), ...);
      ((cells = next_micro(cells)), ...);
    }
  }

 private:
  // In how many rounds of a run an op of the cell can be kept.
  constexpr std::int64_t rounds_of(const cell& c) const {
    std::int64_t rounds = 0;
    for (op o : c)
      if (!forward_only_ || o.pass == pass::forward) rounds = std::max(rounds, below_[o.chunk == 0 ? 0 : 1] - o.micro);
    return rounds;
  }
  constexpr bool keeps(op o) const {
    return o.micro < below_[o.chunk == 0 ? 0 : 1] && (!forward_only_ || o.pass == pass::forward);
  }

  target& out_;
  std::int64_t below_[2];
  bool forward_only_;
};

/// The rule `emit(sink)` for the sizes that it was made for, cut down to those asked for: straight where that is all of it.
template <cell_sink Sink, typename Emit>
constexpr void emit_truncated(Sink& sink, bool whole, std::int64_t below_on_chunk_0, std::int64_t below_on_others,
                              bool forward_only, Emit&& emit) {
  if (whole && !forward_only) return emit(sink);
  cell_filter::to out(sink);
  cell_filter kept(out, below_on_chunk_0, below_on_others, forward_only);
  emit(kept);
}

/// A rule bound to its parameters: callable with a rank and any sink.
template <typename Rule>
concept cell_rule =
    std::invocable<Rule&, std::int64_t, cell_counter&> && std::invocable<Rule&, std::int64_t, cell_writer&>;

/// The row of one rank. Linear in its length, whatever the number of ranks.
template <cell_rule Rule>
constexpr std::vector<cell> make_row(Rule&& rule, std::int64_t rank) {
  cell_counter counter;
  rule(rank, counter);
  std::vector<cell> row(counter.count);
  cell_writer writer{row.data()};
  rule(rank, writer);
  return row;
}

/// All rows of a schedule, one rank after the other, in one block. Linear in the number of cells.
template <cell_rule Rule>
constexpr rows<cell> make_rows(Rule&& rule, std::int64_t ranks) {
  std::vector<std::size_t> lengths;
  lengths.reserve(static_cast<std::size_t>(ranks));
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    cell_counter counter;
    rule(rank, counter);
    lengths.push_back(counter.count);
  }
  auto cells = rows<cell>::for_overwrite(lengths);
  cell_writer writer{cells.all().data()};
  for (std::int64_t rank = 0; rank < ranks; ++rank) rule(rank, writer);
  return cells;
}

/// The schedule of a family, with these cells. @pre the parameters are legal
constexpr schedule make_schedule(std::string_view family, const pipeline_params& p, pipesched::placement where,
                                 rows<cell> cells) {
  return {.name = family,
          .placement = std::move(where),
          .micro = static_cast<std::uint32_t>(p.micro),
          .forward_only = p.forward_only,
          .cells = std::move(cells)};
}

/// The schedule of a family: its rule on every rank. @pre the parameters are legal
template <cell_rule Rule>
constexpr schedule make_schedule(const family_limits& family, const pipeline_params& p, pipesched::placement where,
                                 Rule&& rule) {
  return make_schedule(family.family, p, std::move(where), make_rows(rule, p.pp));
}

}  // namespace pipesched
