// SPDX-License-Identifier: MIT
#pragma once

// The building-block engine. A family gives the slots of the ops of one micro-batch; this block is repeated every
// `period` slots. W's fill idle slots, and the ops of the warm-up and the cool-down move to earlier slots as long as no
// rank's peak of activations rises above the highest peak of the repeated blocks.
// Source: Qi et al., "Pipeline Parallelism with Controllable Memory" (arXiv 2405.15362), section 3 and appendix; the
// authors' zbv_greedy.py and v1f1b.py (sail-sg/zero-bubble-pipeline-parallelism 39f2c186), whose time is quadratic in
// the number of micro-batches.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched::detail {

/// The slots of one micro-batch. Its ops form a chain: F of every stage, then the backward of every stage in reverse
/// order. `first[link]` is the slot of an op of micro-batch 0; micro-batch m runs m * period slots later.
struct building_block {
  std::int32_t period = 6;
  bool split = true;  ///< the backward is I, and W's are filled in; otherwise B, two slots long
  std::vector<std::int32_t> first{};
};

/// Prefix sums over slots (a segment tree): change of one slot, and the last slot whose prefix sum reaches a value,
/// both in O(log n).
class running_sum {
  struct node {
    std::int32_t sum = 0, highest = 0;  // of a segment: its sum and its highest prefix sum
  };

 public:
  constexpr explicit running_sum(std::size_t slots) : leaves_(std::bit_ceil(slots)), nodes_(2 * leaves_, node{}) {}

  constexpr void add(std::size_t slot, std::int32_t change) {
    std::size_t i = leaves_ + slot;
    nodes_[i].sum += change;
    nodes_[i].highest = nodes_[i].sum;
    while ((i /= 2) > 0) {
      const node &left = nodes_[2 * i], &right = nodes_[2 * i + 1];
      nodes_[i] = {left.sum + right.sum, std::max(left.highest, left.sum + right.highest)};
    }
  }
  constexpr std::int32_t total() const { return nodes_[1].sum; }
  /// The slot after the last one whose prefix sum is at least `least`; 0 if there is no such slot.
  constexpr std::size_t after_last(std::int32_t least) const {
    if (nodes_[1].highest < least) return 0;
    std::size_t i = 1;
    while (i < leaves_) {
      const std::int32_t left = nodes_[2 * i].sum;
      const bool right = nodes_[2 * i + 1].highest >= least - left;
      i = 2 * i + right;
      if (right) least -= left;
    }
    return i - leaves_ + 1;
  }

 private:
  std::size_t leaves_;
  std::vector<node> nodes_;
};

/// Bytes of the slots that no op of a row takes, as measured: their number grows with the square of the ranks.
constexpr double bytes_of_slots(const family_params& p) {
  return 320.0 * static_cast<double>(p.pp) * static_cast<double>(p.pp);
}

/// The op that each rank runs in each slot.
class slot_table {
 public:
  /// Repeats the block for all micro-batches. @pre its slots do not collide modulo the period
  constexpr slot_table(const placement& where, const building_block& block, std::int64_t micro)
      : where_(where),
        ranks_(where.ranks()),
        stages_(where.stages()),
        links_(2 * stages_),
        micro_(static_cast<std::size_t>(micro)),
        split_(block.split),
        slot_of_(links_ * micro_, 0) {
    const auto period = static_cast<std::size_t>(block.period);
    grow(static_cast<std::size_t>(block.first.back()) + 2 + period * (micro_ - 1));
    for (std::size_t m = 0; m < micro_; ++m)
      for (std::size_t link = 0; link < links_; ++link)
        put(static_cast<std::int32_t>(m * links_ + link), rank_of(link),
            static_cast<std::size_t>(block.first[link]) + m * period);
  }

