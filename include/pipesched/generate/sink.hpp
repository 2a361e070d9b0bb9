// SPDX-License-Identifier: MIT
#pragma once

// The language in which families are written. The rule of a family is a function of parameters, rank and sink that
// passes the cells of one rank to the sink, in order; the same function fills a schedule, makes the row of one rank, or
// counts cells. Families speak in runs:
//
//   repeat(sink, n, a, b)    a b a b ... a b: n times, every op's micro one higher each time
//
// This is how papers describe schedules ("then (M/2-P+r+1) x (F0&B1, F1&B0)"). It makes counting free and filling as
// fast as storing.

#include <concepts>
#include <cstdint>

#include "pipesched/core/op.hpp"

namespace pipesched {

/// A consumer of cells: callable with a cell. A sink may also have a member `repeat(n, cells...)`, with the meaning of
/// the free function, to take whole runs.
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

/// Makes the cells of one stage in the letters of the papers: `F(k)` is the forward of the k-th micro-batch of this
/// stage, counted from `first_micro`.
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

/// The ops of two cells in one overlapped cell: F&B.
constexpr cell overlap(cell a, cell b) noexcept { return {a[0], b[0]}; }

}  // namespace pipesched
