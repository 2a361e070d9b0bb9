// SPDX-License-Identifier: MIT
#pragma once

// The user's model and machine: layers with their times and bytes, what pairs of layers take overlapped, ranks, links, and
// lengths of micro-batches. A plain value; costs_of() turns it and a partition into the costs of stages.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/cost/time_unit.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/nearest_name.hpp"

namespace pipesched {

/// Bytes that a layer needs on top while one of its ops runs.
struct transient_bytes {
  double forward = 0, backward = 0;
  std::optional<double> backward_input{}, backward_weight{};  ///< default: those of the backward
  std::optional<double> recompute{};                          ///< default: those of the forward

  friend constexpr bool operator==(const transient_bytes&, const transient_bytes&) = default;
};

/// `count` consecutive layers that are alike. Times are of one micro-batch of length 1 on a rank of speed 1.
struct layer {
  std::string kind = "layer";  ///< for pairs, layouts and fits; "embedding", "mtp" and "head" are special in layouts
  std::uint32_t count = 1;

  double forward = 1;
  std::optional<double> backward_input{};   ///< default: backward - backward_weight, or half of backward, or 1
  std::optional<double> backward_weight{};  ///< default: backward - backward_input, or half of backward, or 1
  std::optional<double> backward{};         ///< default: backward_input + backward_weight
  std::optional<double> recompute{};        ///< default: forward

  double kept = 0;                  ///< bytes from the start of F to the end of B or W
  double kept_input = 0;            ///< the part of `kept` that recomputation starts from
  std::optional<double> context{};  ///< bytes between the end of I and the end of W; default: kept
  transient_bytes transient{};
  double weights = 0;  ///< bytes of parameters, gradients and optimizer state
  double message = 0;  ///< bytes of the activation that the layer makes, and of its gradient

  /// Times of the backward and its halves.
  constexpr detail::backward_times backward_times() const noexcept {
    return detail::resolve_backward(backward_input ? &*backward_input : nullptr,
                                    backward_weight ? &*backward_weight : nullptr, backward ? &*backward : nullptr);
  }

  friend bool operator==(const layer&, const layer&) = default;
};

/// The time of a layer of one kind and a layer of another, overlapped.
struct layer_pair {
  std::array<std::string, 2> kinds;  ///< of the layers that run `passes.first` and `passes.second`
  pass_pair passes{};
  double time = 0;

  friend bool operator==(const layer_pair&, const layer_pair&) = default;
};

struct model_rank {
  double speed = 1;                ///< times are divided by it
  std::optional<double> memory{};  ///< bytes; default: no limit

  friend constexpr bool operator==(const model_rank&, const model_rank&) = default;
};

/// A directed link between two ranks; one without ranks is for all pairs that have no link of their own.
struct model_link {
  std::optional<std::uint32_t> from{}, to{};  ///< both or none
  double latency = 0;
  std::optional<double> bandwidth{};  ///< default: infinite
  link_busy busy = link_busy::none;

  friend constexpr bool operator==(const model_link&, const model_link&) = default;
};

struct model {
  pipesched::time_unit time_unit =
      pipesched::time_unit::none;  ///< bandwidths: bytes a second, or a unit of time for none
  std::vector<layer> layers;
  std::vector<layer_pair> pairs{};
  std::optional<pass_pair_set> allowed_pairs{};  ///< default: F with B, F with I, and whatever `pairs` prices
  std::vector<model_rank> ranks{};               ///< one for all, or one per rank; default: speed 1, no limit of memory
  std::vector<model_link> links{};
  std::vector<double> micro_batches{};  ///< relative lengths, one per micro-batch; default: 1 each

  friend bool operator==(const model&, const model&) = default;
};

/// Number of layers. Linear in the entries.
inline std::size_t layer_count(const model& m) {
  return std::accumulate(m.layers.begin(), m.layers.end(), std::size_t{0},
                         [](std::size_t n, const layer& l) { return n + l.count; });
}

/// The entry of a rank: its own, the one for all, or the default. @pre m.ranks has at most one entry, or one for that rank
inline model_rank rank_at(const model& m, std::size_t rank) {
  return m.ranks.empty() ? model_rank{} : m.ranks[m.ranks.size() == 1 ? 0 : rank];
}

/// The memory of every rank, infinite for one without a limit; empty if no rank has one. @pre as for rank_at()
inline std::vector<double> memory_limits(const model& m, std::size_t ranks) {
  std::vector<double> limits;
  bool any = false;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const std::optional<double> memory = rank_at(m, rank).memory;
    limits.push_back(memory.value_or(std::numeric_limits<double>::infinity()));
    any = any || memory;
  }
  return any ? limits : std::vector<double>();
}

/// One entry per layer, with a count of 1.
inline std::vector<layer> expanded(const std::vector<layer>& layers) {
  std::vector<layer> all;
  for (const layer& l : layers) {
    all.insert(all.end(), l.count, l);
    for (std::size_t i = all.size() - l.count; i < all.size(); ++i) all[i].count = 1;
  }
  return all;
}

