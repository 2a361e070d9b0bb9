// SPDX-License-Identifier: MIT
#pragma once

// The ops of a schedule: those of a rank in order, where one is, and which others it needs or serves.

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"

namespace pipesched {

/// The ops of a row of cells, in order; of an overlapped cell the first, then the second. A view: it refers to the row.
class op_view {
 public:
  class iterator {
   public:
    using value_type = op;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::forward_iterator_tag;
    using iterator_category = std::forward_iterator_tag;
    using reference = const op&;
    using pointer = const op*;

    constexpr iterator() = default;
    constexpr iterator(const cell* at, std::size_t index) noexcept : at_(at), index_(index) {}

    constexpr const op& operator*() const noexcept { return (*at_)[index_]; }
    constexpr const op* operator->() const noexcept { return &(*at_)[index_]; }
    constexpr iterator& operator++() noexcept {
      if (++index_ == at_->size()) ++at_, index_ = 0;
      return *this;
    }
    constexpr iterator operator++(int) noexcept {
      const iterator before = *this;
      ++*this;
      return before;
    }
    friend constexpr bool operator==(const iterator&, const iterator&) = default;

   private:
    const cell* at_ = nullptr;
    std::size_t index_ = 0;
  };

  constexpr op_view() = default;
  constexpr explicit op_view(std::span<const cell> row) noexcept : row_(row) {}
  constexpr iterator begin() const noexcept { return {row_.data(), 0}; }
  constexpr iterator end() const noexcept { return {row_.data() + row_.size(), 0}; }

 private:
  std::span<const cell> row_;
};

/// The ops of a rank in the order of its cells: `for (op o : ops(s, rank))`. @pre rank < s.size(), and `s` outlives the view
constexpr op_view ops(const schedule& s, std::size_t rank) noexcept { return op_view(s[rank]); }

/// A place in a schedule: `s[rank][cell][index]`.
struct op_place {
  std::uint32_t rank = 0;
  std::size_t cell = 0;   ///< index in the rank's row
  std::size_t index = 0;  ///< in the cell: 0, or 1 for the second of two overlapped ops

  friend constexpr bool operator==(const op_place&, const op_place&) = default;
};

/// The place of an op, on the rank that the placement gives for it; its chunk does not matter. Nothing if it is not there.
/// Linear in the length of the rank's row. `find(s, *parse_op("3F12"))`
constexpr std::optional<op_place> find(const schedule& s, op which) noexcept {
  if (which.stage >= s.stages()) return std::nullopt;
  const std::uint32_t rank = s.placement.rank_of(which.stage, which.micro);
  if (rank >= s.size()) return std::nullopt;
  const auto row = s[rank];
  for (std::size_t i = 0; i < row.size(); ++i)
    for (std::size_t k = 0; k < row[i].size(); ++k) {
      const op& o = row[i][k];
      if (o.pass == which.pass && o.stage == which.stage && o.micro == which.micro) return op_place{rank, i, k};
    }
  return std::nullopt;
}

namespace detail {

// Those of the ops that the schedule has, with their chunks; stages below 0 or too high do not exist.
constexpr std::vector<op> ops_that_exist(const schedule& s, std::span<const std::pair<pass, std::int64_t>> candidates,
                                         std::uint32_t micro) {
  std::vector<op> found;
  for (const auto& [p, stage] : candidates) {
    if (stage < 0 || stage >= std::int64_t{s.stages()}) continue;
    const op o{p, 0, static_cast<std::uint16_t>(stage), micro};
    if (const auto at = find(s, o)) found.push_back(s[at->rank][at->cell][at->index]);
  }
  return found;
}

}  // namespace detail

/// The ops that `o` needs directly: for F its stage's input, for B and I their own F and the gradient from the next stage,
/// for W its I. At most two, of those that the schedule has. Linear in the lengths of their ranks' rows.
constexpr std::vector<op> predecessors(const schedule& s, op o) {
  using candidate = std::pair<pass, std::int64_t>;
  const std::int64_t stage = o.stage;
  if (o.pass == pass::forward)
    return detail::ops_that_exist(s, std::array{candidate{pass::forward, stage - 1}}, o.micro);
  if (o.pass == pass::backward_weight)
    return detail::ops_that_exist(s, std::array{candidate{pass::backward_input, stage}}, o.micro);
  return detail::ops_that_exist(s,
                                std::array{candidate{pass::forward, stage}, candidate{pass::backward, stage + 1},
                                           candidate{pass::backward_input, stage + 1}},
                                o.micro);
}

/// The ops that need `o` directly: the inverse of predecessors(). At most two, of those that the schedule has. Linear in the
/// lengths of their ranks' rows.
constexpr std::vector<op> successors(const schedule& s, op o) {
  using candidate = std::pair<pass, std::int64_t>;
  const std::int64_t stage = o.stage;
  if (o.pass == pass::forward)
    return detail::ops_that_exist(s,
                                  std::array{candidate{pass::forward, stage + 1}, candidate{pass::backward, stage},
                                             candidate{pass::backward_input, stage}},
                                  o.micro);
  if (o.pass == pass::backward_weight) return {};
  const candidate weight{o.pass == pass::backward_input ? pass::backward_weight : pass::none, stage};
  return detail::ops_that_exist(
      s, std::array{weight, candidate{pass::backward, stage - 1}, candidate{pass::backward_input, stage - 1}}, o.micro);
}

}  // namespace pipesched
