// SPDX-License-Identifier: MIT
// The CUDA transport on all GPUs of a host: every family, in threads, by turns and as a graph, to the bit. Exits with 77
// without a GPU.

#include <chrono>
#include <cstdio>
#include <deque>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <pipesched/device/cuda.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/program/lower.hpp>

#include "hash_model.cuh"

using namespace pipesched;
using hash_model::check;

namespace {

constexpr unsigned numbers = 4096, cycles = 20000;
int failures = 0;

// The ranks of a program, spread over the GPUs, with a stream each.
template <typename Trainer = hash_model::trainer>
struct machine {
  explicit machine(const program& of) : p(of) {
    int devices = 0;
    check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    cuda::runtime runtime;
    const auto where = [] { return std::string("a test"); };
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
      const int device = static_cast<int>(r) % devices;
      streams.push_back(detail::make_stream(runtime, device, 0, where));
      ranks.push_back({device, streams.back().handle()});
      check(cudaSetDevice(device), "cudaSetDevice");
      trainers.emplace_back(p, r, ranks.back().compute, numbers, cycles);
    }
  }

  timeline run(const run_options& options) {
    cuda::peer_world world({}, ranks, {.time_limit = std::chrono::seconds(20)});
    return run_all(p, trainers, world, options);
  }

  std::string difference() const {
    const auto expected = hash_model::on_host(p.schedule.stages(), p.schedule.micro, numbers);
    for (const Trainer& t : trainers)
      if (const std::string d = t.difference(expected); !d.empty()) return d;
    for (std::uint32_t m = 0; m < p.schedule.micro; ++m) {
      const std::uint32_t rank = p.schedule.placement.rank_of(static_cast<std::uint16_t>(p.schedule.stages() - 1), m);
      if (const std::string d = trainers[rank].difference_of_output(expected, m); !d.empty()) return d;
    }
    return {};
  }

  const program& p;
  std::vector<device_handle<cuda::runtime, cudaStream_t>> streams;
  std::vector<cuda::rank> ranks;
  std::deque<Trainer> trainers;
};

void expect(const std::string& difference, const std::string& what) {
  if (difference.empty()) return;
  ++failures;
  std::printf("FAILED: %s: %s\n", what.c_str(), difference.c_str());
}

void run(const family& f, std::int64_t pp, bool forward_only, std::uint32_t depth) {
  const program p = lower(f.make({.pp = pp, .micro = 8, .forward_only = forward_only}), {.depth = depth});
  const std::string what = std::string(f.name) + ", " + std::to_string(pp) + " ranks" +
                           (forward_only ? ", forward" : "") + ", depth " + std::to_string(depth);
  struct {
    const char* name;
    run_options options;
  } const modes[] = {{"in threads", {}},
                     {"two steps in threads", {.steps = 2}},
                     {"by turns", {.steps = 2, .one_thread = true}},
                     {"as a graph", {.steps = 3, .graph = true}}};
  for (const auto& mode : modes) {
    machine m(p);
    m.run(mode.options);
    expect(m.difference(), what + ", " + mode.name);
  }
}

void times() {
  const program p = lower(make_schedule("zbv", {.pp = 4, .micro = 8}));
  machine m(p);
  const timeline t = m.run({.steps = 2, .record = true});
  std::string wrong;
  for (std::uint32_t r = 0; r < 4; ++r)
    for (std::size_t i = 0; i < t[r].size(); ++i)
      if (!(t[r][i].start >= 0 && t[r][i].start <= t[r][i].end && (i == 0 || t[r][i - 1].end <= t[r][i].start)))
        wrong = "rank " + std::to_string(r) + ", cell " + std::to_string(i);
  expect(wrong, "times in order");
}

struct thrower : hash_model::trainer {
  thrower(const program& p, std::uint32_t r, cudaStream_t stream, unsigned n, unsigned most)
      : hash_model::trainer(p, r, stream, n, most), rank(r) {}
  std::uint32_t rank;
  void forward(task k) {
    if (rank == 2 && k.what.micro == 5) throw std::runtime_error("NaN");
    hash_model::trainer::forward(k);
  }
};

// A rank that throws ends all, with its cause; the device is drained before its memory goes.
void failing() {
  const program p = lower(make_schedule("dualpipev", {.pp = 4, .micro = 8}));
  for (const run_options& options : {run_options{}, run_options{.one_thread = true}}) {
    machine<thrower> m(p);
    std::string said;
    try {
      m.run(options);
    } catch (const std::exception& e) {
      said = e.what();
    }
    const bool right = said.find("rank 2 at ") == 0 && said.ends_with(": NaN");
    expect(right ? "" : "\"" + said + "\"", "a rank that throws");
  }
}

}  // namespace

// `quick`: two families, for tools that slow everything down.
int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::string(argv[1]) == "quick";
  int devices = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&devices); status != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(status));
    return 77;
  }
  try {
    int runs = 0;
    for (const family& f : families)
      for (const std::int64_t pp : {2, 4, 8})
        for (const bool forward_only : {false, true})
          for (const std::uint32_t depth : {1u, 4u}) {
            if (forward_only && depth == 1) continue;
            if (quick && (pp != 2 || (f.name != "zbv" && f.name != "dualpipe"))) continue;
            run(f, pp, forward_only, depth);
            ++runs;
          }
    times();
    failing();
    std::printf("%d programs in threads, by turns and as graphs: %s\n", runs,
                failures == 0 ? "all to the bit" : "FAILED");
  } catch (const std::exception& e) {
    std::printf("FAILED: %s\n", e.what());
    return 1;
  }
  return failures != 0;
}