/// The most layers that a model may have.
inline constexpr std::size_t max_layers = 1u << 20;

/// A model that check() refuses. `path` is the entry at fault, as in JSON: "links[2].bandwidth".
struct model_error : schedule_error {
  model_error(std::string entry, const std::string& sentence)
      : schedule_error("model: " + sentence), path(std::move(entry)) {}

  std::string path;
};

namespace detail {

[[noreturn]] inline void refuse_entry_of_model(const std::string& entry, const std::string& what) {
  throw model_error(entry, entry + " " + what);
}

inline void require_number(double value, const std::string& place) {
  if (value >= 0 && value <= std::numeric_limits<double>::max()) return;
  refuse_entry_of_model(place, concat({"is ",
                                       value < 0   ? "negative"
                                       : value > 0 ? "infinite"
                                                   : "not a number",
                                       "; expected a finite number that is not negative, nearest 0"}));
}
inline void require_number(const std::optional<double>& value, const std::string& place) {
  if (value) require_number(*value, place);
}
inline void require_positive(double value, const std::string& place) {
  require_number(value, place);
  if (value == 0) refuse_entry_of_model(place, "is 0; expected more than 0");
}

inline void require_layer(const layer& l, const std::string& at) {
  if (l.kind.empty()) refuse_entry_of_model(at + ".kind", "is empty; expected a name, such as \"moe\"");
  if (std::any_of(l.kind.begin(), l.kind.end(), [](unsigned char c) { return c < ' ' || c == 0x7F; }))
    refuse_entry_of_model(at + ".kind", "has a control character; expected a name of one line, such as \"moe\"");
  if (l.count == 0) refuse_entry_of_model(at + ".count", "is 0; expected 1 or more, nearest 1");
  require_number(l.forward, at + ".forward");
  require_number(l.backward_input, at + ".backward_input");
  require_number(l.backward_weight, at + ".backward_weight");
  require_number(l.backward, at + ".backward");
  require_number(l.recompute, at + ".recompute");
  require_number(l.kept, at + ".kept");
  require_number(l.kept_input, at + ".kept_input");
  require_number(l.context, at + ".context");
  require_number(l.transient.forward, at + ".transient.F");
  require_number(l.transient.backward, at + ".transient.B");
  require_number(l.transient.backward_input, at + ".transient.I");
  require_number(l.transient.backward_weight, at + ".transient.W");
  require_number(l.transient.recompute, at + ".transient.R");
  require_number(l.weights, at + ".weights");
  require_number(l.message, at + ".message");
  if (const backward_times t = l.backward_times(); t.input < 0 || t.weight < 0)
    refuse_entry_of_model(at + ".backward", concat({"is ", t.whole, ", less than its ",
                                                    t.input < 0 ? "backward_weight" : "backward_input", "; nearest ",
                                                    t.input < 0 ? t.weight : t.input}));
  if (l.kept_input > l.kept)
    refuse_entry_of_model(at + ".kept_input",
                          concat({"is ", l.kept_input, ", more than kept, of which it is a part; nearest ", l.kept}));
}

// Sums over all layers, which no stage exceeds. The first entry that makes one infinite is at fault.
inline void require_finite_sums(const std::vector<layer>& layers) {
  std::array<double, 6> sums{};
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const layer& l = layers[i];
    const backward_times t = l.backward_times();
    const std::pair<double, std::string_view> entries[] = {
        {l.forward, "forward"},
        {t.whole, l.backward         ? "backward"
                  : l.backward_input ? "backward_input"
                                     : "backward_weight"},
        {l.recompute.value_or(l.forward), l.recompute ? "recompute" : "forward"},
        {l.kept, "kept"},
        {l.context.value_or(l.kept), "context"},
        {l.weights, "weights"}};
    for (std::size_t k = 0; k < std::size(entries); ++k) {
      sums[k] += l.count * entries[k].first;
      if (!(sums[k] <= std::numeric_limits<double>::max()))
        refuse_entry_of_model(concat({"layers[", i, "].", entries[k].second}),
                              concat({"makes the sum over all layers more than a double holds, ",
                                      std::numeric_limits<double>::max(), "; expected numbers in a larger unit"}));
    }
  }
}

// The two layers that an entry prices, the same for entries of the same two.
using layers_of_pair = std::pair<std::pair<pass, std::string_view>, std::pair<pass, std::string_view>>;
inline layers_of_pair layers_of(const layer_pair& p) {
  const std::pair a(p.passes.first, std::string_view(p.kinds[0])), b(p.passes.second, std::string_view(p.kinds[1]));
  return a < b ? layers_of_pair(a, b) : layers_of_pair(b, a);
}

inline std::string did_you_mean(std::string_view kind, const std::set<std::string_view>& known) {
  const std::string_view near = nearest_name(kind, known);
  return near.empty() ? std::string() : concat({"; did you mean \"", near, "\"?"});
}

