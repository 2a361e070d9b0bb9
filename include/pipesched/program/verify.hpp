// SPDX-License-Identifier: MIT
#pragma once

// Proof that a program ends, whatever the timing. The answer is a report, as that of verify() for its schedule, with the
// rules
//
//   rule         holds when
//   program      every rank runs its cells once, in order, with slots for all of them
//   slot         every activation and context is in its slot, and nothing else is
//   message      every message is sent and received once, in one order on both sides, and is in the buffer of its cell
//   reduction    both ranks of a stage with two replicas send and add its weight gradient, after its last W or B
//   deadlock     ranks never wait for each other in a cycle, even if a send ends only when its receive is posted
//
// after those of verify.hpp.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/ops.hpp"
#include "pipesched/core/report.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/program/describe.hpp"
#include "pipesched/program/detail/interpreter.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/worklist.hpp"

namespace pipesched {

namespace detail {

class program_verifier {
 public:
  program_verifier(const program& p, std::size_t max_violations) : p_(p), s_(p.schedule), max_(max_violations) {}

  report run() {
    report_ = verifier(s_, max_).run_without_cycles();
    if (report_ && check_shape()) check_program();
    // A program that runs to its end has no cycle in its schedule. Of any other, the schedule's own faults come first.
    if (!report_)
      if (report of_schedule = verify(s_, max_); !of_schedule) return of_schedule;
    return std::move(report_);
  }

 private:
  using waiting = interpreter<>::waiting;

  void add(rule r, std::uint32_t rank, std::size_t at, std::string text) {
    if (report_.violations.size() < max_)
      report_.violations.push_back({r, rank, at, std::move(text)});
    else
      ++report_.further;
  }

  // A chunk of a rank: the index after the cell of its last W or B, and how often its weight gradient is sent and gets that
  // of the other replica added.
  struct totals {
    std::uint32_t after_last = 0, sent = 0, added = 0;
    bool has_sum = false;
  };
  bool is_chunk(std::uint32_t rank, std::uint32_t chunk, std::uint32_t stage) const {
    return chunk < hosted_[rank].size() && hosted_[rank][chunk] == stage;
  }
  const totals& total(std::uint32_t stage, std::uint32_t replica) const {
    const std::uint32_t chunk = s_.placement.chunk_of(stage, s_.placement.replica_begin(replica));
    return totals_[s_.placement.rank_of_stage(replica)[stage]][chunk];
  }

  // The cell of an action: its own, or that of the next compute action.
  std::size_t cell_of(std::uint32_t rank, std::size_t action_number) const {
    const auto row = p_.actions[rank];
    for (std::size_t i = action_number; i < row.size(); ++i)
      if (row[i].kind == action_kind::compute) return row[i].index;
    return violation::no_cell;
  }

  void check_program() {
    hosted_ = hosted_stages(s_);
    recomputed_.emplace(s_);
    totals_.reserve(hosted_.size());
    for (const auto& stages : hosted_) totals_.emplace_back(stages.size());
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      check_slots(rank);
      check_actions(rank);
    }
    if (report_) check_replicas();
    if (report_) interpret();
  }

  bool check_shape() {
    const std::size_t pp = s_.pp();
    bool good = p_.actions.size() == pp && p_.slots.size() == pp && p_.pools.size() == pp;
    for (std::uint32_t rank = 0; good && rank < pp; ++rank) good = p_.slots[rank].size() == s_[rank].size();
    if (!good)
      add(rule::program, 0, violation::no_cell,
          concat({"expected actions, pools and slots of every cell for ", count_text(pp, "rank")}));
    for (std::uint32_t rank = 0; good && rank < pp; ++rank) {
      const std::size_t max_pool = 4 * p_.actions[rank].size();  // more cannot be used
      const pool_sizes& own = p_.pools[rank];
      for (std::size_t kind = 0; kind < pool_names.size(); ++kind)
        if (const std::uint32_t size = own[static_cast<pool>(kind)]; size > max_pool) {
          add(rule::program, rank, violation::no_cell,
              concat({"a pool of ", size, " for ", pool_names[kind], "s; expected at most ", max_pool}));
          good = false;
        }
    }
    std::size_t messages = 0;
    for (const channel& c : p_.channels) messages += c.messages;
    if (messages > p_.actions.all().size()) {
      add(rule::program, 0, violation::no_cell,
          concat({"the channels have ", count_text(messages, "message"), "; expected at most as many as actions, ",
                  p_.actions.all().size()}));
      good = false;
    }
    for (const channel& c : p_.channels)
      if (c.from >= pp || c.to >= pp || c.from == c.to) {
        add(rule::program, 0, violation::no_cell,
            concat({"a channel from rank ", c.from, " to rank ", c.to, "; expected two different ranks below ", pp}));
        good = false;
      }
    return check_channels() && good;
  }
  // Messages have no tags: with two channels from one rank to another, nothing tells theirs apart.
  bool check_channels() {
    std::vector<std::pair<std::uint16_t, std::uint16_t>> ends;
    for (const channel& c : p_.channels) ends.emplace_back(c.from, c.to);
    std::sort(ends.begin(), ends.end());
    const auto twice = std::adjacent_find(ends.begin(), ends.end());
    if (twice == ends.end()) return true;
    add(rule::program, twice->first, violation::no_cell,
        concat({"a second channel from rank ", twice->first, " to rank ", twice->second, "; expected one"}));
    return false;
  }

