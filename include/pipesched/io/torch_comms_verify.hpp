// SPDX-License-Identifier: MIT
#pragma once

// Proof that the messages of a compute_comms file arrive: PyTorch itself takes such a file as it is.
//
//   rule        holds when
//   range       every message names a stage and a micro-batch that exist
//   message     every message is between two ranks, and each channel's sends and receives have the same order
//   duplicate   no action occurs twice
//   missing     every tensor that crosses ranks has a send and a receive; with any WAIT_SEND, every send has one
//   order       a send comes after its op, a receive before its op, and a WAIT_SEND after its send
//   deadlock    the ranks, each running its row in order, do not wait for each other in a cycle
//
// Assumed is PyTorch's default, one communicator for all messages of a rank: a message waits for those before it in the row,
// a receive for its send, and a send for its receive, as NCCL's sends of large tensors do. A file that passes also runs where
// sends are buffered or each direction has its own communicator (torch.distributed.config.pipeline_per_direction_p2p); one
// that is refused for a deadlock alone may run there. UNSHARD, RESHARD, REDUCE_GRAD and WAIT_REDUCE_GRAD are not checked.
// Source: torch/distributed/pipelining/schedules.py, _PipelineScheduleRuntime; stage.py, on pipeline_per_direction_p2p.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/io/torch_csv.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/worklist.hpp"

namespace pipesched {

namespace detail {

class torch_comms_verifier {
 public:
  torch_comms_verifier(const schedule& s, std::span<const torch_action> actions, std::size_t max)
      : s_(s), actions_(actions), max_(max), messages_(s.pp()) {}

  report run() {
    if (!in_row_order()) return std::move(report_);
    ends_.resize(2 * std::size_t{s_.stages()} * s_.micro);
    for (std::size_t i = 0; i < actions_.size(); ++i)
      if (actions_[i].pass < torch_pass::unshard && is_needed(i)) enter(i);
    look_for_missing();
    if (report_) look_at_ops();
    if (report_) compare_channels();
    if (report_) look_for_cycles();
    return std::move(report_);
  }

 private:
  static constexpr std::size_t none = ~std::size_t{0};

  // The actions of one tensor that crosses ranks.
  struct message_ends {
    std::size_t send = none, receive = none, wait = none;
  };

  template <typename Text>
  void add(rule r, std::uint32_t rank, Text&& text) {
    if (report_.violations.size() < max_)
      report_.violations.push_back({r, rank, violation::no_cell, text()});
    else
      ++report_.further;
  }

  static bool sends(torch_pass p) { return p == torch_pass::send_f || p == torch_pass::send_b; }
  static bool receives(torch_pass p) { return p == torch_pass::recv_f || p == torch_pass::recv_b; }
  static bool forward(torch_pass p) {
    return p == torch_pass::send_f || p == torch_pass::recv_f || p == torch_pass::wait_send_f;
  }

  // "0SEND_F1 in column 3"
  std::string in_column(std::size_t i) const { return concat({to_string(actions_[i]), " in column ", column(i)}); }
  std::size_t column(std::size_t i) const {
    const auto first = std::partition_point(actions_.begin(), actions_.end(),
                                            [&](const torch_action& a) { return a.rank < actions_[i].rank; });
    return actions_[i].before_cell + i - static_cast<std::size_t>(first - actions_.begin());
  }

  bool in_row_order() {
    for (std::size_t i = 0; i < actions_.size(); ++i) {
      const torch_action& a = actions_[i];
      const bool first = i == 0 || actions_[i - 1].rank < a.rank;
      if (a.rank < s_.pp() && a.before_cell <= s_[a.rank].size() &&
          (first || (actions_[i - 1].rank == a.rank && actions_[i - 1].before_cell <= a.before_cell)))
        continue;
      add(rule::shape, a.rank, [&] {
        return concat(
            {to_string(a), ", action ", i, ", is out of place; expected actions by rank, in the order of rows"});
      });
      return false;
    }
    return true;
  }

  // The stage at the other end, if there is one.
  std::optional<std::uint32_t> peer_stage(const torch_action& a) const {
    const bool up = a.pass == torch_pass::send_f || a.pass == torch_pass::wait_send_f || a.pass == torch_pass::recv_b;
    if (up ? a.stage + 1u >= s_.stages() : a.stage == 0) return std::nullopt;
    return up ? a.stage + 1u : a.stage - 1u;
  }
  std::uint32_t peer_rank(std::size_t i) const {
    return s_.placement.rank_of(*peer_stage(actions_[i]), actions_[i].micro);
  }

