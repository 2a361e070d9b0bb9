// SPDX-License-Identifier: MIT
#pragma once

// Kinds of overlapped cells: unordered pairs of passes, such as F with B, and sets of them.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/support/concat.hpp"

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

/// "FB", and with a pass of two letters "F(RB)".
inline std::string to_string(pass_pair p) {
  std::string text;
  for (const pass one : {p.first, p.second}) {
    const bool long_name = name(one).size() > 1;
    ((text += long_name ? "(" : "") += name(one)) += long_name ? ")" : "";
  }
  return text;
}

/// The pair of two passes out of F, B, I, W, R, (RB) and (RI); nothing if `text` is not that.
constexpr std::optional<pass_pair> parse_pass_pair(std::string_view text) noexcept {
  const auto next = [&]() -> pass {
    const std::size_t close = text.starts_with('(') ? text.find(')') : text.npos;
    const std::string_view one = close == text.npos ? text.substr(0, 1) : text.substr(1, close - 1);
    if (close != text.npos && one.size() < 2) return pass::none;
    text.remove_prefix(close == text.npos ? one.size() : close + 1);
    return pass_of(one);
  };
  pass_pair p{};
  p.first = next(), p.second = next();
  if (p.first == pass::none || p.second == pass::none || !text.empty()) return std::nullopt;
  return p;
}
/// The texts that parse_pass_pair() takes, in words.
inline constexpr std::string_view pass_pair_expected = "two of F, B, I, W, R, (RB), (RI)";

namespace detail {

// A cell whose backwards do not recompute, and how many of its ops did so inside.
constexpr std::pair<int, cell> split_recompute(cell c) noexcept {
  int inside = 0;
  for (op& o : c) {
    inside += o.pass != without_recompute(o.pass);
    o.pass = without_recompute(o.pass);
  }
  return {inside, c};
}

}  // namespace detail

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

  constexpr void insert(pass_pair p) noexcept { bits_ |= bit(p); }
  constexpr bool contains(pass_pair p) const noexcept { return (bits_ & bit(p)) != 0; }
  constexpr bool empty() const noexcept { return bits_ == 0; }
  /// The pairs, in the order of F, B, I, W, R, RB and RI.
  constexpr std::vector<pass_pair> pairs() const {
    std::vector<pass_pair> found;
    for (std::size_t a = 1; a < std::size(pass_table); ++a)
      for (std::size_t b = a; b < std::size(pass_table); ++b)
        if (const pass_pair p{static_cast<pass>(a), static_cast<pass>(b)}; contains(p)) found.push_back(p);
    return found;
  }

  friend constexpr bool operator==(const pass_pair_set&, const pass_pair_set&) = default;

 private:
  static constexpr std::uint64_t bit(pass_pair p) noexcept {
    const auto index = [](pass one) { return static_cast<unsigned>(one) - 1; };
    const unsigned a = index(p.first), b = index(p.second);
    return std::uint64_t{1} << (a < b ? 8 * a + b : 8 * b + a);
  }

  std::uint64_t bits_ = 0;
};

namespace detail {

// Of an entry of a list of pairs.
inline std::string repeated_pair(pass_pair p) {
  return concat({"is ", to_string(p), " again, in either order; expected each pair once"});
}

}  // namespace detail

/// "FB, FI"; empty for an empty set.
inline std::string to_string(pass_pair_set set) {
  std::string text;
  for (const pass_pair p : set.pairs()) text += (text.empty() ? "" : ", ") + to_string(p);
  return text;
}

}  // namespace pipesched
