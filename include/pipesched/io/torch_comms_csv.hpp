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
#include <ostream>
#include <string>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/io/torch_csv.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// Waits for every send and reduction: required from PyTorch 2.15 on, unknown to earlier versions.
enum class torch_waits : std::uint8_t { omitted, written };

namespace detail {

class torch_comms_writer {
 public:
  torch_comms_writer(const timeline& t, torch_waits waits)
      : t_(t), s_(t.schedule), waits_(waits == torch_waits::written), messages_(s_.pp()), left_(s_.stages(), s_.micro) {
    find_messages();
  }

  // The text of a row, until the next call. Call it once per rank.
  const std::string& row(std::uint32_t rank) {
    text_.clear();
    const auto& messages = messages_[rank];
    std::size_t next = 0;
    for (std::size_t i = 0; i < s_[rank].size(); ++i) {
      const double end = t_[rank][i].end;
      for (; next < messages.size() && messages[next].when < end; ++next) add(messages[next]);
      put(s_[rank][i]);
      for (; next < messages.size() && messages[next].when == end; ++next) add(messages[next]);
      for (op o : s_[rank][i]) put_after(o, rank);
    }
    if (waits_)
      for (const message& m : messages)
        if (m.sends && (m.what.kind == tensor_kind::gradient || s_.forward_only))
          put(m.what.kind == tensor_kind::gradient ? torch_pass::wait_send_b : torch_pass::wait_send_f, m.what.stage,
              m.what.micro);
    return text_ += "\r\n";
  }

 private:
  // One end of a message.
  struct message {
    double when;
    tensor_id what;
    bool sends;
  };

  std::uint32_t destination(tensor_id what) const { return s_.placement.rank_of(receiver_of(what), what.micro); }

  void find_messages() {
    struct sent {
      double when;
      std::uint32_t from;
      tensor_id what;
    };
    std::vector<sent> all;
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      for (std::size_t i = 0; i < s_[rank].size(); ++i)
        for (op o : s_[rank][i])
          if (has_output(o, s_.chain()) && destination(product_of(o)) != rank)
            all.push_back({t_[rank][i].end, rank, product_of(o)});
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
      put(torch_pass::wait_send_f, o.stage, o.micro);
    if (yields_weight_gradient(o.pass) && --left_[o.stage] == 0) {
      put(torch_pass::reduce_grad, o.stage);
      if (waits_) put(torch_pass::wait_reduce_grad, o.stage);
    }
  }
  // A message is named after the stage at its own end.
  void add(const message& m) {
    const bool gradient = m.what.kind == tensor_kind::gradient;
    if (m.sends)
      put(gradient ? torch_pass::send_b : torch_pass::send_f, m.what.stage, m.what.micro);
    else
      put(gradient ? torch_pass::recv_b : torch_pass::recv_f, receiver_of(m.what), m.what.micro);
  }
  void put(torch_pass pass, std::uint16_t stage, std::uint32_t micro = 0) {
    separate();
    append_torch_text(text_, torch_action{.pass = pass, .stage = stage, .micro = micro});
  }
  void put(const cell& c) {
    separate();
    append_torch_text(text_, c);
  }
  void separate() {
    if (!text_.empty()) text_ += ',';
  }

  const timeline& t_;
  const schedule& s_;
  bool waits_;
  std::vector<std::vector<message>> messages_;  // by rank, in one order for all ranks
  std::vector<std::uint32_t> left_;             // by stage: number of its W and B to come
  std::string text_;
};

}  // namespace detail

/// Writes the compute_comms form. O(n log n) in the number of messages.
/// @throws schedule_error for an invalid schedule and what the format cannot express: stages held twice, as DualPipe's are,
/// frozen stages, ops that recompute, and overlapped cells other than an F with a B or I.
inline void write_torch_comms_csv(std::ostream& out, const schedule& s, torch_waits waits = torch_waits::written) {
  detail::require_torch_placement(s);
  const timeline t = simulate(s);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (const cell& c : s[rank]) detail::require_torch_cell(c, rank);
  detail::torch_comms_writer rows(t, waits);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) out << rows.row(rank);
}

}  // namespace pipesched
