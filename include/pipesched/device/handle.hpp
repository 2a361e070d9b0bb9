// SPDX-License-Identifier: MIT
#pragma once

// Streams, events, graphs and counters that are destroyed with their owner.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "pipesched/device/runtime.hpp"

namespace pipesched {

/// A stream, event, graph or array of counters, which is destroyed with this.
template <device_runtime R, typename Handle>
class device_handle {
 public:
  device_handle() = default;
  /// Takes it over.
  device_handle(R runtime, Handle handle) : runtime_(std::move(runtime)), handle_(handle), owning_(true) {}
  device_handle(device_handle&& other) noexcept { *this = std::move(other); }
  device_handle& operator=(device_handle&& other) noexcept {
    std::swap(runtime_, other.runtime_), std::swap(handle_, other.handle_), std::swap(owning_, other.owning_);
    return *this;
  }
  ~device_handle() {
    if (!owning_) return;
    if constexpr (std::is_same_v<Handle, std::uint32_t*>)
      runtime_.free_counters(handle_);
    else
      runtime_.destroy(handle_);
  }
  Handle handle() const { return handle_; }
  /// Gives up ownership: it is never destroyed.
  void leak() noexcept { owning_ = false; }

 private:
  R runtime_{};
  Handle handle_{};
  bool owning_ = false;
};

namespace detail {

// All throw device_error; `where()`: the rank and the op.

template <device_runtime R>
device_handle<R, typename R::event> make_event(R& runtime, int device, bool timed, const auto& where) {
  typename R::event e{};
  require(runtime, runtime.make_event(device, timed, e), "EventCreateWithFlags", where);
  return {runtime, e};
}
template <device_runtime R>
device_handle<R, typename R::stream> make_stream(R& runtime, int device, int priority, const auto& where) {
  typename R::stream s{};
  require(runtime, runtime.make_stream(device, priority, s), "StreamCreateWithPriority", where);
  return {runtime, s};
}
template <device_runtime R>
void record(R& runtime, typename R::event e, typename R::stream s, const auto& where) {
  require(runtime, runtime.record(e, s), "EventRecord", where);
}
template <device_runtime R>
void wait(R& runtime, typename R::stream s, typename R::event e, const auto& where) {
  require(runtime, runtime.wait(s, e), "StreamWaitEvent", where);
}

/// Numbers that a device writes and the host reads.
template <device_runtime R>
class device_counters {
 public:
  device_counters() = default;
  device_counters(R& runtime, int device, std::size_t count, const auto& where) : count_(count) {
    std::uint32_t* memory = nullptr;
    if (count == 0) return;
    require(runtime, runtime.allocate_counters(device, count, memory), "HostAlloc", where);
    memory_ = {runtime, memory};
  }
  void leak() noexcept { memory_.leak(); }
  std::uint32_t* at(std::size_t i) const { return memory_.handle() + i; }
  /// @pre the device is not writing
  void reset() {
    for (std::size_t i = 0; i < count_; ++i) std::atomic_ref(*at(i)).store(0, std::memory_order_relaxed);
  }
  std::uint64_t sum() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < count_; ++i) sum += std::atomic_ref(*at(i)).load(std::memory_order_relaxed);
    return sum;
  }
  std::uint32_t value(std::size_t i) const { return std::atomic_ref(*at(i)).load(std::memory_order_acquire); }

 private:
  device_handle<R, std::uint32_t*> memory_{};
  std::size_t count_ = 0;
};

}  // namespace detail

}  // namespace pipesched
