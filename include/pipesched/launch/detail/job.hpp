// SPDX-License-Identifier: MIT
#pragma once

// The state of a job as process 0 keeps it: who is present, what each has given to broadcasts and exchanges, and the first
// failure. Knows nothing of sockets.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
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
struct frame {
  enum kind : char { greeting, broadcast, exchange, position, failure, leave } is = greeting;
  std::string text{};
};

class job {
 public:
  using sender = std::function<void(std::uint32_t process, frame::kind, const std::string& text)>;

  job(std::uint32_t size, sender send) : send_(std::move(send)), members_(size) {}

  bool is_awaited(std::uint32_t process) const { return members_[process].is == member::absent; }
  /// True if every process that came has left or been lost.
  bool is_over() const {
    return std::none_of(members_.begin(), members_.end(), [](const member& m) { return m.is == member::present; });
  }

  void join(std::uint32_t process) {
    members_[process].is = member::present;
    if (failure_) send_(process, frame::failure, *failure_);
  }
  /// False if the frame is not one that a process of this job sends.
  bool take(std::uint32_t process, frame f) {
    member& from = members_[process];
    switch (f.is) {
      case frame::broadcast: from.broadcasts.push_back(std::move(f.text)), complete_broadcasts(); return true;
      case frame::exchange: return add_parcels(from, f.text);
      case frame::position: return set_position(from, f.text);
      case frame::failure: fail(std::move(f.text)); return true;
      case frame::leave: from.is = member::left, complete_broadcasts(), complete_exchanges(); return true;
      case frame::greeting: break;
    }
    return false;
  }
  /// The connection of a process has ended.
  void lose(std::uint32_t process) {
    member& m = members_[process];
    if (m.is != member::present) return;
    m.is = member::lost;
    fail(concat({"process ", process, " is gone", m.position.empty() ? "" : ", last seen as ", m.position}));
  }

 private:
  struct member {
    enum { absent, present, left, lost } is = absent;
    std::deque<std::string> broadcasts{};
    std::deque<std::vector<parcel>> exchanges{};
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

  bool add_parcels(member& from, std::string_view text) {
    auto parcels = unpack(text);
    if (!parcels || std::ranges::any_of(*parcels, [&](const parcel& p) { return p.rank >= members_.size(); }))
      return false;
    from.exchanges.push_back(std::move(*parcels));
    complete_exchanges();
    return true;
  }
  // True if every process has given its part of the next round. Fails if one that has left will not.
  template <typename Part>
  bool is_complete(std::deque<Part> member::*given) {
    const auto has_given = [&](const member& m) { return !(m.*given).empty(); };
    if (std::ranges::all_of(members_, has_given)) return true;
    if (std::ranges::any_of(members_, has_given))
      for (std::uint32_t r = 0; r < members_.size(); ++r)
        if (members_[r].is == member::left && !has_given(members_[r])) {
          fail(concat({"process ", r, " has left, and others wait for it"}));
          break;
        }
    return false;
  }
  void complete_broadcasts() {
    while (is_complete(&member::broadcasts)) {
      const std::string text = std::move(members_[0].broadcasts.front());
      for (member& m : members_) m.broadcasts.pop_front();
      for (std::uint32_t r = 0; r < members_.size(); ++r) send_(r, frame::broadcast, text);
    }
  }
  void complete_exchanges() {
    while (is_complete(&member::exchanges)) {
      std::vector<std::vector<parcel>> to(members_.size());
      for (std::uint32_t r = 0; r < members_.size(); ++r) {
        for (parcel& p : members_[r].exchanges.front()) to[p.rank].push_back({r, std::move(p.text)});
        members_[r].exchanges.pop_front();
      }
      for (std::uint32_t r = 0; r < members_.size(); ++r) send_(r, frame::exchange, pack(to[r]));
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
    for (std::uint32_t r = 0; r < members_.size(); ++r)
      if (members_[r].is == member::present) send_(r, frame::failure, *failure_);
  }

  sender send_;
  std::vector<member> members_;  // by rank
  std::optional<std::string> failure_;
};

}  // namespace pipesched::detail
