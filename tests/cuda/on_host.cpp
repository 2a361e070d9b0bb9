// SPDX-License-Identifier: MIT
// A stand-in for the device: the calls of CUDA and cuBLAS that the example makes, and its kernels, on the host. Linked
// in their place, it runs the whole example without a GPU. Streams are queues whose work is done when the host waits, in
// any order that waits for events allow, so that a missing event gives wrong results; new memory is NaN; a call that a
// capture, or a stream of another device, forbids is refused. There are two devices. A thread that queries an event before
// it has selected a device ends the program: CUDA would make a context on device 0 for it.

#include <cublas_v2.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "../../examples/cuda/check.hpp"
#include "../../examples/cuda/kernels.hpp"

// The types that CUDA leaves open.
struct CUevent_st {
  std::size_t recorded = 0, reached = 0;  // how often: put into a stream, and come to
  std::chrono::steady_clock::time_point when{};
};
struct CUstream_st {
  struct item {
    CUevent_st* event = nullptr;  // to wait for, or to record
    std::size_t number = 0;       // its record that is waited for, or made
    std::function<void()> work;   // or neither of both
    bool waits = false;
    std::function<bool()> ready{};  // what the work waits for; may be empty
  };
  int device = 0;
  std::deque<item> items;
};
struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};
struct cublasContext {
  int device = 0;
  cudaStream_t stream = nullptr;
  bool has_workspace = false;
};

namespace {

std::recursive_mutex mutex;  // of all of this
std::set<CUstream_st*> streams;
std::mt19937_64 order(std::getenv("ON_HOST_SEED") == nullptr ? 1
                                                             : std::strtoull(std::getenv("ON_HOST_SEED"), nullptr, 10));
thread_local int current = 0;
thread_local bool has_chosen = false;
thread_local CUgraph_st* captured = nullptr;
thread_local cudaError_t last = cudaSuccess;

bool can_go_on(const CUstream_st& s) {
  if (s.items.empty()) return false;
  const CUstream_st::item& next = s.items.front();
  return next.waits ? next.event->reached >= next.number : !next.ready || next.ready();
}
// Does all that is in streams, until `done()`.
template <typename Done>
void work_until(Done&& done) {
  std::vector<CUstream_st*> able;
  while (!done()) {
    able.clear();
    for (CUstream_st* s : streams)
      if (can_go_on(*s)) able.push_back(s);
    if (able.empty()) return;
    CUstream_st& s = *able[order() % able.size()];
    const CUstream_st::item next = std::move(s.items.front());
    s.items.pop_front();
    if (next.work) next.work();
    if (next.event != nullptr && !next.waits)
      next.event->reached = next.number, next.event->when = std::chrono::steady_clock::now();
  }
}
// Until all streams are empty: some may wait for another process.
cudaError_t work_all() {
  if (captured != nullptr) return cudaErrorStreamCaptureUnsupported;
  while (true) {
    {
      const std::lock_guard lock(mutex);
      work_until([] { return false; });
      if (std::all_of(streams.begin(), streams.end(), [](const CUstream_st* s) { return s->items.empty(); }))
        return cudaSuccess;
    }
    std::this_thread::yield();
  }
}

cudaError_t put(cudaStream_t s, std::function<void()> work) {
  const std::lock_guard lock(mutex);
  if (captured != nullptr)
    captured->work.push_back(std::move(work));
  else
    s->items.push_back({.work = std::move(work)});
  return cudaSuccess;
}
// For kernels, which need the stream's device to be the thread's.
cudaError_t put_kernel(cudaStream_t s, std::function<void()> work) {
  return s->device == current ? put(s, std::move(work)) : cudaErrorInvalidResourceHandle;
}
template <typename Work>
void launch(cudaStream_t s, const char* name, Work work) {
  cuda_mlp::check(put_kernel(s, std::move(work)), name);
}

cudaError_t allocate(void** made, std::size_t size) {
  if (captured != nullptr) return cudaErrorStreamCaptureUnsupported;
  *made = std::malloc(size);
  std::memset(*made, 0xff, size);  // no number
  return cudaSuccess;
}

template <typename Real>
cublasStatus_t multiply(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k,
                        Real alpha, const Real* a, int lda, const Real* b, int ldb, Real beta, Real* c, int ldc) {
  if (handle->device != current || !handle->has_workspace) return CUBLAS_STATUS_INVALID_VALUE;
  if (lda < (of_a == CUBLAS_OP_N ? m : k) || ldb < (of_b == CUBLAS_OP_N ? k : n) || ldc < m)
    return CUBLAS_STATUS_INVALID_VALUE;
  const auto work = [=] {
    const auto at = [](int row, int column, int ld) {
      return static_cast<std::size_t>(column) * static_cast<std::size_t>(ld) + static_cast<std::size_t>(row);
    };
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        Real sum = 0;
        for (int l = 0; l < k; ++l)
          sum += a[of_a == CUBLAS_OP_N ? at(i, l, lda) : at(l, i, lda)] *
                 b[of_b == CUBLAS_OP_N ? at(l, j, ldb) : at(j, l, ldb)];
        Real& to = c[at(i, j, ldc)];
        to = alpha * sum + (beta == 0 ? 0 : beta * to);
      }
  };
  return put_kernel(handle->stream, work) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace

// For nccl_on_host.cpp: does what can be done; graphs that have not been destroyed; work that waits for another process.
void on_host_work() {
  const std::lock_guard lock(mutex);
  work_until([] { return false; });
}
std::atomic<int> on_host_graphs{0};
bool on_host_captures() { return captured != nullptr; }
bool on_host_has_device() { return has_chosen; }
void on_host_put(cudaStream_t s, std::function<bool()> ready, std::function<void()> work) {
  const std::lock_guard lock(mutex);
  if (captured == nullptr)
    s->items.push_back({.work = std::move(work), .ready = std::move(ready)});
  else
    captured->work.push_back([ready = std::move(ready), work = std::move(work)] {
      while (!ready()) std::this_thread::yield();
      work();
    });
}

extern "C" {

cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 2, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  std::memset(p, 0, sizeof *p);
  std::strcpy(p->name, "host");
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return current = device, has_chosen = true, cudaSuccess; }
cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t) { return "refused by the stand-in"; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr of, int) {
  if (of != cudaDevAttrMultiProcessorCount) return cudaErrorInvalidValue;
  return *value = 132, cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) { return *least = *greatest = 0, cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 1, cudaSuccess; }
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }

