// SPDX-License-Identifier: MIT
#pragma once

// Recomputation in schedules: which activations F does not keep, and where they are made again.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/transform.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The activations to recompute: of all stages and micro-batches by default.
struct recompute_choice {
  std::vector<std::int64_t> stages{};  ///< default: all
  /// Of every `of_every` micro-batches of a replica the last `count`: {.count = 2, .of_every = 4} keeps 0, 1, 4, 5, ... whole.
  std::int64_t count = 1, of_every = 1;
  std::int64_t first_whole =
      0;  ///< the first micro-batches of each replica, which are kept whole whatever `count` says
  /// No R: the backward itself recomputes, as an RB or RI, and lasts that much longer.
  bool inside_backward = false;
};

namespace detail {

constexpr void require_choice(const schedule& s, const recompute_choice& which) {
  if (which.of_every < 1)
    throw schedule_error(concat({"recompute() takes of_every of 1 or more; got ", which.of_every, ", nearest 1"}));
  if (which.count < 0 || which.count > which.of_every)
    throw schedule_error(concat({"recompute() takes a count of 0 to ", which.of_every, ", of_every; got ", which.count,
                                 ", nearest ", which.count < 0 ? 0 : which.of_every}));
  if (which.first_whole < 0)
    throw schedule_error(
        concat({"recompute() takes first_whole of 0 or more; got ", which.first_whole, ", nearest 0"}));
  for (const std::int64_t stage : which.stages)
    if (stage < 0 || stage >= std::int64_t{s.stages()})
      throw schedule_error(concat({"recompute() takes stages 0 to ", s.stages() - 1, "; got ", stage, ", nearest ",
                                   stage < 0 ? 0 : s.stages() - 1}));
}

}  // namespace detail

/// Recomputes the chosen activations: an R of its own, right before the cell of their B or I, or inside of that backward.
/// Stages without a backward, and activations that are recomputed already, stay as they are. Linear in the number of ops.
/// @throws schedule_error if the schedule is not valid, if a stage does not exist, or unless 0 <= count <= of_every,
/// of_every >= 1 and first_whole >= 0
constexpr schedule recompute(const schedule& s, const recompute_choice& which = {}) {
  require_valid(s);
  detail::require_choice(s, which);
  std::vector<std::uint8_t> stage_is_chosen(s.stages(), which.stages.empty() ? 1 : 0);
  for (const std::int64_t stage : which.stages) stage_is_chosen[static_cast<std::size_t>(stage)] = 1;
  const detail::recomputed_ops already(s);
  const std::uint32_t second = s.placement.replica_begin(1);
  const auto is_chosen = [&](op o) {
    if (!yields_input_gradient(o.pass) || stage_is_chosen[o.stage] == 0 || already(o)) return false;
    const std::int64_t micro = o.micro < second ? o.micro : o.micro - second;
    return micro >= which.first_whole && micro % which.of_every >= which.of_every - which.count;
  };
  return detail::map_rows(s, [&](auto row, auto&& put) {
    for (cell c : row) {
      for (op& o : c)
        if (is_chosen(o)) {
          if (which.inside_backward)
            o.pass = with_recompute(o.pass);
          else
            put(detail::with_pass(o, pass::recompute));
        }
      put(c);
    }
  });
}

/// Recomputes nothing: drops every R and makes B of RB and I of RI. The inverse of recompute(). Linear in the number of ops.
/// @throws schedule_error if the schedule is not valid
constexpr schedule keep_activations(const schedule& s) {
  require_valid(s);
  return detail::map_rows(s, [](auto row, auto&& put) {
    for (cell c : row)
      detail::filter_cell(
          c,
          [](op& o) {
            o.pass = without_recompute(o.pass);
            return o.pass != pass::recompute;
          },
          put);
  });
}

}  // namespace pipesched
