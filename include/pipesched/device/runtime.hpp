// SPDX-License-Identifier: MIT
#pragma once

// A device's runtime: CUDA (cuda.hpp), HIP (hip.hpp), or a fake for tests. A port is one type that satisfies `device_runtime`.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "pipesched/launch/environment.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Every function returns a status; none waits for the device.
///
///   make_stream(device, priority, s), make_event(device, timed, e)   the only ones that allocate; priority: less is more urgent
///   count_devices(count), no_device                                  that this process sees; the status of a process that sees 0
///   set_device(device)                                               of this thread: where trainers launch their kernels
///   connect(from_device, to_device)                                  lets one write into the memory of the other, if it can
///   record(e, s), wait(s, e)                                         event after what is in the stream; stream after the event
///   copy(s, to, to_device, from, from_device, size)
///   allocate_counters(device, n, c), free_counters(c)                n numbers of 4 bytes that host and device see, all 0
///   write(s, counter, value)                                         when the stream gets there
///   query(e, done), elapsed_ms(begin, end, ms)                       of events; no error before they are reached
///   begin_capture(s), end_capture(s, graph), launch(graph, s)
///   destroy(stream), destroy(event), destroy(graph)                  whose errors are ignored
///   succeeded(status), text(status), prefix                          prefix: of the names of its calls, "cuda"
template <typename R>
concept device_runtime = std::copyable<R> &&
    requires(R& r, typename R::status status, typename R::stream s, typename R::event e, typename R::graph g,
             int device, void* to, const void* from, std::size_t size, bool done, float ms, std::uint32_t* counters,
             std::uint32_t value, int& count) {
  { r.count_devices(count) } -> std::same_as<typename R::status>;
  { R::no_device } -> std::convertible_to<typename R::status>;
  { r.succeeded(status) } -> std::same_as<bool>;
  { r.text(status) } -> std::convertible_to<std::string>;
  { R::prefix } -> std::convertible_to<std::string_view>;
  { r.make_stream(device, device, s) } -> std::same_as<typename R::status>;
  { r.make_event(device, done, e) } -> std::same_as<typename R::status>;
  { r.set_device(device) } -> std::same_as<typename R::status>;
  { r.connect(device, device) } -> std::same_as<typename R::status>;
  { r.record(e, s) } -> std::same_as<typename R::status>;
  { r.wait(s, e) } -> std::same_as<typename R::status>;
  { r.copy(s, to, device, from, device, size) } -> std::same_as<typename R::status>;
  { r.allocate_counters(device, size, counters) } -> std::same_as<typename R::status>;
  { r.free_counters(counters) } -> std::same_as<void>;
  { r.write(s, counters, value) } -> std::same_as<typename R::status>;
  { r.query(e, done) } -> std::same_as<typename R::status>;
  { r.elapsed_ms(e, e, ms) } -> std::same_as<typename R::status>;
  { r.begin_capture(s) } -> std::same_as<typename R::status>;
  { r.end_capture(s, g) } -> std::same_as<typename R::status>;
  { r.launch(g, s) } -> std::same_as<typename R::status>;
  r.destroy(s);
  r.destroy(e);
  r.destroy(g);
};

/// A call that failed. Its text has the rank and its op.
struct device_error : std::runtime_error {
  device_error(int status_, std::string call_, const std::string& text)
      : std::runtime_error(text), status(status_), call(std::move(call_)) {}
  int status;
  std::string call;
};

namespace detail {

/// @throws device_error unless the status is a success. `where()`: the rank and the op. `Calls` is a runtime, or a library
/// of messages (message_library.hpp)
template <typename Calls, typename Where>
void require(Calls& calls, typename Calls::status status, std::string_view call, const Where& where) {
  if (calls.succeeded(status)) return;
  const std::string name = concat({Calls::prefix, call});
  const auto number = static_cast<int>(status);
  throw device_error(number, name, concat({name, ": ", calls.text(status), " (", number, "), ", where()}));
}

}  // namespace detail

/// The place where a rank runs: its device, and the stream that its trainer puts its work into. The stream is the user's.
template <device_runtime R>
struct device_rank {
  int device = 0;
  typename R::stream compute{};
};

/// Makes the device of this process the current one of this thread, and returns it: its local rank modulo the number of
/// devices that it sees, of which a launcher may show it one alone. @throws device_error if the process sees no device, or
/// cannot use it
template <device_runtime R>
int pick_device(R calls, const launch_environment& job) {
  const auto where = [&] { return detail::concat({"process ", job.rank, " of ", job.size}); };
  int devices = 0;
  detail::require(calls, calls.count_devices(devices), "GetDeviceCount", where);
  if (devices == 0) detail::require(calls, R::no_device, "GetDeviceCount", where);
  const auto device = static_cast<int>(job.local_rank % static_cast<std::uint32_t>(devices));
  detail::require(calls, calls.set_device(device), "SetDevice", where);
  return device;
}

}  // namespace pipesched
