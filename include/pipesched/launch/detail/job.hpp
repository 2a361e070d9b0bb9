// SPDX-License-Identifier: MIT
#pragma once

// The state of a job as process 0 keeps it: who is present, what each has given to broadcasts and exchanges, and the first
// failure. Knows nothing of sockets.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/launch/coordinator.hpp"
#include "pipesched/launch/detail/parcels.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched::detail {

/// A frame of the protocol: its kind and a text.
///
///   from a process   greeting (the first), broadcast, exchange, position (after its state, one byte), failure, leave
///   to a process     broadcast (what process 0 gave), exchange (parcels for it), failure (the first of the job)
///   from either      end: never sent, as it stands for the end of the connection
struct frame {
  enum kind : char { greeting, broadcast, exchange, position, failure, leave, end } is = greeting;
  std::string text{};
};

class job {
 public:
  using sender = std::function<void(frame)>;

  explicit job(std::uint32_t size) : members_(size) {}

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
    if (failure_) members_[process].send({frame::failure, *failure_});
    return true;
  }
  /// Takes a frame from a process. False if its connection is to end: it leaves, or this is not a frame of the protocol.
  /// Process 0 is sent the end once every process that came has left or been lost.
  bool take(std::uint32_t process, frame f) {
    member& from = members_[process];
    switch (f.is) {
      case frame::broadcast:
      case frame::exchange: return take_part(process, f);
      case frame::position: return set_position(from, f.text);
      case frame::failure: fail(std::move(f.text)); return true;
      case frame::leave: from.is = member::left, complete_round(); break;
      case frame::end:
        if (from.is != member::present) break;
        from.is = member::lost;
        fail(concat({"process ", process, " is gone", from.position.empty() ? "" : ", last seen as ", from.position}));
        break;
      case frame::greeting: break;
    }
    if (std::ranges::none_of(members_, [](const member& m) { return m.is == member::present; }))
      members_[0].send({frame::end});
    return false;
  }

 private:
  struct member {
    enum { absent, present, left, lost } is = absent;
    sender send{};
    std::optional<frame::kind>
        round{};           // that it has taken part in, and others have not yet: a broadcast or an exchange
    std::string result{};  // of that round for this process, as far as it is known
    std::string position{};
    progress_state state = progress_state::moves;
  };

  bool set_position(member& from, std::string_view text) {
    if (text.empty() || static_cast<unsigned char>(text[0]) > static_cast<unsigned>(progress_state::between_steps))
      return false;
    from.state = static_cast<progress_state>(text[0]), from.position = text.substr(1);
    if (from.state == progress_state::stalled && std::ranges::none_of(members_, [](const member& m) {
          return m.is == member::present && m.state == progress_state::between_steps;
        }))
      fail(nothing_moved(from.position));
    return true;
  }

  // A process takes part once in each round. To a broadcast only process 0 gives anything.
  bool take_part(std::uint32_t process, const frame& f) {
    auto parcels = unpack(f.is == frame::exchange ? std::string_view(f.text) : "");
    const auto is_unknown = [&](const parcel& p) { return p.rank >= members_.size(); };
    if (members_[process].round || !parcels || std::ranges::any_of(*parcels, is_unknown)) return false;
    members_[process].round = f.is;
    if (process == 0 && f.is == frame::broadcast)
      for (member& m : members_) m.result = f.text;
    for (parcel& p : *parcels) {
      const parcel sent{process, std::move(p.text)};
      members_[p.rank].result += pack({&sent, 1});
    }
    complete_round();
    return true;
  }
  // Sends the results once every process has taken part. Fails if one that has left will not.
  void complete_round() {
    const auto round = members_[0].round;
    if (round && std::ranges::all_of(members_, [&](const member& m) { return m.round == round; })) {
      for (member& m : members_) m.round.reset(), m.send({*round, std::exchange(m.result, {})});
    } else if (std::ranges::any_of(members_, [](const member& m) { return m.round.has_value(); })) {
      for (std::uint32_t r = 0; r < members_.size(); ++r)
        if (members_[r].is == member::left && !members_[r].round)
          fail(concat({"process ", r, " has left, and others wait for it"}));
    }
  }
  void fail(std::string cause) {
    if (failure_) return;
    constexpr int max_lines = 64;
    std::string absent;
    int lines = 0;
    for (std::uint32_t r = 0; r < members_.size(); ++r) {
      const member& m = members_[r];
      if (m.is == member::absent) absent += concat({" ", r});
      const bool waits = m.state == progress_state::waits || m.state == progress_state::stalled;
      if (waits && m.is == member::present && ++lines <= max_lines) cause += "\n" + m.position;
    }
    if (lines > max_lines) cause += concat({"\nand ", lines - max_lines, " more"});
    failure_ = absent.empty() ? std::move(cause) : std::move(cause) + "\nnot there yet: process" + absent;
    for (const member& m : members_)
      if (m.is == member::present) m.send({frame::failure, *failure_});
  }

  std::vector<member> members_;  // by rank
  std::optional<std::string> failure_;
};

}  // namespace pipesched::detail
