// SPDX-License-Identifier: MIT
#pragma once

// What the library asks of a device's runtime: the seam between CUDA (cuda.hpp), its relatives (HIP, MUSA) and a fake for
// tests. A port is one type that satisfies `device_runtime`.

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Every function returns a status; none waits for the device.
///
///   make_stream(device, priority, s), make_event(device, timed, e)   the only ones that allocate; priority: less is more urgent
///   set_device(device)                                               of this thread: where trainers launch their kernels
///   connect(from_device, to_device)                                  lets one write into the memory of the other, if it can
///   record(e, s), wait(s, e)                                         event after what is in the stream; stream after the event
///   copy(s, to, to_device, from, from_device, size)
///   query(e, done), elapsed_ms(begin, end, ms)                       of events; no error while it is not yet there
///   begin_capture(s), end_capture(s, graph), launch(graph, s)
///   destroy(stream), destroy(event), destroy(graph)                  of which errors are not told
///   succeeded(status), text(status), prefix                          prefix: that of the names of its calls, "cuda"
template <typename R>
concept device_runtime = std::copyable<R> &&
    requires(R& r, typename R::status status, typename R::stream s, typename R::event e, typename R::graph g,
             int device, void* to, const void* from, std::size_t size, bool done, float ms) {
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
  { r.query(e, done) } -> std::same_as<typename R::status>;
  { r.elapsed_ms(e, e, ms) } -> std::same_as<typename R::status>;
  { r.begin_capture(s) } -> std::same_as<typename R::status>;
  { r.end_capture(s, g) } -> std::same_as<typename R::status>;
  { r.launch(g, s) } -> std::same_as<typename R::status>;
  r.destroy(s);
  r.destroy(e);
  r.destroy(g);
};

/// A call that failed: its status and name are in it, the rank and the op it was at in the text.
struct device_error : std::runtime_error {
  device_error(int status_, std::string call_, const std::string& text)
      : std::runtime_error(text), status(status_), call(std::move(call_)) {}
  int status;
  std::string call;
};

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

/// @throws device_error unless the status is a success. `where()`: the rank and the op. `Calls` is a runtime, or a library
/// of messages (edges.hpp)
template <typename Calls, typename Where>
void require(Calls& calls, typename Calls::status status, std::string_view call, const Where& where) {
  if (calls.succeeded(status)) return;
  const std::string name = concat({Calls::prefix, call});
  const auto number = static_cast<int>(status);
  throw device_error(number, name, concat({name, ": ", calls.text(status), " (", number, "), ", where()}));
}

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

/// When the device has come to what: the end of a rank's step, and, if timed, the begin and end of every cell.
template <device_runtime R>
class rank_clock {
 public:
  template <typename Where>
  rank_clock(R& runtime, int device, std::size_t cells, bool timed, const Where& where)
      : end_(make_event(runtime, device, false, where)) {
    if (!timed) return;
    zero_ = make_event(runtime, device, true, where);
    for (std::size_t i = 0; i < 2 * cells; ++i) times_.push_back(make_event(runtime, device, true, where));
  }

  bool timed() const { return zero_.is_owning(); }
  template <typename Where>
  void record_zero(R& runtime, typename R::stream s, const Where& where) {
    if (timed()) require(runtime, runtime.record(zero_.handle(), s), "EventRecord", where);
  }
  /// The begin (2 i) or end (2 i + 1) of cell i.
  template <typename Where>
  void record(R& runtime, typename R::stream s, std::size_t n, const Where& where) {
    if (timed()) require(runtime, runtime.record(times_[n].handle(), s), "EventRecord", where);
  }
  template <typename Where>
  void record_end(R& runtime, typename R::stream s, const Where& where) {
    require(runtime, runtime.record(end_.handle(), s), "EventRecord", where);
  }
  template <typename Where>
  bool ended(R& runtime, const Where& where) {
    bool done = false;
    require(runtime, runtime.query(end_.handle(), done), "EventQuery", where);
    return done;
  }
  typename R::event end() const { return end_.handle(); }
  /// Puts the start and end of every cell there, in seconds since the zero. @throws schedule_error unless timed, or for another
  /// number of cells. @pre ended
  template <typename Where>
  void read(R& runtime, std::span<interval> cells, const Where& where) {
    const auto time = [&](std::size_t n) {
      float ms = 0;
      require(runtime, runtime.elapsed_ms(zero_.handle(), times_[n].handle(), ms), "EventElapsedTime", where);
      return ms / 1e3;
    };
    if (!timed()) throw schedule_error("times are there only where they were asked for: .timed = true");
    if (2 * cells.size() != times_.size())
      throw schedule_error(
          concat({"the rank has ", times_.size() / 2, " cells; got ", cells.size(), " intervals for their times"}));
    for (std::size_t i = 0; i < cells.size(); ++i) cells[i] = {time(2 * i), time(2 * i + 1)};
  }

 private:
  std::vector<device_handle<R, typename R::event>> times_;
  device_handle<R, typename R::event> zero_, end_;
};

/// Waits, not beyond `until`, until what is in the stream now has been done, as far as that can be known. @param e  any event
template <device_runtime R>
void wait_until_empty(R& runtime, typename R::event e, typename R::stream s,
                      std::chrono::steady_clock::time_point until) noexcept {
  bool done = false;
  if (!runtime.succeeded(runtime.record(e, s))) return;
  while (runtime.succeeded(runtime.query(e, done)) && !done && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
}

}  // namespace detail

/// Where a rank runs: its device, and the stream that its trainer puts its work into. The stream is the user's.
template <device_runtime R>
struct device_rank {
  int device = 0;
  typename R::stream compute{};
};

/// A second stream for a rank, for overlapped cells: one op of the pair in the rank's own stream, the other here.
///
///   side.begin(main);  ... work into main and into side.stream() ...  side.end(main);
template <device_runtime R>
class side_stream {
 public:
  /// @param priority  less is more urgent; the nearest that the device has. @throws device_error, as the others
  explicit side_stream(R runtime, int device = 0, int priority = 0)
      : runtime_(std::move(runtime)),
        stream_(detail::make_stream(runtime_, device, priority, where)),
        begun_(detail::make_event(runtime_, device, false, where)),
        ended_(detail::make_event(runtime_, device, false, where)) {}

  typename R::stream stream() const { return stream_.handle(); }
  /// What is put into this stream from now on comes after what is in the main one.
  void begin(typename R::stream main) {
    detail::require(runtime_, runtime_.record(begun_.handle(), main), "EventRecord", where);
    detail::require(runtime_, runtime_.wait(stream(), begun_.handle()), "StreamWaitEvent", where);
  }
  /// What is put into the main stream from now on comes after what is in this one.
  void end(typename R::stream main) {
    detail::require(runtime_, runtime_.record(ended_.handle(), stream()), "EventRecord", where);
    detail::require(runtime_, runtime_.wait(main, ended_.handle()), "StreamWaitEvent", where);
  }

 private:
  static std::string where() { return "a side stream"; }

  R runtime_;
  device_handle<R, typename R::stream> stream_;
  device_handle<R, typename R::event> begun_, ended_;
};

}  // namespace pipesched
