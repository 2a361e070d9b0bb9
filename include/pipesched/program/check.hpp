// SPDX-License-Identifier: MIT
#pragma once

// Does a program run to its end, whatever the machine does? The answer is a report, as that of verify(), with the rules
//
//   program      every rank runs its cells in order, once, with slots for all of them
//   slot         an activation or a pending W is where the program says, and nothing else is there
//   message      every message is sent and received once, in one order on both sides, and is where its cell expects it
//   reduction    a stage that two ranks hold is reduced by both, after its last W or B
//   deadlock     ranks do not wait for each other in a circle, even if a send ends only when its receive is posted
//
// after those of verify() for its schedule.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/program/play.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/verify.hpp"

namespace pipesched {

namespace detail {

class checker {
 public:
  checker(const program& p, std::size_t most) : p_(p), s_(p.schedule), max_(most) {}

  report run() {
    report_ = verify(s_, max_);
    if (!report_ || !check_shape()) return std::move(report_);
    hosted_ = hosted_stages(s_);
    for (const auto& stages : hosted_) totals_.emplace_back(stages.size());
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      check_slots(rank);
      check_actions(rank);
    }
    if (report_) check_replicas();
    if (report_) play();
    return std::move(report_);
  }

 private:
  using waiting = player<>::waiting;

  void add(rule r, std::uint32_t rank, std::size_t at, std::string text) {
    if (report_.violations.size() < max_)
      report_.violations.push_back({r, rank, at, std::move(text)});
    else
      ++report_.further;
  }

  // Of a stage on a rank that holds it: the cell behind its last W or B, and how often its weight gradient is sent and
  // added to.
  struct totals {
    std::uint32_t behind_last = 0, sent = 0, reduced = 0;
  };
  totals* total(std::uint32_t rank, std::uint32_t stage) {
    const auto& stages = hosted_[rank];
    const auto found = std::find(stages.begin(), stages.end(), stage);
    return found == stages.end() ? nullptr : &totals_[rank][static_cast<std::size_t>(found - stages.begin())];
  }

  // The cell that an action belongs to: its own, or that of the next compute.
  std::size_t cell_of(std::uint32_t rank, std::size_t action_number) const {
    const auto row = p_.actions[rank];
    for (std::size_t i = action_number; i < row.size(); ++i)
      if (row[i].kind == action_kind::compute) return row[i].index;
    return violation::no_cell;
  }

  bool check_shape() {
    const std::size_t pp = s_.pp();
    bool good = p_.actions.count() == pp && p_.slots.count() == pp && p_.pools.size() == pp;
    for (std::uint32_t rank = 0; good && rank < pp; ++rank) good = p_.slots[rank].size() == s_[rank].size();
    if (!good)
      add(rule::program, 0, violation::no_cell,
          concat({"expected actions, pools and slots of every cell for ", pp, " ranks"}));
    for (std::uint32_t rank = 0; good && rank < pp; ++rank) {
      const std::size_t most = 4 * p_.actions[rank].size();  // more cannot be used
      const pool_sizes& own = p_.pools[rank];
      for (const std::uint32_t size : {own.activations, own.contexts, own.buffers, own.reductions})
        if (size > most) {
          add(rule::program, rank, violation::no_cell, concat({"a pool of ", size, "; expected at most ", most}));
          good = false;
        }
    }
    std::size_t messages = 0;
    for (const channel& c : p_.channels) messages += c.messages;
    if (messages > p_.actions.size()) {
      add(rule::program, 0, violation::no_cell,
          concat(
              {"the channels have ", messages, " messages; expected at most as many as actions, ", p_.actions.size()}));
      good = false;
    }
    for (const channel& c : p_.channels)
      if (c.from >= pp || c.to >= pp || c.from == c.to) {
        add(rule::program, 0, violation::no_cell,
            concat({"a channel from rank ", c.from, " to rank ", c.to, "; expected two of ", pp, " ranks"}));
        good = false;
      }
    return good;
  }

