// SPDX-License-Identifier: MIT
#pragma once

// NCCL under the names of message_library.hpp, and what is built on it, in namespace pipesched::nccl: one process a rank,
// on one host or many. NCCL 2.22 or later; link nccl and cudart.
//
//   const auto where = pipesched::read_launch_environment();           // torchrun, mpirun, srun
//   const int device = pipesched::cuda::pick_device(where);            // of this thread, too
//   pipesched::tcp_coordinator control(where);
//   pipesched::nccl::world world(control);                             // or a communicator of yours
//   pipesched::nccl::transport transport(program, world.handle(), {device, stream}, control);
//   pipesched::run_steps(program, my_trainer, transport, steps);
//
// All communicators are non-blocking, so that none of them ever keeps a thread that is to hear of a failure; a parent of
// yours must be, too. NCCL 2.28 starts a thread for every call of such a one, so a message costs the host that much.
// Sources: NCCL's user guide, communicators, p2p, cudagraph and bufferreg; nccl.h of 2.28; github.com/NVIDIA/nccl, issues
// 1472 (split), 564 and 1013 (abort).

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "pipesched/device/cuda.hpp"
#include "pipesched/device/edge_transport.hpp"
#include "pipesched/device/message_library.hpp"
#include "pipesched/device/run_steps.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/support/error.hpp"

#if NCCL_VERSION_CODE < NCCL_VERSION(2, 22, 0)
#error "pipesched needs NCCL 2.22 or later, whose communicators can be aborted together"
#endif

namespace pipesched::nccl {

struct library {
  using status = ncclResult_t;
  using communicator = ncclComm_t;
  static constexpr std::string_view prefix = "nccl";

  static bool succeeded(status s) { return s == ncclSuccess; }
  static bool in_progress(status s) { return s == ncclInProgress; }
  /// With what NCCL has said last, if it has.
  static std::string text(status s) {
    const char* const last = ncclGetLastError(nullptr);
    return last == nullptr || *last == 0 ? ncclGetErrorString(s) : detail::concat({ncclGetErrorString(s), ": ", last});
  }

  static status rank_in(communicator c, int& rank) { return ncclCommUserRank(c, &rank); }
  static status size_of(communicator c, int& size) { return ncclCommCount(c, &size); }
  static status split(communicator parent, int color, int key, const edge_options& options, const std::string& name,
                      communicator& child) {
    ncclConfig_t config = make_config(options, name.c_str());
    return ncclCommSplit(parent, color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &child, &config);
  }
  static status state(communicator c, status& of) { return ncclCommGetAsyncError(c, &of); }
  static status send(communicator c, int peer, const void* from, std::size_t size, cudaStream_t stream) {
    return ncclSend(from, size, ncclInt8, peer, c, stream);
  }
  static status receive(communicator c, int peer, void* into, std::size_t size, cudaStream_t stream) {
    return ncclRecv(into, size, ncclInt8, peer, c, stream);
  }
  /// Memory of ncclMemAlloc; of cudaMalloc with NCCL_LEGACY_CUDA_REGISTER=1.
  static status enlist(communicator c, void* memory, std::size_t size, void*& handle) {
    return ncclCommRegister(c, memory, size, &handle);
  }
  static status dismiss(communicator c, void* handle) { return ncclCommDeregister(c, handle); }
  static status finalize(communicator c) { return ncclCommFinalize(c); }
  static status destroy(communicator c) { return ncclCommDestroy(c); }
  /// Together, as each waits until its own messages have ended, which may wait for those of another one.
  static void abort(std::span<const communicator> all) {
    if (all.empty()) return;
    ncclGroupStart();
    for (const communicator c : all) ncclCommAbort(c);
    ncclGroupEnd();
  }

  /// @param name  in NCCL's own messages; outlives the communicator
  static ncclConfig_t make_config(const edge_options& options, const char* name) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (options.min_ctas > 0) config.minCTAs = options.min_ctas;
    // NCCL compares the two before it fills in defaults, and refuses a lower limit alone. 64 is its own default (MAXCHANNELS).
    if (options.max_ctas > 0 || options.min_ctas > 0)
      config.maxCTAs = options.max_ctas > 0 ? options.max_ctas : std::max(options.min_ctas, 64);
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
    if (*name != 0) config.commName = name;
#else
    static_cast<void>(name);
#endif
    return config;
  }

