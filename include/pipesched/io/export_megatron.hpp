// SPDX-License-Identifier: MIT
#pragma once

// Flags for Megatron-LM, which makes the order itself: a schedule can be exported if it is the order that Megatron-LM makes with
// some flags. The layers of the stages become its layout.
//
// Source: megatron/core/pipeline_parallel/schedules.py, megatron/core/model_parallel_config.py and megatron/training/arguments.py,
// commit d98e8a6, August 2026:
//   * One stage per rank: rank r runs pp-r-1 forwards, then F and B in turn (get_pp_rank_microbatches). One rank: F and B in turn.
//   * Several: 2(pp-r-1) + (chunks-1) group forwards first, one more where F and B overlap
//     (overlap_moe_expert_parallel_comm). Forwards take the chunks in groups of micro-batches, the last group may be smaller, and
//     backwards take the chunks from the last one (get_schedule_table).
//   * A group has pp micro-batches unless microbatch-group-size-per-virtual-pipeline-stage says otherwise: pp to all of
//     them. The last one has at least pp or is whole (forward_backward_pipelining_with_interleaving).
//   * Several stages per rank need several ranks, and num-virtual-stages-per-pipeline-rank excludes a layout (arguments.py).
//   * num-layers and mtp-num-layers are those of the layout (PipelineParallelLayerLayout.validate_layer_layout).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/io/detail/export_rules.hpp"
#include "pipesched/io/exported.hpp"
#include "pipesched/model/layout.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The flags of Megatron-LM that decide on the order.
struct megatron_order {
  std::uint32_t pp = 1, micro = 1, chunks = 1;
  std::uint32_t group = 1;  ///< micro-batches per group, with several chunks
  bool overlap = false;     ///< F with B in the steady state

  friend constexpr bool operator==(const megatron_order&, const megatron_order&) = default;
};

namespace detail {

// The k-th op of all forwards or all backwards of a rank.
inline op megatron_op(const megatron_order& m, std::uint32_t rank, std::uint32_t k, bool backward) {
  const std::uint32_t whole = m.group * m.chunks, first = k / whole * m.group;
  const std::uint32_t size = std::min(m.group, m.micro - first), in_group = k - first * m.chunks;
  const std::uint32_t chunk = backward ? m.chunks - 1 - in_group / size : in_group / size;
  return {.pass = backward ? pass::backward : pass::forward,
          .chunk = static_cast<std::uint8_t>(chunk),
          .stage = static_cast<std::uint16_t>(chunk * m.pp + rank),
          .micro = first + in_group % size};
}

// The row of a rank. @pre 1 <= group <= micro
inline std::vector<cell> megatron_row(const megatron_order& m, std::uint32_t rank) {
  const std::uint32_t all = m.micro * m.chunks, hops = m.pp - 1 - rank;
  const std::uint32_t ahead = m.chunks == 1 ? hops : 2 * hops + (m.chunks - 1) * m.group + (m.overlap ? 1 : 0);
  const std::uint32_t warm_up = std::min(ahead, all);
  std::vector<cell> row;
  for (std::uint32_t k = 0; k < all + warm_up; ++k) {
    const bool has_forward = k < all, has_backward = k >= warm_up;
    const cell F = has_forward ? cell(megatron_op(m, rank, k, false)) : cell();
    const cell B = has_backward ? cell(megatron_op(m, rank, k - warm_up, true)) : cell();
    if (has_forward && has_backward && m.overlap) {
      row.emplace_back(F[0], B[0]);
      continue;
    }
    if (has_forward) row.push_back(F);
    if (has_backward) row.push_back(B);
  }
  return row;
}

// The flags that the schedule may come from: the first forwards of rank 0 are a group.
inline megatron_order megatron_candidate(const schedule& s) {
  megatron_order m{
      .pp = s.pp(), .micro = s.micro, .chunks = s.stages() / s.pp(), .group = s.micro, .overlap = overlaps_cells(s)};
  if (m.chunks == 1) return m;
  const auto first = s[0];
  const auto other = std::find_if(first.begin(), first.end(),
                                  [](const cell& c) { return c[0].pass != pass::forward || c[0].stage != 0; });
  m.group = std::clamp(static_cast<std::uint32_t>(other - first.begin()), 1u, s.micro);
  return m;
}

inline void require_megatron_group(const megatron_order& m) {
  if (m.chunks == 1) return;
  if (m.pp < 2)
    throw schedule_error(concat({"Megatron-LM has several stages per rank from 2 ranks on; got ",
                                 count_text(m.chunks, "stage"), " on 1 rank"}));
  if (m.micro < m.pp)
    throw schedule_error(concat({"Megatron-LM needs at least pp micro-batches with several stages per rank; got ",
                                 m.micro, " for pp = ", m.pp, ", nearest ", m.pp}));
  if (m.group < m.pp)
    throw schedule_error(concat({"Megatron-LM has groups of pp to all micro-batches; got groups of ", m.group, " of ",
                                 m.micro, " for pp = ", m.pp, ", nearest ", m.pp}));
  if (const std::uint32_t rest = m.micro % m.group; rest > 0 && rest < m.pp)
    throw schedule_error(concat({"Megatron-LM needs a last group of at least pp micro-batches, or a whole one; got ",
                                 rest, " of ", m.micro, " after groups of ", m.group, " for pp = ", m.pp, ", nearest ",
                                 m.micro - rest, " or ", count_text(m.micro - rest + m.pp, "micro-batch")}));
}

}  // namespace detail