inline void require_pairs_of(const model& m) {
  std::set<std::string_view> known;
  for (const layer& l : m.layers) known.insert(l.kind);
  std::map<layers_of_pair, std::size_t> seen;
  for (std::size_t i = 0; i < m.pairs.size(); ++i) {
    const layer_pair& p = m.pairs[i];
    const std::string at = concat({"pairs[", i, "]"});
    if (p.passes.first == pass::none || p.passes.second == pass::none)
      refuse_entry_of_model(at, concat({"has no two passes; expected ", pass_pair_expected}));
    require_number(p.time, at + ".time");
    for (const std::string& kind : p.kinds)
      if (!known.contains(kind))
        refuse_entry_of_model(at,
                              concat({"names the kind \"", kind, "\", which no layer has", did_you_mean(kind, known)}));
    if (const auto [first, is_new] = seen.emplace(layers_of(p), i); !is_new)
      refuse_entry_of_model(at, concat({"prices what pairs[", first->second, "] prices; expected one price"}));
  }
}

inline void require_links_of(const model& m) {
  std::map<std::pair<std::optional<std::uint32_t>, std::optional<std::uint32_t>>, std::size_t> seen;
  for (std::size_t i = 0; i < m.links.size(); ++i) {
    const model_link& l = m.links[i];
    const std::string at = concat({"links[", i, "]"});
    if (l.from.has_value() != l.to.has_value())
      refuse_entry_of_model(at, concat({"has \"", l.from ? "from" : "to", "\" alone; expected both or none"}));
    if (l.from && *l.from == *l.to)
      refuse_entry_of_model(at, concat({"is from rank ", *l.from, " to itself; expected two ranks"}));
    require_number(l.latency, at + ".latency");
    if (l.bandwidth) require_positive(*l.bandwidth, at + ".bandwidth");
    if (const auto [first, is_new] = seen.emplace(std::pair(l.from, l.to), i); !is_new)
      refuse_entry_of_model(at,
                            concat({"is for the ranks of links[", first->second, "]; expected one link for a pair"}));
  }
}

// The longest message over each link lasts a finite time.
inline void require_finite_messages(const model& m) {
  double bytes = 0, length = 1;
  for (const layer& l : m.layers) bytes = std::max(bytes, l.message);
  for (const double given : m.micro_batches) length = std::max(length, given);
  for (std::size_t i = 0; i < m.links.size(); ++i) {
    if (!m.links[i].bandwidth) continue;
    const double per_time = *m.links[i].bandwidth / units_per_second(m.time_unit);
    if (!(m.links[i].latency + bytes * length / per_time <= std::numeric_limits<double>::max()))
      refuse_entry_of_model(
          concat({"links[", i, "].bandwidth"}),
          concat({"is ", *m.links[i].bandwidth, ", over which a message of ", bytes * length,
                  " bytes lasts longer than a double holds; expected more, or times in a larger unit"}));
  }
}

}  // namespace detail

/// @throws model_error unless there are as many lengths as micro-batches, or none
inline void require_lengths(const model& m, std::uint32_t micro) {
  if (m.micro_batches.empty() || m.micro_batches.size() == micro) return;
  detail::refuse_entry_of_model(
      "micro_batches", detail::concat({"has ", detail::count_text(m.micro_batches.size(), "number"), "; expected ",
                                       micro, ", one per micro-batch"}));
}

/// @throws model_error, with the place, if there are no layers or more than 2^20, a number is negative, infinite or NaN,
/// or makes the sum over all layers so, a kind is empty or has a control character, a speed, bandwidth or length is 0, a
/// message lasts longer than a double holds, a backward is shorter than its one given half, kept_input is more than kept, a
/// pair names a kind that no layer has or is priced twice, a link is for the ranks of another one. Linear, but for a logarithm
/// of the pairs and links.
inline void check(const model& m) {
  using detail::concat;
  if (m.layers.empty()) throw model_error("layers", "there are no layers; expected at least 1");
  std::size_t layers = 0;
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    detail::require_layer(m.layers[i], concat({"layers[", i, "]"}));
    layers += m.layers[i].count;
    if (layers > max_layers)
      detail::refuse_entry_of_model(concat({"layers[", i, "].count"}),
                                    concat({"makes more than ", max_layers, " layers; expected at most as many"}));
  }
  detail::require_finite_sums(m.layers);
  detail::require_pairs_of(m);
  for (std::size_t i = 0; i < m.ranks.size(); ++i) {
    detail::require_positive(m.ranks[i].speed, concat({"ranks[", i, "].speed"}));
    detail::require_number(m.ranks[i].memory, concat({"ranks[", i, "].memory"}));
  }
  detail::require_links_of(m);
  for (std::size_t i = 0; i < m.micro_batches.size(); ++i)
    detail::require_positive(m.micro_batches[i], concat({"micro_batches[", i, "]"}));
  detail::require_finite_messages(m);
}

}  // namespace pipesched