  // Does the slot hold what the op takes out of it, or is it free for what the op puts in?
  struct pool {
    std::vector<op> slots;
    const char* what;
  };
  void check_slot(std::uint32_t rank, std::size_t i, op o, pool& in, std::uint32_t slot, bool puts) {
    const op empty{};
    op key = o;
    key.pass = pass::forward;
    if (slot >= in.slots.size())
      add(rule::slot, rank, i,
          concat({to_string(o), slot == no_slot ? " has no " : " is out of range with its ", in.what,
                  " slot; there are ", in.slots.size()}));
    else if (puts && in.slots[slot] != empty)
      add(rule::slot, rank, i,
          concat({to_string(o), " puts into ", in.what, " slot ", slot, " what ", to_string(in.slots[slot]),
                  " left there"}));
    else if (!puts && in.slots[slot] != key)
      add(rule::slot, rank, i,
          concat({to_string(o), " looks into ", in.what, " slot ", slot, ", where what it needs is not"}));
    else if (puts)
      in.slots[slot] = key;
  }

  void check_slots(std::uint32_t rank) {
    pool activations{std::vector<op>(p_.pools[rank].activations), "activation"};
    pool weights{std::vector<op>(p_.pools[rank].contexts), "weight"};
    const auto release = [](pool& of, std::uint32_t slot) {
      if (slot < of.slots.size()) of.slots[slot] = {};
    };
    for (std::size_t i = 0; i < s_[rank].size(); ++i) {
      const cell& c = s_[rank][i];
      const auto& slots = p_.slots[rank][i];
      if (!c.overlapped() && slots[1] != op_slots{})
        add(rule::slot, rank, i, concat({to_string(c), " has slots for a second op"}));
      for (std::size_t k = 0; k < c.size(); ++k) {
        check_slot(rank, i, c[k], activations, slots[k].activation, c[k].pass == pass::forward);
        if (c[k].pass != pass::forward)
          check_slot(rank, i, c[k], weights, slots[k].context, yields_input_gradient(c[k].pass));
      }
      for (std::size_t k = 0; k < c.size(); ++k) {
        const bool weighs = yields_weight_gradient(c[k].pass);
        if (weighs)
          totals_[rank][c[k].chunk].behind_last = static_cast<std::uint32_t>(i + 1);  // verify() knows the chunk
        if (s_.forward_only || weighs) release(activations, slots[k].activation);
        if (weighs) release(weights, slots[k].context);
      }
    }
  }

  // All cells run, in order, and weight gradients leave behind the last W or B of their stage.
  void check_actions(std::uint32_t rank) {
    std::uint32_t cells = 0;
    for (const action& a : p_.actions[rank]) {
      if (a.kind == action_kind::compute && a.index != cells++)
        return add(rule::program, rank, cells - 1, concat({"cell ", a.index, " is run; expected cell ", cells - 1}));
      const bool sends = a.kind == action_kind::send && a.what.kind == tensor_kind::weight_gradient;
      if (!sends && a.kind != action_kind::accumulate) continue;
      const std::uint32_t stage = sends ? a.what.stage : a.index;
      totals* const of = total(rank, stage);
      if (!sends && a.what.kind != tensor_kind::weight_gradient)
        return add(rule::reduction, rank, violation::no_cell,
                   concat({"adds ", to_string(a.what), "; expected a weight gradient"}));
      if (of == nullptr || a.what.stage >= s_.stages())
        return add(rule::reduction, rank, violation::no_cell,
                   concat({sends ? "sends" : "adds to", " the weight gradient of stage ",
                           of == nullptr ? stage : a.what.stage, ", which it does not hold"}));
      if (cells < of->behind_last)
        add(rule::reduction, rank, cells,
            concat({sends ? "sends" : "adds to", " the weight gradient of stage ", stage,
                    " before all of its W or B have run; expected it behind cell ", of->behind_last - 1}));
      if (a.what.stage == stage) ++(sends ? of->sent : of->reduced);
    }
    if (cells < s_[rank].size())
      add(rule::program, rank, cells, concat({"the last cells are not run; expected ", s_[rank].size()}));
  }

