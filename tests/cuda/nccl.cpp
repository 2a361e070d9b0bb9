// SPDX-License-Identifier: MIT
// NCCL's own library as far as it works without a GPU, and the notes about queues and thread blocks; with a GPU also a connection
// that is given up, counters in a graph, and a job of one process.

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <pipesched/device/nccl.hpp>
#include <pipesched/generate/1f1b.hpp>
#include <pipesched/launch/tcp_coordinator.hpp>
#include <pipesched/program/lower.hpp>
#include <span>
#include <string>

namespace {

using namespace pipesched;

int failures = 0;
void check(bool right, const std::string& what) {
  if (!right) std::printf("FAILED: %s\n", what.c_str()), ++failures;
}

struct idle_trainer {
  std::array<std::byte, 1> memory;
  void forward(task) {}
  void backward(task) {}
  std::span<std::byte> buffer(tensor_id, std::uint32_t) { return memory; }
};

// A device writes counters, from a stream and from a graph.
void count_in_graph(cudaStream_t s) {
  cuda::runtime runtime;
  std::uint32_t* counter = nullptr;
  cudaGraphExec_t graph = nullptr;
  const auto good = [](cudaError_t status) { return status == cudaSuccess; };
  check(good(runtime.allocate_counters(0, 1, counter)) && *counter == 0, "a counter");
  check(good(runtime.write(s, counter, 7)) && good(cudaStreamSynchronize(s)) && *counter == 7, "a write");
  const bool captured = good(runtime.begin_capture(s)) && good(runtime.write(s, counter, 9));
  const bool made = good(runtime.end_capture(s, graph)) && captured;
  check(made && *counter == 7 && good(runtime.launch(graph, s)) && good(cudaStreamSynchronize(s)) && *counter == 9,
        "a write in a graph");
  if (made) runtime.destroy(graph);
  runtime.free_counters(counter);
}

}  // namespace

