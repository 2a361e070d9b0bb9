// SPDX-License-Identifier: MIT
#pragma once

// The costs of cells where micro-batches are not alike: a direct-mapped cache, in which a collision replaces the entry.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "pipesched/plan/detail/word_table.hpp"

namespace pipesched::detail {

/// @tparam Kept  what is kept of a cell; made of a word_cell
template <typename Kept>
class exact_costs {
 public:
  /// @param t  must outlive this; nothing is kept if its micro-batches are alike
  explicit exact_costs(const word_table& t) : t_(&t) {
    if (t.alike()) return;
    constexpr std::size_t most = std::size_t{1} << 17;
    cells_.resize(std::bit_ceil(std::clamp<std::size_t>(8 * t.ops(), 1, most)));
    stride_ = t.max_micros();
    weights_.resize(t.nodes().size() * stride_);
    for (std::size_t n = 0; n < t.nodes().size(); ++n)
      for (std::uint32_t j = 0; j < t.nodes()[n].micros; ++j)
        weights_[n * stride_ + j] = t.exact_weight(static_cast<std::uint16_t>(n), j);
  }

  /// A cell of a kind of a rank with these micro-batches of its nodes. It stays until the next call.
  const Kept& cell_of(std::uint32_t rank, std::uint16_t kind, std::array<std::uint32_t, 2> micros) {
    entry& e = cells_[place_of(rank, kind, micros) & (cells_.size() - 1)];
    if (e.rank != rank || e.kind != kind || e.micros != micros)
      e = {rank, kind, micros, Kept(t_->exact(rank, t_->kind(rank, kind), micros))};
    return e.cell;
  }
  const word_weight& weight_of(std::uint16_t node, std::uint32_t j) const { return weights_[node * stride_ + j]; }

 private:
  struct entry {
    std::uint32_t rank = std::numeric_limits<std::uint32_t>::max();  // none
    std::uint16_t kind = 0;
    std::array<std::uint32_t, 2> micros{};
    Kept cell{};
  };

  static std::size_t place_of(std::uint32_t rank, std::uint16_t kind, std::array<std::uint32_t, 2> micros) {
    std::uint64_t h = (std::uint64_t{rank} << 16 | kind) * 0x9E37'79B9'7F4A'7C15;
    h = (h ^ (std::uint64_t{micros[0]} << 32 | micros[1])) * 0x9E37'79B9'7F4A'7C15;
    return static_cast<std::size_t>(h >> 40);
  }

  const word_table* t_;
  std::vector<entry> cells_;  // by hash
  std::size_t stride_ = 0;
  std::vector<word_weight> weights_;  // by node and micro-batch
};

}  // namespace pipesched::detail
