// SPDX-License-Identifier: MIT
#pragma once

// The device of a process among those that it sees.

#include <cstdint>

#include "pipesched/device/runtime.hpp"
#include "pipesched/launch/environment.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

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
