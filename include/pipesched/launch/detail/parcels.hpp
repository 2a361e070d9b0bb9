// SPDX-License-Identifier: MIT
#pragma once

// Parcels as one text, for coordinators that move texts.

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/launch/coordinator.hpp"

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

}  // namespace pipesched::detail
