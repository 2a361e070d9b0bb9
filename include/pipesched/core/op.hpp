// SPDX-License-Identifier: MIT
#pragma once

// Ops and cells, the units of a schedule. An op is one pass of one micro-batch through one stage, 8 bytes. A cell is one
// op or two overlapped ops, 16 bytes.
//
//   name  pass                      meaning
//   F     forward                   one micro-batch through one stage
//   B     backward                  full backward: for inputs and for weights
//   I     backward_input            backward for inputs only ("B" in the zero-bubble papers)
//   W     backward_weight           backward for weights only
//   R     recompute                 makes again what F did not keep, for the backward to come
//   RB    recompute_backward        B that recomputes inside
//   RI    recompute_backward_input  I that recomputes inside

#if __cplusplus < 202002L
#error "pipesched needs C++20: compile with -std=c++20 or later"
#include <end_of_compilation>  // does not exist: ends the output after the sentence above
#endif

#include <compare>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>  // declares std::hash

namespace pipesched {

enum class pass : std::uint8_t {
  none,
  forward,
  backward,
  backward_input,
  backward_weight,
  recompute,
  recompute_backward,
  recompute_backward_input
};

/// The properties of a pass. A new pass is a new row of the table below.
struct pass_properties {
  std::string_view name = "?";
  char letter = '?';  ///< of the op that it is, recomputation aside: B for RB
  bool yields_input_gradient =
      false;  ///< makes the gradient for the previous stage, and a context for the weight gradient
  bool yields_weight_gradient = false;  ///< the last to use activation and context
  bool recomputes = false;              ///< makes the activation again from what F kept
};
/// By pass.
inline constexpr pass_properties pass_table[] = {{},
                                                 {"F", 'F', false, false, false},
                                                 {"B", 'B', true, true, false},
                                                 {"I", 'I', true, false, false},
                                                 {"W", 'W', false, true, false},
                                                 {"R", 'R', false, false, true},
                                                 {"RB", 'B', true, true, true},
                                                 {"RI", 'I', true, false, true}};

constexpr const pass_properties& properties(pass p) noexcept {
  return pass_table[static_cast<std::size_t>(p) < std::size(pass_table) ? static_cast<std::size_t>(p) : 0];
}

namespace detail {

// A set of passes, a bit each. Faster than the table, which stands in memory.
using pass_bits = std::uint32_t;
static_assert(std::size(pass_table) <= 32);
constexpr pass_bits bit_of(pass p) noexcept {
  return static_cast<std::uint32_t>(p) < 32 ? pass_bits{1} << static_cast<std::uint32_t>(p) : 0;
}
// The passes with a property.
constexpr pass_bits passes_with(bool pass_properties::*property) noexcept {
  pass_bits all = 0;
  for (std::size_t p = 0; p < std::size(pass_table); ++p)
    if (pass_table[p].*property) all |= bit_of(static_cast<pass>(p));
  return all;
}
template <bool pass_properties::*Property>
constexpr bool has_property(pass p) noexcept {
  constexpr pass_bits all = passes_with(Property);
  return (all & bit_of(p)) != 0;
}

}  // namespace detail

/// F, B, I, W, R, RB or RI; "?" for none and for invalid values.
constexpr std::string_view name(pass p) noexcept { return properties(p).name; }
/// The letter of the pass without its recomputation: F, B, I, W or R; '?' for none and for invalid values.
constexpr char letter(pass p) noexcept { return properties(p).letter; }
/// The pass of a name; none for any other text.
constexpr pass pass_of(std::string_view name) noexcept {
  for (std::size_t p = 1; p < std::size(pass_table); ++p)
    if (pass_table[p].name == name) return static_cast<pass>(p);
  return pass::none;
}
/// B for RB, I for RI, and any other pass itself.
constexpr pass without_recompute(pass p) noexcept {
  return p == pass::recompute_backward         ? pass::backward
         : p == pass::recompute_backward_input ? pass::backward_input
                                               : p;
}
/// RB for B, RI for I, and any other pass itself.
constexpr pass with_recompute(pass p) noexcept {
  return p == pass::backward         ? pass::recompute_backward
         : p == pass::backward_input ? pass::recompute_backward_input
                                     : p;
}

/// One pass of one micro-batch through one stage.
struct op {
  pipesched::pass pass = pipesched::pass::none;
  std::uint8_t chunk = 0;   ///< index of the stage among the stages of its rank
  std::uint16_t stage = 0;  ///< 0-based, in model order
  std::uint32_t micro = 0;  ///< 0-based, over the whole step