/// The flags with which Megatron-LM makes this order.
/// @throws schedule_error, with the first cell that differs, if no flags do. Linear.
/// @pre verify(s) is true
inline megatron_order megatron_order_of(const schedule& s) {
  using detail::concat;
  detail::require_training(s, "Megatron-LM");
  const placement_kind kind = detail::simplest_kind(s.placement).kind();
  if (kind != placement_kind::linear && kind != placement_kind::looped)
    throw schedule_error(
        concat({"Megatron-LM places stages in a loop; got ", detail::describe_placement(s.placement)}));
  const megatron_order m = detail::megatron_candidate(s);
  if (m.overlap && m.chunks == 1)
    throw schedule_error("Megatron-LM overlaps F and B with 2 or more stages per rank; got 1");
  detail::require_megatron_group(m);
  for (std::uint32_t rank = 0; rank < m.pp; ++rank) {
    const std::vector<cell> row = detail::megatron_row(m, rank);
    const auto own = s[rank];
    const auto [a, b] = std::mismatch(own.begin(), own.end(), row.begin(), row.end());
    if (a == own.end() && b == row.end()) continue;
    throw schedule_error(concat({"Megatron-LM runs 1F1B, interleaved or not; rank ", rank, ", cell ", a - own.begin(),
                                 " of ", s.name.view(), a == own.end() ? " is missing" : " is " + to_string(*a),
                                 ", expected ", b == row.end() ? "no more" : to_string(*b)}));
  }
  return m;
}

namespace detail {

inline std::uint32_t count_of_letter(const model& m, char letter) {
  std::uint32_t count = 0;
  for (const layer& l : m.layers) count += layout_letter(l.kind) == letter ? l.count : 0;
  return count;
}

inline std::string megatron_layer_flags(const megatron_order& m, const divided_model& of, const schedule& s) {
  const placement where = placement::looped(m.pp, m.chunks);
  const std::uint32_t mtp = count_of_letter(of.model, 'm');
  if (m.overlap && mtp > 1)
    throw schedule_error(
        concat({"Megatron-LM overlaps F and B with at most 1 layer of multi-token prediction; got ", mtp}));
  require_partition(of.partition, of.model, s.stages());
  std::string text = concat({"  --num-layers ", count_of_letter(of.model, 't'), "\n"});
  if (mtp > 0) text += concat({"  --mtp-num-layers ", mtp, "\n"});
  return text + concat({"  --pipeline-model-parallel-layout \"", to_layout(of.partition, of.model, where), "\"\n"});
}

}  // namespace detail

/// megatron.sh, with the flags in an array of the shell. Without a model Megatron-LM divides the layers itself.
/// @throws schedule_error for an order that Megatron-LM does not make, and a partition that it refuses. Linear.
/// @pre verify(s) is true
inline exported export_megatron(const schedule& s, const std::optional<divided_model>& of = {}) {
  using detail::concat;
  const megatron_order m = megatron_order_of(s);
  std::string text = concat({"# ", detail::headline_of(s), ", for Megatron-LM.\n", "#   . megatron.sh\n",
                             "#   ... pretrain_gpt.py \"${PIPELINE_ARGS[@]}\" --global-batch-size $((", m.micro,
                             " * MICRO_BATCH_SIZE * DATA_PARALLEL_SIZE))\n", "PIPELINE_ARGS=(\n",
                             "  --pipeline-model-parallel-size ", m.pp, "\n"});
  if (m.chunks > 1 && !of) text += concat({"  --num-virtual-stages-per-pipeline-rank ", m.chunks, "\n"});
  if (m.chunks > 1) text += concat({"  --microbatch-group-size-per-virtual-pipeline-stage ", m.group, "\n"});
  if (m.overlap) text += "  --overlap-moe-expert-parallel-comm\n";
  if (of) text += detail::megatron_layer_flags(m, *of, s);
  exported result{.files = {{"megatron.sh", text + ")\n"}}};
  if (m.overlap)
    result.notes.emplace_back(
        "overlap in Megatron-LM needs expert parallelism, bf16 or fp16, and neither full recomputation nor overlapped "
        "shared experts");
  return result;
}

}  // namespace pipesched
