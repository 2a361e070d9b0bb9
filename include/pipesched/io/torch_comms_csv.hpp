// SPDX-License-Identifier: MIT
#pragma once

// Writer of PyTorch's CSV with communication (compute_comms), for its _PipelineScheduleRuntime.
//
// By default that runtime has one communicator per rank, whose messages run in the order of the row. The order therefore
// matters twice: two ranks that order their messages differently deadlock, and a receive that comes long before its message
// is sent delays the sends after it. Here every send and its receive are placed at the time when the message is made in a
// simulation (F = I = W = 1, B = 2), in one order for all ranks, which runs even if sends wait for their receives.
//
// REDUCE_GRAD, which also scales a stage's gradients, comes after its last W or B. UNSHARD and RESHARD are not written: with
// FSDP, let PyTorch add communication to the compute_only form.
// Source: torch/distributed/pipelining/schedules.py of PyTorch 2.14 and 2.15; github.com/pytorch/pytorch, issue 188833.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/io/torch_csv.hpp"
#include "pipesched/program/detail/message_times.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Waits for every send and reduction: required from PyTorch 2.15 on, unknown to earlier versions.
enum class torch_waits : std::uint8_t { omitted, written };

namespace detail {

class torch_comms_writer {
 public:
  torch_comms_writer(const program& p, torch_waits waits)
      : p_(p),
        s_(p.schedule),
        times_(p),
        waits_(waits == torch_waits::written),
        messages_(s_.pp()),
        left_(s_.stages(), s_.micro) {
    find_messages();
  }

  // The text of a row. Call it once per rank.
  std::string row(std::uint32_t rank) {
    text_.clear();
    const auto& messages = messages_[rank];
    std::size_t next = 0;
    const auto add_until = [&](std::uint64_t when) {
      for (; next < messages.size() && messages[next].when < when; ++next) add(messages[next]);
    };
    for (std::size_t n = 0; n < p_.actions[rank].size(); ++n) {
      const action& a = p_.actions[rank][n];
      if (a.kind != action_kind::compute) continue;
      const cell& c = s_[rank][a.index];
      const std::uint64_t end = times_.of_actions(rank)[n] + message_times::duration(c);
      add_until(end);
      put({torch_text(c, rank)});
      add_until(end + 1);
      for (op o : c) put_after(o, rank);
    }
    if (waits_)
      for (const message& m : messages)
        if (m.sends && (m.what.kind == tensor_kind::gradient || s_.forward_only))
          put({m.what.stage, m.what.kind == tensor_kind::gradient ? "WAIT_SEND_B" : "WAIT_SEND_F", m.what.micro});
    return text_ + "\r\n";
  }

 private:
  // One end of a message.
  struct message {
    std::uint64_t when;
    tensor_id what;
    bool sends;
  };

  std::uint32_t destination(tensor_id what) const { return s_.placement.rank_of(receiver_of(what), what.micro); }

  void find_messages() {
    struct sent {
      std::uint64_t when;
      std::uint32_t from;
      tensor_id what;
    };
    std::vector<sent> all;
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      for (std::size_t n = 0; n < p_.actions[rank].size(); ++n)
        if (const action& a = p_.actions[rank][n]; a.kind == action_kind::send)
          all.push_back({times_.time(a.channel, times_.of_actions(rank)[n]), rank, a.what});
    std::stable_sort(all.begin(), all.end(), [](const sent& a, const sent& b) { return a.when < b.when; });
    for (const sent& m : all) {
      messages_[m.from].push_back({m.when, m.what, true});
      messages_[destination(m.what)].push_back({m.when, m.what, false});
    }
  }

  // Waits and reductions after an op.
  void put_after(op o, std::uint32_t rank) {
    // The gradient came from the rank that received the forward's output, so that send has completed.
    if (waits_ && yields_input_gradient(o.pass) && o.stage + 1u < s_.stages() &&
        destination({tensor_kind::activation, o.stage, o.micro}) != rank)
      put({o.stage, "WAIT_SEND_F", o.micro});
    if (yields_weight_gradient(o.pass) && --left_[o.stage] == 0) {
      put({o.stage, "REDUCE_GRAD"});
      if (waits_) put({o.stage, "WAIT_REDUCE_GRAD"});
    }
  }
  // A message is named after the stage at its own end.
  void add(const message& m) {
    put({m.sends ? m.what.stage : receiver_of(m.what), m.sends ? "SEND_" : "RECV_",
         m.what.kind == tensor_kind::gradient ? "B" : "F", m.what.micro});
  }
  void put(std::initializer_list<piece> action) {
    if (!text_.empty()) text_ += ',';
    text_ += concat(action);
  }

  const program& p_;
  const schedule& s_;
  message_times times_;
  bool waits_;
  std::vector<std::vector<message>> messages_;  // by rank, in one order for all ranks
  std::vector<std::uint32_t> left_;             // by stage: number of its W and B to come
  std::string text_;
};

}  // namespace detail

/// Writes the compute_comms form. O(n log n) in the number of messages.
/// @throws schedule_error for an invalid schedule and what the format cannot express: stages held twice, as DualPipe's are,
/// and overlapped cells other than an F with a B or I.
inline void write_torch_comms_csv(std::ostream& out, const schedule& s, torch_waits waits = torch_waits::written) {
  detail::require_torch_placement(s);
  constexpr std::uint32_t unlimited = ~std::uint32_t{0};
  const program p = lower(s, {.depth = unlimited});
  std::string text;
  detail::torch_comms_writer rows(p, waits);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) text += rows.row(rank);
  out << text;
}

}  // namespace pipesched
