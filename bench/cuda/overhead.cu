// SPDX-License-Identifier: MIT
// What the library costs on the host for each cell on a GPU, beside the same kernels, copies and events put into the same streams by
// hand; and a step put together anew beside one that is captured and replayed. One JSON object, into a file
// or on standard output; 77 without a GPU.
//
// By hand: the calls that a step makes are written down once, and made again from that list.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <pipesched/device/cuda.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/program/lower.hpp>

#include "hash_model.cuh"

using namespace pipesched;
using hash_model::check;
using steady_clock = std::chrono::steady_clock;

namespace {

// A call that a step makes.
struct call {
  enum { kernel, record, wait, copy } what;
  std::uint32_t rank = 0;
  task of{};
  cudaStream_t stream{};
  cudaEvent_t event{};
  void* to = nullptr;
  const void* from = nullptr;
  std::size_t size = 0;
};

// CUDA's, writing down what orders and moves, if there is a list.
struct writing_runtime : cuda::runtime {
  std::vector<call>* list = nullptr;

  cudaError_t record(cudaEvent_t e, cudaStream_t s) {
    if (list != nullptr) list->push_back({call::record, 0, {}, s, e, nullptr, nullptr, 0});
    return cuda::runtime::record(e, s);
  }
  cudaError_t wait(cudaStream_t s, cudaEvent_t e) {
    if (list != nullptr) list->push_back({call::wait, 0, {}, s, e, nullptr, nullptr, 0});
    return cuda::runtime::wait(s, e);
  }
  cudaError_t copy(cudaStream_t s, void* to, int to_device, const void* from, int from_device, std::size_t size) {
    if (list != nullptr) list->push_back({call::copy, 0, {}, s, {}, to, from, size});
    return cuda::runtime::copy(s, to, to_device, from, from_device, size);
  }
};

struct writing_trainer {
  hash_model::trainer* t;
  std::uint32_t rank;
  std::vector<call>** list;

