// SPDX-License-Identifier: MIT
#pragma once

// A schedule on the V placement from a building block whose backward is split.

#include <utility>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/building_block.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"

namespace pipesched::detail {

// The block repeats F's and I's; W's fill the slots that it leaves idle.
constexpr schedule make_split_v(const family_limits& limits, const pipeline_params& p, const building_block& block) {
  placement where = placement::vee(p.pp);
  slot_table table(where, block, p.micro);
  table.fill_weights();
  table.reorder_outside_steady();
  table.squeeze();
  table.fill_weights();
  table.reorder_after_steady();
  table.squeeze();
  table.fill_weights();
  return assemble(limits, p, std::move(where), table.cells(p.forward_only));
}

}  // namespace pipesched::detail
