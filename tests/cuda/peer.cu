// SPDX-License-Identifier: MIT
// The CUDA transport on a real GPU, or on all there are: every family, in threads, by turns and as a graph, to the bit. Exits with
// 77 where there is no GPU.

#include <cstdio>
#include <deque>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <pipesched/device/cuda.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/program/lower.hpp>

#include "hash_model.cuh"
#include "support/borrowed.hpp"

using namespace pipesched;
using hash_model::check;

namespace {

constexpr unsigned numbers = 4096, cycles = 20000;
int failures = 0;

// The ranks of a program, round the GPUs, with a stream each.
struct machine {
  explicit machine(const program& of, const peer_options& options = {}) : p(of) {
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
    hub = std::make_unique<cuda::peer_hub>(cuda::runtime{}, p, ranks, options, std::chrono::seconds(20));
  }

  using borrowed = tests::borrowed<hash_model::trainer>;

  timeline in_threads() {
    return run_on_peers(p, *hub, [&](std::uint32_t rank, cuda::peer_transport&) { return borrowed{trainers[rank]}; });
  }
  void open_transports() {
    for (std::uint32_t r = 0; transports.size() < p.schedule.pp(); ++r) {
      opened.push_back(std::make_unique<cuda::peer_transport>(*hub, r));
      transports.push_back(opened.back().get());
      by_rank.push_back(borrowed{trainers[r]});
    }
  }
  void by_turns() { execute_by_turns<borrowed, cuda::peer_transport>(p, by_rank, transports); }
  void synchronize() {
    for (auto* t : transports) t->synchronize();
  }

  std::string difference(hash_model::number steps) const {
    const auto expected = hash_model::on_host(p.schedule.stages(), p.schedule.micro, numbers);
    // Of stages that two ranks hold, the second step would add what the other one has summed before.
    const bool sums = steps == 1 || p.schedule.placement.replicas() == 1;
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r)
      if (const std::string d = sums ? trainers[r].difference(expected, steps) : ""; !d.empty()) return d;
    for (std::uint32_t m = 0; m < p.schedule.micro; ++m) {
      const std::uint32_t rank = p.schedule.placement.rank_of(static_cast<std::uint16_t>(p.schedule.stages() - 1), m);
      if (const std::string d = trainers[rank].difference_of_output(expected, m); !d.empty()) return d;
    }
    return {};
  }

  const program& p;
  std::vector<device_handle<cuda::runtime, cudaStream_t>> streams;
  std::vector<cuda::rank> ranks;
  std::deque<hash_model::trainer> trainers;
  std::unique_ptr<cuda::peer_hub> hub;
  std::vector<std::unique_ptr<cuda::peer_transport>> opened;
  std::vector<cuda::peer_transport*> transports;
  std::vector<borrowed> by_rank;
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
  {
    machine m(p);
    m.in_threads();
    expect(m.difference(1), what + ", in threads");
  }
  {
    machine m(p);
    m.open_transports();
    for (int step = 0; step < 2; ++step) m.by_turns();
    m.synchronize();
    expect(m.difference(2), what + ", by turns");
  }
  {
    machine m(p);
    m.open_transports();
    cuda::step_graph graph({}, m.ranks, [&] { m.by_turns(); });
    for (int step = 0; step < 2; ++step) graph.launch();
    check(cudaStreamSynchronize(m.ranks[0].compute), "cudaStreamSynchronize");
    expect(m.difference(2), what + ", as a graph");
  }
}

void times() {
  const program p = lower(make_schedule("zbv", {.pp = 4, .micro = 8}));
  machine m(p, {.timed = true});
  const timeline t = m.in_threads();
  std::string wrong;
  for (std::uint32_t r = 0; r < 4; ++r)
    for (std::size_t i = 0; i < t[r].size(); ++i)
      if (!(t[r][i].start >= 0 && t[r][i].start <= t[r][i].end && (i == 0 || t[r][i - 1].end <= t[r][i].start)))
        wrong = "rank " + std::to_string(r) + ", cell " + std::to_string(i);
  expect(wrong, "times in order");
}

void failing() {
  // A rank that throws ends all, with its cause; the device is drained before its memory goes.
  const program p = lower(make_schedule("dualpipev", {.pp = 4, .micro = 8}));
  struct thrower : machine::borrowed {
    std::uint32_t rank;
    void forward(task k) {
      if (rank == 2 && k.what.micro == 5) throw std::runtime_error("not a number");
      machine::borrowed::forward(k);
    }
  };
  machine m(p);
  std::string said;
  try {
    run_on_peers(p, *m.hub, [&](std::uint32_t r, cuda::peer_transport&) { return thrower{{m.trainers[r]}, r}; });
  } catch (const std::exception& e) {
    said = e.what();
  }
  const bool right = said.find("rank 2 at ") == 0 && said.find(": not a number") == said.size() - 14;
  expect(right ? "" : said + " is said", "a rank that throws");
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