  void write(task k) {
    if (*list != nullptr) (*list)->push_back({call::kernel, rank, k, {}, {}, nullptr, nullptr, 0});
  }
  void forward(task k) { write(k), t->forward(k); }
  void backward(task k) { write(k), t->backward(k); }
  void backward_input(task k) { write(k), t->backward_input(k); }
  void backward_weight(task k) { write(k), t->backward_weight(k); }
  std::span<std::byte> buffer(std::uint32_t n) { return t->buffer(n); }
};

void run_kernel(hash_model::trainer& t, const task& k) {
  switch (k.what.pass) {
    case pass::forward: return t.forward(k);
    case pass::backward: return t.backward(k);
    case pass::backward_input: return t.backward_input(k);
    case pass::backward_weight: return t.backward_weight(k);
    case pass::none: return;
  }
}

// Microseconds: the median of some runs of `step`, each until the device is through; on the host until it has put all into streams.
struct step_times {
  double host = 0, whole = 0;
};
template <typename Step>
step_times measure(Step&& step) {
  const auto us = [](auto d) { return std::chrono::duration<double, std::micro>(d).count(); };
  std::vector<double> host, whole;
  for (int i = 0; i < 25; ++i) {
    const auto start = steady_clock::now();
    step();
    const auto enqueued = steady_clock::now();
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    if (i < 5) continue;  // warm-up
    host.push_back(us(enqueued - start));
    whole.push_back(us(steady_clock::now() - start));
  }
  std::sort(host.begin(), host.end()), std::sort(whole.begin(), whole.end());
  return {host[host.size() / 2], whole[whole.size() / 2]};
}

nlohmann::ordered_json measure_family(const char* name, std::int64_t pp, std::int64_t micro, unsigned numbers,
                                      unsigned cycles) {
  const program p = lower(make_schedule(name, {.pp = pp, .micro = micro}));
  std::vector<call>* list = nullptr;
  std::vector<call> calls;
  writing_runtime runtime;
  std::vector<device_handle<writing_runtime, cudaStream_t>> streams;
  std::vector<device_rank<writing_runtime>> ranks;
  std::deque<hash_model::trainer> trainers;
  std::vector<writing_trainer> by_rank;
  for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
    streams.push_back(detail::make_stream(runtime, 0, 0, [] { return std::string("a bench"); }));
    ranks.push_back({0, streams.back().handle()});
    trainers.emplace_back(p, r, ranks.back().compute, numbers, cycles);
    by_rank.push_back({&trainers.back(), r, &list});
  }
  peer_hub<writing_runtime> hub(runtime, p, ranks);
  std::deque<peer_transport<writing_runtime>> transports;
  std::vector<peer_transport<writing_runtime>*> of_ranks;
  for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) of_ranks.push_back(&transports.emplace_back(hub, r));
  const auto step = [&] { execute_by_turns<writing_trainer, peer_transport<writing_runtime>>(p, by_rank, of_ranks); };

  list = hub.mover().runtime().list = &calls;
  step();
  list = hub.mover().runtime().list = nullptr;
  const auto by_hand = [&] {
    for (const call& c : calls) switch (c.what) {
        case call::kernel: run_kernel(trainers[c.rank], c.of); break;
        case call::record: check(cudaEventRecord(c.event, c.stream), "cudaEventRecord"); break;
        case call::wait: check(cudaStreamWaitEvent(c.stream, c.event, 0), "cudaStreamWaitEvent"); break;
        case call::copy:
          check(cudaMemcpyAsync(c.to, c.from, c.size, cudaMemcpyDeviceToDevice, c.stream), "cudaMemcpyAsync");
      }
  };
  const step_times first = measure(by_hand), library = measure(step), hand = measure(by_hand);
  step_graph<writing_runtime> graph(runtime, ranks, step);
  const step_times replayed = measure([&] { graph.launch(); });
  const auto cells = static_cast<double>(p.schedule.cells.all().size());
  const double least = std::min(first.host, hand.host);
  return {{"family", name},
          {"pp", pp},
          {"micro", micro},
          {"bytes_a_message", numbers * sizeof(hash_model::number)},
          {"kernel_cycles_at_most", cycles},
          {"cells", p.schedule.cells.all().size()},
          {"calls", calls.size()},
          {"host_us_a_cell", library.host / cells},
          {"host_us_a_cell_by_hand", least / cells},
          {"host_us_a_cell_by_hand_again", std::max(first.host, hand.host) / cells},
          {"overhead_ns_a_cell", 1000 * (library.host - least) / cells},
          {"step_us", library.whole},
          {"step_us_by_hand", std::min(first.whole, hand.whole)},
          {"step_us_graph", replayed.whole},
          {"launch_us_graph", replayed.host}};
}

}  // namespace

int main(int argc, char** argv) {
  int devices = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&devices); status != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "skipped: no CUDA device (%s)\n", cudaGetErrorString(status));
    return 77;
  }
  try {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    nlohmann::ordered_json all = {{"bench", "overhead"}, {"gpu", properties.name}, {"rows", nlohmann::json::array()}};
    for (const char* name : {"1f1b", "zb1p", "dualpipev", "zbv"})
      for (const std::int64_t pp : {2, 8}) {
        all["rows"].push_back(measure_family(name, pp, 4 * pp, 512, 0));            // nothing to do: the host's limit
        all["rows"].push_back(measure_family(name, pp, 4 * pp, 1u << 18, 100000));  // 2 MiB a message, some 50 us an op
      }
    std::FILE* out = argc > 1 ? std::fopen(argv[1], "w") : stdout;
    if (out == nullptr) throw std::runtime_error(std::string(argv[1]) + " cannot be written");
    std::fprintf(out, "%s\n", all.dump(1).c_str());
    std::fclose(out);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "FAILED: %s\n", e.what());
    return 1;
  }
}