  // Of stages that two ranks hold, both send and reduce.
  void check_replicas() {
    if (s_.placement.replicas() < 2 || s_.forward_only) return;
    for (std::uint32_t stage = 0; stage < s_.stages(); ++stage) {
      const std::uint32_t a = s_.placement.rank_of_stage(0)[stage], b = s_.placement.rank_of_stage(1)[stage];
      for (const std::uint32_t rank : {a, b}) {
        const std::uint32_t sends = a == b ? 0 : 1, reductions = a == b ? 0 : 1;
        if (const totals& of = *total(rank, stage); of.sent < sends || of.reduced != reductions)
          add(rule::reduction, rank, violation::no_cell,
              concat({"stage ", stage, " is held by ranks ", a, " and ", b,
                      "; expected both to send and to add its weight gradient once"}));
      }
    }
  }

  void play() {
    player<> all(p_);
    all.run([&](std::uint32_t rank, std::string text) {
      add(rule::message, rank, cell_of(rank, all.done(rank)), std::move(text));
    });
    if (!report_) return;  // the others may wait for that one
    for (std::uint32_t c = 0; c < p_.channels.size(); ++c) {
      const channel& of = p_.channels[c];
      const std::size_t sends = all.sends(c), receives = all.receives(c);
      if (sends > receives && all.finished(of.to))
        add(rule::message, of.from, violation::no_cell,
            concat({to_string(all.send(c, receives)), " is sent to rank ", of.to, " and never received"}));
      if (receives > sends && all.finished(of.from))
        add(rule::message, of.to, violation::no_cell,
            concat({to_string(all.receive(c, sends)), " is received from rank ", of.from, " and never sent"}));
    }
    if (report_) find_circle(all);
  }

  // Every rank that is not done waits for one other; from any of them the way leads into a circle.
  void find_circle(const player<>& all) {
    std::uint32_t rank = 0;
    while (rank < s_.pp() && all.finished(rank)) ++rank;
    if (rank == s_.pp()) return;
    const auto other = [&](std::uint32_t r) -> std::uint32_t {
      const waiting& w = all.state(r);
      const channel& c = p_.channels[w.channel];
      return w.why == waiting::for_arrival ? c.from : c.to;
    };
    for (std::uint32_t step = 0; step < s_.pp(); ++step) rank = other(rank);
    std::string text;
    std::uint32_t r = rank;
    do {
      const waiting& w = all.state(r);
      const bool receives = w.why == waiting::for_arrival;
      if (!text.empty()) text += "; ";
      text += concat({"rank ", r, " at ", place(r, all.done(r)), " waits for rank ", other(r),
                      receives ? " to send " : " to receive ",
                      to_string(receives ? all.receive(w.channel, w.number) : all.send(w.channel, w.number))});
      r = other(r);
    } while (r != rank);
    add(rule::deadlock, rank, cell_of(rank, all.done(rank)), text + "; expected an end");
  }

  std::string place(std::uint32_t rank, std::size_t number) const {
    const action& a = p_.actions[rank][number];
    if (a.kind == action_kind::compute) return to_string(s_[rank][a.index]);
    return concat({"the reduction of stage ", a.index});
  }

  const program& p_;
  const schedule& s_;
  std::size_t max_;
  report report_;
  std::vector<std::vector<std::uint16_t>> hosted_;  // by rank
  std::vector<std::vector<totals>> totals_;         // by rank and chunk, like those
};

}  // namespace detail

/// The report of a program: true where every way to run it ends. Linear in the numbers of actions, stages and
/// ranks.
inline report check(const program& p, std::size_t max_violations = 20) {
  return detail::checker(p, max_violations).run();
}

}  // namespace pipesched