  bool is_needed(std::size_t i) {
    const torch_action& a = actions_[i];
    if (a.stage >= s_.stages() || a.micro >= s_.micro) {
      add(rule::range, a.rank, [&] {
        return concat({in_column(i), "; expected stages below ", s_.stages(), " and micro-batches below ", s_.micro});
      });
      return false;
    }
    const std::uint32_t home = s_.placement.rank_of(a.stage, a.micro);
    if (home != a.rank) {
      add(rule::placement, a.rank, [&] { return concat({in_column(i), "; expected on rank ", home}); });
      return false;
    }
    const auto peer = peer_stage(a);
    const char* why = nullptr;
    if (!peer)
      why = ": there is no stage at the other end";
    else if (s_.placement.rank_of(*peer, a.micro) == a.rank)
      why = ": both stages are on this rank";
    else if (s_.forward_only && !forward(a.pass))
      why = ": the schedule has no backward";
    if (why != nullptr) add(rule::message, a.rank, [&] { return in_column(i) + why + "; expected no message"; });
    return why == nullptr;
  }

  // By the stage that makes the tensor.
  message_ends& ends_of(bool activation, std::uint32_t stage, std::uint32_t micro) {
    return ends_[(std::size_t{stage} * 2 + (activation ? 0 : 1)) * s_.micro + micro];
  }
  message_ends& ends_of(const torch_action& a) {
    return ends_of(forward(a.pass), receives(a.pass) ? *peer_stage(a) : a.stage, a.micro);
  }
  std::size_t counterpart(std::size_t i) {
    const message_ends& m = ends_of(actions_[i]);
    return sends(actions_[i].pass) ? m.receive : m.send;
  }

  void enter(std::size_t i) {
    const torch_action& a = actions_[i];
    message_ends& m = ends_of(a);
    std::size_t& own = sends(a.pass) ? m.send : receives(a.pass) ? m.receive : m.wait;
    if (own != none)
      return add(rule::duplicate, a.rank, [&] {
        return concat({in_column(i), " again, first in column ", column(own)});
      });
    own = i;
    if (sends(a.pass) || receives(a.pass)) {
      messages_[a.rank].push_back(i);
      return;
    }
    waits_ = true;
    if (m.send == none)
      add(rule::order, a.rank, [&] {
        return concat({in_column(i), " does not come after ", a.stage, forward(a.pass) ? "SEND_F" : "SEND_B", a.micro});
      });
  }

  void look_for_missing() {
    for (const bool activation : {true, false})
      for (std::uint32_t stage = 0; stage < s_.stages(); ++stage)
        for (std::uint32_t micro = 0; micro < s_.micro; ++micro) {
          if (activation ? stage + 1 == s_.stages() : stage == 0 || s_.forward_only) continue;
          const std::uint32_t to_stage = activation ? stage + 1 : stage - 1;
          const std::uint32_t from = s_.placement.rank_of(stage, micro), to = s_.placement.rank_of(to_stage, micro);
          if (from != to)
            look_for_missing(ends_of(activation, stage, micro), activation, stage, to_stage, micro, from, to);
        }
  }
  void look_for_missing(const message_ends& m, bool activation, std::uint32_t stage, std::uint32_t to_stage,
                        std::uint32_t micro, std::uint32_t from, std::uint32_t to) {
    const std::string send = concat({stage, activation ? "SEND_F" : "SEND_B", micro});
    const std::string receive = concat({to_stage, activation ? "RECV_F" : "RECV_B", micro});
    if (m.send == none)
      add(rule::missing, from, [&] {
        return concat({send, m.receive == none ? "" : ", for " + receive + " on rank " + std::to_string(to) + ",",
                       " is in no column; expected one"});
      });
    if (m.receive == none)
      add(rule::missing, to, [&] {
        return concat({receive, m.send == none ? "" : ", for " + send + " on rank " + std::to_string(from) + ",",
                       " is in no column; expected one"});
      });
    if (waits_ && m.send != none && m.wait == none)
      add(rule::missing, from, [&] {
        return concat({"no wait for ", send, "; expected ", stage, activation ? "WAIT_SEND_F" : "WAIT_SEND_B", micro,
                       ", as the file has other waits"});
      });
  }

