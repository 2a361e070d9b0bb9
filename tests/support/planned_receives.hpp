// SPDX-License-Identifier: MIT
#pragma once

// A slow twin of launch_order(), for receives alone: how much a rank has computed when the plan lets each of its receives start.
// It shares no code with the library's interpreter and message times.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "pipesched/program/program.hpp"

namespace pipesched::tests {

class planned_receives {
 public:
  explicit planned_receives(const program& p) : p_(p) {
    for (std::uint32_t r = 0; r < p.actions.size(); ++r) {
      reached_.emplace_back(p.actions[r].size(), 0.0);
      for (std::uint32_t n = 0; n < p.actions[r].size(); ++n) {
        const action& a = p.actions[r][n];
        if (a.kind == action_kind::send) sends_[a.channel].push_back({r, n});
        if (a.kind == action_kind::receive) receives_[a.channel].push_back({r, n});
      }
    }
    while (sweep()) {
    }
  }

  /// By message of the channel: the action of its receiver before which the receive starts, and no earlier.
  std::vector<std::uint32_t> actions_of(std::uint32_t channel) const {
    std::vector<std::uint32_t> planned;
    const std::uint32_t to = p_.channels[channel].to;
    for (std::uint32_t i = 0; i < p_.channels[channel].messages; ++i) {
      std::uint32_t n = 0;
      while (n < p_.actions[to].size() && (is_post(p_.actions[to][n]) || reached_[to][n] < moves(channel, i))) ++n;
      planned.push_back(n);
    }
    return planned;
  }
  /// The number of ops and additions in the first so many actions of a rank: a trainer has a kernel for each.
  std::uint64_t kernels(std::uint32_t rank, std::uint32_t actions) const {
    std::uint64_t sum = 0;
    for (std::uint32_t n = 0; n < actions; ++n) {
      const action& a = p_.actions[rank][n];
      if (a.kind == action_kind::compute) sum += p_.schedule[rank][a.index].size();
      if (a.kind == action_kind::accumulate) ++sum;
    }
    return sum;
  }

 private:
  using place = std::pair<std::uint32_t, std::uint32_t>;  // a rank and its action

  static bool is_post(const action& a) { return a.kind == action_kind::send || a.kind == action_kind::receive; }
  static double time_of(op o) {
    switch (o.pass) {
      case pass::backward: return 2;
      case pass::recompute_backward: return 3;
      case pass::recompute_backward_input: return 2;
      default: return 1;
    }
  }
  // Once both sides have posted it.
  double moves(std::uint32_t channel, std::size_t i) const {
    double time = 0;
    for (const auto* sides : {&sends_, &receives_}) {
      const auto [rank, at] = sides->at(channel).at(i);
      time = std::max(time, reached_[rank][at]);
    }
    return time;
  }
  // The time at which every rank reaches every action, from what is known of the others. False if it is as before.
  bool sweep() {
    bool changed = false;
    for (std::uint32_t r = 0; r < reached_.size(); ++r) {
      double now = 0;
      std::map<std::uint32_t, std::pair<std::uint32_t, std::size_t>> last;  // by buffer: channel and number
      std::map<std::pair<std::uint32_t, bool>, std::size_t> numbers;        // by channel and side
      const auto wait = [&](std::uint32_t buffer) {
        if (const auto found = last.find(buffer); found != last.end())
          now = std::max(now, moves(found->second.first, found->second.second));
      };
      for (std::uint32_t n = 0; n < p_.actions[r].size(); ++n) {
        const action& a = p_.actions[r][n];
        if (is_post(a)) last[a.buffer] = {a.channel, numbers[{a.channel, a.kind == action_kind::send}]++};
        double takes = 0;
        if (a.kind == action_kind::compute) {
          for (const op_slots& s : p_.slots[r][a.index]) wait(s.input), wait(s.output);
          for (const op o : p_.schedule[r][a.index]) takes += time_of(o);
        }
        if (a.kind == action_kind::accumulate) {
          wait(a.buffer);
          for (std::uint32_t b = p_.pools[r].owned_buffers(); b < p_.pools[r].buffers(); ++b) wait(b);
        }
        changed = changed || reached_[r][n] != now;
        reached_[r][n] = now;
        if (a.kind == action_kind::accumulate) now = std::nextafter(now, std::numeric_limits<double>::infinity());
        now += takes;
      }
    }
    return changed;
  }

  const program& p_;
  std::vector<std::vector<double>> reached_;                      // by rank and action
  std::map<std::uint32_t, std::vector<place>> sends_, receives_;  // by channel
};

}  // namespace pipesched::tests
