// SPDX-License-Identifier: MIT
#pragma once

// A transport to test one rank alone: it writes down what is asked of it and gives every message at once, with the bytes
// that are in the buffer already or that a test puts there.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/execute/transport.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched {

class recording_transport {
 public:
  enum class event_kind : std::uint8_t { receive, send, wait, finish };

  struct event {
    event_kind kind;
    tensor_id what{};                ///< of receive and send
    std::uint32_t buffer = no_slot;  ///< of all but finish
    std::size_t bytes = 0;           ///< of receive and send

    friend bool operator==(const event&, const event&) = default;
  };

  /// @param arrive  called with each message received, to fill its bytes; may be empty
  explicit recording_transport(std::function<void(tensor_id, std::span<std::byte>)> arrive = {})
      : arrive_(std::move(arrive)) {}

  /// The calls, in order.
  const std::vector<event>& events() const { return events_; }

  void post_receive(const action& a, std::span<std::byte> bytes) {
    events_.push_back({event_kind::receive, a.what, a.buffer, bytes.size()});
    if (arrive_) arrive_(a.what, bytes);
  }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    events_.push_back({event_kind::send, a.what, a.buffer, bytes.size()});
  }
  void wait(std::uint32_t n) { events_.push_back({event_kind::wait, {}, n, 0}); }
  void on_action(std::uint32_t) {}
  void finish() { events_.push_back({event_kind::finish}); }

 private:
  std::function<void(tensor_id, std::span<std::byte>)> arrive_;
  std::vector<event> events_;
};

static_assert(transport<recording_transport>);

}  // namespace pipesched
