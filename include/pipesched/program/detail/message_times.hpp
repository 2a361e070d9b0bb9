// SPDX-License-Identifier: MIT
#pragma once

// Message times: when each message of a program can move in a simulated step (F = I = W = 1, B = 2). It is the later of the
// times at which its two sides are posted. A rank posts a message when it gets to that action, and waits for messages where
// the program waits.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pipesched/program/describe.hpp"
#include "pipesched/program/detail/interpreter.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched::detail {

class message_times {
 public:
  /// @throws schedule_error if the program does not run to its end
  explicit message_times(const program& p)
      : p_(p),
        posted_(p.channels.size()),
        matched_(p.channels.size()),
        of_action_(rows<std::uint64_t>::for_overwrite_like(p.actions)),
        ranks_(p.actions.size()) {
    for (std::size_t c = 0; c < posted_.size(); ++c) posted_[c].resize(p.channels[c].messages);
    for (std::size_t r = 0; r < ranks_.size(); ++r) ranks_[r].next = of_action_[r].data();
    interpreter<observer> all(p, observer{this});
    all.run([&](std::uint32_t rank, const std::string& fault) {
      throw schedule_error(concat({"cannot order the messages of a program that is not valid: ",
                                   describe(p, rank, all.done(rank)), " ", fault, "; see verify()"}));
    });
    for (std::uint32_t r = 0; r < ranks_.size(); ++r)
      if (!all.finished(r)) throw schedule_error("cannot order the messages of a program that deadlocks; see verify()");
    for (std::size_t c = 0; c < posted_.size(); ++c) matched_[c] = std::min(all.sends(c), all.receives(c));
  }

  /// Of every action of a rank: the number of a message in its channel, and the time at which any other action starts.
  std::span<const std::uint64_t> of_actions(std::uint32_t rank) const { return of_action_[rank]; }

  /// @throws schedule_error if only one rank posts the message
  std::uint64_t time(std::uint32_t channel, std::size_t number) const {
    if (number >= matched_[channel])
      throw schedule_error("cannot order a message that only one rank posts; see verify()");
    return posted_[channel][number];
  }

  static std::uint64_t duration(const cell& c) {
    std::uint64_t sum = 0;
    for (const op o : c) sum += o.pass == pass::backward ? 2 : 1;
    return sum;
  }

 private:
  struct rank_state {
    std::uint64_t now = 0;
    std::uint64_t* next = nullptr;  // in of_action_
  };

  struct observer {
    message_times* times;

    void compute(std::uint32_t rank, std::size_t cell) { times->start(rank, duration(times->p_.schedule[rank][cell])); }
    void accumulate(std::uint32_t rank) { times->start(rank, 1); }
    void post_send(std::uint32_t c, std::size_t n) { times->post(times->p_.channels[c].from, c, n); }
    void post_receive(std::uint32_t c, std::size_t n) { times->post(times->p_.channels[c].to, c, n); }
    void arrived(std::uint32_t c, std::size_t n) { times->wait(times->p_.channels[c].to, c, n); }
    void sent(std::uint32_t c, std::size_t n) { times->wait(times->p_.channels[c].from, c, n); }
  };

  void start(std::uint32_t rank, std::uint64_t duration) {
    *ranks_[rank].next++ = ranks_[rank].now;
    ranks_[rank].now += duration;
  }
  void post(std::uint32_t rank, std::uint32_t channel, std::size_t number) {
    *ranks_[rank].next++ = number;
    std::vector<std::uint64_t>& posted = posted_[channel];
    if (number == posted.size()) posted.push_back(0);  // the channel has more messages than it says
    const std::uint64_t now = ranks_[rank].now, other = posted[number];
    posted[number] = std::max(now, other);
  }
  void wait(std::uint32_t rank, std::uint32_t channel, std::size_t number) {
    const std::uint64_t now = ranks_[rank].now, posted = posted_[channel][number];
    ranks_[rank].now = std::max(now, posted);
  }

  const program& p_;
  std::vector<std::vector<std::uint64_t>> posted_;  // by channel and message: by the last of the two sides so far
  std::vector<std::size_t> matched_;                // by channel: messages that both sides post
  rows<std::uint64_t> of_action_;
  std::vector<rank_state> ranks_;
};

}  // namespace pipesched::detail