  /// Puts W's anew: one into every idle slot in which the rank has one pending, and the rest after the last op.
  constexpr void fill_weights() {
    std::vector<std::int32_t> due(ranks_, 0);
    std::size_t all_due = 0;
    for (std::size_t slot = 0; slot < slots_ || all_due > 0; ++slot) {
      if (slot == slots_) grow(slot + static_cast<std::size_t>(*std::max_element(due.begin(), due.end())));
      for (std::size_t rank = 0; rank < ranks_; ++rank) {
        std::int32_t& what = at(slot, rank);
        if (is_backward(what))
          ++due[rank], ++all_due;
        else if (what == idle || what == weight)
          what = due[rank] > 0 ? (--due[rank], --all_due, weight) : idle;
      }
    }
  }

  /// Moves ops, in the order of slots, to the earliest idle slot after their dependencies that does not raise the
  /// highest peak of all ranks. The three functions differ in the ops that may move: all of them;
  constexpr void reorder_all() { reorder(region::everything); }
  /// all outside the steady state, which lasts from the first backward of stage 0 to the last forward on the way down;
  constexpr void reorder_outside_steady() { reorder(region::outside_steady); }
  /// those after the steady state, where W's do not move but are filled in again around the moved ops.
  constexpr void reorder_after_steady() { reorder(region::after_steady); }

  /// Moves every op to the earliest slot that keeps the order of each rank.
  constexpr void squeeze() {
    std::vector<std::size_t> clock(ranks_, 0);
    for (std::size_t slot = 0; slot < slots_; ++slot)
      for (std::size_t rank = 0; rank < ranks_; ++rank) {
        const std::int32_t what = at(slot, rank);
        if (what == idle || what == second_half) continue;
        const std::size_t to = what == weight ? clock[rank] : std::max(clock[rank], ready(what));
        take(what, rank, slot);
        put(what, rank, to);
        clock[rank] = to + length_of(what);
      }
    slots_ = *std::max_element(clock.begin(), clock.end());
  }

  /// The rows of all ranks, or only their forwards. If W's of several stages are pending, the last stage's runs first.
  constexpr rows<cell> cells(bool forward_only) const {
    struct host {
      std::vector<std::uint16_t> stages;  // of a rank, by chunk
      std::vector<std::uint32_t> inputs, weights;
      cell* next;
    };
    std::vector<host> hosts;
    std::vector<std::size_t> lengths;
    for (std::uint32_t rank = 0; rank < ranks_; ++rank) {
      hosts.push_back({.stages = where_.stages_of(rank), .inputs = {}, .weights = {}, .next = nullptr});
      const std::size_t chunks = hosts.back().stages.size();
      hosts.back().inputs.assign(chunks, 0), hosts.back().weights.assign(chunks, 0);
      lengths.push_back(chunks * micro_ * (forward_only ? 1 : split_ ? 3 : 2));
    }
    auto all = rows<cell>::for_overwrite(lengths);
    for (std::size_t rank = 0; rank < ranks_; ++rank) hosts[rank].next = all[rank].data();
    for (std::size_t rank = 0; rank < ranks_; ++rank)
      for (std::size_t slot = 0; slot < slots_; ++slot) {
        const std::int32_t what = table_[rank][slot];
        host& h = hosts[rank];
        if (what >= 0 && (is_forward(what) || !forward_only)) {
          const std::size_t stage = stage_of(link_of(what));
          const std::uint8_t chunk = where_.chunk_of(static_cast<std::uint32_t>(stage), 0);
          const pass p = is_forward(what) ? pass::forward : split_ ? pass::backward_input : pass::backward;
          *h.next++ = op{p, chunk, static_cast<std::uint16_t>(stage), static_cast<std::uint32_t>(micro_of(what))};
          if (p == pass::backward_input) ++h.inputs[chunk];
        } else if (what == weight && !forward_only) {
          std::size_t chunk = h.stages.size() - 1;
          while (h.weights[chunk] == h.inputs[chunk]) --chunk;
          *h.next++ = op{pass::backward_weight, static_cast<std::uint8_t>(chunk), h.stages[chunk], h.weights[chunk]++};
        }
      }
    return all;
  }

