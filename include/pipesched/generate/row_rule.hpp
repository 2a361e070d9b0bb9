// SPDX-License-Identifier: MIT
#pragma once

// The rule of a family as a value: from a function that emits the cells of one rank to rows.

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

/// Sink: counts cells, or with `forward_only` those that have a forward.
struct cell_counter {
  bool forward_only = false;
  std::size_t count = 0;

  constexpr void operator()(cell c) noexcept { count += !forward_only || has_forward(c); }
  template <typename... Cells>
  constexpr void repeat(std::int64_t n, Cells... cells) noexcept {
    count += static_cast<std::size_t>(n) * (forward_only ? (std::size_t{has_forward(cells)} + ...) : sizeof...(Cells));
  }

 private:
  static constexpr bool has_forward(const cell& c) noexcept {
    return c[0].pass == pass::forward || (c.overlapped() && c[1].pass == pass::forward);
  }
};

/// Sink: stores cells from `next` on, or with `forward_only` their forwards. @pre there is room for all of them
struct cell_writer {
  bool forward_only = false;
  cell* next = nullptr;

  constexpr void operator()(cell c) noexcept {
    if (forward_only)
      detail::filter_cell(c, is_forward, [this](cell kept) { *next++ = kept; });
    else
      *next++ = c;
  }

  template <typename... Cells>
  constexpr void repeat(std::int64_t n, Cells... cells) noexcept {
    constexpr std::size_t period = sizeof...(Cells);
    cell round[period] = {cells...};
    if (!forward_only) return store<period>(n, round, period);
    std::size_t kept = 0;
    for (const cell& c : std::array{cells...})
      detail::filter_cell(c, is_forward, [&](cell forward) { round[kept++] = forward; });
    if (kept == 1) return store<1>(n, round, 1);
    if (kept > 1) store<period>(n, round, kept);
  }

 private:
  static constexpr bool is_forward(op o) noexcept { return o.pass == pass::forward; }

  // A cell is two 64-bit words, and a micro-batch number is the upper half of one (on little-endian machines), so a run
  // costs two stores and two additions per cell. @pre period <= Max
  template <std::size_t Max>
  constexpr void store(std::int64_t n, const cell* round, std::size_t period) noexcept {
    using words = std::array<std::uint64_t, 2>;
    words now[Max]{}, step[Max]{};
    for (std::size_t i = 0; i < period; ++i)
      now[i] = std::bit_cast<words>(round[i]), step[i] = std::bit_cast<words>(step_of(round[i]));
    cell* to = next;
    for (; n > 0; --n)
      for (std::size_t i = 0; i < period; ++i) {
        *to++ = std::bit_cast<cell>(now[i]);
        now[i][0] += step[i][0];
        now[i][1] += step[i][1];
      }
    next = to;
  }
  static constexpr cell step_of(const cell& c) noexcept {
    constexpr op one{.micro = 1};
    return {one, c.overlapped() ? one : op{}};
  }
};

/// A function without captures that passes the cells of one rank to any sink, in order:
///
///     [](const family_params& p, std::int64_t rank, auto& sink) {
///       const stage_ops stage(rank);
///       repeat(sink, p.micro, stage.F(0), stage.B(0));
///     }
///
/// It describes training; of an evaluation only the forwards are stored.
template <typename Emit>
concept row_emitter = std::is_empty_v<Emit> && std::default_initializable<Emit> &&
    std::invocable<const Emit&, const family_params&, std::int64_t, cell_counter&> &&
    std::invocable<const Emit&, const family_params&, std::int64_t, cell_writer&>;

/// Any row_emitter, compiled for rows: empty, or made from one.
class row_rule {
 public:
  constexpr row_rule() = default;
  template <row_emitter Emit>
  constexpr row_rule(Emit) : rows_(all_rows<Emit>), row_(one_row<Emit>) {}  // NOLINT: implicit, `.emit = [](...) {...}`

  constexpr explicit operator bool() const noexcept { return rows_ != nullptr; }

  /// The rows of all ranks in one block. @pre legal parameters. Linear in the number of cells.
  constexpr pipesched::rows<cell> rows(const family_params& p) const { return rows_(p); }
  /// The row of one rank. @pre legal parameters and rank. Independent of the number of ranks.
  constexpr std::vector<cell> row(const family_params& p, std::int64_t rank) const { return row_(p, rank); }

 private:
  template <typename Emit>
  static constexpr std::size_t length(const family_params& p, std::int64_t rank) {
    cell_counter counter{.forward_only = p.forward_only};
    Emit{}(p, rank, counter);
    return counter.count;
  }
  template <typename Emit>
  static constexpr pipesched::rows<cell> all_rows(const family_params& p) {
    std::vector<std::size_t> lengths;
    lengths.reserve(static_cast<std::size_t>(p.pp));
    for (std::int64_t rank = 0; rank < p.pp; ++rank) lengths.push_back(length<Emit>(p, rank));
    auto cells = pipesched::rows<cell>::for_overwrite(lengths);
    cell_writer writer{.forward_only = p.forward_only, .next = cells.all().data()};
    for (std::int64_t rank = 0; rank < p.pp; ++rank) Emit{}(p, rank, writer);
    return cells;
  }
  template <typename Emit>
  static constexpr std::vector<cell> one_row(const family_params& p, std::int64_t rank) {
    std::vector<cell> row(length<Emit>(p, rank));
    cell_writer writer{.forward_only = p.forward_only, .next = row.data()};
    Emit{}(p, rank, writer);
    return row;
  }

  pipesched::rows<cell> (*rows_)(const family_params&) = nullptr;
  std::vector<cell> (*row_)(const family_params&, std::int64_t) = nullptr;
};

}  // namespace pipesched
