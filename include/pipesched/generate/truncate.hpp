// SPDX-License-Identifier: MIT
#pragma once

// Sizes that a family's construction does not cover: the next larger size that it does, without the surplus
// micro-batches.

#include <algorithm>
#include <concepts>
#include <cstdint>

#include "pipesched/core/op.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

/// Sink: passes on the ops whose micro-batch is below a limit, one limit for chunk 0 and one for the other chunks, and
/// with `forward_only`, where the target stores nothing else, only forwards. An overlapped cell that loses one op becomes a
/// plain one.
class cell_filter {
 public:
  /// The sink of the filtered cells. It is one type for all sinks, so that a filtered family is compiled once.
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
  /// The part of a run beyond the limits costs nothing.
  template <std::same_as<cell>... Cells>
  constexpr void repeat(std::int64_t n, Cells... cells) {
    const std::int64_t rounds = std::min(n, std::max({rounds_of(cells)...}));
    for (std::int64_t i = 0; i < rounds; ++i) {
      ((*this)(cells), ...);
      ((cells = next_micro(cells)), ...);
    }
  }

  /// True if nothing of the cells is kept, nor of later ones with higher micro-batches in their place.
  constexpr bool drops(cell c) const {
    for (op o : c)
      if (keeps(o)) return false;
    return true;
  }

 private:
  // The number of rounds of a run in which an op of the cell is kept.
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

namespace detail {

/// True if the sink is a filter that drops these cells and all that follow them with higher micro-batches.
template <typename Sink, std::same_as<cell>... Cells>
constexpr bool drops_rest(const Sink& sink, Cells... cells) {
  if constexpr (requires { sink.drops(cell()); })
    return (sink.drops(cells) && ...);
  else
    return false;
}

}  // namespace detail

/// Runs `emit` for a size that the family supports and drops the surplus micro-batches. Unfiltered if nothing is to be
/// dropped.
template <cell_sink Sink, typename Emit>
constexpr void emit_truncated(Sink& sink, bool whole, std::int64_t below_on_chunk_0, std::int64_t below_on_others,
                              Emit&& emit) {
  if (whole) return emit(sink);
  constexpr bool forward_only = requires { Sink::forward_only; };
  cell_filter::to out(sink);
  cell_filter kept(out, below_on_chunk_0, below_on_others, forward_only);
  emit(kept);
}

}  // namespace pipesched