  /// Source: NCCL's user guide, "Using NCCL with CUDA Graphs": CUDA 11.3 or later, and one rank a process.
  static std::string refuses_capture() {
    const char* const order = std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT");
    if (NCCL_VERSION_CODE < NCCL_VERSION(2, 26, 0) || order == nullptr || std::string_view(order) != "1")
      return "messages of several communicators keep their order in a graph only with NCCL 2.26 or later and "
             "NCCL_LAUNCH_ORDER_IMPLICIT=1";
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
};
static_assert(message_library<library, cudaStream_t>);

/// Makes the device start the messages of all communicators in the order in which the host does, which is the same on all
/// ranks: sets NCCL_LAUNCH_ORDER_IMPLICIT=1 (NCCL 2.26 or later), unless it has a value. world and transport call it; call it
/// first if communicators of yours are made before. Communicators of the trainer's own belong to that order, too: call NCCL
/// from one thread, in the same order on all ranks. Source: NCCL's user guide, "Using multiple NCCL communicators
/// concurrently".
inline void order_launches() { ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0); }

/// A communicator of all processes of a job, on this thread's device. Construction and destruction are collective.
class world {
 public:
  /// @throws device_error, pipeline_aborted
  explicit world(coordinator& job, std::chrono::duration<double> time_limit = std::chrono::minutes(30))
      : job_(job), time_limit_(time_limit) {
    const auto where = [&] { return detail::concat({"process ", job.rank(), " of ", job.size()}); };
    library calls;
    order_launches();
    try {
      detail::checked_time_limit(time_limit);
      ncclUniqueId id{};
      if (job.rank() == 0) detail::require(calls, ncclGetUniqueId(&id), "GetUniqueId", where);
      const std::string told = job.broadcast({id.internal, sizeof id.internal});
      if (told.size() != sizeof id.internal) throw schedule_error("process 0 has shared something else than NCCL's id");
      std::memcpy(id.internal, told.data(), sizeof id.internal);
      ncclConfig_t config = library::make_config({.max_ctas = 0}, "pipesched");
      ncclResult_t of =
          ncclCommInitRankConfig(&handle_, static_cast<int>(job.size()), id, static_cast<int>(job.rank()), &config);
      wait(of, [&] {
        if (const auto failed = job.failure()) throw pipeline_aborted("aborted: " + *failed);
        detail::require(calls, ncclCommGetAsyncError(handle_, &of), "CommGetAsyncError", where);
      });
      // Where another process has ended, its notice may come a little later. In progress: not all have come in time.
      for (int i = 0; i < 200 && of != ncclSuccess; ++i) {
        if (const auto failed = job.failure()) throw pipeline_aborted("aborted: " + *failed);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      detail::require(calls, of, "CommInitRankConfig", where);
    } catch (...) {
      job.report_failure(detail::concat({where(), ": ", detail::text_of_exception()}));
      if (handle_ != nullptr) ncclCommAbort(handle_);
      throw;
    }
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;
  ~world() {
    ncclResult_t of = job_.failure() ? ncclRemoteError : ncclCommFinalize(handle_);
    wait(of, [&] {
      if (job_.failure() || ncclCommGetAsyncError(handle_, &of) != ncclSuccess) of = ncclRemoteError;
    });
    of == ncclSuccess ? ncclCommDestroy(handle_) : ncclCommAbort(handle_);
  }

  ncclComm_t handle() const { return handle_; }

 private:
  template <typename Ask>
  void wait(const ncclResult_t& of, Ask&& ask) const {
    const auto start = std::chrono::steady_clock::now();
    while (of == ncclInProgress && std::chrono::steady_clock::now() - start < time_limit_) {
      std::this_thread::yield();
      ask();
    }
  }

  coordinator& job_;
  std::chrono::duration<double> time_limit_;
  ncclComm_t handle_ = nullptr;
};

/// edge_transport over CUDA and NCCL.
class transport : public edge_transport<cuda::runtime, library> {
 public:
  /// @param note  is told once, by process 0 alone, by default on standard error, if streams share queues of the device
  transport(const program& p, ncclComm_t parent, cuda::rank where, coordinator& job,
            edge_transport_options options = {}, const std::function<void(const std::string&)>& note = print)
      : edge_transport({}, {}, p, parent, where, job, (order_launches(), std::move(options))) {
    static std::atomic_flag noted;
    // NCCL has two streams of its own for each communicator, the parent's among them (strongstream.cc, NCCL 2.28).
    const std::size_t channels = streams() - 1, of_nccl = 2 * (channels + 1);
    const std::string text = cuda::shared_queues_note(streams() + of_nccl + 1);  // and a side stream
    if (!text.empty() && note && job.rank() == 0 && !noted.test_and_set()) note(text);
    ++library::ranks_of_process;
  }
  ~transport() { --library::ranks_of_process; }

 private:
  static void print(const std::string& text) { std::fprintf(stderr, "pipesched: %s\n", text.c_str()); }
};

}  // namespace pipesched::nccl
