// SPDX-License-Identifier: MIT
#pragma once

// The rule of a family as a value: from a function that emits the cells of one rank to rows.

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

/// Sink: counts cells.
struct cell_counter {
  std::size_t count = 0;
  constexpr void operator()(cell) noexcept { ++count; }
  template <typename... Cells>
  constexpr void repeat(std::int64_t n, Cells...) noexcept {
    count += static_cast<std::size_t>(n) * sizeof...(Cells);
  }
};

/// Sink: stores cells from `next` on. @pre there is room for all of them
struct cell_writer {
  cell* next;

  constexpr void operator()(cell c) noexcept { *next++ = c; }

  // A cell is two 64-bit words, and a micro-batch number is the upper half of one (on little-endian machines), so a run
  // costs two stores and two additions per cell.
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

/// Sink: counts the forwards among cells, and stores them from `next` on if it is given.
struct forward_writer {
  static constexpr bool forward_only = true;
  cell* next = nullptr;
  std::size_t count = 0;

  constexpr void operator()(cell c) noexcept {
    detail::filter_cell(c, is_forward, [this](cell kept) {
      ++count;
      if (next) *next++ = kept;
    });
  }
  template <typename... Cells>
  constexpr void repeat(std::int64_t n, Cells... cells) noexcept {
    cell round[sizeof...(Cells)] = {cells...};
    std::size_t kept = 0;
    for (const cell& c : std::array{cells...})
      detail::filter_cell(c, is_forward, [&](cell forward) { round[kept++] = forward; });
    count += static_cast<std::size_t>(n) * kept;
    if (!next || kept == 0) return;
    if (kept == 1) return store(n, round[0]);
    for (; n > 0; --n)
      for (std::size_t i = 0; i < kept; ++i) *next++ = round[i], round[i] = next_micro(round[i]);
  }

 private:
  static constexpr bool is_forward(op o) noexcept { return o.pass == pass::forward; }
  constexpr void store(std::int64_t n, cell c) noexcept {
    cell_writer writer{next};
    writer.repeat(n, c);
    next = writer.next;
  }
};

/// A function without captures that passes the cells of one rank to any sink, in order:
///
///     [](const family_params& p, std::int64_t rank, auto& sink) {
///       const stage_ops stage(rank);
///       repeat(sink, p.micro, stage.F(0), stage.B(0));
///     }
///
/// It describes training; of an evaluation only the forwards are stored, and a rule may leave out the rest.
template <typename Emit>
concept row_emitter = std::is_empty_v<Emit> && std::default_initializable<Emit> &&
    std::invocable<const Emit&, const family_params&, std::int64_t, cell_counter&> &&
    std::invocable<const Emit&, const family_params&, std::int64_t, cell_writer&> &&
    std::invocable<const Emit&, const family_params&, std::int64_t, forward_writer&>;

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
  // The number of cells of a rank.
  template <typename Emit>
  static constexpr std::size_t length(const family_params& p, std::int64_t rank) {
    if (p.forward_only) {
      forward_writer counter;
      Emit{}(p, rank, counter);
      return counter.count;
    }
    cell_counter counter;
    Emit{}(p, rank, counter);
    return counter.count;
  }
  // Stores the cells of a rank and returns their end.
  template <typename Emit>
  static constexpr cell* store(const family_params& p, std::int64_t rank, cell* to) {
    if (p.forward_only) {
      forward_writer writer{.next = to};
      Emit{}(p, rank, writer);
      return writer.next;
    }
    cell_writer writer{to};
    Emit{}(p, rank, writer);
    return writer.next;
  }
  template <typename Emit>
  static constexpr pipesched::rows<cell> all_rows(const family_params& p) {
    std::vector<std::size_t> lengths;
    lengths.reserve(static_cast<std::size_t>(p.pp));
    for (std::int64_t rank = 0; rank < p.pp; ++rank) lengths.push_back(length<Emit>(p, rank));
    auto cells = pipesched::rows<cell>::for_overwrite(lengths);
    cell* next = cells.all().data();
    for (std::int64_t rank = 0; rank < p.pp; ++rank) next = store<Emit>(p, rank, next);
    return cells;
  }
  template <typename Emit>
  static constexpr std::vector<cell> one_row(const family_params& p, std::int64_t rank) {
    std::vector<cell> row(length<Emit>(p, rank));
    store<Emit>(p, rank, row.data());
    return row;
  }

  pipesched::rows<cell> (*rows_)(const family_params&) = nullptr;
  std::vector<cell> (*row_)(const family_params&, std::int64_t) = nullptr;
};

}  // namespace pipesched
