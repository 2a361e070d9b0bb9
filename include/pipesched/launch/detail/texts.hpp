// SPDX-License-Identifier: MIT
#pragma once

// The texts that coordinators move: parcels, and the positions of processes.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/launch/coordinator.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched::detail {

/// Parcels in one text: rank and length, 4 bytes each in this machine's order, and the text of each.
inline std::string pack(std::span<const parcel> parcels) {
  std::string bytes;
  for (const parcel& p : parcels) {
    const std::uint32_t head[] = {p.rank, static_cast<std::uint32_t>(p.text.size())};
    bytes.append(reinterpret_cast<const char*>(head), sizeof head).append(p.text);
  }
  return bytes;
}
/// Nothing if the text is not one of parcels.
inline std::optional<std::vector<parcel>> unpack(std::string_view bytes) {
  std::vector<parcel> parcels;
  while (!bytes.empty()) {
    std::uint32_t head[2];
    if (bytes.size() < sizeof head) return std::nullopt;
    std::memcpy(head, bytes.data(), sizeof head);
    bytes.remove_prefix(sizeof head);
    if (bytes.size() < head[1]) return std::nullopt;
    parcels.push_back({head[0], std::string(bytes.substr(0, head[1]))});
    bytes.remove_prefix(head[1]);
  }
  return parcels;
}

/// The position of a process in one text: its state, one byte, and its place.
inline std::string pack(std::string_view place, progress_state state) {
  return std::string(1, static_cast<char>(state)).append(place);
}

/// The positions of all processes, as they have last reported them.
class position_board {
 public:
  struct position {
    progress_state state = progress_state::moves;
    std::string place{};
    std::chrono::steady_clock::time_point when{};
  };

  explicit position_board(std::size_t size) : all_(size) {}

  const std::vector<position>& all() const { return all_; }
  /// False if the text is not one of pack().
  bool set(std::uint32_t process, std::string_view packed) {
    if (packed.empty() ||
        static_cast<std::uint8_t>(packed[0]) > static_cast<std::uint8_t>(progress_state::between_steps))
      return false;
    all_[process] = {static_cast<progress_state>(packed[0]), std::string(packed.substr(1)),
                     std::chrono::steady_clock::now()};
    return true;
  }
  void forget(std::uint32_t process) { all_[process] = {}; }
  bool any_between_steps() const {
    return std::ranges::any_of(all_, [](const position& p) { return p.state == progress_state::between_steps; });
  }
  /// True if a process is stalled, and none is between steps.
  bool stalls(std::uint32_t process) const {
    return all_[process].state == progress_state::stalled && !any_between_steps();
  }
  /// A cause and, below it, the places of the processes that wait.
  std::string report(std::string cause) const {
    constexpr int max_lines = 64;
    int lines = 0;
    for (const position& p : all_)
      if (p.state == progress_state::waits || p.state == progress_state::stalled)
        if (++lines <= max_lines) cause += "\n" + p.place;
    if (lines > max_lines) cause += concat({"\nand ", lines - max_lines, " more"});
    return cause;
  }

 private:
  std::vector<position> all_;  // by process
};

}  // namespace pipesched::detail
