// SPDX-License-Identifier: MIT
#pragma once

// Streams, events, graphs and counters that are destroyed with their owner.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "pipesched/device/runtime.hpp"

namespace pipesched {

/// A stream, event or graph: one that is destroyed with this, or, wrapped, one of the user's.
template <device_runtime R, typename Handle>
class device_handle {
 public:
  device_handle() = default;
  /// Takes it over.
  device_handle(R runtime, Handle handle) : runtime_(std::move(runtime)), handle_(handle), owning_(true) {}
  /// Leaves it to its owner. @pre it outlives this
  static device_handle wrap(Handle handle) {
    device_handle wrapped;
    wrapped.handle_ = handle;
    return wrapped;
  }
  device_handle(device_handle&& other) noexcept
      : runtime_(std::move(other.runtime_)), handle_(other.handle_), owning_(std::exchange(other.owning_, false)) {}
  device_handle& operator=(device_handle&& other) noexcept {
    std::swap(runtime_, other.runtime_), std::swap(handle_, other.handle_), std::swap(owning_, other.owning_);
    return *this;
  }
  ~device_handle() {
    if (owning_) runtime_.destroy(handle_);
  }
  Handle handle() const { return handle_; }
  bool is_owning() const { return owning_; }

 private:
  R runtime_{};
  Handle handle_{};
  bool owning_ = false;
};

namespace detail {

template <device_runtime R, typename Where>
device_handle<R, typename R::event> make_event(R& runtime, int device, bool timed, const Where& where) {
  typename R::event e{};
  require(runtime, runtime.make_event(device, timed, e), "EventCreateWithFlags", where);
  return {runtime, e};
}
template <device_runtime R, typename Where>
device_handle<R, typename R::stream> make_stream(R& runtime, int device, int priority, const Where& where) {
  typename R::stream s{};
  require(runtime, runtime.make_stream(device, priority, s), "StreamCreateWithPriority", where);
  return {runtime, s};
}

/// Numbers that a device writes and the host reads.
template <device_runtime R>
class device_counters {
 public:
  device_counters() = default;
  template <typename Where>
  device_counters(R& runtime, int device, std::size_t count, const Where& where) : runtime_(runtime), count_(count) {
    if (count > 0) require(runtime_, runtime_.allocate_counters(device, count, counters_), "HostAlloc", where);
  }
  device_counters(device_counters&& other) noexcept { *this = std::move(other); }
  device_counters& operator=(device_counters&& other) noexcept {
    std::swap(runtime_, other.runtime_), std::swap(counters_, other.counters_), std::swap(count_, other.count_);
    return *this;
  }
  ~device_counters() {
    if (counters_ != nullptr) runtime_.free_counters(counters_);
  }
  void leak() noexcept { counters_ = nullptr, count_ = 0; }
  std::uint32_t* at(std::size_t i) const { return counters_ + i; }
  /// @pre the device is not writing
  void reset() {
    for (std::size_t i = 0; i < count_; ++i) std::atomic_ref(counters_[i]).store(0, std::memory_order_relaxed);
  }
  std::uint64_t sum() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < count_; ++i) sum += std::atomic_ref(counters_[i]).load(std::memory_order_relaxed);
    return sum;
  }
  std::uint32_t value(std::size_t i) const { return std::atomic_ref(counters_[i]).load(std::memory_order_acquire); }

 private:
  R runtime_{};
  std::uint32_t* counters_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace detail

}  // namespace pipesched
