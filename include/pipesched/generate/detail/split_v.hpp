// SPDX-License-Identifier: MIT
#pragma once

// The rows of a V placement from a building block whose backward is split.

#include "pipesched/core/placement.hpp"
#include "pipesched/generate/detail/building_block.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched::detail {

// The block repeats F's and I's; W's fill the slots that it leaves idle.
constexpr rows<cell> split_v_rows(const placement& where, const family_params& p, const building_block& block) {
  slot_table table(where, block, p.micro);
  table.fill_weights();
  table.reorder_outside_steady();
  table.squeeze();
  table.fill_weights();
  table.reorder_after_steady();
  table.squeeze();
  table.fill_weights();
  return table.cells(p.forward_only);
}

}  // namespace pipesched::detail
