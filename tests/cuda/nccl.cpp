// SPDX-License-Identifier: MIT
// What of NCCL's own library, and of the note about queues, can be seen without a GPU.

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <pipesched/device/nccl.hpp>
#include <pipesched/generate/1f1b.hpp>
#include <pipesched/launch/tcp_coordinator.hpp>
#include <pipesched/program/lower.hpp>
#include <string>

namespace {

using namespace pipesched;

int failures = 0;
void check(bool right, const std::string& what) {
  if (!right) std::printf("FAILED: %s\n", what.c_str()), ++failures;
}

}  // namespace

int main() {
  int version = 0, devices = 0;
  check(ncclGetVersion(&version) == ncclSuccess && version >= NCCL_VERSION(2, 22, 0), "NCCL's version");
  if (cudaGetDeviceCount(&devices) != cudaSuccess) devices = 0;

  const ncclConfig_t config = nccl::library::make_config({.min_ctas = 2, .max_ctas = 4}, "edge");
  check(config.blocking == 0 && config.minCTAs == 2 && config.maxCTAs == 4, "the options of an edge");
  // NCCL refuses minCTAs > maxCTAs as they are given, where an unset maxCTAs is INT_MIN.
  for (const edge_options& limits : {edge_options{.min_ctas = 2}, {.min_ctas = 100}, {.max_ctas = 4}, {}}) {
    const ncclConfig_t given = nccl::library::make_config(limits, "");
    check((given.minCTAs == NCCL_CONFIG_UNDEF_INT || given.minCTAs <= given.maxCTAs) &&
              (limits.min_ctas == 0 || given.minCTAs == limits.min_ctas),
          "limits that NCCL takes: " + std::to_string(given.minCTAs) + " to " + std::to_string(given.maxCTAs));
  }
  const ncclConfig_t unset = nccl::library::make_config({}, "");
  check(unset.minCTAs == NCCL_CONFIG_UNDEF_INT && unset.maxCTAs == NCCL_CONFIG_UNDEF_INT, "what NCCL is to choose");
  check(nccl::library::text(ncclInvalidUsage).find("invalid usage") == 0, nccl::library::text(ncclInvalidUsage));

  check(cuda::shared_queues_note(8, nullptr).empty(), "eight streams have queues of their own");
  check(
      cuda::shared_queues_note(9, nullptr) ==
          "CUDA_DEVICE_MAX_CONNECTIONS is not set: 9 streams share 8 queues of the device, where what stands behind a "
          "message that waits waits, too. Nothing deadlocks, as all ranks start their messages in one order, but less "
          "overlaps. Set it to 9 or more before CUDA starts",
      cuda::shared_queues_note(9, nullptr));
  check(cuda::shared_queues_note(5, "1").find("CUDA_DEVICE_MAX_CONNECTIONS is 1: 5 streams share 1 queue of") == 0,
        cuda::shared_queues_note(5, "1"));
  check(cuda::shared_queues_note(40, "32").find("Set it to 32 or more") != std::string::npos,
        "no more than there can be");
  check(cuda::shared_queues_note(5, "nothing").find("share 1 queue") != std::string::npos,
        "what is no number is least");

  try {
    const int device = cuda::pick_device({.rank = 3, .size = 4, .local_rank = 3});
    check(devices > 0 && device == 3 % devices, "the device of a local rank");
  } catch (const device_error& e) {
    check(devices == 0 && std::string(e.what()).find("cudaGetDeviceCount: ") == 0 &&
              std::string(e.what()).find(", process 3 of 4") != std::string::npos,
          e.what());
  }

  // A job of one process; without a GPU it ends with NCCL's own error.
  std::string said;
  try {
    tcp_coordinator control(launch_environment{.port = static_cast<std::uint16_t>(15000 + ::getpid() % 15000)});
    nccl::world world(control);
    const program p = lower(make_1f1b_schedule({.pp = 1, .micro = 2}));
    nccl::transport transport(p, world.handle(), {}, control);
    check(transport.rank() == 0, "the only rank");
  } catch (const device_error& e) {
    said = e.what();
    check(e.call.find("nccl") == 0 && e.status != ncclSuccess, "the call and its status: " + e.call);
  }
  std::printf("%s\n", said.c_str());
  check(devices > 0 ? said.empty() : said.find("nccl") == 0 && said.find(", process 0 of 1") != std::string::npos,
        "an error that names the call and the process: " + said);
  check(std::string_view(std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT")) == "1", "the order of launches has been set");
  ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "0", 1);
  nccl::order_launches();
  check(std::string_view(std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT")) == "0", "the user's value stays");
  check(nccl::library::refuses_capture().ends_with(" NCCL 2.26 or later and NCCL_LAUNCH_ORDER_IMPLICIT=1"), "no order");
  ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 1);
  if (devices == 0)
    check(nccl::library::refuses_capture().find("NCCL in a graph needs a driver for CUDA 11.3") == 0, "no driver");
  std::puts(failures == 0 ? "passed" : "FAILED");
  return failures == 0 ? 0 : 1;
}
