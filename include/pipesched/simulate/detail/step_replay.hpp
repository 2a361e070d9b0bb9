// SPDX-License-Identifier: MIT
#pragma once

// The makespan of one schedule under one cost model after another, as a search for costs needs it.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/simulate/simulate.hpp"

namespace pipesched::detail {

/// Gives the makespan that simulate() gives, to the bit. The order in which cells can run is found once. Costs are asked once for
/// all cells of the same ops on the same rank, where they do not depend on the micro-batch.
class step_replay {
 public:
  /// @param alike  costs do not depend on the micro-batch
  /// @pre verify(s); the schedule outlives this
  step_replay(const schedule& s, bool alike) : s_(s), free_(s.pp()) {
    tensor_table<std::uint32_t> made(s, 0);
    std::unordered_map<std::uint64_t, std::uint32_t> known;
    steps_.reserve(s.cells.all().size());
    walk(s, [&](std::uint32_t rank, std::size_t, const cell& c) {
      const auto next = static_cast<std::uint32_t>(kinds_.size());
      step x{.kind = alike ? known.try_emplace(key_of(c), next).first->second : next};
      if (x.kind == next) kinds_.push_back({.c = c, .rank = rank});
      for (std::size_t k = 0; k < c.size(); ++k) {
        if (const auto in = input_of(c[k], s.chain())) x.inputs[k] = made[*in];
        if (const auto out = output_of(c[k], s.chain()))
          made[*out] = static_cast<std::uint32_t>(1 + 2 * steps_.size() + k);
      }
      steps_.push_back(x);
    });
    arrivals_.assign(1 + 2 * steps_.size(), 0);
  }

  /// Linear in the number of cells; allocates nothing. @throws schedule_error as simulate() does for costs with a check()
  template <cost_model Costs>
  double makespan(const Costs& costs) {
    check_costs(costs, s_.stages(), s_.pp(), s_.micro);
    for (kind& k : kinds_) set_times(k, costs);
    std::fill(free_.begin(), free_.end(), 0);
    double last = 0, *arrives = arrivals_.data() + 1;
    for (const step& x : steps_) {
      const kind& k = kinds_[x.kind];
      double start = std::max(free_[k.rank] + k.receive, arrivals_[x.inputs[0]]);
      start = std::max(start, arrivals_[x.inputs[1]]);
      const double end = start + k.duration;
      *arrives++ = start + k.arrive[0], *arrives++ = start + k.arrive[1];
      free_[k.rank] = end + k.send;
      last = std::max(last, end);
    }
    require_sum_of_times(last);
    return last;
  }

 private:
  // A cell, and the last times of all cells like it.
  struct kind {
    cell c;
    std::uint32_t rank = 0;
    double duration = 0, receive = 0, send = 0;
    std::array<double, 2> arrive{};  // the outputs of its ops
  };
  struct step {
    std::uint32_t kind = 0;
    std::array<std::uint32_t, 2> inputs{};  // places of arrivals; 0: none
  };

  std::uint64_t key_of(const cell& c) const {
    std::uint64_t key = 0;
    for (const op o : c)
      key = key << 21 | std::uint64_t{s_.placement.replica_of(o.micro)} << 20 | std::uint64_t{o.stage} << 4 |
            static_cast<std::uint64_t>(o.pass);
    return key;
  }

  template <typename Costs>
  void set_times(kind& k, const Costs& costs) const {
    k.duration = duration_of(costs, k.rank, k.c);
    for (std::size_t i = 0; i < k.c.size(); ++i)
      if (const auto out = output_of(k.c[i], s_.chain()))
        k.arrive[i] = time_to_arrive(s_, costs, k.rank, k.c, i, *out, k.duration);
    if (!may_be_busy(costs)) return;
    k.receive = time_to_receive(s_, costs, k.rank, k.c), k.send = time_to_send(s_, costs, k.rank, k.c);
  }

  const schedule& s_;
  std::vector<kind> kinds_;
  std::vector<step> steps_;
  std::vector<double> arrivals_;  // the first: nothing to wait for; then two per step
  std::vector<double> free_;      // by rank
};

}  // namespace pipesched::detail