 private:
  enum class region : std::uint8_t { everything, outside_steady, after_steady };
  static constexpr std::int32_t idle = -1, weight = -2,
                                second_half = -3;  // second half of a B; other values are m * links + link

  constexpr std::int32_t& at(std::size_t slot, std::size_t rank) { return table_[rank][slot]; }
  constexpr void grow(std::size_t slots) {
    for (auto& row : table_) row.resize(slots, idle);
    slots_ = slots;
  }
  constexpr std::size_t link_of(std::int32_t what) const { return static_cast<std::size_t>(what) % links_; }
  constexpr std::size_t micro_of(std::int32_t what) const { return static_cast<std::size_t>(what) / links_; }
  constexpr std::size_t stage_of(std::size_t link) const { return link < stages_ ? link : links_ - 1 - link; }
  constexpr std::size_t rank_of(std::size_t link) const {
    return where_.rank_of(static_cast<std::uint32_t>(stage_of(link)), 0);
  }
  constexpr bool is_forward(std::int32_t what) const { return what >= 0 && link_of(what) < stages_; }
  constexpr bool is_backward(std::int32_t what) const { return what >= 0 && link_of(what) >= stages_; }
  constexpr std::size_t length_of(std::int32_t what) const { return !split_ && is_backward(what) ? 2 : 1; }

  // The change in a rank's live activations: an F adds one, its W or the end of its B removes it.
  constexpr std::int32_t kept_by(std::int32_t what) const {
    return is_forward(what) ? 1 : what == weight || what == second_half ? -1 : 0;
  }
  constexpr std::size_t end_of(std::size_t what) const {
    return static_cast<std::size_t>(slot_of_[what]) + length_of(static_cast<std::int32_t>(what));
  }
  // The first slot after the same op of the previous micro-batch and the previous op of the same micro-batch.
  constexpr std::size_t ready(std::int32_t what) const {
    const auto w = static_cast<std::size_t>(what);
    return std::max(link_of(what) > 0 ? end_of(w - 1) : 0, micro_of(what) > 0 ? end_of(w - links_) : 0);
  }

  constexpr void put(std::int32_t what, std::size_t rank, std::size_t slot) {
    at(slot, rank) = what;
    if (length_of(what) == 2) at(slot + 1, rank) = second_half;
    if (what >= 0) slot_of_[static_cast<std::size_t>(what)] = static_cast<std::int32_t>(slot);
  }
  constexpr void take(std::int32_t what, std::size_t rank, std::size_t slot) {
    at(slot, rank) = idle;
    if (length_of(what) == 2) at(slot + 1, rank) = idle;
  }

  // The live activations and pending W's of a rank after each slot.
  struct ledger {
    std::vector<std::int32_t> kept, due;
  };
  constexpr ledger count(std::size_t rank) const {
    ledger l;
    std::int32_t kept = 0, due = 0;
    for (const std::int32_t what : table_[rank]) {
      l.kept.push_back(kept += kept_by(what));
      l.due.push_back(due += is_backward(what) - (what == weight));
    }
    return l;
  }

  // Parts of the table, slot by slot.
  enum class part { warm_up, steady, cool_down };

  // Whether the next op of the table may move, and the part that the table has reached with it.
  constexpr bool may_move(region movable, part& now, std::int32_t what) const {
    if (movable == region::everything) return true;
    if (now == part::warm_up && what == static_cast<std::int32_t>(links_ - 1)) now = part::steady;
    const bool moves = now == part::cool_down || (now == part::warm_up && movable != region::after_steady);
    if (now == part::steady && what >= 0 && link_of(what) < ranks_ && micro_of(what) + 1 == micro_)
      now = part::cool_down;
    return moves;
  }

