// SPDX-License-Identifier: MIT
#pragma once

// An obviously right twin of check() for programs without reductions: ranks take turns at random, every buffer, slot and
// channel is a map, and whatever is not as it should be ends the play.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <pipesched/program/program.hpp>
#include <random>
#include <utility>
#include <vector>

namespace pipesched::tests {

class slow_player {
 public:
  slow_player(const program& p, std::uint64_t seed) : p_(p), random_(seed), ranks_(p.actions.count()) {}

  /// Does every rank come to its end, with nothing wrong on the way and no message left over?
  bool runs() {
    while (true) {
      std::vector<std::uint32_t> can;
      bool all_done = true;
      for (std::uint32_t r = 0; r < ranks_.size(); ++r) {
        if (ranks_[r].at == p_.actions[r].size()) continue;
        all_done = false;
        if (!waits(r, p_.actions[r][ranks_[r].at])) can.push_back(r);
      }
      if (all_done) break;
      if (can.empty()) return false;
      const std::uint32_t r = can[random_() % can.size()];
      if (!take(r, p_.actions[r][ranks_[r].at])) return false;
      ++ranks_[r].at;
    }
    for (std::uint32_t r = 0; r < ranks_.size(); ++r)
      if (ranks_[r].next_cell != p_.schedule[r].size()) return false;
    for (const auto& [number, c] : channels_)
      if (!c.sends.empty() || !c.receives.empty()) return false;
    return true;
  }

 private:
  enum state { empty, coming, there, going };
  struct buffer {
    state is = empty;
    tensor_id what{};
  };
  struct rank {
    std::size_t at = 0, next_cell = 0;
    std::map<std::uint32_t, buffer> buffers;
    std::map<std::uint32_t, op> activations, weights;
  };
  struct post {
    tensor_id what;
    std::uint32_t rank, buffer;
  };
  struct channel_posts {
    std::deque<post> sends, receives;
  };

  static std::optional<tensor_id> made_for(op o, std::uint32_t stages, bool input) {
    const auto t = input ? input_of(o, stages) : output_of(o, stages);
    if (!t) return std::nullopt;
    return t;
  }

  // Does the action wait for a message on its way? (What is wrong does not wait.)
  bool waits(std::uint32_t r, const action& a) {
    if (a.kind != action_kind::compute || a.index >= p_.schedule[r].size()) return false;
    for (std::size_t i = 0; i < p_.schedule[r][a.index].size(); ++i) {
      const op_slots& s = p_.slots[r][a.index][i];
      const op o = p_.schedule[r][a.index][i];
      if (const auto in = made_for(o, p_.schedule.stages(), true); in && ranks_[r].buffers.count(s.input)) {
        const buffer& b = ranks_[r].buffers[s.input];
        if (b.is == coming && b.what == *in) return true;
      }
      if (made_for(o, p_.schedule.stages(), false) && ranks_[r].buffers.count(s.output) &&
          ranks_[r].buffers[s.output].is == going)
        return true;
    }
    return false;
  }

  bool take(std::uint32_t r, const action& a) {
    rank& me = ranks_[r];
    if (a.kind == action_kind::compute) return compute(r, a);
    if (a.kind == action_kind::accumulate || a.channel >= p_.channels.size()) return false;
    const bool receives = a.kind == action_kind::receive;
    const channel& c = p_.channels[a.channel];
    if ((receives ? c.to : c.from) != r || a.buffer >= p_.pools[r].buffers) return false;
    buffer& b = me.buffers[a.buffer];
    if (receives ? b.is != empty : b.is != there || b.what != a.what) return false;
    b = {receives ? coming : going, a.what};
    channel_posts& posts = channels_[a.channel];
    (receives ? posts.receives : posts.sends).push_back({a.what, r, a.buffer});
    while (!posts.sends.empty() && !posts.receives.empty()) {
      const post from = posts.sends.front(), to = posts.receives.front();
      if (from.what != to.what) return false;
      posts.sends.pop_front(), posts.receives.pop_front();
      ranks_[from.rank].buffers[from.buffer].is = empty;
      ranks_[to.rank].buffers[to.buffer].is = there;
    }
    return true;
  }

  bool compute(std::uint32_t r, const action& a) {
    rank& me = ranks_[r];
    if (a.index != me.next_cell++ || a.index >= p_.schedule[r].size()) return false;
    const cell& c = p_.schedule[r][a.index];
    const auto& slots = p_.slots[r][a.index];
    for (std::size_t i = 0; i < c.size(); ++i) {
      if (const auto in = made_for(c[i], p_.schedule.stages(), true)) {
        if (slots[i].input >= p_.pools[r].buffers) return false;
        buffer& b = me.buffers[slots[i].input];
        if (b.is != there || b.what != *in) return false;
        b.is = empty;
      } else if (slots[i].input != no_slot) {
        return false;
      }
      op key = c[i];
      key.pass = pass::forward;
      if (slots[i].activation >= p_.pools[r].activations) return false;
      if (c[i].pass == pass::forward
              ? !me.activations.try_emplace(slots[i].activation, key).second
              : !me.activations.count(slots[i].activation) || me.activations[slots[i].activation] != key)
        return false;
      if (c[i].pass != pass::forward) {
        if (slots[i].context >= p_.pools[r].contexts) return false;
        if (c[i].pass == pass::backward_input || c[i].pass == pass::backward
                ? !me.weights.try_emplace(slots[i].context, key).second
                : !me.weights.count(slots[i].context) || me.weights[slots[i].context] != key)
          return false;
      }
    }
    for (std::size_t i = 0; i < c.size(); ++i) {
      if (const auto out = made_for(c[i], p_.schedule.stages(), false)) {
        if (slots[i].output >= p_.pools[r].buffers) return false;
        buffer& b = me.buffers[slots[i].output];
        if (b.is != empty) return false;
        b = {there, *out};
      } else if (slots[i].output != no_slot) {
        return false;
      }
      if (p_.schedule.forward_only || c[i].pass == pass::backward || c[i].pass == pass::backward_weight)
        me.activations.erase(slots[i].activation);
      if (c[i].pass == pass::backward_weight || c[i].pass == pass::backward) me.weights.erase(slots[i].context);
    }
    return true;
  }

  const program& p_;
  std::mt19937_64 random_;
  std::vector<rank> ranks_;
  std::map<std::uint32_t, channel_posts> channels_;
};

}  // namespace pipesched::tests
