// SPDX-License-Identifier: MIT
#pragma once

// A simple, slow twin of make_v_half_schedule, make_v_min_schedule and make_v_1f1b_schedule. A rank is a map from slots to
// ops, every trial recounts the whole map, and rows are returned as text. It shares no code with the library.

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace pipesched::tests {

namespace slow {

/// One slot of an op. '+' is the second slot of a B. In the intermediate steps W's are anonymous: the k-th W of a rank has
/// stage -1 and micro k.
struct op_slot {
  char letter;
  int stage, micro;
  bool operator==(const op_slot&) const = default;
};

using rank_slots = std::map<int, op_slot>;    // by slot
using all_ranks = std::map<int, rank_slots>;  // by rank

inline int pp_of(const all_ranks& ranks) { return static_cast<int>(ranks.size()); }

inline int rank_of(int stage, int pp) { return stage < pp ? stage : 2 * pp - 1 - stage; }

inline bool is_idle(const rank_slots& row, int slot) { return !row.contains(slot); }

inline void put(rank_slots& row, int slot, op_slot o) {
  if (slot < 0 || !is_idle(row, slot)) throw std::logic_error("slot " + std::to_string(slot) + " is negative or taken");
  row[slot] = o;
}

/// All ops, without the second slots of B's, by (slot, rank).
inline std::map<std::pair<int, int>, op_slot> ops_by_slot_and_rank(const all_ranks& ranks) {
  std::map<std::pair<int, int>, op_slot> ops;
  for (const auto& [rank, row] : ranks)
    for (const auto& [slot, o] : row)
      if (o.letter != '+') ops[{slot, rank}] = o;
  return ops;
}

inline std::vector<std::string> texts(const all_ranks& ranks) {
  std::vector<std::string> rows;
  for (const auto& [rank, row] : ranks) {
    std::string text;
    for (const auto& [slot, o] : row)
      if (o.letter != '+')
        text += (text.empty() ? "" : " ") + std::to_string(o.stage) + o.letter + std::to_string(o.micro);
    rows.push_back(text);
  }
  return rows;
}

// Dependencies of an op.

inline int slot_of(const rank_slots& row, op_slot what) {
  for (const auto& [slot, o] : row)
    if (o == what) return slot;
  throw std::logic_error(std::string("there is no ") + what.letter);
}

/// The k-th smallest slot among the I's of both chunks, k from 0.
inline int slot_of_input_gradient(const rank_slots& row, int k) {
  for (const auto& [slot, o] : row)
    if (o.letter == 'I' && k-- == 0) return slot;
  throw std::logic_error("there are too few I's");
}

/// The earliest slot after all dependencies of the op.
inline int ready(const all_ranks& ranks, int rank, op_slot o) {
  const int pp = pp_of(ranks), last_stage = 2 * pp - 1;
  const char end = o.letter == 'B' ? '+' : o.letter;  // the last slot of an op of this letter
  int slot = 0;
  const auto after = [&](op_slot other, int its_rank) {
    slot = std::max(slot, slot_of(ranks.at(its_rank), other) + 1);
  };
  if (o.micro > 0) after({end, o.stage, o.micro - 1}, rank);
  if (o.letter == 'W') {
    slot = std::max(slot, slot_of_input_gradient(ranks.at(rank), o.micro) + 1);
  } else if (o.letter == 'F') {
    if (o.stage > 0) after({'F', o.stage - 1, o.micro}, rank_of(o.stage - 1, pp));
  } else if (o.stage == last_stage) {
    after({'F', last_stage, o.micro}, rank);
  } else {
    after({end, o.stage + 1, o.micro}, rank_of(o.stage + 1, pp));
  }
  return slot;
}

// Activations of a rank.

/// Number of live activations after this slot.
inline int held(const rank_slots& row, int until) {
  int count = 0;
  for (const auto& [slot, o] : row)
    if (slot <= until) count += o.letter == 'F' ? 1 : o.letter == 'W' || o.letter == '+' ? -1 : 0;
  return count;
}

inline int peak(const rank_slots& row) {
  int most = 0;
  for (const auto& [slot, o] : row) most = std::max(most, held(row, slot));
  return most;
}

// The W's of V-Half and V-Min.

inline rank_slots with_weights(rank_slots row) {
  const int last = row.rbegin()->first;
  int pending = 0, done = 0;
  for (int slot = 0; slot <= last || pending > 0; ++slot)
    if (is_idle(row, slot)) {
      if (pending > 0) put(row, slot, {'W', -1, done++}), --pending;
    } else if (row.at(slot).letter == 'I') {
      ++pending;
    }
  return row;
}

inline rank_slots with_named_weights(rank_slots row, int rank, int pp) {
  const int last = row.rbegin()->first;
  const int stage[2] = {rank, 2 * pp - 1 - rank};
  int pending[2] = {0, 0}, done[2] = {0, 0};
  for (int slot = 0; slot <= last || pending[0] + pending[1] > 0; ++slot)
    if (is_idle(row, slot)) {
      const int chunk = pending[1] > 0 ? 1 : 0;
      if (pending[chunk] > 0) put(row, slot, {'W', stage[chunk], done[chunk]++}), --pending[chunk];
    } else if (row.at(slot).letter == 'I') {
      ++pending[row.at(slot).stage < pp ? 0 : 1];
    }
  return row;
}

inline void put_weights(all_ranks& ranks) {
  for (auto& [rank, row] : ranks) row = with_weights(row);
}

inline void drop_weights(all_ranks& ranks) {
  for (auto& [rank, row] : ranks) std::erase_if(row, [](const auto& x) { return x.second.letter == 'W'; });
}

// The steps of V-Half and V-Min.

enum class weights { as_ops, implicit };

inline int peak(const rank_slots& row, weights w) { return peak(w == weights::implicit ? with_weights(row) : row); }

/// The rank with the op of `slot` moved to the earliest idle slot that keeps the peak within the cap, if one exists.
inline rank_slots moved(const all_ranks& ranks, int rank, int slot, weights w, int cap) {
  const rank_slots& row = ranks.at(rank);
  const op_slot o = row.at(slot);
  for (int earlier = ready(ranks, rank, o); earlier < slot; ++earlier)
    if (is_idle(row, earlier)) {
      rank_slots trial = row;
      trial.erase(slot);
      put(trial, earlier, o);
      if (peak(trial, w) <= cap) return trial;
    }
  return row;
}

/// Moves the ops of phase 2 and, if W's are ops, also those of phase 0.
inline void reorder(all_ranks& ranks, int micro, weights w) {
  int cap = 0;
  for (const auto& [rank, row] : ranks) cap = std::max(cap, peak(row, w));
  int phase = 0;
  for (const auto& [where, o] : ops_by_slot_and_rank(ranks)) {
    const auto [slot, rank] = where;
    if (phase == 0 && o == op_slot{'I', 0, 0}) phase = 1;
    if (phase == 2 || (phase == 0 && w == weights::as_ops)) ranks[rank] = moved(ranks, rank, slot, w, cap);
    if (phase == 1 && o.letter == 'F' && o.stage < pp_of(ranks) && o.micro == micro - 1) phase = 2;
  }
}

/// Moves every op as early as the order of its rank and its dependencies allow. In that order a W follows its I.
inline void squeeze(all_ranks& ranks) {
  all_ranks to;
  for (const auto& [rank, row] : ranks) to[rank] = {};
  for (const auto& [where, o] : ops_by_slot_and_rank(ranks)) {
    const int rank = where.second;
    const int after_row = to[rank].empty() ? 0 : to[rank].rbegin()->first + 1;
    put(to[rank], std::max(after_row, ready(to, rank, o)), o);
  }
  ranks = to;
}

struct block {
  int F0, F1, I1, I0;  // slots of micro-batch 0
};

template <typename BlockOfRank>
std::vector<std::string> slow_v(int pp, int micro, BlockOfRank&& block_of) {
  all_ranks ranks;
  for (int rank = 0; rank < pp; ++rank)
    for (int m = 0; m < micro; ++m) {
      const block b = block_of(rank);
      put(ranks[rank], b.F0 + 6 * m, {'F', rank, m});
      put(ranks[rank], b.F1 + 6 * m, {'F', 2 * pp - 1 - rank, m});
      put(ranks[rank], b.I1 + 6 * m, {'I', 2 * pp - 1 - rank, m});
      put(ranks[rank], b.I0 + 6 * m, {'I', rank, m});
    }
  put_weights(ranks);
  reorder(ranks, micro, weights::as_ops);
  squeeze(ranks);
  drop_weights(ranks);
  reorder(ranks, micro, weights::implicit);
  put_weights(ranks);
  squeeze(ranks);
  drop_weights(ranks);
  for (auto& [rank, row] : ranks) row = with_named_weights(row, rank, pp);
  return texts(ranks);
}

// The steps of 1F1B-V.

inline rank_slots moved_forward(const all_ranks& ranks, int rank, int slot, int cap) {
  const rank_slots& row = ranks.at(rank);
  const op_slot o = row.at(slot);
  const auto has_room = [&](int from) {
    for (int s = from; s < slot; ++s)
      if (held(row, s) >= cap) return false;
    return true;
  };
  for (int earlier = ready(ranks, rank, o); earlier < slot; ++earlier)
    if (is_idle(row, earlier) && has_room(earlier)) {
      rank_slots to = row;
      to.erase(slot);
      put(to, earlier, o);
      return to;
    }
  return row;
}

inline rank_slots moved_backward(const all_ranks& ranks, int rank, int slot) {
  const rank_slots& row = ranks.at(rank);
  const op_slot o = row.at(slot), second = row.at(slot + 1);
  for (int earlier = ready(ranks, rank, o); earlier < slot; ++earlier)
    if (is_idle(row, earlier) && is_idle(row, earlier + 1)) {
      rank_slots to = row;
      to.erase(slot), to.erase(slot + 1);
      put(to, earlier, o), put(to, earlier + 1, second);
      return to;
    }
  return row;
}

}  // namespace slow

inline std::vector<std::string> slow_v_half(int pp, int micro) {
  const int k = pp % 2 == 0 ? 3 : 0;
  return slow::slow_v(pp, micro, [=](int i) {
    return slow::block{.F0 = 2 * i, .F1 = 3 * pp - i - 2, .I1 = 3 * pp + k + 2 * i - 1, .I0 = 6 * pp + k - i - 2};
  });
}

inline std::vector<std::string> slow_v_min(int pp, int micro) {
  const int k = pp % 3 == 0 ? 2 : 0;
  return slow::slow_v(pp, micro, [=](int i) {
    return slow::block{.F0 = i, .F1 = 2 * pp - 1 - i, .I1 = 2 * pp + k + i, .I0 = 4 * pp + k - 1 - i};
  });
}

inline std::vector<std::string> slow_v_1f1b(int pp, int micro) {
  slow::all_ranks ranks;
  for (int m = 0; m < micro; ++m) {
    for (int stage = 0; stage < 2 * pp; ++stage)
      slow::put(ranks[slow::rank_of(stage, pp)], stage + 6 * m, {'F', stage, m});
    int slot = 2 * pp + (pp % 3 == 0 ? 3 : 0);
    int cyc = (3 - (pp + 2) % 3) % 3;
    for (int stage = 2 * pp - 1; stage >= 0; --stage) {
      slow::put(ranks[slow::rank_of(stage, pp)], slot + 6 * m, {'B', stage, m});
      slow::put(ranks[slow::rank_of(stage, pp)], slot + 1 + 6 * m, {'+', stage, m});
      slot += 2;
      if (++cyc == 3) cyc = 0, slot += 3;
    }
  }
  int cap = 0;
  for (const auto& [rank, row] : ranks) cap = std::max(cap, slow::peak(row));
  for (const auto& [where, o] : slow::ops_by_slot_and_rank(ranks)) {
    const auto [slot, rank] = where;
    ranks[rank] =
        o.letter == 'F' ? slow::moved_forward(ranks, rank, slot, cap) : slow::moved_backward(ranks, rank, slot);
  }
  return slow::texts(ranks);
}

}  // namespace pipesched::tests
