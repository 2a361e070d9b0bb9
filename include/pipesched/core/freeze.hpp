// SPDX-License-Identifier: MIT
#pragma once

// Frozen stages in schedules: those without a backward for their weights.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/transform.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Freezes the weights of these stages: the first ones of the model then need no backward and keep nothing, the others have
/// an I alone, which replaces B and drops W. Frozen stages stay frozen.
/// @throws schedule_error also for a stage that does not exist, or if all stages are frozen: keep_forwards() does that
constexpr schedule freeze(const schedule& s, std::span<const std::int64_t> stages) {
  require_valid(s);
  if (s.forward_only) throw schedule_error("freeze() takes a training step; this one is forward only");
  std::vector<stage_backward> has(s.stages(), stage_backward::full);
  if (!s.backward.empty()) has = s.backward;
  for (const std::int64_t stage : stages) {
    if (stage < 0 || stage >= std::int64_t{s.stages()})
      throw schedule_error(detail::concat({"freeze() takes stages 0 to ", s.stages() - 1, "; got ", stage, ", nearest ",
                                           stage < 0 ? 0 : s.stages() - 1}));
    has[static_cast<std::size_t>(stage)] = std::min(has[static_cast<std::size_t>(stage)], stage_backward::input);
  }
  for (std::size_t stage = 0; has[stage] != stage_backward::full; ++stage) {
    has[stage] = stage_backward::none;
    if (stage + 1 == has.size())
      throw schedule_error(
          "freeze() leaves at least one stage to train; keep_forwards() makes a step without backwards");
  }
  schedule result = detail::map_rows(s, [&](auto row, auto&& put) {
    for (cell c : row)
      detail::filter_cell(
          c,
          [&](op& o) {
            const stage_backward of = has[o.stage];
            if (o.pass == pass::forward || of == stage_backward::full) return true;
            o.pass = detail::for_inputs(o.pass);
            return of == stage_backward::input && o.pass != pass::backward_weight;
          },
          put);
  });
  if (std::any_of(has.begin(), has.end(), [](stage_backward b) { return b != stage_backward::full; }))
    result.backward = std::move(has);
  return result;
}
constexpr schedule freeze(const schedule& s, std::initializer_list<std::int64_t> stages) {
  return freeze(s, std::span(stages.begin(), stages.size()));
}

}  // namespace pipesched