cudaError_t cudaMalloc(void** made, std::size_t size) { return allocate(made, size); }
cudaError_t cudaMallocHost(void** made, std::size_t size) { return allocate(made, size); }
cudaError_t cudaHostAlloc(void** made, std::size_t size, unsigned) { return allocate(made, size); }
cudaError_t cudaFree(void* p) { return work_all(), std::free(p), cudaSuccess; }
cudaError_t cudaFreeHost(void* p) { return work_all(), std::free(p), cudaSuccess; }
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size, cudaMemcpyKind) {
  if (captured != nullptr) return cudaErrorStreamCaptureUnsupported;
  std::memcpy(to, from, size);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind, cudaStream_t s) {
  return put(s, [=] { std::memcpy(to, from, size); });
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, std::size_t size, cudaStream_t s) {
  return put(s, [=] { std::memcpy(to, from, size); });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t size, cudaStream_t s) {
  return put(s, [=] { std::memset(to, value, size); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* made, unsigned) {
  const std::lock_guard lock(mutex);
  streams.insert(*made = new CUstream_st{current, {}});
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* made, unsigned flags, int) {
  return cudaStreamCreateWithFlags(made, flags);
}
// As CUDA's, these return at once; what still has work stays.
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  on_host_work();
  const std::lock_guard lock(mutex);
  if (!s->items.empty()) return cudaSuccess;
  streams.erase(s);
  delete s;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return work_all(); }
cudaError_t cudaDeviceSynchronize() { return work_all(); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* made, unsigned) { return *made = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  on_host_work();
  const std::lock_guard lock(mutex);
  if (std::all_of(streams.begin(), streams.end(), [](const CUstream_st* s) { return s->items.empty(); })) delete e;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  if (captured != nullptr) return cudaSuccess;  // a graph is replayed in the order of its capture
  const std::lock_guard lock(mutex);
  s->items.push_back({.event = e, .number = ++e->recorded, .work = {}});
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  if (captured != nullptr) return cudaSuccess;
  const std::lock_guard lock(mutex);
  s->items.push_back({.event = e, .number = e->recorded, .work = {}, .waits = true});
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  if (captured != nullptr) return cudaErrorStreamCaptureUnsupported;
  if (!has_chosen) std::fputs("the stand-in for CUDA: a thread that has not selected a device\n", stderr), std::abort();
  const std::lock_guard lock(mutex);
  work_until([&] { return e->reached == e->recorded; });
  return e->reached == e->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  *ms = std::chrono::duration<float, std::milli>(end->when - begin->when).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return captured = new CUgraph_st, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* made) {
  return *made = std::exchange(captured, nullptr), cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t g, unsigned long long) {
  ++on_host_graphs;
  return *made = new CUgraphExec_st{g->work}, cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return work_all(), delete g, --on_host_graphs, cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s) {
  return put(s, [g] {
    for (const auto& work : g->work) work();
  });
}

CUresult write_value(CUstream s, CUdeviceptr to, cuuint32_t value, unsigned) {
  const auto write = [=] { std::atomic_ref(*reinterpret_cast<std::uint32_t*>(to)).store(value); };
  return put(s, write) == cudaSuccess ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** found, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool known = std::strcmp(name, "cuStreamWriteValue32") == 0;
  *found = known ? reinterpret_cast<void*>(write_value) : nullptr;
  *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

const char* cublasGetStatusString(cublasStatus_t) { return "refused by the stand-in"; }
cublasStatus_t cublasCreate_v2(cublasHandle_t* made) {
  return *made = new cublasContext{current, nullptr, false}, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h) { return delete h, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s) {
  h->stream = s, h->has_workspace = false;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void*, std::size_t) {
  return h->has_workspace = true, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSgemm_v2(cublasHandle_t h, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k,
                              const float* alpha, const float* a, int lda, const float* b, int ldb, const float* beta,
                              float* c, int ldc) {
  return multiply(h, of_a, of_b, m, n, k, *alpha, a, lda, b, ldb, *beta, c, ldc);
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t h, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k,
                              const double* alpha, const double* a, int lda, const double* b, int ldb,
                              const double* beta, double* c, int ldc) {
  return multiply(h, of_a, of_b, m, n, k, *alpha, a, lda, b, ldb, *beta, c, ldc);
}

}  // extern "C"

namespace cuda_mlp {

template <typename Real>
void fill(Real* to, std::size_t n, std::uint64_t seed, double scale, cudaStream_t s) {
  launch(s, "fill", [=] {
    for (std::size_t i = 0; i < n; ++i) to[i] = static_cast<Real>(random_number(seed, i) * scale);
  });
}
template <typename Real>
void add(const Real* from, Real* to, std::size_t n, cudaStream_t s) {
  launch(s, "add", [=] {
    for (std::size_t i = 0; i < n; ++i) to[i] += from[i];
  });
}
template <typename Real>
void gelu(const Real* h, Real* g, std::size_t n, cudaStream_t s) {
  launch(s, "gelu", [=] {
    for (std::size_t i = 0; i < n; ++i) g[i] = h[i] * (1 + std::erf(h[i] * Real(0.70710678118654752))) / 2;
  });
}
template <typename Real>
void gelu_gradient(const Real* h, const Real* dg, Real* dh, std::size_t n, cudaStream_t s) {
  launch(s, "gelu_gradient", [=] {
    for (std::size_t i = 0; i < n; ++i)
      dh[i] = dg[i] * ((1 + std::erf(h[i] * Real(0.70710678118654752))) / 2 +
                       h[i] * std::exp(-h[i] * h[i] / 2) * Real(0.39894228040143268));
  });
}
template <typename Real>
void mean_squared_error(const Real* y, const Real* target, Real* dy, std::size_t n, double* sums, double* loss,
                        cudaStream_t s) {
  launch(s, "mean_squared_error", [=] {
    sums[0] = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double difference = static_cast<double>(y[i]) - static_cast<double>(target[i]);
      sums[0] += difference * difference;
      dy[i] = static_cast<Real>(2 * difference / static_cast<double>(n));
    }
    *loss = sums[0] / static_cast<double>(n);
  });
}

}  // namespace cuda_mlp

#include "../../examples/cuda/kernels_instances.hpp"
