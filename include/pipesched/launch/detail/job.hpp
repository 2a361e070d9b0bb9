// SPDX-License-Identifier: MIT
#pragma once

// The state of a job as process 0 keeps it: who is present, what each has given to an exchange, and the first failure. Knows
// nothing of sockets.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/execute/failure.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/launch/detail/texts.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched::detail {

/// A frame of the protocol: its kind and a text.
///
///   from a process   greeting (the first), exchange (its parcels), pause (a question), position, failure, leave
///   to a process     exchange (parcels for it), pause (milliseconds since the last one; empty: none), failure (the first)
///   from either      end: never sent, as it stands for the end of the connection
struct frame {
  enum kind : char { greeting, exchange, pause, position, failure, leave, end } is = greeting;
  std::string text{};
};

/// Bytes of a frame's text.
inline constexpr std::size_t max_frame = std::size_t{1} << 28;

class job {
  using clock = std::chrono::steady_clock;

 public:
  using sender = std::function<void(frame)>;

  explicit job(std::uint32_t size) : members_(size), positions_(size) {}

  /// Adds a process, to which frames are sent from now on. False if the job, or one of the size that the process knows,
  /// does not wait for it: it is sent the reason.
  bool join(std::uint32_t process, std::uint32_t size, sender send) {
    if (size != members_.size() || process >= size || members_[process].is != member::absent) {
      send({frame::failure, concat({"process ", process, " of ", size, " has joined a job of ", members_.size(),
                                    size == members_.size() ? ", which has it already" : ""})});
      return false;
    }
    members_[process].is = member::present;
    members_[process].send = std::move(send);
    if (const auto cause = failure_.get()) members_[process].send({frame::failure, *cause});
    return true;
  }
  /// Takes a frame from a process. False if its connection is to end: it leaves, or this is not a frame of the protocol.
  /// Process 0 is sent the end once every process that came has left or been lost.
  bool take(std::uint32_t process, frame f) {
    if (delays(process)) paused_ = clock::now();  // until now
    switch (f.is) {
      case frame::exchange: return take_part(process, f.text);
      case frame::position:
        if (!positions_.set(process, f.text)) return false;
        if (const auto& [state, place, when] = positions_.all()[process];
            state == progress_state::waits || state == progress_state::stalled) {
          members_[process].send({frame::pause, since_last_pause()});
          if (state == progress_state::stalled && !pauses()) fail(nothing_moved(place));
        }
        return true;
      case frame::pause: members_[process].send({frame::pause, since_last_pause()}); return true;
      case frame::failure: fail(std::move(f.text)); return true;
      case frame::leave: end(process, false); break;
      case frame::end: end(process, true); break;
      case frame::greeting: break;
    }
    if (std::ranges::none_of(members_, [](const member& m) { return m.is == member::present; }))
      members_[0].send({frame::end});
    return false;
  }

 private:
  struct member {
    enum state : char { absent, present, gone } is = absent;
    sender send{};
    bool takes_part = false;  // in the exchange in progress
    std::string result{};     // of that exchange for this process, as far as it is known
  };

  bool take_part(std::uint32_t process, const std::string& text) {
    auto parcels = unpack(text);
    const auto is_unknown = [&](const parcel& p) { return p.rank >= members_.size(); };
    if (!parcels || std::ranges::any_of(*parcels, is_unknown) || std::exchange(members_[process].takes_part, true))
      return false;
    for (parcel& p : *parcels) {
      const parcel sent{process, std::move(p.text)};
      std::string& result = members_[p.rank].result;
      result += pack({&sent, 1});
      if (result.size() > max_frame)
        fail(concat({"processes receive at most ", max_frame, " bytes in an exchange; more are for process ", p.rank}));
    }
    complete_exchange();
    return true;
  }
  // True if a process is between steps, and not in an exchange: nothing that waits for it is late.
  bool delays(std::uint32_t process) const {
    return positions_.all()[process].state == progress_state::between_steps && !members_[process].takes_part;
  }
  bool pauses() const {
    for (std::uint32_t r = 0; r < members_.size(); ++r)
      if (delays(r)) return true;
    return false;
  }
  std::string since_last_pause() {
    if (pauses()) paused_ = clock::now();
    if (!paused_) return {};
    return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(clock::now() - *paused_).count());
  }
  // Sends the results once every process has taken part. Fails if one that has gone will not.
  void complete_exchange() {
    const auto waits = [](const member& m) { return m.takes_part; };
    if (failure_.is_known()) return;  // they have heard
    if (std::ranges::all_of(members_, waits)) {
      for (member& m : members_) m.takes_part = false, m.send({frame::exchange, std::exchange(m.result, {})});
    } else if (std::ranges::any_of(members_, waits)) {
      for (std::uint32_t r = 0; r < members_.size(); ++r)
        if (members_[r].is == member::gone && !members_[r].takes_part)
          fail(concat({"process ", r, " has left, and others wait for it"}));
    }
  }
  void end(std::uint32_t process, bool lost) {
    if (members_[process].is != member::present) return;
    members_[process].is = member::gone;
    const std::string place = positions_.all()[process].place;
    positions_.forget(process);
    if (lost) fail(concat({"process ", process, " is gone", place.empty() ? "" : ", last seen as ", place}));
    complete_exchange();
  }
  void fail(std::string cause) {
    if (failure_.is_known()) return;
    std::string absent;
    for (std::uint32_t r = 0; r < members_.size(); ++r)
      if (members_[r].is == member::absent) absent += concat({" ", r});
    cause = positions_.report(std::move(cause));
    failure_.set(absent.empty() ? cause : cause + "\nnot there yet: process" + absent);
    for (const member& m : members_)
      if (m.is == member::present) m.send({frame::failure, failure_.text()});
  }

  std::vector<member> members_;  // by rank
  position_board positions_;
  std::optional<clock::time_point> paused_;  // when a process was last seen to delay the others
  first_cause failure_;
};

}  // namespace pipesched::detail