int main() {
  int version = 0, devices = 0;
  check(ncclGetVersion(&version) == ncclSuccess && version >= NCCL_VERSION(2, 22, 0), "the version of NCCL");
  if (cudaGetDeviceCount(&devices) != cudaSuccess) devices = 0;

  const ncclConfig_t config = nccl::library::make_config({.min_ctas = 2, .max_ctas = 4}, "channel", 0);
  check(config.blocking == 0 && config.minCTAs == 2 && config.maxCTAs == 4, "the options of a channel");
  check(nccl::library::make_config({}, "", 1).blocking == 1, "a blocking communicator");
  // NCCL refuses minCTAs > maxCTAs before it fills in defaults, where an unset maxCTAs is INT_MIN.
  for (const channel_options& limits : {channel_options{.min_ctas = 2, .max_ctas = 0},
                                        {.min_ctas = 100, .max_ctas = 0},
                                        {.min_ctas = 2},
                                        {.max_ctas = 4},
                                        {}}) {
    const ncclConfig_t given = nccl::library::make_config(limits, "", 1);
    check((given.minCTAs == NCCL_CONFIG_UNDEF_INT || given.minCTAs <= given.maxCTAs) &&
              (limits.min_ctas == 0 || given.minCTAs == limits.min_ctas),
          "limits that NCCL takes: " + std::to_string(given.minCTAs) + " to " + std::to_string(given.maxCTAs));
  }
  const ncclConfig_t unset = nccl::library::make_config({.max_ctas = 0}, "", 1);
  check(unset.minCTAs == NCCL_CONFIG_UNDEF_INT && unset.maxCTAs == NCCL_CONFIG_UNDEF_INT, "limits of NCCL's own");
  check(nccl::library::make_config({}, "", 1).maxCTAs == 8, "the limit by default");
  check(nccl::transport::message_ctas({}) == 4 && nccl::transport::message_ctas({.max_ctas = 1}) == 1 &&
            nccl::transport::message_ctas({.max_ctas = 0}) == 16,
        "thread blocks of a message");
  check(nccl::ctas_note(33, 132).empty(), "a quarter of the device");
  check(nccl::ctas_note(34, 132).find("messages may hold 34 of the device's 132 multiprocessors") == 0,
        nccl::ctas_note(34, 132));
  check(nccl::library::text(ncclInvalidUsage).find("invalid usage") == 0, nccl::library::text(ncclInvalidUsage));

  check(cuda::shared_queues_note(8, nullptr).empty(), "eight streams have queues of their own");
  check(cuda::shared_queues_note(9, nullptr) ==
            "CUDA_DEVICE_MAX_CONNECTIONS is not set: 9 streams share 8 queues of the device, where work queued after "
            "a message that waits also waits. Nothing deadlocks, as all ranks start their messages in one order, but "
            "less "
            "overlaps. Set it to 9 or more before CUDA starts",
        cuda::shared_queues_note(9, nullptr));
  check(cuda::shared_queues_note(5, "1").find("CUDA_DEVICE_MAX_CONNECTIONS is 1: 5 streams share 1 queue of") == 0,
        cuda::shared_queues_note(5, "1"));
  check(cuda::shared_queues_note(40, "32").find("Set it to 32 or more") != std::string::npos,
        "no more than there can be");
  check(cuda::shared_queues_note(5, "nothing").find("share 1 queue") != std::string::npos,
        "text counts as the least number");

  try {
    const int device = cuda::pick_device({.rank = 3, .size = 4, .local_rank = 3});
    check(devices > 0 && device == 3 % devices, "the device of a local rank");
  } catch (const device_error& e) {
    check(devices == 0 && std::string(e.what()).find("cudaGetDeviceCount: ") == 0 &&
              std::string(e.what()).find(", process 3 of 4") != std::string::npos,
          e.what());
  }

  std::string id;
  ncclComm_t made = nullptr;
  const auto connect = [&](const std::string& by, bool goes_on) {
    return nccl::library::connect(by, 0, {}, "a test", made, [=] { return goes_on; });
  };
  check(nccl::library::make_id(id) == ncclSuccess && id.size() == sizeof(ncclUniqueId), "an id");
  check(connect("short", true) == ncclInvalidArgument && made == nullptr, "text instead of an id");
  const ncclResult_t alone = connect(id, false);
  std::printf("a connection without its other side: %s\n", ncclGetErrorString(alone));
  check(made == nullptr && (devices > 0 ? alone == ncclInProgress : alone != ncclSuccess),
        "a connection without its other side ends");

  // A job of one process.
  try {
    tcp_coordinator job(launch_environment{.port = static_cast<std::uint16_t>(15000 + ::getpid() % 15000)});
    const auto where = [] { return std::string("a test"); };
    cuda::stream compute;
    if (devices > 0) {
      cuda::runtime runtime;
      compute = detail::make_stream(runtime, 0, 0, where);
      count_in_graph(compute.handle());
    }
    const program p = lower(make_1f1b_schedule({.pp = 1, .micro = 2}));
    nccl::transport transport({0, compute.handle()}, job);
    idle_trainer idle{{}};
    run(p, transport.rank(), idle, transport, {.steps = 3, .graph = true});
    check(devices > 0 && transport.rank() == 0, "the only rank");
  } catch (const device_error& e) {
    std::printf("%s\n", e.what());
    check(devices == 0 && e.call.find("cuda") == 0 && e.status != cudaSuccess &&
              std::string(e.what()).find(", rank 0 at its start") != std::string::npos,
          "an error that names the call and the rank");
  }
  check(std::string_view(std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT")) == "1", "the order of launches has been set");
  ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "0", 1);
  nccl::order_launches();
  check(std::string_view(std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT")) == "0", "the user's value stays");
  check(nccl::library::refuses_capture().ends_with(" only with NCCL_LAUNCH_ORDER_IMPLICIT=1"), "no order");
  ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 1);
  if (devices == 0)
    check(nccl::library::refuses_capture().find("NCCL in a graph needs a driver for CUDA 11.3") == 0, "no driver");
  std::puts(failures == 0 ? "passed" : "FAILED");
  return failures == 0 ? 0 : 1;
}