  // Slots of one kind, each with the F whose activation or context it holds, as one number that is compared at once; 0 if it
  // is free.
  struct slots_in_use {
    std::vector<std::uint64_t> slots;
    const char* what;

    void clear(std::uint32_t size) { slots.assign(size, 0); }
    void release(std::uint32_t slot) {
      if (slot < slots.size()) slots[slot] = 0;
    }
  };
  static std::uint64_t key_of(op o) {
    return std::bit_cast<std::uint64_t>(op{pass::forward, o.chunk, o.stage, o.micro});
  }
  // Reports a slot that does not hold the value that the op reads, or is not free for the one that it writes.
  void check_slot(std::uint32_t rank, std::size_t i, op o, slots_in_use& in, std::uint32_t slot, bool writes) {
    if (slot >= in.slots.size() || in.slots[slot] != (writes ? 0 : key_of(o)))
      add(rule::slot, rank, i, wrong_slot(o, in, slot, writes));
    else if (writes)
      in.slots[slot] = key_of(o);
  }
  [[gnu::cold]] static std::string wrong_slot(op o, const slots_in_use& in, std::uint32_t slot, bool writes) {
    if (slot == no_slot) return concat({to_string(o), " has no ", in.what, " slot"});
    if (slot >= in.slots.size())
      return concat(
          {to_string(o), " uses ", in.what, " slot ", slot, "; expected one of ", count_text(in.slots.size(), "slot")});
    if (!writes)
      return concat({to_string(o), " reads ", in.what, " slot ", slot, ", which does not hold its ", in.what});
    return concat({to_string(o), " writes ", in.what, " slot ", slot, ", which still holds that of ",
                   to_string(std::bit_cast<op>(in.slots[slot]))});
  }

  void check_slots(std::uint32_t rank) {
    activations_.clear(p_.pools[rank][pool::activation]);
    contexts_.clear(p_.pools[rank][pool::context]);
    kept_inputs_.clear(p_.pools[rank][pool::kept_input]);
    const std::span<const cell> row = s_[rank];
    const auto slots = p_.slots[rank];
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (!row[i].overlapped() && slots[i][1] != op_slots{})
        add(rule::slot, rank, i, concat({to_string(row[i]), " has slots for a second op"}));
      for (std::size_t k = 0; k < row[i].size(); ++k) check_slots_of(rank, i, row[i][k], slots[i][k]);
      for (std::size_t k = 0; k < row[i].size(); ++k) release_slots_of(rank, i, row[i][k], slots[i][k]);
    }
  }
  void check_slots_of(std::uint32_t rank, std::size_t i, op o, const op_slots& slots) {
    const bool forward = o.pass == pass::forward, recomputed = (*recomputed_)(o);
    check_slot(rank, i, o, activations_, slots.activation, forward || recomputes(o.pass));
    if (recomputed && (forward || recomputes(o.pass)))
      check_slot(rank, i, o, kept_inputs_, slots.kept_input, forward);
    else if (slots.kept_input != no_slot)
      refuse_slot(rank, i, o, kept_inputs_);
    if (needs_context(o))
      check_slot(rank, i, o, contexts_, slots.context, yields_input_gradient(o.pass));
    else if (slots.context != no_slot)
      refuse_slot(rank, i, o, contexts_);
  }
  bool needs_context(op o) const {
    return (yields_input_gradient(o.pass) || yields_weight_gradient(o.pass)) &&
           s_.backward_of(o.stage) == stage_backward::full;
  }
  void refuse_slot(std::uint32_t rank, std::size_t i, op o, const slots_in_use& of) {
    add(rule::slot, rank, i, concat({to_string(o), " has a ", of.what, " slot that it does not need"}));
  }
  void release_slots_of(std::uint32_t rank, std::size_t i, op o, const op_slots& slots) {
    if (s_.is_last(o) || (o.pass == pass::forward && (*recomputed_)(o))) activations_.release(slots.activation);
    if (recomputes(o.pass)) kept_inputs_.release(slots.kept_input);
    if (!yields_weight_gradient(o.pass)) return;
    totals_[rank][o.chunk].after_last = static_cast<std::uint32_t>(i + 1);  // verify() knows the chunk
    contexts_.release(slots.context);
  }

