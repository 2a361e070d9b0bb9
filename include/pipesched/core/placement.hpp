// SPDX-License-Identifier: MIT
#pragma once

// Stage placement: which rank runs stage s for micro-batch m, and which chunk (index among the rank's stages) it is there.
//
//   kind            stages       rank of stage s (P ranks)                         used by
//   linear          P            s                                                 GPipe, 1F1B, zero bubble
//   looped          P * chunks   s mod P                                           interleaved 1F1B, looped BFS
//   vee             2P           s for s < P, else 2P-1-s                             ZB-V, V-Half, DualPipeV
//   wave            2P * waves   the vee, repeated                                 Hanayo
//   bidirectional   P            s for replica 0, P-1-s for replica 1              DualPipe, Chimera
//   custom          any          given as a table
//
// A placement with two replicas holds every stage twice: micro-batches 0 ... ceil(M/2)-1 go through replica 0, the rest
// through replica 1. Chunks count the stages of replica 0 first.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/support/error.hpp"

namespace pipesched {

enum class placement_kind : std::uint8_t { linear, looped, vee, wave, bidirectional, custom };

inline constexpr std::string_view placement_kind_names[] = {"linear", "looped",        "vee",
                                                            "wave",   "bidirectional", "custom"};

constexpr std::string_view to_string(placement_kind k) { return placement_kind_names[static_cast<std::size_t>(k)]; }

/// Stages and ranks are 16-bit numbers; a rank's chunks are 8-bit numbers.
inline constexpr std::uint32_t max_stages = 65536;
inline constexpr std::uint32_t max_chunks = 256;
/// The maximum number of (stage, micro-batch) pairs per schedule. A schedule of this size takes about 10 GiB.
inline constexpr std::int64_t max_pairs = std::int64_t{1} << 28;

namespace detail {

// @param who  needs it: a family or a function
constexpr void require_pairs(std::string_view who, std::int64_t stages, std::int64_t micro) {
  if (stages > 0 && micro > max_pairs / stages)
    throw schedule_error(
        concat({who, " needs stages x micro-batches of at most 2^28; got ", count_text(stages, "stage"),
                " x micro = ", micro, ", nearest micro = ", max_pairs / stages}));
}

}  // namespace detail

/// A regular value. Queries are lookups in small tables unless their comments say otherwise, and take numbers of any integer
/// type.
class placement {
 public:
  constexpr placement() = default;

  /// All makers throw schedule_error without a rank, with more than 65536 ranks or stages or 256 chunks per rank, or with
  /// a rank that has no stage. `micro` is the number of micro-batches of the step.
  static constexpr placement linear(std::int64_t ranks) { return looped(ranks, 1, placement_kind::linear); }
  static constexpr placement looped(std::int64_t ranks, std::int64_t chunks) {
    return looped(ranks, chunks, placement_kind::looped);
  }
  static constexpr placement vee(std::int64_t ranks) { return wave(ranks, 1, placement_kind::vee); }
  static constexpr placement wave(std::int64_t ranks, std::int64_t waves) {
    return wave(ranks, waves, placement_kind::wave);
  }
  static constexpr placement bidirectional(std::int64_t ranks, std::int64_t micro) {
    require_1_to(max_stages, ranks, "ranks");
    require_1_to(none, micro, "micro-batches");
    std::vector<std::uint16_t> table;
    for (std::int64_t s = 0; s < ranks; ++s) table.push_back(static_cast<std::uint16_t>(s));
    for (std::int64_t s = 0; s < ranks; ++s) table.push_back(static_cast<std::uint16_t>(ranks - 1 - s));
    return placement(placement_kind::bidirectional, ranks, ranks, std::move(table), micro);
  }
  /// The placement of a kind for a number of stages. @throws schedule_error for custom, and if the kind has no such number
  static constexpr placement of_kind(placement_kind kind, std::int64_t ranks, std::int64_t stages, std::int64_t micro) {
    require_1_to(max_stages, ranks, "ranks");
    require_1_to(max_stages, stages, "stages");
    const auto per_rank = [&](std::int64_t divisor) {
      if (stages % divisor != 0)
        throw schedule_error(
            detail::concat({"a placement of kind ", to_string(kind), " with ", detail::count_text(ranks, "rank"),
                            " has a multiple of ", detail::count_text(divisor, "stage"), "; got ", stages}));
      return stages / divisor;
    };
    switch (kind) {
      case placement_kind::looped: return looped(ranks, per_rank(ranks));
      case placement_kind::wave: return wave(ranks, per_rank(2 * ranks));
      case placement_kind::linear:
      case placement_kind::vee:
      case placement_kind::bidirectional: {
        const std::int64_t expected = kind == placement_kind::vee ? 2 * ranks : ranks;
        if (stages != expected)
          throw schedule_error(
              detail::concat({"a placement of kind ", to_string(kind), " with ", detail::count_text(ranks, "rank"),
                              " has ", detail::count_text(expected, "stage"), "; got ", stages}));
        // Not a conditional expression: g++ 12 destroys its value twice in constant expressions.
        if (kind == placement_kind::linear) return linear(ranks);
        if (kind == placement_kind::vee) return vee(ranks);
        return bidirectional(ranks, micro);
      }
      case placement_kind::custom: break;
    }
    throw schedule_error("a custom placement needs a table; use placement::custom()");
  }
  /// `rank_of_stage[replica][stage]`: one or two rows of the same length.
  static constexpr placement custom(std::int64_t ranks, std::int64_t micro,
                                    const std::vector<std::vector<std::uint16_t>>& rank_of_stage) {
    require_1_to(max_stages, ranks, "ranks");
    require_1_to(none, micro, "micro-batches");
    require_1_to(2, std::ssize(rank_of_stage), "replicas");
    std::vector<std::uint16_t> table;
    for (const auto& replica : rank_of_stage) {
      require_1_to(max_stages, std::ssize(replica), "stages");
      if (replica.size() != rank_of_stage[0].size())
        throw schedule_error(detail::concat({"both replicas of a placement have the same stages; got ",
                                             rank_of_stage[0].size(), " and ", replica.size()}));
      for (std::uint16_t rank : replica) table.push_back(rank);
    }
    return placement(placement_kind::custom, ranks, std::ssize(rank_of_stage[0]), std::move(table), micro);
  }

