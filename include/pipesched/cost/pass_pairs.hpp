// SPDX-License-Identifier: MIT
#pragma once

// Kinds of overlapped cells: unordered pairs of passes, such as F with B, and sets of them.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/op.hpp"

namespace pipesched {

/// Two passes in one cell, in either order: `{pass::backward, pass::forward} == {pass::forward, pass::backward}`.
struct pass_pair {
  pass first = pass::forward;
  pass second = pass::backward;

  friend constexpr bool operator==(const pass_pair& a, const pass_pair& b) noexcept {
    return (a.first == b.first && a.second == b.second) || (a.first == b.second && a.second == b.first);
  }
};

/// The passes of an overlapped cell. @pre c.overlapped()
constexpr pass_pair pair_of(const cell& c) noexcept { return {c[0].pass, c[1].pass}; }

/// "FB".
inline std::string to_string(pass_pair p) { return {letter(p.first), letter(p.second)}; }

/// The pair of two letters out of F, B, I and W; nothing if `text` is not that.
constexpr std::optional<pass_pair> parse_pass_pair(std::string_view text) noexcept {
  if (text.size() != 2) return std::nullopt;
  const pass_pair p{pass_of(text[0]), pass_of(text[1])};
  if (p.first == pass::none || p.second == pass::none) return std::nullopt;
  return p;
}

/// A set of pass pairs.
class pass_pair_set {
 public:
  constexpr pass_pair_set() = default;
  constexpr pass_pair_set(std::initializer_list<pass_pair> pairs) {
    for (pass_pair p : pairs) insert(p);
  }

  /// F with B and F with I: the pairs of DualPipe, and what published cost models price.
  static constexpr pass_pair_set forward_with_backward() {
    return {{pass::forward, pass::backward}, {pass::forward, pass::backward_input}};
  }

  constexpr void insert(pass_pair p) noexcept { bits_ = static_cast<std::uint16_t>(bits_ | bit(p)); }
  constexpr bool contains(pass_pair p) const noexcept { return (bits_ & bit(p)) != 0; }
  constexpr bool empty() const noexcept { return bits_ == 0; }
  /// The pairs, in the order of F, B, I and W.
  constexpr std::vector<pass_pair> pairs() const {
    std::vector<pass_pair> found;
    const pass all[] = {pass::forward, pass::backward, pass::backward_input, pass::backward_weight};
    for (std::size_t a = 0; a < 4; ++a)
      for (std::size_t b = a; b < 4; ++b)
        if (contains({all[a], all[b]})) found.push_back({all[a], all[b]});
    return found;
  }

  friend constexpr bool operator==(const pass_pair_set&, const pass_pair_set&) = default;

 private:
  static constexpr std::uint16_t bit(pass_pair p) noexcept {
    const auto index = [](pass one) { return static_cast<unsigned>(one) - 1; };
    const unsigned a = index(p.first), b = index(p.second);
    return static_cast<std::uint16_t>(1u << (a < b ? 4 * a + b : 4 * b + a));
  }

  std::uint16_t bits_ = 0;
};

/// "FB, FI"; empty for an empty set.
inline std::string to_string(pass_pair_set set) {
  std::string text;
  for (const pass_pair p : set.pairs()) text += (text.empty() ? "" : ", ") + to_string(p);
  return text;
}

}  // namespace pipesched