  // Checks that all cells run in order, and the weight gradients between them.
  void check_actions(std::uint32_t rank) {
    std::uint32_t cells = 0;
    for (const action& a : p_.actions[rank]) {
      if (a.kind == action_kind::compute && a.index != cells++)
        return add(rule::program, rank, cells - 1, concat({"runs cell ", a.index, "; expected cell ", cells - 1}));
      const bool sends = a.kind == action_kind::send && is_weight_gradient(a);
      if ((sends || a.kind == action_kind::accumulate) && !check_gradient(rank, cells, a, sends)) return;
    }
    if (cells < s_[rank].size())
      add(rule::program, rank, cells, concat({"runs ", count_text(cells, "cell"), "; expected ", s_[rank].size()}));
  }

  // Checks that a weight gradient is sent or added to after the last W or B of its stage. False if the stages are wrong.
  bool check_gradient(std::uint32_t rank, std::uint32_t cells, const action& a, bool sends) {
    const std::uint32_t stage = sends ? a.what.stage : a.index;
    if (!is_weight_gradient(a)) {
      add(rule::reduction, rank, violation::no_cell,
          concat({"adds ", to_string(a.what), "; expected a weight gradient"}));
      return false;
    }
    if (!is_chunk(rank, a.chunk, stage)) {
      add(rule::reduction, rank, violation::no_cell,
          concat({sends ? "sends" : "adds to", " the weight gradient of stage ", stage, " as chunk ", a.chunk,
                  ", which it does not hold"}));
      return false;
    }
    if (a.what.stage >= s_.stages()) {
      add(rule::reduction, rank, violation::no_cell,
          concat({"adds the weight gradient of stage ", a.what.stage, "; expected a stage below ", s_.stages()}));
      return false;
    }
    const bool local = !sends && a.channel == no_slot;
    if (local && (a.other_chunk == a.chunk || !is_chunk(rank, a.other_chunk, a.what.stage))) {
      add(rule::reduction, rank, violation::no_cell,
          concat({"adds the weight gradient of stage ", a.what.stage, " to that of stage ", stage,
                  " without a message; expected another chunk of this rank"}));
      return false;
    }
    if (local && a.buffer != no_slot) {
      add(rule::reduction, rank, violation::no_cell,
          concat(
              {"adds the weight gradient of stage ", a.what.stage, " without a message, but names buffer ", a.buffer}));
      return false;
    }
    check_complete(rank, cells, a.chunk, sends ? "sends" : "adds to");
    if (local) check_complete(rank, cells, a.other_chunk, "adds");
    totals& of = totals_[rank][a.chunk];
    if (sends && of.sent == 0 && of.has_sum && is_on_two_ranks(stage))
      add(rule::reduction, rank, cells,
          concat({"sends the weight gradient of stage ", stage,
                  " after another one has been added to it; expected it before"}));
    if (!sends) of.has_sum = true;
    if (local) totals_[rank][a.other_chunk].has_sum = true;
    if (a.what.stage == stage) ++(sends ? of.sent : of.added);
    return true;
  }
  void check_complete(std::uint32_t rank, std::uint32_t cells, std::uint32_t chunk, const char* verb) {
    if (const std::uint32_t after_last = totals_[rank][chunk].after_last; cells < after_last)
      add(rule::reduction, rank, cells,
          concat({verb, " the weight gradient of stage ", hosted_[rank][chunk],
                  " before its last W or B has run; expected it after cell ", after_last - 1}));
  }

