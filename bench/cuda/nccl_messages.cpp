// SPDX-License-Identifier: MIT
// Messages of a program over NCCL beside the same by hand, in one run: 64 of one size from rank 0 to rank 1, on one stream. By
// hand: plain ncclSend and ncclRecv of a blocking communicator of two ranks, with the same limit of thread blocks. Two
// processes, as a launcher starts them; process 0 writes JSON. Ends with 77 without a GPU.
//
// Two processes on one GPU run in turns, a time slice each, and every message takes several slices: then there are 8 messages
// of at most 1 MiB, their times say nothing of NCCL, and the result has "shared_gpu": true and a note in every row.
//
//   nccl_messages [JSON]

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <pipesched/device/nccl.hpp>
#include <pipesched/generate/gpipe.hpp>
#include <pipesched/launch/tcp_coordinator.hpp>
#include <pipesched/program/lower.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/cuda/check.hpp"
#include "../../examples/cuda/memory.hpp"

namespace {

using namespace cuda_mlp;
using clock_type = std::chrono::steady_clock;

constexpr std::size_t repeats = 7;
int messages = 64;
constexpr const char* time_sliced = "shared GPU, time-sliced: correctness only";

struct times {
  double host = 0, all = 0;  // microseconds per message: until the calls return, until the device has finished
};
// The least of some repetitions, which both processes begin together.
class stopwatch {
 public:
  explicit stopwatch(pipesched::coordinator& job) : job_(job) {}
  void begin() {
    job_.broadcast("");
    begin_ = clock_type::now();
  }
  void calls_end() { best_.host = std::min(best_.host, since_begin()); }
  void end() { best_.all = std::min(best_.all, since_begin()); }
  const times& best() const { return best_; }

 private:
  double since_begin() const {
    return std::chrono::duration<double, std::micro>(clock_type::now() - begin_).count() / messages;
  }
  pipesched::coordinator& job_;
  clock_type::time_point begin_;
  times best_{1e300, 1e300};
};

// A trainer that has buffers and does nothing.
struct idle_trainer {
  std::vector<device_array<std::byte>> buffers;
  std::size_t size = 0;  // of a message
  stopwatch* watch = nullptr;
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t n) { return buffers[n].bytes().first(size); }
  void begin_step(std::size_t) { watch->begin(); }
  void end_step(std::size_t) { watch->end(); }
};
struct watched_transport : pipesched::nccl::transport {
  using pipesched::nccl::transport::transport;
  stopwatch* watch = nullptr;
  void synchronize() {
    watch->calls_end();
    pipesched::nccl::transport::synchronize();
  }
};

void require(ncclResult_t status, const char* call) {
  if (status != ncclSuccess) throw std::runtime_error(std::string(call) + ": " + ncclGetErrorString(status));
}

// True if both processes have the same GPU.
bool share_a_gpu(pipesched::coordinator& job, int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  const std::vector<std::string> gpus = gather(job, {properties.uuid.bytes, sizeof properties.uuid.bytes});
  return job.broadcast(!gpus.empty() && gpus[0] == gpus[1] ? "shared" : "") == "shared";
}

// A blocking communicator of both processes.
ncclComm_t connect(pipesched::coordinator& job) {
  ncclUniqueId id{};
  if (job.rank() == 0) require(ncclGetUniqueId(&id), "ncclGetUniqueId");
  const std::string shared = job.broadcast({id.internal, sizeof id.internal});
  std::memcpy(id.internal, shared.data(), sizeof id.internal);
  ncclComm_t made = nullptr;
  ncclConfig_t config = pipesched::nccl::library::make_config({}, "by hand", 1);
  require(ncclCommInitRankConfig(&made, 2, id, static_cast<int>(job.rank()), &config), "ncclCommInitRankConfig");
  return made;
}

int run(const std::string& json) {
  const pipesched::launch_environment where = pipesched::read_launch_environment();
  if (where.size != 2) throw pipesched::schedule_error("two processes are needed; a launcher starts them");
  pipesched::tcp_coordinator job(where);
  const int device = pipesched::cuda::pick_device(where);
  const bool shared = share_a_gpu(job, device);
  const std::size_t largest = std::size_t{shared ? 1u : 64u} << 20;
  if (shared) messages = 8;
  const pipesched::program p =
      pipesched::lower(pipesched::make_gpipe_schedule({.pp = 2, .micro = messages, .forward_only = true}));
  const stream compute, by_hand;
  idle_trainer trainer;
  for (std::uint32_t i = 0; i < p.pools[where.rank].owned_buffers(); ++i) trainer.buffers.emplace_back(largest);
  pipesched::nccl::order_launches();  // before the first communicator
  const ncclComm_t pair = connect(job);
  watched_transport transport({device, compute.handle()}, job);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const std::size_t size : {std::size_t{8}, std::size_t{4} << 10, std::size_t{256} << 10, std::size_t{1} << 20,
                                 std::size_t{4} << 20, std::size_t{64} << 20}) {
    if (size > largest) continue;
    stopwatch ours(job), plain(job);
    trainer.size = size, trainer.watch = transport.watch = &ours;
    pipesched::run(p, where.rank, trainer, transport, {.steps = repeats});
    std::size_t next = 0;
    for (std::size_t i = 0; i <= repeats; ++i) {
      if (i > 0) plain.begin();  // the first repetition connects
      for (int m = 0; m < messages; ++m) {
        std::byte* const bytes = trainer.buffers[next++ % trainer.buffers.size()].data();
        where.rank == 0 ? require(ncclSend(bytes, size, ncclInt8, 1, pair, by_hand.handle()), "ncclSend")
                        : require(ncclRecv(bytes, size, ncclInt8, 0, pair, by_hand.handle()), "ncclRecv");
      }
      if (i > 0) plain.calls_end();
      check(cudaStreamSynchronize(by_hand.handle()), "cudaStreamSynchronize");
      if (i > 0) plain.end();
    }

    const auto row = [&](const times& t) {
      return nlohmann::ordered_json{
          {"host_us", t.host}, {"us", t.all}, {"GB_per_s", static_cast<double>(size) / t.all / 1e3}};
    };
    const times &a = ours.best(), &b = plain.best();
    rows.push_back({{"bytes", size}, {"pipesched", row(a)}, {"by_hand", row(b)}, {"time_ratio", a.all / b.all}});
    if (shared) rows.back()["note"] = time_sliced;
    if (where.rank == 0)
      std::printf("%9zu bytes: %9.2f us per message (host %6.2f), by hand %9.2f (%6.2f), ratio %.3f%s%s\n", size, a.all,
                  a.host, b.all, b.host, a.all / b.all, shared ? "; " : "", shared ? time_sliced : "");
    std::fflush(stdout);
  }
  require(ncclCommFinalize(pair), "ncclCommFinalize");
  require(ncclCommDestroy(pair), "ncclCommDestroy");
  const nlohmann::ordered_json report = {{"shared_gpu", shared}, {"messages", messages}, {"rows", rows}};
  if (where.rank == 0 && !json.empty() && !(std::ofstream(json) << report.dump(2) << "\n").flush())
    throw std::runtime_error(json + " cannot be written");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: no CUDA device");
    return 77;
  }
  try {
    return run(argc > 1 ? argv[1] : "");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "nccl_messages: %s\n", e.what());
    return 1;
  }
}
