// SPDX-License-Identifier: MIT
#pragma once

// Where the processes of a job tell each other what their messages cannot: that one has failed, and why; where each of them
// stands; and what all of them must know before the first message. control_plane.hpp is one over TCP.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pipesched {

/// @pre any function may be called by several threads at a time, but for share() and gather()
class notice_board {
 public:
  virtual ~notice_board() = default;

  /// This process's number, from 0, and how many there are.
  virtual std::uint32_t process() const = 0;
  virtual std::uint32_t processes() const = 0;

  /// Tells all processes that this one has failed. Of several failures the first is the one that all are told: it is what
  /// this returns, with the places behind it of processes that have said lately that they stand still.
  virtual std::string tell_failure(std::string_view cause) = 0;
  /// Where this process is: told to all if it is lost, and if it stands still with the next failure of any.
  virtual void tell_place(std::string_view place, bool stands_still) = 0;
  /// The first failure that this process has been told of, its own among them. Never waits.
  virtual std::optional<std::string> failure() = 0;

  /// Waits until all processes have come here, and returns what process 0 has given. Collective.
  /// @throws pipeline_aborted if one fails, or does not come
  virtual std::string share(std::string_view mine) = 0;
  /// On process 0 what every process has given, by process; elsewhere nothing, at once. Collective. @throws likewise
  virtual std::vector<std::string> gather(std::string_view mine) = 0;
};

}  // namespace pipesched
