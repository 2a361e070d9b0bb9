// SPDX-License-Identifier: MIT
#pragma once

// The ops of a schedule: those of a rank in order, where one is, which others it needs or serves, and what is recomputed.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched {

/// The ops of a row of cells, in order; of an overlapped cell the first, then the second. A view: it refers to the row.
class op_view : public std::ranges::view_base {
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
constexpr op_view ops(const schedule& s, std::integral auto rank) noexcept { return op_view(s[rank]); }

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

/// The place of a pass of a micro-batch through a stage: `find(s, pass::forward, 3, 12)`.
constexpr std::optional<op_place> find(const schedule& s, pass which, std::integral auto stage,
                                       std::integral auto micro) noexcept {
  if (std::cmp_less(stage, 0) || std::cmp_greater_equal(stage, s.stages())) return std::nullopt;
  if (std::cmp_less(micro, 0) || std::cmp_greater_equal(micro, s.micro)) return std::nullopt;
  return find(s, op{which, 0, static_cast<std::uint16_t>(stage), static_cast<std::uint32_t>(micro)});
}

namespace detail {

// Appends the first of these passes that the schedule has of a stage and micro-batch, with its chunk. A stage below 0 or too
// high does not exist.
constexpr void append_first(std::vector<op>& found, const schedule& s, std::int64_t stage, std::uint32_t micro,
                            std::initializer_list<pass> passes) {
  for (const pass p : passes)
    if (const auto at = find(s, p, stage, micro)) {
      found.push_back(s[at->rank][at->cell][at->index]);
      return;
    }
}

inline constexpr std::initializer_list<pass> gradient_passes = {
    pass::backward, pass::backward_input, pass::recompute_backward, pass::recompute_backward_input};

// One mark per stage and micro-batch that is recomputed; no memory if none is.
class recomputed_ops {
 public:
  /// @param any  false if the caller knows that no op recomputes
  constexpr explicit recomputed_ops(const schedule& s, bool any = true) : micro_(s.micro) {
    if (!any) return;
    for (const cell& c : s.cells.all())
      for (const op o : c) {
        if (!recomputes(o.pass)) continue;
        if (marks_.empty()) marks_.assign(std::size_t{s.stages()} * s.micro, 0);
        marks_[place(o)] = 1;
      }
  }
  constexpr bool any() const noexcept { return !marks_.empty(); }
  /// True if the activation of the op's stage and micro-batch is recomputed.
  constexpr bool operator()(op o) const noexcept { return any() && marks_[place(o)] != 0; }

 private:
  constexpr std::size_t place(op o) const noexcept { return std::size_t{o.stage} * micro_ + o.micro; }

  std::size_t micro_;
  std::vector<std::uint8_t> marks_;
};

// The fault of the backwards of a schedule's stages; empty without one.
constexpr std::string fault_of_backwards(const schedule& s) {
  if (s.backward.empty()) return {};
  if (s.backward.size() != s.stages())
    return concat(
        {"the backwards of ", count_text(s.backward.size(), "stage"), "; expected ", s.stages(), ", or none at all"});
  const std::uint32_t first = s.chain().first_trained;
  for (std::uint32_t stage = first; stage < s.stages(); ++stage)
    if (s.backward[stage] == stage_backward::none)
      return concat({"stage ", stage, " has no backward, but stage ", first,
                     " before it has; expected none in the first stages alone"});
  return {};
}

}  // namespace detail

/// The ops that `o` needs directly: for F its stage's input; for R its F; for B and I their own R or F and the gradient from
/// the next stage; for W its I. At most two, of those that the schedule has. Linear in the lengths of their ranks' rows.
constexpr std::vector<op> predecessors(const schedule& s, op o) {
  const std::int64_t stage = o.stage;
  std::vector<op> found;
  if (o.pass == pass::forward) {
    detail::append_first(found, s, stage - 1, o.micro, {pass::forward});
  } else if (o.pass == pass::backward_weight) {
    detail::append_first(found, s, stage, o.micro, {pass::backward_input, pass::recompute_backward_input});
  } else if (o.pass == pass::recompute) {
    detail::append_first(found, s, stage, o.micro, {pass::forward});
  } else {
    detail::append_first(found, s, stage, o.micro, {pass::recompute, pass::forward});
    detail::append_first(found, s, stage + 1, o.micro, detail::gradient_passes);
  }
  return found;
}

/// The ops that need `o` directly: the inverse of predecessors(). At most two, of those that the schedule has. Linear in the
/// lengths of their ranks' rows.
constexpr std::vector<op> successors(const schedule& s, op o) {
  const std::int64_t stage = o.stage;
  std::vector<op> found;
  if (o.pass == pass::forward) {
    detail::append_first(found, s, stage + 1, o.micro, {pass::forward});
    detail::append_first(found, s, stage, o.micro,
                         {pass::recompute, pass::backward, pass::backward_input, pass::recompute_backward,
                          pass::recompute_backward_input});
  } else if (o.pass == pass::recompute) {
    detail::append_first(found, s, stage, o.micro, detail::gradient_passes);
  } else if (yields_input_gradient(o.pass)) {
    if (!yields_weight_gradient(o.pass)) detail::append_first(found, s, stage, o.micro, {pass::backward_weight});
    detail::append_first(found, s, stage - 1, o.micro, detail::gradient_passes);
  }
  return found;
}

}  // namespace pipesched

// Iterators refer to the row, not to the view.
template <>
inline constexpr bool std::ranges::enable_borrowed_range<pipesched::op_view> = true;
