// SPDX-License-Identifier: MIT
#pragma once

// CUDA's runtime under the names of runtime.hpp, and what is built on it, in namespace pipesched::cuda. Host code: any C++20
// compiler takes it, with CUDA's headers (12.5 or later); link cudart.
//
//   std::vector<pipesched::cuda::rank> ranks;                         // a stream of the user's for each pipeline rank
//   pipesched::cuda::peer_world world({}, ranks);
//   pipesched::run_all(program, trainers, world, {.steps = 100, .graph = true});

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "pipesched/device/peer_transport.hpp"
#include "pipesched/device/runtime.hpp"
#include "pipesched/device/side_stream.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/launch/environment.hpp"

namespace pipesched::cuda {

struct runtime {
  using status = cudaError_t;
  using stream = cudaStream_t;
  using event = cudaEvent_t;
  using graph = cudaGraphExec_t;
  static constexpr std::string_view prefix = "cuda";

  static bool succeeded(status s) { return s == cudaSuccess; }
  static std::string text(status s) { return cudaGetErrorString(s); }

  static constexpr status no_device = cudaErrorNoDevice;
  static status count_devices(int& count) { return cudaGetDeviceCount(&count); }
  static status set_device(int device) { return cudaSetDevice(device); }
  // Sets this thread's device; so does make_event().
  static status make_stream(int device, int priority, stream& made) {
    int least = 0, greatest = 0;
    if (const status s = cudaSetDevice(device); s != cudaSuccess) return s;
    if (const status s = cudaDeviceGetStreamPriorityRange(&least, &greatest); s != cudaSuccess) return s;
    return cudaStreamCreateWithPriority(&made, cudaStreamNonBlocking, std::clamp(priority, greatest, least));
  }
  static status make_event(int device, bool timed, event& made) {
    if (const status s = cudaSetDevice(device); s != cudaSuccess) return s;
    return cudaEventCreateWithFlags(&made, timed ? cudaEventDefault : cudaEventDisableTiming);
  }
  static status connect(int from_device, int to_device) {
    int can = 0;
    if (const status s = cudaDeviceCanAccessPeer(&can, from_device, to_device); s != cudaSuccess || can == 0) return s;
    if (const status s = cudaSetDevice(from_device); s != cudaSuccess) return s;
    const status s = cudaDeviceEnablePeerAccess(to_device, 0);
    if (s != cudaErrorPeerAccessAlreadyEnabled) return s;
    cudaGetLastError();  // which is no error here
    return cudaSuccess;
  }

  static status record(event e, stream s) { return cudaEventRecord(e, s); }
  static status wait(stream s, event e) { return cudaStreamWaitEvent(s, e, 0); }
  static status copy(stream s, void* to, int to_device, const void* from, int from_device, std::size_t size) {
    if (to_device == from_device) return cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, s);
    return cudaMemcpyPeerAsync(to, to_device, from, from_device, size, s);
  }
  static status allocate_counters(int device, std::size_t count, std::uint32_t*& counters) {
    void* memory = nullptr;
    if (const status s = cudaSetDevice(device); s != cudaSuccess) return s;
    if (const status s = cudaHostAlloc(&memory, count * sizeof(std::uint32_t), cudaHostAllocMapped); s != cudaSuccess)
      return s;
    counters = static_cast<std::uint32_t*>(memory);
    std::fill_n(counters, count, 0u);
    return cudaSuccess;
  }
  static void free_counters(std::uint32_t* counters) { cudaFreeHost(counters); }
  // A function of the driver, looked up so that nothing links libcuda.
  static status write(stream s, std::uint32_t* counter, std::uint32_t value) {
    using function = CUresult (*)(CUstream, CUdeviceptr, cuuint32_t, unsigned);
    static const auto call = [] {
      void* found = nullptr;
      cudaDriverEntryPointQueryResult result{};
      cudaGetDriverEntryPointByVersion("cuStreamWriteValue32", &found, 12000, cudaEnableDefault, &result);
      return reinterpret_cast<function>(found);
    }();
    if (call == nullptr) return cudaErrorNotSupported;
    return static_cast<status>(call(s, reinterpret_cast<CUdeviceptr>(counter), value, CU_STREAM_WRITE_VALUE_DEFAULT));
  }
  static status query(event e, bool& done) {
    const status s = cudaEventQuery(e);
    done = s == cudaSuccess;
    return s == cudaErrorNotReady ? cudaSuccess : s;
  }
  static status elapsed_ms(event begin, event end, float& ms) { return cudaEventElapsedTime(&ms, begin, end); }

  static status begin_capture(stream s) { return cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal); }
  static status end_capture(stream s, graph& made) {
    cudaGraph_t captured = nullptr;
    if (const status ended = cudaStreamEndCapture(s, &captured); ended != cudaSuccess) return ended;
    const status made_of_it = cudaGraphInstantiate(&made, captured, 0);
    cudaGraphDestroy(captured);
    return made_of_it;
  }
  static status launch(graph g, stream s) { return cudaGraphLaunch(g, s); }

  static void destroy(stream s) { cudaStreamDestroy(s); }
  static void destroy(event e) { cudaEventDestroy(e); }
  static void destroy(graph g) { cudaGraphExecDestroy(g); }
};
static_assert(device_runtime<runtime>);

/// pick_device() of device/runtime.hpp, for CUDA.
inline int pick_device(const launch_environment& job) { return pipesched::pick_device(runtime(), job); }

/// The effect of CUDA_DEVICE_MAX_CONNECTIONS (1 to 32, 8 unless set) on so many streams of a process; empty if each has a queue
/// of the device to itself. Source: CUDA C programming guide, "CUDA Environment Variables".
inline std::string shared_queues_note(std::size_t streams,
                                      const char* connections = std::getenv("CUDA_DEVICE_MAX_CONNECTIONS")) {
  const long queues = connections == nullptr ? 8 : std::clamp(std::strtol(connections, nullptr, 10), 1L, 32L);
  if (streams <= static_cast<std::size_t>(queues)) return {};
  return detail::concat(
      {"CUDA_DEVICE_MAX_CONNECTIONS is ", connections == nullptr ? "not set" : connections, ": ", streams,
       " streams share ", detail::count_text(queues, "queue"),
       " of the device, where work queued after a message that waits also waits. Nothing deadlocks, as all "
       "ranks start their messages in one order, but less overlaps. Set it to ",
       std::min<std::size_t>(streams, 32), " or more before CUDA starts"});
}

using stream = device_handle<runtime, cudaStream_t>;
using rank = device_rank<runtime>;
using peer_world = pipesched::peer_world<runtime>;
using peer_transport = pipesched::peer_transport<runtime>;
using side_stream = pipesched::side_stream<runtime>;

}  // namespace pipesched::cuda
