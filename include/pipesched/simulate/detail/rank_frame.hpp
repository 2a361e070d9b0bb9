// SPDX-License-Identifier: MIT
#pragma once

// The frame of a rank, from which its bounds start, and the sums of durations that they compare.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

namespace pipesched::detail {

/// The times and limits of a rank that its bounds start from.
struct rank_frame {
  double first_forward = 0;   // no forward starts earlier
  double first_backward = 0;  // nor a backward
  double after_gradient = 0;  // least time after the rank's last forward or gradient
  double after_forward = 0;   // least time after its last forward

  // Limits of the forwards that start before the first backward, of the gradients after the last forward, and of live
  // activations, of one stage each.
  std::size_t min_forwards = 1, max_forwards = 0, min_gradients = 1;
  std::size_t max_live = 0;
  std::size_t full = std::numeric_limits<std::size_t>::max();    // forwards that leave no room for one more
  double bytes = std::numeric_limits<double>::infinity();        // most that is kept when the last forward has ended
  double first_bytes = std::numeric_limits<double>::infinity();  // most that is kept when the first backward starts
};

/// The cells that a sum counts, by the ops in them, and their share in the mix.
struct sum_weights {
  double gradients = 0, work = 0, forwards = 0;  // sum: 1
};

/// One sum: of the durations of some cells of the rank, or of a mix of such sums.
///  * gradients: of the cells with an F, B or I. They lie between first_forward and after_gradient before the end (T2).
///  * work: of all cells (T3).
///  * forwards: of the cells with an F. They end after_forward before the end (T4).
/// All cells but k forwards start after the first backward. So a sum starts at first_forward with
/// all cells and, without these k, at first_backward (T1: the rank idles if the k forwards are too short).
/// When the last forward ends, some of the gradients and W's may be left: at most those of the activations that are alive, as
/// many as the memory holds (T5), and no backward that shares its cell with an F.
struct pair_sum {
  double total = 0;       // of all ops alone, less what pairs without an F or without a backward can save
  double tail = 0;        // after all of these cells; negative infinity: not known
  double saved_by_B = 0;  // by a pair of F and B more than by one of F and I
  sum_weights weights;
  std::vector<double> first_forwards;  // [k]: most time of k forwards
  std::vector<double> saved_by_pairs;  // [p]: most time that p pairs of F and backward save
  std::vector<double> left;            // [x]: most time of what is left after the last F if x gradients are left

  constexpr double at(const rank_frame& frame, std::size_t k, std::size_t forwards, std::size_t gradients,
                      std::size_t p) const {
    return std::max(start_of(frame, k) + tail, from_last_forward(frame, k, forwards, gradients, p)) + total -
           saved_by_pairs[p];
  }
  constexpr double start_of(const rank_frame& frame, std::size_t k) const {
    return std::max(frame.first_forward, frame.first_backward - first_forwards[k]);
  }
  // If all forwards start before the first backward, the idle time may follow the last one. If those that do fill the memory,
  // the first backward ends before the next forward starts, and is in no pair with one.
  constexpr double from_last_forward(const rank_frame& frame, std::size_t k, std::size_t forwards,
                                     std::size_t gradients, std::size_t p) const {
    const std::size_t done = std::min(gradients, p + (k == frame.full));
    return (k < forwards ? start_of(frame, k) : frame.first_forward) + frame.after_forward -
           left[std::min(left.size() - 1, gradients - done)];
  }
};

}  // namespace pipesched::detail
