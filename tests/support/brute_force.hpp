// SPDX-License-Identifier: MIT
#pragma once

// A simple, slow twin of verify(): sets, maps, and a search through the explicit graph of cells. It shares no code with
// the library except the value types.

#include <map>
#include <pipesched/core/schedule.hpp>
#include <pipesched/core/verify.hpp>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

namespace pipesched::tests {

class brute_force {
 public:
  explicit brute_force(const schedule& s) : s_(s) {}

  /// The rules that the schedule breaks.
  std::set<rule> broken_rules() {
    if (s_.cells.size() != s_.pp() || s_.pp() == 0 || s_.micro == 0) return {rule::shape};
    if (!s_.backward.empty() && s_.backward.size() != s_.stages()) return {rule::shape};
    for (std::size_t stage = 1; stage < s_.backward.size(); ++stage)
      if (s_.backward[stage] == stage_backward::none && s_.backward[stage - 1] != stage_backward::none)
        return {rule::shape};
    collect();
    for (std::uint32_t stage = 0; stage < s_.stages(); ++stage)
      for (std::uint32_t micro = 0; micro < s_.micro; ++micro) check_pair(stage, micro);
    check_overlaps();
    if (broken_.empty() && cyclic()) broken_.insert(rule::cycle);
    return broken_;
  }

 private:
  using spot = std::pair<std::uint32_t, std::size_t>;  // rank, cell
  using name = std::tuple<char, std::uint32_t, std::uint32_t>;

  void collect() {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      for (std::size_t i = 0; i < s_[rank].size(); ++i)
        for (op o : s_[rank][i]) {
          const char l = letter(o.pass);
          if (!exists(o)) {
            broken_.insert(rule::range);
          } else if (s_.placement.rank_of(o.stage, o.micro) != rank || s_.placement.stages_of(rank).size() <= o.chunk ||
                     s_.placement.stages_of(rank)[o.chunk] != o.stage ||
                     s_.placement.chunk_of(o.stage, o.micro) != o.chunk) {
            broken_.insert(rule::placement);
          } else {
            spots_[{l, o.stage, o.micro}].push_back({rank, i});
            if (spots_[{l, o.stage, o.micro}].size() > 1) continue;
            if (o.pass == pass::recompute_backward || o.pass == pass::recompute_backward_input)
              inside_.insert({o.stage, o.micro});
          }
        }
    for (const auto& [id, spots] : spots_)
      if (spots.size() > 1) broken_.insert(rule::duplicate);
  }

  // The letters of a stage: those that it has in this schedule.
  bool exists(op o) const {
    if (o.stage >= s_.stages() || o.micro >= s_.micro || letter(o.pass) == '?') return false;
    if (letter(o.pass) == 'F') return true;
    if (s_.forward_only) return false;
    const stage_backward has = s_.backward.empty() ? stage_backward::full : s_.backward[o.stage];
    if (has == stage_backward::input) return letter(o.pass) == 'I' || letter(o.pass) == 'R';
    return has == stage_backward::full;
  }

  bool has(char l, std::uint32_t stage, std::uint32_t micro) const { return spots_.count({l, stage, micro}) > 0; }

  void check_pair(std::uint32_t stage, std::uint32_t micro) {
    const bool F = has('F', stage, micro), B = has('B', stage, micro), I = has('I', stage, micro),
               W = has('W', stage, micro), R = has('R', stage, micro);
    if (!F) broken_.insert(rule::missing);
    const stage_backward needs = s_.backward.empty() ? stage_backward::full : s_.backward[stage];
    if (s_.forward_only || needs == stage_backward::none) return;
    if (B && (I || W)) broken_.insert(rule::backward);
    if (R && inside_.count({stage, micro}) > 0) broken_.insert(rule::backward);
    if (needs == stage_backward::input ? !I : !B && !(I && W)) broken_.insert(rule::missing);
    const auto before = [&](char first, char then) {
      if (has(first, stage, micro) && has(then, stage, micro) &&
          spots_[{first, stage, micro}][0].second > spots_[{then, stage, micro}][0].second)
        broken_.insert(rule::order);
    };
    before('F', 'R');
    before('R', 'B');
    before('R', 'I');
    before('F', 'B');
    before('F', 'I');
    before('I', 'W');
  }

  // The direct predecessors of `o`.
  std::vector<name> needs(name o) const {
    const auto [l, stage, micro] = o;
    std::vector<name> all;
    if (l == 'F' && stage > 0) all.push_back({'F', stage - 1, micro});
    if (l == 'R') all.push_back({'F', stage, micro});
    if (l == 'B' || l == 'I') {
      all.push_back({'F', stage, micro});
      all.push_back({'R', stage, micro});
      if (stage + 1 < s_.stages()) {
        all.push_back({'B', stage + 1, micro});
        all.push_back({'I', stage + 1, micro});
      }
    }
    if (l == 'W') all.push_back({'I', stage, micro});
    return all;
  }

  bool reaches(name from, name to) const {
    for (const name& n : needs(from))
      if (n == to || reaches(n, to)) return true;
    return false;
  }

  void check_overlaps() {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      for (const cell& c : s_[rank]) {
        if (!c.overlapped()) continue;
        const auto in_place = [&](op o) {
          return exists(o) && s_.placement.rank_of(o.stage, o.micro) == rank &&
                 s_.placement.chunk_of(o.stage, o.micro) == o.chunk;
        };
        const name a{letter(c[0].pass), c[0].stage, c[0].micro}, b{letter(c[1].pass), c[1].stage, c[1].micro};
        if (in_place(c[0]) && in_place(c[1]) && a != b && (reaches(a, b) || reaches(b, a)))
          broken_.insert(rule::overlap);
      }
  }

  // Depth-first search over cells: each depends on the one before it on its rank and on the producers of its inputs.
  bool cyclic() {
    std::map<spot, int> state;  // 1: on the path, 2: done
    const auto search = [&](auto& self, spot at) -> bool {
      if (state[at] != 0) return state[at] == 1;
      state[at] = 1;
      if (at.second > 0 && self(self, {at.first, at.second - 1})) return true;
      for (op o : s_[at.first][at.second])
        for (const name& n : needs({letter(o.pass), o.stage, o.micro}))
          if (const auto found = spots_.find(n); found != spots_.end() && self(self, found->second[0])) return true;
      state[at] = 2;
      return false;
    };
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      for (std::size_t i = 0; i < s_[rank].size(); ++i)
        if (search(search, {rank, i})) return true;
    return false;
  }

  const schedule& s_;
  std::map<name, std::vector<spot>> spots_;
  std::set<std::pair<std::uint32_t, std::uint32_t>> inside_;  // stage and micro-batch of a backward that recomputes
  std::set<rule> broken_;
};

inline std::set<rule> rules_of(const report& r) {
  std::set<rule> rules;
  for (const violation& v : r.violations) rules.insert(v.rule);
  return rules;
}

}  // namespace pipesched::tests
