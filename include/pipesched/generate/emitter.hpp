// SPDX-License-Identifier: MIT
#pragma once

// From a function that emits the cells of a rank to rows and schedules.

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"
#include "pipesched/support/error.hpp"
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

/// A family bound to its parameters: callable with a rank and any sink.
template <typename Emitter>
concept row_emitter =
    std::invocable<Emitter&, std::int64_t, cell_counter&> && std::invocable<Emitter&, std::int64_t, cell_writer&>;

/// The row of one rank. Linear in its length, independent of the number of ranks.
template <row_emitter Emitter>
constexpr std::vector<cell> make_row(Emitter&& emit, std::int64_t rank) {
  cell_counter counter;
  emit(rank, counter);
  std::vector<cell> row(counter.count);
  cell_writer writer{row.data()};
  emit(rank, writer);
  return row;
}

/// The rows of all ranks in one block. Linear in the number of cells.
template <row_emitter Emitter>
constexpr rows<cell> make_rows(Emitter&& emit, std::int64_t ranks) {
  std::vector<std::size_t> lengths;
  lengths.reserve(static_cast<std::size_t>(ranks));
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    cell_counter counter;
    emit(rank, counter);
    lengths.push_back(counter.count);
  }
  auto cells = rows<cell>::for_overwrite(lengths);
  cell_writer writer{cells.all().data()};
  for (std::int64_t rank = 0; rank < ranks; ++rank) emit(rank, writer);
  return cells;
}

namespace detail {

// The schedule of a family of the library. @pre the parameters are legal; forward only, the rows hold forwards alone
constexpr schedule assemble(const family_limits& limits, const pipeline_params& p, placement where, rows<cell> cells) {
  return {.name = limits.family,
          .placement = std::move(where),
          .micro = static_cast<std::uint32_t>(p.micro),
          .forward_only = p.forward_only,
          .cells = std::move(cells)};
}

template <row_emitter Emitter>
constexpr schedule assemble(const family_limits& limits, const pipeline_params& p, placement where, Emitter&& emit) {
  return assemble(limits, p, std::move(where), make_rows(emit, p.pp));
}

}  // namespace detail

/// The schedule of your own family: `emit(rank, sink)` on every rank. With `p.forward_only` only the forwards that it
/// emits are kept.
///
///     make_schedule({.family = "mine"}, {.pp = 4, .micro = 8}, placement::linear(4), [](auto rank, auto& sink) {
///       const stage_ops stage(rank);
///       repeat(sink, 8, stage.F(0), stage.B(0));
///     });
///
/// The order is the caller's responsibility; verify() says whether it is valid.
/// @throws schedule_error on parameters outside the limits, or a placement on another number of ranks than pp. Linear
/// in the number of cells.
template <row_emitter Emitter>
constexpr schedule make_schedule(const family_limits& limits, const pipeline_params& p, placement where,
                                 Emitter&& emit) {
  require(limits, p);
  if (where.ranks() != p.pp)
    throw schedule_error(detail::concat({limits.family, " needs a placement on pp = ", p.pp, " ranks; got one on ",
                                         where.ranks(), ", nearest ", p.pp}));
  detail::require_pairs(limits.family, where.stages(), p.micro);
  if (!p.forward_only) return detail::assemble(limits, p, std::move(where), emit);
  constexpr std::int64_t all = std::numeric_limits<std::int64_t>::max();
  return detail::assemble(limits, p, std::move(where), [&](std::int64_t rank, auto& sink) {
    emit_truncated(sink, true, all, all, true, [&](auto& forwards) { emit(rank, forwards); });
  });
}

}  // namespace pipesched
