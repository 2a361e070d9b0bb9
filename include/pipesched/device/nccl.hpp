// SPDX-License-Identifier: MIT
#pragma once

// NCCL under the names of message_library.hpp, and what is built on it, in namespace pipesched::nccl: one process per rank,
// on one host or many. NCCL 2.26 or later; link nccl and cudart.
//
//   const auto where = pipesched::read_launch_environment();           // torchrun, mpirun, srun
//   const int device = pipesched::cuda::pick_device(where);            // of this thread, too
//   pipesched::tcp_coordinator job(where);
//   pipesched::nccl::transport transport({device, stream}, job);
//   pipesched::run(program, transport.rank(), my_trainer, transport, {.steps = steps});
//
// The two ranks of a channel find each other by an id that the coordinator hands over: start-up does not grow with the job,
// and no communicator of all ranks is needed. They connect by a non-blocking communicator, which can be aborted while it
// waits, and split a blocking one off it for their messages, as NCCL starts a thread for every call of a non-blocking one.
// After a failure a blocking one is aborted by another thread. The first message of a channel waits within NCCL for the other
// rank: a rank that is there when another one fails leaves NCCL because of the abort, which may free what it still reads, as
// NCCL does not wait for it. Its process can then crash, after all others have heard of the failure.
// Sources: NCCL's user guide, communicators, p2p, cudagraph and bufferreg; nccl.h and init.cc of 2.28; github.com/NVIDIA/nccl,
// issues 1472 (split), 564 and 1013 (abort).

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "pipesched/device/channel_transport.hpp"
#include "pipesched/device/cuda.hpp"
#include "pipesched/device/message_library.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/support/error.hpp"

#if NCCL_VERSION_CODE < NCCL_VERSION(2, 26, 0)
#error "pipesched needs NCCL 2.26 or later, which starts the messages of several communicators in one order"
#endif

namespace pipesched::nccl {

struct library {
  using status = ncclResult_t;
  using communicator = ncclComm_t;
  static constexpr std::string_view prefix = "nccl";

  int device = 0;  ///< of the communicators

  static bool succeeded(status s) { return s == ncclSuccess; }
  /// With NCCL's last message, if there is one.
  static std::string text(status s) {
    const char* const last = ncclGetLastError(nullptr);
    return last == nullptr || *last == 0 ? ncclGetErrorString(s) : detail::concat({ncclGetErrorString(s), ": ", last});
  }

  static status make_id(std::string& id) {
    ncclUniqueId made{};
    const status s = ncclGetUniqueId(&made);
    id.assign(made.internal, sizeof made.internal);
    return s;
  }
  static status connect(const std::string& id, int end, const channel_options& options, const std::string& name,
                        communicator& made, const std::function<bool()>& goes_on) {
    ncclUniqueId both{};
    if (id.size() != sizeof both.internal) return ncclInvalidArgument;
    std::memcpy(both.internal, id.data(), sizeof both.internal);
    communicator first = nullptr;
    ncclConfig_t config = make_config(options, name.c_str(), 0);
    status s = ncclCommInitRankConfig(&first, 2, both, end, &config);
    s = settle(first, s, goes_on);
    config = make_config(options, name.c_str(), 1);
    // The split returns success or in progress before it has ended: its communicator is there once the state of the first one
    // says so.
    if (s == ncclSuccess) {
      s = ncclCommSplit(first, 0, end, &made, &config);
      if (s == ncclSuccess || s == ncclInProgress) s = settle(first, ncclInProgress, goes_on);
    }
    if (s == ncclSuccess && made == nullptr) s = ncclInternalError;
    if (s == ncclSuccess) s = settle(first, ncclCommFinalize(first), goes_on);
    if (s == ncclSuccess) s = ncclCommDestroy(std::exchange(first, nullptr));
    if (s == ncclSuccess) return s;
    if (first != nullptr) ncclCommAbort(first);
    if (made != nullptr) ncclCommAbort(made);  // a split in progress has ended with the first one
    return s;
  }
  static status send(communicator c, const void* from, std::size_t size, cudaStream_t stream) {
    return ncclSend(from, size, ncclInt8, 1, c, stream);
  }
  static status receive(communicator c, void* into, std::size_t size, cudaStream_t stream) {
    return ncclRecv(into, size, ncclInt8, 0, c, stream);
  }
  static status state(communicator c) {
    status of = ncclSuccess;
    const status asked = ncclCommGetAsyncError(c, &of);
    return asked != ncclSuccess ? asked : of == ncclInProgress ? ncclSuccess : of;
  }
  /// Memory of ncclMemAlloc; of cudaMalloc with NCCL_LEGACY_CUDA_REGISTER=1, with which a failure may hang or crash the process
  /// (user guide, bufferreg). One kind on both ranks of a channel.
  static status register_memory(communicator c, void* memory, std::size_t size, void*& handle) {
    return ncclCommRegister(c, memory, size, &handle);
  }
  static status deregister_memory(communicator c, void* handle) { return ncclCommDeregister(c, handle); }
  // Both are called by a thread of their own, which has no device yet: NCCL would make a context on device 0.
  void close(communicator c) const {
    cudaSetDevice(device);
    ncclCommFinalize(c) == ncclSuccess ? ncclCommDestroy(c) : ncclCommAbort(c);
  }
  void abort(communicator c) const {
    cudaSetDevice(device);
    ncclCommAbort(c);
  }

