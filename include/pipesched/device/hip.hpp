// SPDX-License-Identifier: MIT
#pragma once

// HIP's runtime under the names of runtime.hpp, in namespace pipesched::hip: cuda.hpp with another prefix. Host code: any C++20
// compiler takes it, with HIP's headers (Debian: libamdhip64-dev); link amdhip64. Compiled in the tests, never run.

#ifndef __HIP_PLATFORM_AMD__
#define __HIP_PLATFORM_AMD__
#endif
#include <hip/hip_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "pipesched/device/peer_transport.hpp"
#include "pipesched/device/runtime.hpp"
#include "pipesched/device/side_stream.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/launch/environment.hpp"

namespace pipesched::hip {

struct runtime {
  using status = hipError_t;
  using stream = hipStream_t;
  using event = hipEvent_t;
  using graph = hipGraphExec_t;
  static constexpr std::string_view prefix = "hip";

  static bool succeeded(status s) { return s == hipSuccess; }
  static std::string text(status s) { return hipGetErrorString(s); }

  static constexpr status no_device = hipErrorNoDevice;
  static status count_devices(int& count) { return hipGetDeviceCount(&count); }
  static status set_device(int device) { return hipSetDevice(device); }
  // Sets this thread's device; so does make_event().
  static status make_stream(int device, int priority, stream& made) {
    int least = 0, greatest = 0;
    if (const status s = hipSetDevice(device); s != hipSuccess) return s;
    if (const status s = hipDeviceGetStreamPriorityRange(&least, &greatest); s != hipSuccess) return s;
    return hipStreamCreateWithPriority(&made, hipStreamNonBlocking, std::clamp(priority, greatest, least));
  }
  static status make_event(int device, bool timed, event& made) {
    if (const status s = hipSetDevice(device); s != hipSuccess) return s;
    return hipEventCreateWithFlags(&made, timed ? hipEventDefault : hipEventDisableTiming);
  }
  static status connect(int from_device, int to_device) {
    int can = 0;
    if (const status s = hipDeviceCanAccessPeer(&can, from_device, to_device); s != hipSuccess || can == 0) return s;
    if (const status s = hipSetDevice(from_device); s != hipSuccess) return s;
    const status s = hipDeviceEnablePeerAccess(to_device, 0);
    if (s != hipErrorPeerAccessAlreadyEnabled) return s;
    static_cast<void>(hipGetLastError());  // which is no error here
    return hipSuccess;
  }

  static status record(event e, stream s) { return hipEventRecord(e, s); }
  static status wait(stream s, event e) { return hipStreamWaitEvent(s, e, 0); }
  static status copy(stream s, void* to, int to_device, const void* from, int from_device, std::size_t size) {
    if (to_device == from_device) return hipMemcpyAsync(to, from, size, hipMemcpyDeviceToDevice, s);
    return hipMemcpyPeerAsync(to, to_device, from, from_device, size, s);
  }
  static status allocate_counters(int device, std::size_t count, std::uint32_t*& counters) {
    void* memory = nullptr;
    if (const status s = hipSetDevice(device); s != hipSuccess) return s;
    if (const status s = hipHostMalloc(&memory, count * sizeof(std::uint32_t), hipHostMallocMapped); s != hipSuccess)
      return s;
    counters = static_cast<std::uint32_t*>(memory);
    std::fill_n(counters, count, 0u);
    return hipSuccess;
  }
  static void free_counters(std::uint32_t* counters) { static_cast<void>(hipHostFree(counters)); }
  static status write(stream s, std::uint32_t* counter, std::uint32_t value) {
    return hipStreamWriteValue32(s, counter, value, 0);
  }
  static status query(event e, bool& done) {
    const status s = hipEventQuery(e);
    done = s == hipSuccess;
    return s == hipErrorNotReady ? hipSuccess : s;
  }
  static status elapsed_ms(event begin, event end, float& ms) { return hipEventElapsedTime(&ms, begin, end); }

  static status begin_capture(stream s) { return hipStreamBeginCapture(s, hipStreamCaptureModeThreadLocal); }
  static status end_capture(stream s, graph& made) {
    hipGraph_t captured = nullptr;
    if (const status ended = hipStreamEndCapture(s, &captured); ended != hipSuccess) return ended;
    const status made_of_it = hipGraphInstantiate(&made, captured, nullptr, nullptr, 0);
    static_cast<void>(hipGraphDestroy(captured));
    return made_of_it;
  }
  static status launch(graph g, stream s) { return hipGraphLaunch(g, s); }

  static void destroy(stream s) { static_cast<void>(hipStreamDestroy(s)); }
  static void destroy(event e) { static_cast<void>(hipEventDestroy(e)); }
  static void destroy(graph g) { static_cast<void>(hipGraphExecDestroy(g)); }
};
static_assert(device_runtime<runtime>);

/// pick_device() of device/runtime.hpp, for HIP.
inline int pick_device(const launch_environment& job) { return pipesched::pick_device(runtime(), job); }

using stream = device_handle<runtime, hipStream_t>;
using rank = device_rank<runtime>;
using peer_world = pipesched::peer_world<runtime>;
using peer_transport = pipesched::peer_transport<runtime>;
using side_stream = pipesched::side_stream<runtime>;

}  // namespace pipesched::hip