  constexpr void reorder(region movable) {
    const bool fills = movable == region::after_steady;
    struct progress {
      ledger counts{};                       // when W's are filled in again: of the whole row
      running_sum kept;                      // otherwise: live activations from the ops so far
      std::vector<std::size_t> backwards{};  // slots of the I's so far, ascending: the k-th W comes after the k-th
      std::size_t weights = 0, after_weight = 0;
    };
    std::int32_t peak = 0;
    std::vector<progress> ranks;
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      ledger counts = count(rank);
      peak = std::max(peak, *std::max_element(counts.kept.begin(), counts.kept.end()));
      ranks.push_back({.kept = running_sum(fills ? 1 : slots_)});
      if (fills) ranks.back().counts = std::move(counts);
    }
    part now = part::warm_up;
    for (std::size_t slot = 0; slot < slots_; ++slot)
      for (std::size_t rank = 0; rank < ranks_; ++rank) {
        const std::int32_t what = at(slot, rank);
        if (what == idle || what == second_half || (what == weight && fills)) continue;
        const bool moves = may_move(movable, now, what);
        progress& done = ranks[rank];
        if (fills) {
          if (moves) move_and_fill(what, rank, slot, done.counts, peak);
          continue;
        }
        const std::size_t to =
            moves ? move(what, rank, slot,
                         what == weight ? std::max(done.backwards[done.weights] + 1, done.after_weight) : ready(what),
                         done.kept, peak)
                  : slot;
        if (what == weight) {
          ++done.weights;
          done.after_weight = to + 1;
        } else if (is_backward(what)) {
          done.backwards.insert(std::upper_bound(done.backwards.begin(), done.backwards.end(), to), to);
        }
        const std::size_t last_half = to + length_of(what) - 1;
        if (const std::int32_t change = kept_by(at(last_half, rank)); change != 0) done.kept.add(last_half, change);
      }
  }

  // Moves an op to the earliest idle slot from `after` on and returns its slot. An F adds an activation until its old
  // slot, so it stays after the last slot at the peak.
  constexpr std::size_t move(std::int32_t what, std::size_t rank, std::size_t from, std::size_t after,
                             const running_sum& kept, std::int32_t peak) {
    std::size_t to = after;
    if (is_forward(what)) to = kept.total() >= peak ? from : std::max(to, kept.after_last(peak));
    const auto free = [&](std::size_t slot) {
      return at(slot, rank) == idle && (length_of(what) == 1 || at(slot + 1, rank) == idle);
    };
    while (to < from && !free(to)) ++to;
    if (to >= from) return from;
    take(what, rank, from);
    put(what, rank, to);
    return to;
  }

  // The same where a moved op may take the slot of a W; the W's are filled into the idle slots that remain.
  constexpr void move_and_fill(std::int32_t what, std::size_t rank, std::size_t from, ledger& counts,
                               std::int32_t peak) {
    // Updates the slots from `to` on until nothing changes. Returns false if the peak would be exceeded.
    const auto update = [&](std::size_t to, bool write) {
      std::int32_t due = to == 0 ? 0 : counts.due[to - 1];
      std::int32_t kept = to == 0 ? 0 : counts.kept[to - 1];
      for (std::size_t slot = to; slot < slots_; ++slot) {
        std::int32_t here = slot == to ? what : slot == from ? idle : at(slot, rank);
        if (here == idle || here == weight) here = due > 0 ? weight : idle;
        due += is_backward(here) - (here == weight);
        kept += kept_by(here);
        if (kept > peak) return false;
        const bool as_before = slot > from && due == counts.due[slot] && kept == counts.kept[slot];
        if (write) at(slot, rank) = here, counts.due[slot] = due, counts.kept[slot] = kept;
        if (as_before) return true;
      }
      return true;
    };
    for (std::size_t to = ready(what); to < from; ++to)
      if ((at(to, rank) == idle || at(to, rank) == weight) && update(to, false)) {
        update(to, true);
        slot_of_[static_cast<std::size_t>(what)] = static_cast<std::int32_t>(to);
        return;
      }
  }

  placement where_;
  std::size_t ranks_, stages_, links_, micro_;
  bool split_;
  std::size_t slots_ = 0;
  std::vector<std::vector<std::int32_t>> table_{ranks_};  // [rank][slot]
  std::vector<std::int32_t> slot_of_;                     // [m * links + link]
};

}  // namespace pipesched::detail
