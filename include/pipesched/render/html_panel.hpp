// SPDX-License-Identifier: MIT
#pragma once

// A timeline with all that a page says of it.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/render/write.hpp"
#include "pipesched/simulate/explain.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// One timeline of a page, its explanation and its title.
struct html_panel {
  pipesched::timeline timeline;
  pipesched::explanation explanation;
  std::string title{};
  /// By stage, of a micro-batch of length 1: cost_model's bytes() of F, B, I, W and R, then its transient(). Empty: the page
  /// counts activations instead.
  std::vector<std::array<double, 10>> bytes{};
  std::vector<double> lengths{};  ///< of micro-batches, by which bytes are multiplied; empty: 1 each
  std::vector<double> limits{};   ///< bytes that a rank has for them; empty: no limits
  metrics measured{};             ///< the numbers beside its bar
  double lower_bound = 0;         ///< of any order of such cells; 0: unknown, no tick
  std::string name{};             ///< beside its bar; empty: the schedule's
  bool planned = false;           ///< by plan(): in a colour of its own
};

namespace detail {

// Fills bytes and lengths, if the costs know any bytes.
template <typename Costs>
void add_bytes(html_panel& p, const Costs& costs) {
  const auto length_of = [&](std::uint32_t micro) -> double {
    if constexpr (requires { costs.length_of(micro); })
      return costs.length_of(micro);
    else
      return 1;
  };
  const schedule& s = p.timeline.schedule;
  bool any = false;
  for (std::uint32_t stage = 0; stage < s.stages(); ++stage) {
    std::array<double, 10> of{};
    for (std::size_t i = 0; i < 5; ++i) {
      const op o{static_cast<pass>(i + 1), 0, static_cast<std::uint16_t>(stage), 0};
      of[i] = bytes_of(costs, o, o.pass) / length_of(0);
      of[i + 5] = transient_of(costs, o) / length_of(0);
    }
    any = any || std::any_of(of.begin(), of.end(), [](double bytes) { return bytes != 0; });
    p.bytes.push_back(of);
  }
  if (!any) p.bytes.clear();
  for (std::uint32_t m = 0; any && !micro_batches_alike(costs) && m < s.micro; ++m) p.lengths.push_back(length_of(m));
}

}  // namespace detail

/// The panel of a simulated timeline. @pre t was simulated with these costs
template <cost_model Costs>
html_panel make_panel(timeline t, const Costs& costs) {
  html_panel p{.timeline = std::move(t), .explanation = {}};
  detail::require_timeline(p.timeline);
  p.explanation = explain(p.timeline, costs, verified);
  p.measured = measure(p.timeline, costs, verified);
  p.title = detail::facts_of(p.timeline, p.measured);
  if constexpr (requires(op o) { costs.bytes(o); }) detail::add_bytes(p, costs);
  return p;
}

/// The panel of a measured timeline.
inline html_panel make_panel(timeline t) {
  html_panel p{.timeline = std::move(t), .explanation = {}};
  p.explanation = explain(p.timeline);
  p.measured = measure(p.timeline, uniform_costs{}, verified);
  p.title = detail::facts_of(p.timeline, p.measured);
  return p;
}

}  // namespace pipesched