  /// The same placement for another number of micro-batches. Only placements with two replicas differ.
  /// @throws schedule_error unless 1 <= micro <= 2^32 - 1
  constexpr placement for_micro(std::int64_t micro) const {
    require_1_to(none, micro, "micro-batches");
    placement other = *this;
    if (replicas() == 2) other.replica_1_begin_ = static_cast<std::uint32_t>((micro + 1) / 2);
    return other;
  }

  constexpr placement_kind kind() const noexcept { return kind_; }
  constexpr std::uint32_t ranks() const noexcept { return ranks_; }
  constexpr std::uint32_t stages() const noexcept { return stages_; }
  constexpr std::uint32_t replicas() const noexcept { return replica_1_begin_ == none ? 1 : 2; }

  /// First micro-batch of a replica, 0 or 1. With one replica, replica 1 begins at 2^32 - 1, after every micro-batch.
  constexpr std::uint32_t replica_begin(std::integral auto replica) const noexcept {
    return replica == 0 ? 0 : replica_1_begin_;
  }
  /// The replica that a micro-batch goes through.
  constexpr std::uint32_t replica_of(std::integral auto micro) const noexcept {
    return replicas() == 2 && std::cmp_greater_equal(micro, replica_1_begin_) ? 1 : 0;
  }
  /// @pre 0 <= stage < stages()
  constexpr std::uint32_t rank_of(std::integral auto stage, std::integral auto micro) const noexcept {
    return rank_[place_of(stage, micro)];
  }
  constexpr std::uint8_t chunk_of(std::integral auto stage, std::integral auto micro) const noexcept {
    return chunk_[place_of(stage, micro)];
  }
  /// True if the micro-batch goes through the stage on this rank as this chunk. @pre 0 <= stage < stages()
  constexpr bool has(std::integral auto rank, std::integral auto chunk, std::integral auto stage,
                     std::integral auto micro) const noexcept {
    const std::size_t at = place_of(stage, micro);
    return std::cmp_equal(rank_[at], rank) && std::cmp_equal(chunk_[at], chunk);
  }
  /// The rank of every stage of a replica. @pre replica < replicas()
  template <std::integral Replica = std::uint32_t>
  constexpr std::span<const std::uint16_t> rank_of_stage(Replica replica = 0) const noexcept {
    return std::span(rank_).subspan(static_cast<std::size_t>(replica) * stages_, stages_);
  }
  /// The stages of a rank, by chunk. Linear in the number of stages.
  constexpr std::vector<std::uint16_t> stages_of(std::integral auto rank) const {
    std::vector<std::uint16_t> found;
    for (std::size_t i = 0; i < rank_.size(); ++i)
      if (std::cmp_equal(rank_[i], rank)) found.push_back(static_cast<std::uint16_t>(i % stages_));
    return found;
  }

  friend constexpr bool operator==(const placement&, const placement&) = default;

