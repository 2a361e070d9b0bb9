// SPDX-License-Identifier: MIT
#pragma once

// From schedules to words and back.

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/plan/detail/word_simulator.hpp"
#include "pipesched/plan/detail/word_table.hpp"

namespace pipesched::detail {

// The kind of a lone op or of a pair, with the other form of the backward where this one is not used; `none` if no form is.
inline std::uint16_t kind_of(const word_table& t, std::size_t rank, std::size_t a) {
  const std::uint16_t kind = t.find(rank, a);
  return kind != word_cell::none ? kind : t.find(rank, word_table::other_form(a));
}
inline std::uint16_t kind_of(const word_table& t, std::size_t rank, std::size_t a, std::size_t b) {
  const auto forms = [](std::size_t o) { return std::array{o, word_table::other_form(o)}; };
  for (const std::size_t x : forms(a))
    for (const std::size_t y : forms(b))
      for (const bool swapped : {false, true})
        if (const std::uint16_t kind = swapped ? t.find(rank, y, x) : t.find(rank, x, y); kind != word_cell::none)
          return kind;
  return word_cell::none;
}

// Appends the kinds of a cell to the word of its rank.
inline void append_kinds(std::vector<std::uint16_t>& row, const word_table& t, const schedule& s, std::uint32_t rank,
                         const cell& c, bool keep_weights) {
  std::array<std::size_t, 2> ops{};
  std::size_t size = 0;
  for (const op o : c) {
    const pass p = without_recompute(o.pass);
    if (p == pass::backward_weight && keep_weights) row.push_back(t.weight_kind(rank));
    if (p == pass::backward_weight || p == pass::recompute) continue;
    ops[size++] = t.op_of(rank, std::size_t{s.placement.replica_of(o.micro)} * s.stages() + o.stage, p);
  }
  if (size == 0) return;
  const std::uint16_t both = size == 2 ? kind_of(t, rank, ops[0], ops[1]) : word_cell::none;
  if (both != word_cell::none)
    row.push_back(both);
  else
    for (std::size_t k = 0; k < size; ++k) row.push_back(kind_of(t, rank, ops[k]));
  const bool is_split = size == 1 && ops[0] % 3 == 2 && t.kind(rank, row.back()).passes[0] != pass::backward;
  if (keep_weights && is_split) row.push_back(t.weight_kind(rank));
}

/// The words of a schedule with the same placement and micro-batches: its rows without numbers and R's, and without W's
/// unless they keep their places. A pair that may not be used becomes two cells.
inline word_rows words_of(const word_table& t, const schedule& s, bool keep_weights) {
  word_rows w(s.pp());
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (const cell& c : s[rank]) append_kinds(w[rank], t, s, rank, c, keep_weights);
  return w;
}

/// The words of all ranks from those of a folded problem. @pre t.folded()
inline word_rows unfold(const word_table& t, word_rows half) {
  const std::size_t ranks = t.ranks();
  half.resize(ranks);
  for (std::size_t rank = 0; rank < ranks / 2; ++rank)
    for (const std::uint16_t kind : half[rank]) half[ranks - 1 - rank].push_back(t.mirror_of(rank, kind));
  return half;
}

/// The schedule that words stand for, W's where the simulator puts them. @pre the words run
inline schedule schedule_of(const word_table& t, const word_rows& w) {
  word_simulator sim(t);
  sim.record(w);
  schedule s = t.shape();
  std::vector<cell> row;
  for (std::size_t rank = 0; rank < w.size(); ++rank) {
    row.clear();
    for (const word_event& e : sim.events()[rank])
      row.push_back(e.weight ? cell(with_pass(t.op_at(e.kind, pass::forward, e.micros[0]), pass::backward_weight))
                             : t.cell_at(t.kind(rank, e.kind), e.micros));
    s.cells.append(row);
  }
  return s;
}

}  // namespace pipesched::detail