  void look_at_ops() {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      for (std::size_t cell = 0; cell < s_[rank].size(); ++cell)
        for (op o : s_[rank][cell]) {
          if (const auto in = input_of(o, s_.chain())) {
            const std::size_t i = ends_of(in->kind == tensor_kind::activation, in->stage, in->micro).receive;
            if (i != none && actions_[i].before_cell > cell)
              add(rule::order, rank, [&] {
                return concat({in_column(i), " comes after ", to_string(o), ", which needs it"});
              });
          }
          if (const auto out = output_of(o, s_.chain())) {
            const std::size_t i = ends_of(out->kind == tensor_kind::activation, out->stage, out->micro).send;
            if (i != none && actions_[i].before_cell <= cell)
              add(rule::order, rank, [&] {
                return concat({in_column(i), " comes before ", to_string(o), ", which makes its tensor"});
              });
          }
        }
  }

  // NCCL and Gloo match the messages between two ranks by their order alone.
  void compare_channels() {
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<std::size_t>> sent;
    for (const auto& row : messages_)
      for (std::size_t i : row)
        if (sends(actions_[i].pass)) sent[{actions_[i].rank, peer_rank(i)}].push_back(i);
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::size_t> received;
    for (const auto& row : messages_)
      for (std::size_t i : row) {
        if (!receives(actions_[i].pass)) continue;
        const std::pair channel{peer_rank(i), actions_[i].rank};
        std::size_t& number = received[channel];
        if (number == none) continue;  // already reported
        const std::size_t other = sent[channel][number];
        if (counterpart(i) == other) {
          ++number;
          continue;
        }
        add(rule::message, actions_[i].rank, [&] {
          return concat({in_column(i), " is receive ", number, " from rank ", channel.first, ", whose send ", number,
                         " to this rank is ", in_column(other), "; expected the same order"});
        });
        number = none;
      }
  }

  // Matches first messages until no two are each other's. This is less than the interpreter of programs does: here a message
  // waits for those before it in its row, buffers do not matter, and computation never blocks, as every receive comes before
  // its op.
  void look_for_cycles() {
    std::vector<std::size_t> done(s_.pp(), 0);
    worklist runnable(s_.pp());
    runnable.run([&](std::uint32_t rank) {
      while (done[rank] < messages_[rank].size()) {
        const std::size_t other = counterpart(messages_[rank][done[rank]]);
        const std::uint32_t peer = actions_[other].rank;
        if (messages_[peer][done[peer]] != other) break;
        ++done[rank];
        ++done[peer];
        runnable.wake(peer);
      }
    });
    for_each_cycle(
        s_.pp(), [&](std::uint32_t rank) { return done[rank] < messages_[rank].size(); },
        [&](std::uint32_t rank) { return peer_rank(messages_[rank][done[rank]]); },
        [&](std::uint32_t rank) { add_cycle(rank, done); });
  }

  void add_cycle(std::uint32_t start, const std::vector<std::size_t>& done) {
    add(rule::deadlock, start, [&] {
      std::string text;
      std::uint32_t rank = start;
      do {
        const std::size_t i = messages_[rank][done[rank]], other = counterpart(i);
        rank = actions_[other].rank;
        text += concat({to_string(actions_[i]), " (rank ", actions_[i].rank, ", column ", column(i), ") waits for ",
                        to_string(actions_[other]), " (rank ", rank, ", column ", column(other),
                        "), which comes after ", to_string(actions_[messages_[rank][done[rank]]]), "; "});
      } while (rank != start);
      return text + "assumed one communicator, and sends that wait for their receives";
    });
  }

  const schedule& s_;
  std::span<const torch_action> actions_;
  std::size_t max_;
  report report_;
  std::vector<message_ends> ends_;                  // [stage][activation or gradient][micro]
  std::vector<std::vector<std::size_t>> messages_;  // by rank: its sends and receives, in the order of the row
  bool waits_ = false;
};

}  // namespace detail

/// Verifies a schedule, and, if it is valid and has other actions, their messages as above. With no actions at all it is a
/// compute_only file, whose messages PyTorch adds. Time and memory are linear in the number of ops and actions, but for the
/// logarithm of the number of channels.
inline report verify(const schedule& s, std::span<const torch_action> actions, std::size_t max_violations = 100) {
  report r = verify(s, max_violations);
  return r && !actions.empty() ? detail::torch_comms_verifier(s, actions, max_violations).run() : r;
}
inline report verify(const torch_csv& file, std::size_t max_violations = 100) {
  return verify(file.schedule, file.actions, max_violations);
}

}  // namespace pipesched
