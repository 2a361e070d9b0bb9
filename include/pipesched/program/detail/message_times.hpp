// SPDX-License-Identifier: MIT
#pragma once

// Message times: when each message of a program can move in a simulated step. It is the later of the times at which its two
// sides are posted. A rank posts a message when it gets to that action, and waits for messages where the program waits.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/program/describe.hpp"
#include "pipesched/program/detail/interpreter.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// Every compute and accumulate action of a rank starts later than the one before it, and every message that it waits for
/// can move no later than it starts. An action that takes no time therefore lasts as long as the last digit of a double.
template <typename Costs>
class message_times {
 public:
  /// @throws schedule_error if the program does not run to its end, or for costs as simulate() does
  message_times(const program& p, const Costs& costs)
      : p_(p), costs_(costs), first_(p.channels.size()), matched_(p.channels.size()), ranks_(p.actions.size()) {
    check_costs(costs, p.schedule.stages(), p.schedule.pp(), p.schedule.micro);
    std::size_t messages = 0;
    for (std::size_t c = 0; c < first_.size(); ++c)
      first_[c] = std::exchange(messages, messages + p.channels[c].messages);
    posted_.resize(messages);
    for (std::uint32_t r = 0; r < ranks_.size(); ++r)
      ranks_[r].cells = p.schedule[r], ranks_[r].starts.reserve(p.schedule[r].size());
    interpreter<observer> all(p, observer{this});
    all.run([&](std::uint32_t rank, const std::string& fault) {
      throw schedule_error(concat({"cannot order the messages of a program that is not valid: ",
                                   describe(p, rank, all.done(rank)), " ", fault, "; see verify()"}));
    });
    for (std::uint32_t r = 0; r < ranks_.size(); ++r)
      if (!all.finished(r)) throw schedule_error("cannot order the messages of a program that deadlocks; see verify()");
    for (std::size_t c = 0; c < first_.size(); ++c) matched_[c] = std::min(all.sends(c), all.receives(c));
  }

  /// The times at which the compute and accumulate actions of a rank start, in order.
  std::span<const double> starts(std::uint32_t rank) const { return ranks_[rank].starts; }

  /// @throws schedule_error if only one rank posts the message
  double time(std::uint32_t channel, std::size_t number) const {
    if (number >= matched_[channel])
      throw schedule_error("cannot order a message that only one rank posts; see verify()");
    return posted_[first_[channel] + number];
  }

 private:
  struct rank_state {
    double now = 0;
    std::span<const cell> cells{};
    std::vector<double> starts{};
  };

  struct observer {
    message_times* times;

    void compute(std::uint32_t rank, std::size_t cell) {
      times->run(rank, duration_of(times->costs_, rank, times->ranks_[rank].cells[cell]));
    }
    void accumulate(std::uint32_t rank) { times->run(rank, 0); }
    void post(std::uint32_t rank, std::uint32_t channel, std::size_t number) { times->post(rank, channel, number); }
    void moved(std::uint32_t rank, std::uint32_t channel, std::size_t number, tensor_id what) {
      times->wait(rank, channel, number, what);
    }
  };

  // The time after `duration`, which is later even if `duration` is lost in rounding.
  static double later(double time, double duration) {
    if (!(duration >= 0 && time + duration <= std::numeric_limits<double>::max())) refuse_time();
    return time + duration > time ? time + duration : std::nextafter(time, std::numeric_limits<double>::infinity());
  }
  [[noreturn, gnu::cold]] static void refuse_time() {
    throw schedule_error(
        "costs: a time is negative or not a number, or the times add up to more than a double holds; expected finite "
        "numbers that are not negative");
  }

  void run(std::uint32_t rank, double duration) {
    rank_state& of = ranks_[rank];
    of.starts.push_back(of.now);
    of.now = later(of.now, duration);
  }
  void post(std::uint32_t rank, std::uint32_t channel, std::size_t number) {
    if (number >= p_.channels[channel].messages)
      throw schedule_error("cannot order the messages of a channel that has more than it says; see verify()");
    double& posted = posted_[first_[channel] + number];
    posted = std::max(ranks_[rank].now, posted);
  }
  // Both sides wait for the end of the transfer.
  void wait(std::uint32_t rank, std::uint32_t channel, std::size_t number, tensor_id what) {
    const double transfer = what.kind == tensor_kind::weight_gradient
                                ? 0
                                : costs_.transfer(p_.channels[channel].from, p_.channels[channel].to, what);
    const double over = posted_[first_[channel] + number] + transfer;
    if (!(transfer >= 0 && over <= std::numeric_limits<double>::max())) refuse_time();
    ranks_[rank].now = std::max(ranks_[rank].now, over);
  }

  const program& p_;
  const Costs& costs_;
  std::vector<double> posted_;                // by channel and message: by the last of the two sides so far
  std::vector<std::size_t> first_, matched_;  // by channel: the first of them; messages that both sides post
  std::vector<rank_state> ranks_;
};

}  // namespace pipesched::detail
