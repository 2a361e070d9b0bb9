// SPDX-License-Identifier: MIT
#pragma once

// A second stream for a rank, for overlapped cells.

#include <string>
#include <utility>

#include "pipesched/device/handle.hpp"
#include "pipesched/device/runtime.hpp"

namespace pipesched {

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
  /// Work that enters this stream from now on comes after the work in the main one.
  void begin(typename R::stream main) {
    detail::record(runtime_, begun_.handle(), main, where);
    detail::wait(runtime_, stream(), begun_.handle(), where);
  }
  /// Work that enters the main stream from now on comes after the work in this one.
  void end(typename R::stream main) {
    detail::record(runtime_, ended_.handle(), stream(), where);
    detail::wait(runtime_, main, ended_.handle(), where);
  }

 private:
  static std::string where() { return "a side stream"; }

  R runtime_;
  device_handle<R, typename R::stream> stream_;
  device_handle<R, typename R::event> begun_, ended_;
};

}  // namespace pipesched
