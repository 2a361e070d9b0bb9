// SPDX-License-Identifier: MIT
#pragma once

// The ops of one stage as bounds.hpp counts them, and whether sums of their times are exact.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "pipesched/core/op.hpp"

namespace pipesched::detail {

// Tells if sums of some numbers are exact in a double in any order: the numbers must be multiples of one power of two.
class exactness {
 public:
  constexpr void note(double value) {
    if (!(value > 0) || value > std::numeric_limits<double>::max()) return;
    const auto bits = std::bit_cast<std::uint64_t>(value);
    const int exponent = static_cast<int>(bits >> 52 & 0x7FF);
    const std::uint64_t mantissa = (bits & 0xF'FFFF'FFFF'FFFF) | (exponent > 0 ? std::uint64_t{1} << 52 : 0);
    const int scale = exponent > 0 ? exponent : 1;
    lowest_ = std::min(lowest_, scale + static_cast<int>(std::countr_zero(mantissa)));
    highest_ = std::max(highest_, scale + static_cast<int>(std::bit_width(mantissa)));
  }
  /// True if sums of up to `terms` of the numbers, and of their halves, are exact.
  constexpr bool holds_for(double terms) const {
    if (highest_ < lowest_) return true;
    return highest_ - lowest_ + 1 + static_cast<int>(std::bit_width(static_cast<std::uint64_t>(terms))) <= 53;
  }

 private:
  int lowest_ = std::numeric_limits<int>::max(), highest_ = std::numeric_limits<int>::min();
};

// The ops of one stage and `count` micro-batches that cost the same.
struct bound_unit {
  std::uint32_t replica = 0, stage = 0, micro = 0;
  double count = 1;

  // The ops that its backward may have; none if it is not trained.
  bool trained = true, whole_backward = true, input_backward = true, split_backward = true;

  // By pass, over all cells of the class that hold the op, alone or with any partner on its rank.
  struct least {
    double alone = 0;  // duration in a cell of its own
    double share = 0;  // the same, or half of a pair if that is less
    double busy = 0;   // least duration of a cell
    double step = 0;   // least time from the start of a cell until the next op of the chain can start, without transfer

    // Least duration and step of a cell that holds forwards alone.
    double forward_busy = 0, forward_step = 0;
    // Least duration and step of a cell of an F and a backward, and of any other.
    double paired_busy = 0, paired_step = 0, apart_busy = 0, apart_step = 0;
    double slack = 0;  // most time from the release of the output to the end of a cell

    // Most time that a cell saves against its ops alone, by partner: F; B or I; W. The last: `alone` - duration with a W.
    double with_F = 0, with_gradient = 0, with_W = 0, beside_W = 0;
  };
  std::array<least, 5> by_pass{};
  double whole = 0;  // least time from the start of the backward to its end
  double rest = 0;   // least time from the start of the backward to the end of the step, its tail aside

  // Bytes: least that the F keeps for its backward, what an I leaves for its W, and least that F and a gradient need on top
  // while they run. `frees_all`: a backward never frees more than its F kept.
  double kept = 0, context = 0, forward_bytes = 0, gradient_bytes = 0;
  bool frees_all = true, input_frees = true;

  double after_forward = 0, after_gradient = 0;  // transfers of the outputs

  // Least time from the start of the micro-batch to the start of this F and of this backward, and after the release of this
  // unit's output until the micro-batch has passed the stages that follow.
  double head = 0, back = 0, tail = 0;
  // Earliest start of F and of the backward in the step.
  double first_forward = 0, first_backward = 0;

  constexpr least& of(pass p) { return by_pass[static_cast<std::size_t>(p)]; }
  constexpr const least& of(pass p) const { return by_pass[static_cast<std::size_t>(p)]; }
  /// Least time from the end of a cell with this op to the end of the step.
  constexpr double after_cell(pass p) const { return std::max(0.0, tail - of(p).slack); }
};

}  // namespace pipesched::detail