  friend constexpr bool operator==(const op&, const op&) = default;
  friend constexpr auto operator<=>(const op&, const op&) = default;
};

/// True for B and I, and for RB and RI: their gradient goes to the previous stage.
constexpr bool yields_input_gradient(pass p) noexcept {
  return detail::has_property<&pass_properties::yields_input_gradient>(p);
}

/// True for B, RB and W, which compute the weight gradient and are the last to use the activation.
constexpr bool yields_weight_gradient(pass p) noexcept {
  return detail::has_property<&pass_properties::yields_weight_gradient>(p);
}

/// True for R, RB and RI.
constexpr bool recomputes(pass p) noexcept { return detail::has_property<&pass_properties::recomputes>(p); }

/// One op, or two that run overlapped: the user's code hides the communication of one under the compute of the other.
/// A range of its ops: `for (op o : cell)`.
class cell {
 public:
  constexpr cell() = default;
  constexpr cell(op only) : ops_{only, {}} {}  // NOLINT: an op is a cell
  constexpr cell(op first, op second) : ops_{first, second} {}

  constexpr bool overlapped() const noexcept { return ops_[1].pass != pass::none; }
  constexpr std::size_t size() const noexcept { return overlapped() ? 2 : 1; }
  constexpr const op& operator[](std::size_t i) const noexcept { return ops_[i]; }
  constexpr op& operator[](std::size_t i) noexcept { return ops_[i]; }

  constexpr const op* begin() const noexcept { return ops_; }
  constexpr const op* end() const noexcept { return ops_ + size(); }
  constexpr op* begin() noexcept { return ops_; }
  constexpr op* end() noexcept { return ops_ + size(); }

  friend constexpr bool operator==(const cell&, const cell&) = default;
  friend constexpr auto operator<=>(const cell&, const cell&) = default;

 private:
  op ops_[2]{};
};

static_assert(sizeof(op) == 8 && sizeof(cell) == 16);

namespace detail {

constexpr op with_pass(op o, pass p) noexcept {
  o.pass = p;
  return o;
}

/// I for B, RI for RB, and any other pass itself.
constexpr pass for_inputs(pass p) noexcept {
  return p == pass::backward             ? pass::backward_input
         : p == pass::recompute_backward ? pass::recompute_backward_input
                                         : p;
}

// The time of a pass where F = I = W = R = 1.
constexpr std::uint32_t unit_duration(pass p) noexcept {
  const pass own = without_recompute(p);
  return (own == pass::backward ? 2u : 1u) + (own != p ? 1u : 0u);
}

// Filters a cell: `keep(op&)` may modify an op and says whether it stays; `put` gets the rest, if anything remains.
template <typename Keep, typename Put>
constexpr void filter_cell(cell c, Keep&& keep, Put&& put) {
  const bool first = keep(c[0]), second = c.overlapped() && keep(c[1]);
  if (first && second)
    put(c);
  else if (first || second)
    put(cell(first ? c[0] : c[1]));
}

}  // namespace detail

}  // namespace pipesched

template <>
struct std::hash<pipesched::op> {
  constexpr std::size_t operator()(const pipesched::op& o) const noexcept {
    std::uint64_t bits = std::uint64_t{o.micro} << 32 | std::uint64_t{o.stage} << 16 | std::uint64_t{o.chunk} << 8 |
                         std::uint64_t{static_cast<std::uint8_t>(o.pass)};
    bits = (bits ^ bits >> 32) * 0x9E37'79B9'7F4A'7C15u;  // Fibonacci hashing: the golden ratio of 2^64
    return static_cast<std::size_t>(bits ^ bits >> 29);
  }
};
