// SPDX-License-Identifier: MIT
#pragma once

// The GPT as a list of layers: which of them a stage has, and the costs of each kind, alone.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <pipesched/model/model.hpp>
#include <pipesched/model/partition.hpp>
#include <pipesched/support/error.hpp>
#include <span>
#include <vector>

#include "gpt.hpp"

namespace train {

/// The embedding, the blocks and the head, in model order, with no costs of their own.
inline pipesched::model layers_of(const model_sizes& s) {
  return {.layers = {{.kind = "embedding"},
                     {.kind = "block", .count = static_cast<std::uint32_t>(s.layers)},
                     {.kind = "head"}}};
}

/// @throws schedule_error unless the partition has all layers, the first stage the embedding and the last one the head
inline void require_layers(const pipesched::partition& p, const model_sizes& s, std::size_t stages) {
  pipesched::require_partition(p, layers_of(s), stages);
  for (const bool first : {true, false})
    if ((first ? p.layers.front() : p.layers.back()) == 0)
      throw pipesched::schedule_error(first ? "the first stage has the embedding; got 0 layers for it, nearest 1"
                                            : "the last stage has the head; got 0 layers for it, nearest 1");
}

/// The place of a stage under a partition that require_layers() accepts.
inline stage_place place_of(const pipesched::partition& p, std::size_t stage) {
  const std::vector<std::size_t> layers = pipesched::first_layers(p);
  const bool first = stage == 0, last = stage + 1 == p.stages();
  return {.begin = first ? 0 : layers[stage] - 1,  // layer 0 is the embedding
          .end = layers[stage + 1] - (last ? 2 : 1),
          .first = first,
          .last = last};
}

/// Times of one op in every slot: the shortest of several rounds each.
class slot_times {
 public:
  explicit slot_times(std::size_t slots) : shortest_(slots, std::numeric_limits<double>::infinity()) {}
  void add(std::size_t slot, double time) { shortest_[slot] = std::min(shortest_[slot], time); }
  double median() {
    std::sort(shortest_.begin(), shortest_.end());
    return shortest_[shortest_.size() / 2];
  }

 private:
  std::vector<double> shortest_;
};

/// Costs of every kind of layer, each run alone on this thread. As in a pipeline, all forwards of a round come first and every
/// micro-batch has memory of its own. Of an op's times in a slot the shortest counts, which no other process has delayed, and
/// of those the median.
/// @param now  a clock: now() is a time in any unit
template <typename Real, typename Clock>
pipesched::model costs_alone(const model_sizes& s, std::uint64_t seed, std::size_t rounds, Clock&& now) {
  constexpr std::size_t slots = 8;
  pipesched::model m = layers_of(s);
  for (pipesched::layer& l : m.layers) {
    const bool first = l.kind == "embedding", last = l.kind == "head";
    const std::size_t blocks = first || last ? 0 : 1;
    stage<Real> alone(s, {.begin = 0, .end = blocks, .first = first, .last = last}, seed);
    std::vector<typename stage<Real>::activation> kept(slots, {s, blocks});
    std::vector<typename stage<Real>::context> due(slots, {s, blocks});
    std::vector<std::vector<Real>> x(slots, matrix<Real>(s, s.width));
    slot_times forward(slots), input(slots), weight(slots);
    const auto time = [&](slot_times& of, std::size_t slot, auto&& work) {
      const double start = now();
      work();
      of.add(slot, now() - start);
    };
    for (std::size_t round = 0; round < rounds; ++round) {
      for (std::size_t slot = 0; slot < slots; ++slot) {
        for (std::size_t i = 0; i < x[slot].size(); ++i)
          x[slot][i] = static_cast<Real>(static_cast<double>(i % 7) / 3 - 1);
        for (std::size_t i = 0; i < kept[slot].tokens.size(); ++i)
          kept[slot].tokens[i] = static_cast<std::uint8_t>(i % s.vocabulary);
        time(forward, slot, [&] { alone.forward(kept[slot], x[slot]); });
      }
      for (std::size_t slot = 0; slot < slots; ++slot) {
        time(input, slot, [&] { alone.backward_input(kept[slot], due[slot], x[slot]); });
        time(weight, slot, [&] { alone.backward_weight(kept[slot], due[slot]); });
      }
    }
    l.forward = forward.median(), l.backward_input = input.median(), l.backward_weight = weight.median();
  }
  return m;
}

}  // namespace train
