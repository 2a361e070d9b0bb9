// SPDX-License-Identifier: MIT
// Messages of a program over NCCL beside the same by hand, in one run: 64 of one size from rank 0 to rank 1, on one stream
// of a communicator of two. Two processes, as a launcher starts them; process 0 writes JSON. Ends with 77 without a GPU.
//
// Two processes on one GPU run in turns, a time slice each, and every message takes several slices: then there are 8 messages
// of at most 1 MiB, whose times say nothing of NCCL, and the result has "shared_gpu": true.
//
//   nccl_messages [JSON]

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
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

constexpr int repeats = 7;
int messages = 64;

// A trainer with nothing to do but buffers.
struct idle_trainer {
  std::vector<device_array<std::byte>> buffers;
  std::size_t size;
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(std::uint32_t n) { return {buffers[n].data(), size}; }
};

struct times {
  double host = 0, all = 0;  // microseconds a message: until the calls are back, until the device is through
};
template <typename Put, typename Synchronize>
times measure(pipesched::tcp_coordinator& control, Put&& put, Synchronize&& synchronize) {
  times best{1e300, 1e300};
  for (int i = 0; i < repeats; ++i) {
    control.broadcast("");
    const auto begin = clock_type::now();
    put();
    const auto back = clock_type::now();
    synchronize();
    const auto end = clock_type::now();
    const auto per_message = [&](auto t) {
      return std::chrono::duration<double, std::micro>(t - begin).count() / messages;
    };
    best = {std::min(best.host, per_message(back)), std::min(best.all, per_message(end))};
  }
  return best;
}

void require(ncclResult_t status, const char* call) {
  if (status != ncclSuccess) throw std::runtime_error(std::string(call) + ": " + ncclGetErrorString(status));
}

// Have both processes the same GPU?
bool share_a_gpu(pipesched::tcp_coordinator& control, int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  const std::vector<std::string> gpus = gather(control, {properties.uuid.bytes, sizeof properties.uuid.bytes});
  return control.broadcast(!gpus.empty() && gpus[0] == gpus[1] ? "shared" : "") == "shared";
}

int run(const std::string& json) {
  const pipesched::launch_environment where = pipesched::read_launch_environment();
  if (where.size != 2) throw pipesched::schedule_error("two processes are needed; a launcher starts them");
  pipesched::tcp_coordinator control(where);
  const int device = pipesched::cuda::pick_device(where);
  const bool shared = share_a_gpu(control, device);
  const std::size_t largest = std::size_t{shared ? 1u : 64u} << 20;
  if (shared) messages = 8;
  pipesched::nccl::world world(control);
  const stream compute, by_hand;
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const std::size_t size : {std::size_t{8}, std::size_t{4} << 10, std::size_t{256} << 10, std::size_t{1} << 20,
                                 std::size_t{4} << 20, std::size_t{64} << 20}) {
    if (size > largest) continue;
    const pipesched::program p =
        pipesched::lower(pipesched::make_gpipe_schedule({.pp = 2, .micro = messages, .forward_only = true}));
    idle_trainer trainer{{}, size};
    for (std::uint32_t i = 0; i < p.pools[where.rank].buffers; ++i) trainer.buffers.emplace_back(size);
    times ours;
    {
      pipesched::nccl::transport transport(p, world.handle(), {device, compute.handle()}, control);
      transport.warm(trainer);
      ours = measure(
          control, [&] { execute(p, where.rank, trainer, transport); }, [&] { transport.synchronize(); });
    }
    // By hand: the same communicator of two, from the same world.
    ncclComm_t pair = nullptr;
    ncclConfig_t config = pipesched::nccl::library::make_config({}, "by hand");
    ncclResult_t state = ncclCommSplit(world.handle(), 0, static_cast<int>(where.rank), &pair, &config);
    const auto settle = [&](ncclComm_t c) {
      while (state == ncclInProgress) require(ncclCommGetAsyncError(c, &state), "ncclCommGetAsyncError");
      require(state, "a call of NCCL");
    };
    if (state != ncclSuccess) settle(world.handle());
    state = ncclInProgress, settle(world.handle());  // goes on behind a success; its communicator is there at its end
    state = ncclInProgress, settle(pair);
    std::size_t next = 0;
    const auto put = [&] {
      for (int i = 0; i < messages; ++i) {
        std::byte* const bytes = trainer.buffers[next++ % trainer.buffers.size()].data();
        state = where.rank == 0 ? ncclSend(bytes, size, ncclInt8, 1, pair, by_hand.handle())
                                : ncclRecv(bytes, size, ncclInt8, 0, pair, by_hand.handle());
        settle(pair);
      }
    };
    const auto synchronize = [&] { check(cudaStreamSynchronize(by_hand.handle()), "cudaStreamSynchronize"); };
    put(), synchronize();
    const times plain = measure(control, put, synchronize);
    state = ncclCommFinalize(pair), settle(pair);
    require(ncclCommDestroy(pair), "ncclCommDestroy");

    const auto row = [&](const times& t) {
      return nlohmann::ordered_json{
          {"host_us", t.host}, {"us", t.all}, {"GB_per_s", static_cast<double>(size) / t.all / 1e3}};
    };
    rows.push_back(
        {{"bytes", size}, {"pipesched", row(ours)}, {"by_hand", row(plain)}, {"time_ratio", ours.all / plain.all}});
    if (where.rank == 0)
      std::printf("%9zu bytes: %9.2f us a message (host %6.2f), by hand %9.2f (%6.2f), ratio %.3f\n", size, ours.all,
                  ours.host, plain.all, plain.host, ours.all / plain.all);
    std::fflush(stdout);
  }
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