 private:
  constexpr std::uint32_t place_of(std::integral auto stage, std::integral auto micro) const noexcept {
    return replica_of(micro) * stages_ + static_cast<std::uint32_t>(stage);
  }

  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  constexpr placement(placement_kind kind, std::int64_t ranks, std::int64_t stages,
                      std::vector<std::uint16_t> rank_of_stage, std::int64_t micro = 0)
      : kind_(kind),
        ranks_(static_cast<std::uint32_t>(ranks)),
        stages_(static_cast<std::uint32_t>(stages)),
        rank_(std::move(rank_of_stage)) {
    if (rank_.size() > stages_) replica_1_begin_ = static_cast<std::uint32_t>((micro + 1) / 2);
    std::vector<std::uint32_t> hosted(ranks_, 0);
    chunk_.reserve(rank_.size());
    for (std::uint16_t rank : rank_) {
      if (rank >= ranks_)
        throw schedule_error(detail::concat({"a placement names ranks 0 to ", ranks_ - 1, "; got rank ", rank}));
      if (hosted[rank] == max_chunks)
        throw schedule_error(detail::concat({"a rank has at most 256 chunks; rank ", rank, " has more"}));
      chunk_.push_back(static_cast<std::uint8_t>(hosted[rank]++));
    }
    for (std::size_t rank = 0; rank < hosted.size(); ++rank)
      if (hosted[rank] == 0) throw schedule_error(detail::concat({"every rank has a stage; rank ", rank, " has none"}));
  }

  static constexpr void require_1_to(std::int64_t max, std::int64_t got, std::string_view what) {
    if (got < 1 || got > max)
      throw schedule_error(
          detail::concat({"a placement takes 1 to ", max, " ", what, "; got ", got, ", nearest ", got < 1 ? 1 : max}));
  }

  static constexpr placement looped(std::int64_t ranks, std::int64_t chunks, placement_kind kind) {
    require_1_to(max_stages, ranks, "ranks");
    require_1_to(max_chunks, chunks, "chunks per rank");
    require_1_to(max_stages, ranks * chunks, "stages");
    std::vector<std::uint16_t> table;
    for (std::int64_t s = 0; s < ranks * chunks; ++s) table.push_back(static_cast<std::uint16_t>(s % ranks));
    return placement(kind, ranks, ranks * chunks, std::move(table));
  }

  static constexpr placement wave(std::int64_t ranks, std::int64_t waves, placement_kind kind) {
    require_1_to(max_stages, ranks, "ranks");
    require_1_to(max_chunks / 2, waves, "waves");
    require_1_to(max_stages, 2 * ranks * waves, "stages");
    std::vector<std::uint16_t> table;
    for (std::int64_t s = 0; s < 2 * ranks * waves; ++s) {
      const std::int64_t along = s % (2 * ranks);
      table.push_back(static_cast<std::uint16_t>(along < ranks ? along : 2 * ranks - 1 - along));
    }
    return placement(kind, ranks, 2 * ranks * waves, std::move(table));
  }

  placement_kind kind_ = placement_kind::custom;
  std::uint32_t ranks_ = 0;
  std::uint32_t stages_ = 0;
  std::uint32_t replica_1_begin_ = none;
  std::vector<std::uint16_t> rank_;  // [replica * stages + stage]
  std::vector<std::uint8_t> chunk_;  // same index
};

/// True if both have the same stages on the same ranks, whatever their kinds and numbers of micro-batches. Linear in the
/// number of stages.
constexpr bool same_stages_on_ranks(const placement& a, const placement& b) {
  if (a.ranks() != b.ranks() || a.replicas() != b.replicas()) return false;
  for (std::uint32_t replica = 0; replica < a.replicas(); ++replica) {
    const auto x = a.rank_of_stage(replica), y = b.rank_of_stage(replica);
    if (!std::equal(x.begin(), x.end(), y.begin(), y.end())) return false;
  }
  return true;
}

namespace detail {

/// The same stages on the same ranks under the first kind that has them, whatever the kind given: linear, looped, vee, wave,
/// bidirectional, else custom.
constexpr placement simplest_kind(const placement& where) {
  const std::uint32_t ranks = where.ranks(), stages = where.stages();
  if (ranks == 0 || stages % ranks != 0 || stages / ranks > max_chunks) return where;
  for (const placement_kind kind : {placement_kind::linear, placement_kind::looped, placement_kind::vee,
                                    placement_kind::wave, placement_kind::bidirectional}) {
    const std::uint32_t unit = kind == placement_kind::vee || kind == placement_kind::wave ? 2 * ranks : ranks;
    if (stages % unit != 0 || (kind != placement_kind::looped && kind != placement_kind::wave && stages != unit))
      continue;
    const std::int64_t micro = where.replicas() == 1 ? 1
                                                     : std::min<std::int64_t>(std::numeric_limits<std::uint32_t>::max(),
                                                                              2 * std::int64_t{where.replica_begin(1)});
    placement other = placement::of_kind(kind, ranks, stages, micro);
    if (same_stages_on_ranks(where, other)) return other;
  }
  return where;
}

}  // namespace detail

/// The kind, and for those that have several sizes the number of stages per rank: "vee", "looped 3".
inline std::string to_string(const placement& where) {
  const std::string_view kind = to_string(where.kind());
  const bool has_sizes = where.kind() == placement_kind::looped || where.kind() == placement_kind::wave;
  return has_sizes ? detail::concat({kind, " ", where.stages() / where.ranks()}) : std::string(kind);
}

}  // namespace pipesched
