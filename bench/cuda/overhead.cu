// SPDX-License-Identifier: MIT
// The library's host time per cell on a GPU, beside the same kernels, copies and events put into the same streams by hand; and an
// ordinary step beside one that is captured and replayed. Writes one JSON object, into a file or to standard output; exits with
// 77 without a GPU.
//
// By hand: the calls of a step are recorded once, and made again from that list. The host's part of a step ends when it first asks
// whether the device has finished.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
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

// The times of a step, and its calls if `list` is there.
struct recorder {
  std::vector<call>* list = nullptr;
  bool enqueues = false;
  steady_clock::time_point start{}, enqueued{};
  std::vector<double> host{}, whole{};  // microseconds, by step

  void add(call c) {
    if (enqueues && list != nullptr) list->push_back(c);
  }
  void begin() { enqueues = true, start = steady_clock::now(); }
  void host_ends() {
    if (std::exchange(enqueues, false)) enqueued = steady_clock::now();
  }
  void end() {
    const auto us = [&](auto t) { return std::chrono::duration<double, std::micro>(t - start).count(); };
    host.push_back(us(enqueued)), whole.push_back(us(steady_clock::now()));
  }
};

// CUDA's, with a recorder.
struct recording_runtime : cuda::runtime {
  recorder* to = nullptr;

  cudaError_t record(cudaEvent_t e, cudaStream_t s) {
    to->add({.what = call::record, .stream = s, .event = e});
    return cuda::runtime::record(e, s);
  }
  cudaError_t wait(cudaStream_t s, cudaEvent_t e) {
    to->add({.what = call::wait, .stream = s, .event = e});
    return cuda::runtime::wait(s, e);
  }
  cudaError_t copy(cudaStream_t s, void* into, int to_device, const void* from, int from_device, std::size_t size) {
    to->add({.what = call::copy, .stream = s, .to = into, .from = from, .size = size});
    return cuda::runtime::copy(s, into, to_device, from, from_device, size);
  }
  cudaError_t query(cudaEvent_t e, bool& done) {
    to->host_ends();
    return cuda::runtime::query(e, done);
  }
};

struct recording_trainer {
  hash_model::trainer* t;
  std::uint32_t rank, ranks;
  recorder* to;

  void add(task k) { to->add({.what = call::kernel, .rank = rank, .of = k}); }
  void begin_step(std::size_t) {
    if (rank + 1 == ranks) to->begin();
  }
  void end_step(std::size_t) {
    if (rank + 1 == ranks) to->end();
  }
  void forward(task k) { add(k), t->forward(k); }
  void backward(task k) { add(k), t->backward(k); }
  void backward_input(task k) { add(k), t->backward_input(k); }
  void backward_weight(task k) { add(k), t->backward_weight(k); }
  std::span<std::byte> buffer(tensor_id message, std::uint32_t n) { return t->buffer(message, n); }
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

constexpr std::size_t warm_up = 5, steps = 20;

// Medians of the steps after the warm-up.
struct step_times {
  double host = 0, whole = 0;
};
step_times medians(recorder& of) {
  const auto median = [](std::vector<double>& v) {
    v.erase(v.begin(), v.begin() + warm_up);
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
  };
  const step_times t{median(of.host), median(of.whole)};
  of = {};
  return t;
}

nlohmann::ordered_json measure_family(const char* name, std::int64_t pp, std::int64_t micro, unsigned numbers,
                                      unsigned cycles) {
  const program p = lower(make_schedule(name, {.pp = pp, .micro = micro}));
  recorder times;
  std::vector<call> calls;
  recording_runtime runtime{{}, &times};
  std::vector<device_handle<recording_runtime, cudaStream_t>> streams;
  std::vector<device_rank<recording_runtime>> ranks;
  std::deque<hash_model::trainer> models;
  std::vector<recording_trainer> trainers;
  for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
    streams.push_back(detail::make_stream(runtime, 0, 0, [] { return std::string("a bench"); }));
    ranks.push_back({0, streams.back().handle()});
    models.emplace_back(p, r, ranks.back().compute, numbers, cycles);
    trainers.push_back({&models.back(), r, p.schedule.pp(), &times});
  }
  peer_world<recording_runtime> world(runtime, ranks);
  const auto with_library = [&](bool graph) {
    run_all(p, trainers, world, {.steps = warm_up + steps, .graph = graph, .one_thread = true});
    return medians(times);
  };
  const auto by_hand = [&] {
    for (std::size_t i = 0; i < warm_up + steps; ++i) {
      times.begin();
      for (const call& c : calls) switch (c.what) {
          case call::kernel: run_kernel(models[c.rank], c.of); break;
          case call::record: check(cudaEventRecord(c.event, c.stream), "cudaEventRecord"); break;
          case call::wait: check(cudaStreamWaitEvent(c.stream, c.event, 0), "cudaStreamWaitEvent"); break;
          case call::copy:
            check(cudaMemcpyAsync(c.to, c.from, c.size, cudaMemcpyDeviceToDevice, c.stream), "cudaMemcpyAsync");
        }
      times.host_ends();
      check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
      times.end();
    }
    return medians(times);
  };

  times.list = &calls;
  run_all(p, trainers, world, {.one_thread = true});
  times = {};
  const step_times first = by_hand(), library = with_library(false), hand = by_hand();
  const step_times replayed = with_library(true);
  const auto cells = static_cast<double>(p.schedule.cells.all().size());
  const double least = std::min(first.host, hand.host);
  return {{"family", name},
          {"pp", pp},
          {"micro", micro},
          {"bytes_per_message", numbers * sizeof(hash_model::number)},
          {"kernel_cycles_at_most", cycles},
          {"cells", p.schedule.cells.all().size()},
          {"calls", calls.size()},
          {"host_us_per_cell", library.host / cells},
          {"host_us_per_cell_by_hand", least / cells},
          {"host_us_per_cell_by_hand_again", std::max(first.host, hand.host) / cells},
          {"overhead_ns_per_cell", 1000 * (library.host - least) / cells},
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
