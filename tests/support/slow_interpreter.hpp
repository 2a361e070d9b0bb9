// SPDX-License-Identifier: MIT
#pragma once

// A simple, slow twin of verify(): runs ranks in a random order and keeps every buffer, slot and channel in a map. The
// first fault ends the run. It shares no code with the library's interpreter.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <pipesched/program/program.hpp>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace pipesched::tests {

class slow_interpreter {
 public:
  slow_interpreter(const program& p, std::uint64_t seed) : p_(p), random_(seed), ranks_(p.actions.size()) {}

  /// True if every rank finishes without a fault, and no message or tensor is left.
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
    for (std::uint32_t r = 0; r < ranks_.size(); ++r) {
      if (ranks_[r].next_cell != p_.schedule[r].size()) return false;
      for (const auto& [number, b] : ranks_[r].buffers)
        if (b.is == coming || b.is == there) return false;
    }
    for (std::uint32_t c = 0; c < p_.channels.size(); ++c)
      if (!channels_[c].sends.empty() || !channels_[c].receives.empty() || moved_[c] != p_.channels[c].messages)
        return false;
    return replicas_agree();
  }

 private:
  enum state { empty, coming, there, going };
  struct buffer {
    state is = empty;
    tensor_id what{};
    std::uint32_t channel = no_slot;
  };
  struct rank {
    std::size_t at = 0, next_cell = 0;
    std::map<std::uint32_t, buffer> buffers;
    std::map<std::uint32_t, op> activations, contexts;
    std::set<std::uint32_t> sent_from;                 // buffers of weight gradients, each once
    std::uint32_t gradients_going = 0;                 // weight gradients sent and not yet received
    std::map<std::uint32_t, int> gradients_sent;       // by stage
    std::map<std::uint32_t, int> replica_added;        // by stage: gradients of the same stage added
    std::set<std::uint32_t> sums;                      // stages whose gradient has another one in it
    std::map<std::uint32_t, std::uint32_t> backwards;  // by chunk: W and B that have run
  };
  struct post {
    tensor_id what;
    std::uint32_t rank, buffer;
  };
  struct channel_posts {
    std::deque<post> sends, receives;
  };

  static bool is_gradient(const action& a) { return a.what.kind == tensor_kind::weight_gradient; }
  // Buffers are counted through the pools: tensors, then reductions, then sent gradients.
  bool in_pool(std::uint32_t r, pool which, std::uint32_t number) const {
    std::uint32_t first = 0;
    for (const pool p : {pool::tensor, pool::reduction, pool::sent_gradient}) {
      const std::uint32_t size = p_.pools[r][p];
      if (p == which) return number >= first && number - first < size;
      first += size;
    }
    return false;
  }
  static std::optional<tensor_id> tensor_of(op o, std::uint32_t stages, bool input) {
    return input ? input_of(o, stages) : output_of(o, stages);
  }
  bool hosts(std::uint32_t r, std::uint32_t chunk, std::uint32_t stage) const {
    const auto stages = p_.schedule.placement.stages_of(r);
    return chunk < stages.size() && stages[chunk] == stage;
  }
  // True if all W and B of a chunk that this rank runs have run.
  bool complete(std::uint32_t r, std::uint32_t chunk) {
    std::uint32_t all = 0;
    for (const cell& c : p_.schedule[r])
      for (const op o : c) all += o.chunk == chunk && (o.pass == pass::backward || o.pass == pass::backward_weight);
    return ranks_[r].backwards[chunk] == all;
  }
  std::set<std::uint32_t> homes_of(std::uint32_t stage) const {
    std::set<std::uint32_t> homes;
    for (std::uint32_t replica = 0; replica < p_.schedule.placement.replicas(); ++replica)
      homes.insert(p_.schedule.placement.rank_of_stage(replica)[stage]);
    return homes;
  }
  // True if both ranks of every stage with two replicas have sent its weight gradient and added the other one.
  bool replicas_agree() {
    const placement& where = p_.schedule.placement;
    if (where.replicas() < 2 || p_.schedule.forward_only) return true;
    for (std::uint32_t stage = 0; stage < where.stages(); ++stage) {
      const std::set<std::uint32_t> homes = homes_of(stage);
      for (const std::uint32_t r : homes) {
        const bool two = homes.size() == 2;
        if (ranks_[r].replica_added[stage] != 1 || (two && ranks_[r].gradients_sent[stage] < 1)) return false;
      }
    }
    return true;
  }

  // True if the action waits for a message that may still move. A faulty action does not wait.
  bool waits(std::uint32_t r, const action& a) {
    if (a.kind == action_kind::accumulate) {
      if (ranks_[r].gradients_going > 0) return true;
      if (a.channel == no_slot || !ranks_[r].buffers.count(a.buffer)) return false;
      const buffer& b = ranks_[r].buffers[a.buffer];
      return b.is == coming && b.what == a.what;
    }
    if (a.kind != action_kind::compute || a.index >= p_.schedule[r].size()) return false;
    for (std::size_t i = 0; i < p_.schedule[r][a.index].size(); ++i) {
      const op_slots& s = p_.slots[r][a.index][i];
      const op o = p_.schedule[r][a.index][i];
      if (const auto in = tensor_of(o, p_.schedule.stages(), true); in && ranks_[r].buffers.count(s.input)) {
        const buffer& b = ranks_[r].buffers[s.input];
        if (b.is == coming && b.what == *in) return true;
      }
      if (tensor_of(o, p_.schedule.stages(), false) && ranks_[r].buffers.count(s.output) &&
          ranks_[r].buffers[s.output].is == going)
        return true;
    }
    return false;
  }

  bool take(std::uint32_t r, const action& a) {
    switch (a.kind) {
      case action_kind::compute: return compute(r, a);
      case action_kind::accumulate: return accumulate(r, a);
      case action_kind::send:
      case action_kind::receive: return message(r, a);
    }
    return false;
  }

  bool message(std::uint32_t r, const action& a) {
    rank& me = ranks_[r];
    if (a.channel >= p_.channels.size()) return false;
    const bool receives = a.kind == action_kind::receive;
    const channel& c = p_.channels[a.channel];
    if ((receives ? c.to : c.from) != r) return false;
    if (is_gradient(a) && !receives) {
      if (!hosts(r, a.chunk, a.what.stage) || !complete(r, a.chunk)) return false;
      if (!in_pool(r, pool::sent_gradient, a.buffer) || !me.sent_from.insert(a.buffer).second) return false;
      ++me.gradients_going;
      const bool first = ++me.gradients_sent[a.what.stage] == 1;  // the one that the other replica adds
      if (first && me.sums.count(a.what.stage) > 0 && homes_of(a.what.stage).size() == 2) return false;
    } else {
      if (!in_pool(r, is_gradient(a) ? pool::reduction : pool::tensor, a.buffer)) return false;
      buffer& b = me.buffers[a.buffer];
      if (receives ? b.is != empty : b.is != there || b.what != a.what) return false;
      b = {receives ? coming : going, a.what, a.channel};
    }
    channel_posts& posts = channels_[a.channel];
    (receives ? posts.receives : posts.sends).push_back({a.what, r, a.buffer});
    while (!posts.sends.empty() && !posts.receives.empty()) {
      const post from = posts.sends.front(), to = posts.receives.front();
      if (from.what != to.what) return false;
      posts.sends.pop_front(), posts.receives.pop_front();
      ++moved_[a.channel];
      if (from.what.kind == tensor_kind::weight_gradient) {
        --ranks_[from.rank].gradients_going;
        ranks_[to.rank].buffers[to.buffer].is = there;
      } else {
        ranks_[from.rank].buffers[from.buffer].is = empty;
        ranks_[to.rank].buffers[to.buffer].is = there;
      }
    }
    return true;
  }

  bool accumulate(std::uint32_t r, const action& a) {
    rank& me = ranks_[r];
    if (!is_gradient(a) || !hosts(r, a.chunk, a.index) || !complete(r, a.chunk)) return false;
    me.sums.insert(a.index);
    if (a.channel == no_slot) {
      me.sums.insert(a.what.stage);
      if (a.buffer != no_slot) return false;
      if (a.what.stage == a.index) ++me.replica_added[a.index];
      return a.chunk != a.other_chunk && hosts(r, a.other_chunk, a.what.stage) && complete(r, a.other_chunk);
    }
    if (a.what.stage >= p_.schedule.stages() || !in_pool(r, pool::reduction, a.buffer)) return false;
    buffer& b = me.buffers[a.buffer];
    if (b.is != there || b.what != a.what || b.channel != a.channel) return false;
    b.is = empty;
    if (a.what.stage == a.index) ++me.replica_added[a.index];
    return true;
  }

  bool compute(std::uint32_t r, const action& a) {
    rank& me = ranks_[r];
    if (a.index != me.next_cell++ || a.index >= p_.schedule[r].size()) return false;
    const cell& c = p_.schedule[r][a.index];
    const auto& slots = p_.slots[r][a.index];
    if (c.size() == 1 && slots[1] != op_slots{}) return false;
    for (std::size_t i = 0; i < c.size(); ++i) {
      if (const auto in = tensor_of(c[i], p_.schedule.stages(), true)) {
        if (slots[i].input >= p_.pools[r][pool::tensor]) return false;
        buffer& b = me.buffers[slots[i].input];
        if (b.is != there || b.what != *in) return false;
        b.is = empty;
      } else if (slots[i].input != no_slot) {
        return false;
      }
      op key = c[i];
      key.pass = pass::forward;
      if (slots[i].activation >= p_.pools[r][pool::activation]) return false;
      if (c[i].pass == pass::forward
              ? !me.activations.try_emplace(slots[i].activation, key).second
              : !me.activations.count(slots[i].activation) || me.activations[slots[i].activation] != key)
        return false;
      if (c[i].pass != pass::forward) {
        if (slots[i].context >= p_.pools[r][pool::context]) return false;
        if (c[i].pass == pass::backward_input || c[i].pass == pass::backward
                ? !me.contexts.try_emplace(slots[i].context, key).second
                : !me.contexts.count(slots[i].context) || me.contexts[slots[i].context] != key)
          return false;
      } else if (slots[i].context != no_slot) {
        return false;
      }
    }
    for (std::size_t i = 0; i < c.size(); ++i) {
      if (const auto out = tensor_of(c[i], p_.schedule.stages(), false)) {
        if (slots[i].output >= p_.pools[r][pool::tensor]) return false;
        buffer& b = me.buffers[slots[i].output];
        if (b.is != empty) return false;
        b = {there, *out, no_slot};
      } else if (slots[i].output != no_slot) {
        return false;
      }
      const bool weight_gradient = c[i].pass == pass::backward || c[i].pass == pass::backward_weight;
      if (p_.schedule.forward_only || weight_gradient) me.activations.erase(slots[i].activation);
      if (c[i].pass == pass::backward_weight || c[i].pass == pass::backward) me.contexts.erase(slots[i].context);
      me.backwards[c[i].chunk] += weight_gradient;
    }
    return true;
  }

  const program& p_;
  std::mt19937_64 random_;
  std::vector<rank> ranks_;
  std::map<std::uint32_t, channel_posts> channels_;
  std::map<std::uint32_t, std::uint32_t> moved_;  // messages, by channel
};

}  // namespace pipesched::tests