  bool is_on_two_ranks(std::uint32_t stage) const {
    return s_.placement.replicas() == 2 && s_.placement.rank_of_stage(0)[stage] != s_.placement.rank_of_stage(1)[stage];
  }
  // Checks that both ranks of a stage with two replicas send and add its weight gradient.
  void check_replicas() {
    if (s_.placement.replicas() < 2 || s_.forward_only) return;
    for (std::uint32_t stage = 0; stage < s_.stages(); ++stage) {
      if (s_.backward_of(stage) != stage_backward::full) continue;
      const std::uint32_t a = s_.placement.rank_of_stage(0)[stage], b = s_.placement.rank_of_stage(1)[stage];
      if (a == b) {
        if (total(stage, 0).added + total(stage, 1).added != 1)
          add(rule::reduction, a, violation::no_cell,
              concat({"holds both replicas of stage ", stage, "; expected it to add their weight gradients once"}));
        continue;
      }
      for (const std::uint32_t replica : {0u, 1u})
        if (const totals& of = total(stage, replica); of.sent < 1 || of.added != 1)
          add(rule::reduction, replica == 0 ? a : b, violation::no_cell,
              concat({"stage ", stage, " is held by ranks ", a, " and ", b,
                      "; expected both to send and to add its weight gradient once"}));
    }
  }

  void interpret() {
    interpreter<> all(p_);
    all.run([&](std::uint32_t rank, std::string text) {
      add(rule::message, rank, cell_of(rank, all.done(rank)), std::move(text));
    });
    if (!report_) return;  // other ranks may wait for the faulty one
    for (std::uint32_t c = 0; c < p_.channels.size(); ++c) {
      const channel& of = p_.channels[c];
      const std::size_t sends = all.sends(c), receives = all.receives(c);
      if (sends > receives && all.finished(of.to))
        add(rule::message, of.from, violation::no_cell,
            concat({to_string(all.unmatched(c)), " is sent to rank ", of.to, " but never received"}));
      if (receives > sends && all.finished(of.from))
        add(rule::message, of.to, violation::no_cell,
            concat({to_string(all.unmatched(c)), " is received from rank ", of.from, " but never sent"}));
      if (sends == receives && sends != of.messages && all.finished(of.from) && all.finished(of.to))
        add(rule::program, of.from, violation::no_cell,
            concat({"the channel to rank ", of.to, " has ", count_text(of.messages, "message"), "; expected ", sends}));
    }
    if (report_) find_cycles(all);
    for (std::uint32_t rank = 0; report_ && rank < s_.pp(); ++rank)
      if (const auto unused = all.unused(rank))
        add(rule::message, rank, violation::no_cell, concat({to_string(*unused), " is in a buffer but never used"}));
  }

  // Every blocked rank waits for one other.
  void find_cycles(const interpreter<>& all) {
    const auto other = [&](std::uint32_t rank) -> std::uint32_t {
      const waiting& w = all.state(rank);
      const channel& c = p_.channels[w.channel];
      return w.why == waiting::for_arrival ? c.from : c.to;
    };
    const auto add_cycle = [&](std::uint32_t start) {
      std::string text;
      std::uint32_t rank = start;
      do {
        const waiting& w = all.state(rank);
        const bool receives = w.why == waiting::for_arrival;
        text += concat({describe(p_, rank, all.done(rank)), " waits for rank ", other(rank),
                        receives ? " to send " : " to receive ", to_string(w.what), "; "});
        rank = other(rank);
      } while (rank != start);
      add(rule::deadlock, start, cell_of(start, all.done(start)), text + "expected no cycle of waits");
    };
    for_each_cycle(
        s_.pp(), [&](std::uint32_t rank) { return !all.finished(rank); }, other, add_cycle);
  }

  const program& p_;
  const schedule& s_;
  std::size_t max_;
  report report_;
  std::optional<recomputed_ops> recomputed_;
  std::vector<std::vector<std::uint16_t>> hosted_;                                                        // by rank
  slots_in_use activations_{{}, "activation"}, contexts_{{}, "context"}, kept_inputs_{{}, "kept input"};  // of one rank
  std::vector<std::vector<totals>> totals_;  // by rank and chunk
};

}  // namespace detail

/// Reports all violations of the rules above and spells out the first `max_violations`; if it is empty, every way to run
/// the program ends. Linear in the numbers of actions, stages and ranks.
inline report verify(const program& p, std::size_t max_violations = 100) {
  return detail::program_verifier(p, max_violations).run();
}

/// Throws unless verify() proves that the program ends.
/// @throws schedule_error with the first violation and the number of others; verify() lists them all.
inline void require_valid(const program& p) {
  if (const report r = verify(p, 1); !r)
    throw schedule_error(detail::concat({"the program is not valid: ", detail::first_violation(r)}));
}

}  // namespace pipesched