  /// @param name  in NCCL's own messages; outlives the communicator
  static ncclConfig_t make_config(const channel_options& options, const char* name, int blocking) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking;
    if (options.min_ctas > 0) config.minCTAs = options.min_ctas;
    // NCCL compares the two before it fills in defaults, and refuses a lower limit alone. 64 is its own default (MAXCHANNELS).
    if (options.max_ctas > 0 || options.min_ctas > 0)
      config.maxCTAs = options.max_ctas > 0 ? options.max_ctas : std::max(options.min_ctas, 64);
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
    config.commName = name;
#else
    static_cast<void>(name);
#endif
    return config;
  }

  /// Source: NCCL's user guide, "Using NCCL with CUDA Graphs": CUDA 11.3 or later, and one rank per process. A graph registers
  /// the memory of its messages with NCCL: let both ranks of a channel have one kind, or set NCCL_GRAPH_REGISTER=0.
  static std::string refuses_capture() {
    const char* const order = std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT");
    if (order == nullptr || std::string_view(order) != "1")
      return "messages of several communicators keep their order in a graph only with NCCL_LAUNCH_ORDER_IMPLICIT=1";
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver < 11030)
      return detail::concat({"NCCL in a graph needs a driver for CUDA 11.3 or later; this one is for ", driver / 1000,
                             ".", driver % 1000 / 10});
    if (const int ranks = ranks_of_process; ranks > 1)
      return detail::concat(
          {"of a process with more than one rank over NCCL, whose graphs may wait for each other; it has ", ranks});
    return {};
  }
  inline static std::atomic<int> ranks_of_process{0};

 private:
  // Until what was begun with a communicator has ended. In progress: it has been given up.
  static status settle(communicator c, status begun, const std::function<bool()>& goes_on) {
    status of = begun;
    while (of == ncclInProgress && goes_on()) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      if (const status asked = ncclCommGetAsyncError(c, &of); asked != ncclSuccess) return asked;
    }
    return of;
  }
};
static_assert(message_library<library, cudaStream_t>);

/// Makes the device start the messages of all communicators in the order in which the host does, which is the same on all
/// ranks: sets NCCL_LAUNCH_ORDER_IMPLICIT=1, unless it has a value. A transport calls it; call it first if NCCL is called before,
/// as NCCL reads it with its first message. Communicators of the trainer's own belong to that order, too: call NCCL from one
/// thread, in the same order on all ranks. With a driver before CUDA 12.3, and in graphs with NCCL 2.26 or a driver before CUDA
/// 12.9, one message ends before the next one of the device begins. Source: NCCL's user guide, "Using multiple NCCL
/// communicators concurrently"; getImplicitOrder in enqueue.cc of 2.26 and 2.28.
inline void order_launches() { ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0); }

/// The thread blocks that the channels' messages of 1 to 64 MiB may hold together: half of each limit, rounded up to a power of
/// two. Empty unless they are more than a quarter of the device's.
inline std::string ctas_note(int ctas, int multiprocessors) {
  if (4 * ctas <= multiprocessors) return {};
  return detail::concat({"messages may hold ", ctas, " of the device's ", multiprocessors,
                         " multiprocessors while they wait and move; lower max_ctas of the channels"});
}

/// channel_transport over CUDA and NCCL.
class transport : public channel_transport<cuda::runtime, library> {
 public:
  /// @param note  is called on process 0 alone, once for all its transports, by default to print to standard error, if streams share
  ///              queues of the device or messages may hold more than a quarter of it
  transport(cuda::rank where, coordinator& job, channel_transport_options options = {},
            std::function<void(const std::string&)> note = print)
      : channel_transport({}, {where.device}, where, job, (order_launches(), std::move(options))),
        device_(where.device),
        note_(job.rank() == 0 ? std::move(note) : nullptr) {
    // NCCL takes these instead of a communicator's own options and id.
    for (const char* const name : {"NCCL_COMM_BLOCKING", "NCCL_COMM_ID"})
      if (std::getenv(name) != nullptr)
        throw schedule_error(detail::concat({name, " is set, which keeps channels from connecting; unset it"}));
    ++library::ranks_of_process;
  }
  ~transport() { --library::ranks_of_process; }

  template <typename Memory>
  void prepare(const program& p, const Memory& memory) {
    channel_transport::prepare(p, memory);
    static std::atomic_flag noted;
    if (!note_ || noted.test_and_set()) return;
    // NCCL has two streams of its own for each communicator (strongstream.cc, NCCL 2.28); compute and a side stream.
    const std::string queues = cuda::shared_queues_note(3 * channels() + 2);
    if (!queues.empty()) note_(queues);
    int multiprocessors = 0, ctas = 0;
    for (const channel& c : p.channels)
      if (c.from == rank() || c.to == rank()) ctas += message_ctas(options().of(c));
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device_);
    const std::string blocks = ctas_note(ctas, multiprocessors);
    if (!blocks.empty()) note_(blocks);
  }

  /// Thread blocks of a message of 1 to 64 MiB, over NVLink where there is no limit; a longer one may take all of the limit.
  /// Source: ncclTopoComputeP2pChannels and addP2pToPlan of NCCL 2.28.9.
  static int message_ctas(const channel_options& options) {
    const int limit = options.max_ctas > 0 ? options.max_ctas : 32;
    int ctas = 1;
    while (2 * ctas < limit) ctas *= 2;
    return ctas;
  }

 private:
  static void print(const std::string& text) { std::fprintf(stderr, "pipesched: %s\n", text.c_str()); }

  int device_;
  std::function<void(const std::string&)> note_;
};

}  // namespace pipesched::nccl
