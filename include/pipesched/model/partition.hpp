// SPDX-License-Identifier: MIT
#pragma once

// Partitions: which layers of a model each stage has.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/model/model.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Layers per stage, in model order. A stage may be empty: it passes on what it gets.
struct partition {
  std::vector<std::uint32_t> layers;

  std::size_t stages() const noexcept { return layers.size(); }

  friend bool operator==(const partition&, const partition&) = default;
};

/// "4 4 5".
inline std::string to_string(const partition& p) {
  std::string text;
  for (const std::uint32_t n : p.layers) text += detail::concat({text.empty() ? "" : " ", n});
  return text;
}

/// The first layer of every stage; last, the number of all layers.
inline std::vector<std::size_t> first_layers(const partition& p) {
  std::vector<std::size_t> first{0};
  for (const std::uint32_t n : p.layers) first.push_back(first.back() + n);
  return first;
}

/// As many layers for every stage; the first stages get one more where that does not go up. Layers of the kind "embedding"
/// at the front are on the first stage and those of the kinds "mtp" and "head" at the end on the last; they do not count.
/// @throws schedule_error unless there is at least 1 stage
inline partition uniform_partition(const model& m, std::size_t stages) {
  if (stages == 0) throw schedule_error("uniform_partition() needs at least 1 stage; got 0, nearest 1");
  std::size_t begin = 0, end = m.layers.size();
  std::uint32_t front = 0, back = 0;
  while (begin < end && m.layers[begin].kind == "embedding") front += m.layers[begin++].count;
  while (end > begin && (m.layers[end - 1].kind == "head" || m.layers[end - 1].kind == "mtp"))
    back += m.layers[--end].count;
  const std::size_t counted = layer_count(m) - front - back;
  partition p;
  for (std::size_t s = 0; s < stages; ++s)
    p.layers.push_back(static_cast<std::uint32_t>(counted / stages + (s < counted % stages ? 1 : 0)));
  p.layers.front() += front, p.layers.back() += back;
  return p;
}

/// @throws schedule_error unless the partition has that many stages and all layers of the model
inline void require_partition(const partition& p, const model& m, std::size_t stages) {
  if (p.stages() != stages)
    throw schedule_error(
        detail::concat({"a partition of ", detail::count_text(p.stages(), "stage"), "; expected ", stages}));
  const std::size_t all = layer_count(m), got = first_layers(p).back();
  if (got != all)
    throw schedule_error(
        detail::concat({"a partition of ", detail::count_text(got, "layer"), "; the model has ", all}));
}

}  // namespace pipesched
