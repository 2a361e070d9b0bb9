// SPDX-License-Identifier: MIT
// DeepSeek's example of DualPipe, in CUDA with cuBLAS, through any schedule of the library: all ranks in this process, on
// one GPU or several; or over NCCL, one process per rank, as a launcher starts them.
//
//   cuda_mlp --check                              DualPipe, 8 ranks, 20 micro-batches; against the same on one device
//   cuda_mlp --schedule 1f1b --pp 4 --mode graph  a step captured once and replayed
//   cuda_mlp --transfer host --html step.html     with transfers to hide; a picture of a measured step
//   cuda_mlp --predict 1f1b,zb1p                  times of other schedules, predicted by the cells of this one
//   mpirun -n 8 cuda_mlp --transport nccl --check            or torchrun --no-python --nproc-per-node 8, or srun -n 8
//   mpirun -n 8 cuda_mlp --transport nccl --fail 3,5,throw   the errors of all ranks when one fails

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <pipesched/core/notation.hpp>
#include <pipesched/device/cuda.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/launch/tcp_coordinator.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/render/chrome_trace.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/simulate/fit_costs.hpp>
#include <pipesched/simulate/metrics.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>
#ifdef CUDA_MLP_HAS_NCCL
#include <pipesched/device/nccl.hpp>
#endif

#include "check.hpp"
#include "one_device.hpp"
#include "options.hpp"
#include "trainer.hpp"

namespace {

using namespace pipesched;
using namespace cuda_mlp;
using seconds = std::chrono::duration<double>;

constexpr std::size_t warm_up = 2;  // steps; the second is captured with --mode graph

struct no_device : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int count_devices() {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess)
    throw no_device(std::string("no CUDA device: ") + cudaGetErrorString(status));
  if (count == 0) throw no_device("no CUDA device: the driver counts 0");
  return count;
}

/// The device of each rank.
std::vector<int> place_ranks(const options& o) {
  const std::int64_t devices = std::min<std::int64_t>(count_devices(), o.plan.pp);
  const std::int64_t needed = o.ranks_per_gpu == 0 ? 1 : (o.plan.pp + o.ranks_per_gpu - 1) / o.ranks_per_gpu;
  require(needed <= devices, fmt::format("--pp {} with --ranks-per-gpu {} needs {} GPUs; there are {}", o.plan.pp,
                                         o.ranks_per_gpu, needed, devices));
  std::vector<int> of_rank;
  for (std::int64_t rank = 0; rank < o.plan.pp; ++rank)
    of_rank.push_back(static_cast<int>(o.ranks_per_gpu == 0 ? rank * devices / o.plan.pp : rank / o.ranks_per_gpu));
  return of_rank;
}

void write(const char* option, const std::string& name, const std::string& text) {
  std::ofstream file(name, std::ios::binary);
  if (!(file << text).flush()) throw schedule_error(fmt::format("{} {} cannot be written", option, name));
}

/// The mean time of each kind of cell, by the passes of its ops: F, B, I, W, F&B ...
nlohmann::ordered_json times_of_cells(const timeline& t) {
  std::map<std::string, std::pair<double, int>> sums;
  for (std::uint32_t rank = 0; rank < t.schedule.pp(); ++rank)
    for (std::size_t i = 0; i < t[rank].size(); ++i) {
      std::string kind;
      for (const op& o : t.schedule[rank][i]) kind += (kind.empty() ? "" : "&") + std::string(1, letter(o.pass));
      auto& [sum, count] = sums[kind];
      sum += t[rank][i].end - t[rank][i].start, ++count;
    }
  nlohmann::ordered_json means;
  for (const auto& [kind, of] : sums) means[kind] = of.first / of.second;
  return means;
}

/// Prints and writes what the options ask of a measured step: pictures, and predictions for other schedules by its costs.
void use_timeline(const options& o, const timeline& t, const std::vector<schedule>& others,
                  nlohmann::ordered_json& report) {
  const stage_costs costs = fit_costs(t);
  const double measured = measure(t).makespan, simulated = measure(simulate(t.schedule, costs)).makespan;
  fmt::print("one step: measured {:.3f} ms, simulated with its own costs {:.3f} ms\n", measured, simulated);
  report["timeline"] = {{"measured_ms", measured}, {"simulated_ms", simulated}, {"cells_ms", times_of_cells(t)}};
  for (std::size_t i = 0; i < others.size(); ++i) {
    const double ms = measure(simulate(others[i], costs)).makespan;
    fmt::print("{}: {:.3f} ms by these costs\n", o.predict[i], ms);
    report["predicted"][o.predict[i]] = ms;
  }
  if (!o.trace.empty()) write("--trace", o.trace, render_chrome_trace(t));
  if (o.html.empty()) return;
  html_panel panel = make_panel(t);
  panel.title += " (measured, in ms)";
  write("--html", o.html, render_html(panel));
}

/// Milliseconds of each step after the warm-up, in ascending order: from the end of the step before to its own, on the rank
/// that ends it last.
template <typename Real>
std::vector<double> step_times(const std::deque<trainer<Real>>& trainers) {
  auto ends = trainers.front().ends();
  for (const trainer<Real>& of : trainers)
    for (std::size_t i = 0; i < ends.size(); ++i) ends[i] = std::max(ends[i], of.ends()[i]);
  std::vector<double> ms;
  for (std::size_t i = warm_up; i < ends.size(); ++i) ms.push_back(seconds(ends[i] - ends[i - 1]).count() * 1e3);
  std::sort(ms.begin(), ms.end());
  return ms;
}

/// Runs the steps and reports on them.
/// @param trainers  of this process; rank 0 prints. @param gpus  number of all ranks' GPUs
/// @param run       `run(options)` runs steps and returns the timeline of all ranks on rank 0
/// @param worst_of  `worst_of(errors)`: the largest of all processes, on rank 0
template <typename Real, typename Run, typename WorstOf>
int measure(const options& o, const program& p, const std::vector<schedule>& others,
            const std::deque<trainer<Real>>& trainers, int gpus, Run&& run, WorstOf&& worst_of) {
  const bool reports = trainers.front().rank() == 0;
  cudaDeviceProp gpu{};
  check(cudaGetDeviceProperties(&gpu, 0), "cudaGetDeviceProperties");
  if (reports)
    fmt::print("{}: {} ranks on {} x {}, {} stages, {} micro-batches of {} rows; {} to {} to {}, {}\n",
               p.schedule.name.view(), p.schedule.pp(), gpus, gpu.name, p.schedule.stages(), p.schedule.micro,
               o.sizes.rows, o.sizes.width, o.sizes.hidden, o.sizes.width, o.in_double ? "double" : "float");
  run({.steps = warm_up + o.steps, .graph = o.mode == "graph", .one_thread = o.mode == "turns"});
  const std::vector<double> ms = step_times(trainers);
  const double median = (ms[(ms.size() - 1) / 2] + ms[ms.size() / 2]) / 2;
  if (reports)
    fmt::print("a step: {:.3f} ms, the median of {}; the fastest {:.3f} ms\n", median, ms.size(), ms.front());
  nlohmann::ordered_json report = {{"gpu", gpu.name},
                                   {"gpus", gpus},
                                   {"schedule", o.family},
                                   {"pp", o.plan.pp},
                                   {"micro", o.plan.micro},
                                   {"rows", o.sizes.rows},
                                   {"width", o.sizes.width},
                                   {"hidden", o.sizes.hidden},
                                   {"precision", o.in_double ? "double" : "float"},
                                   {"transport", o.transport},
                                   {"mode", o.mode},
                                   {"transfer", o.transfer},
                                   {"overlap", !o.no_overlap},
                                   {"steps", o.steps},
                                   {"ms_per_step", {{"median", median}, {"min", ms.front()}}}};

  errors worst;
  if (o.check) {
    const auto expected = on_one_device<Real>(p.schedule.stages(), p.schedule.micro, o.sizes);
    for (const trainer<Real>& of : trainers) worst = worse(worst, compare(p, of, expected));
    worst = worst_of(worst);
    if (reports)
      fmt::print("one device: losses differ by {:.2g} at most, gradients by {:.2g}; allowed {:.2g}: {}\n", worst.losses,
                 worst.gradients, tolerance, worst.passed() ? "passed" : "FAILED");
    report["check"] = {{"loss_error", worst.losses}, {"gradient_error", worst.gradients}, {"passed", worst.passed()}};
  }
  if (o.timed || !o.html.empty() || !o.trace.empty() || !o.predict.empty()) {
    // Cells of a graph cannot be measured: the same thread runs the step without one.
    timeline t = run({.steps = warm_up + 1, .record = true, .one_thread = o.mode != "threads"});
    if (reports) use_timeline(o, scaled(starting_at_zero(std::move(t)), 1000), others, report);  // milliseconds
  }
  if (reports && !o.json.empty()) write("--json", o.json, report.dump(2) + "\n");
  return worst.passed() ? 0 : 1;
}

/// All ranks in this process.
template <typename Real>
int run_in_process(const options& o, const program& p, const std::vector<schedule>& others) {
  const std::vector<int> devices = place_ranks(o);
  std::deque<trainer<Real>> trainers;
  std::vector<cuda::rank> ranks;
  for (std::uint32_t rank = 0; rank < devices.size(); ++rank)
    ranks.push_back(trainers.emplace_back(p, rank, devices[rank], o.sizes, o.training()).place());
  cuda::peer_world world({}, ranks, {.time_limit = seconds(o.time_limit)});
  const auto run_steps = [&](const run_options& how) { return run_all(p, trainers, world, how); };
  return measure(o, p, others, trainers, devices.back() + 1, run_steps, [](const errors& own) { return own; });
}

#ifdef CUDA_MLP_HAS_NCCL
/// On process 0 the values of each process, elsewhere nothing.
template <typename T>
std::vector<std::vector<T>> gather_values(coordinator& job, const std::vector<T>& own) {
  std::vector<std::vector<T>> all;
  for (const std::string& text : gather(job, {reinterpret_cast<const char*>(own.data()), own.size() * sizeof(T)})) {
    all.emplace_back(text.size() / sizeof(T));
    std::memcpy(all.back().data(), text.data(), text.size());
  }
  return all;
}

/// The rank of this process.
template <typename Real>
int run_over_nccl(const options& o, const program& p, const std::vector<schedule>& others) {
  const int devices = count_devices(), device = cuda::pick_device(o.where);
  tcp_coordinator job(o.where, seconds(o.start_limit));
  std::deque<trainer<Real>> trainers;
  trainer<Real>& own = trainers.emplace_back(p, job.rank(), device, o.sizes, o.training());
  nccl::transport transport(own.place(), job,
                            {.time_limit = seconds(o.time_limit),
                             .start_limit = seconds(o.start_limit),
                             .abort_limit = seconds(std::min(o.time_limit, 60.0))});
  if (job.rank() == 0 && o.mode == "graph")
    own.before_step = [](std::size_t step) {
      if (step == warm_up) std::puts("replaying a graph"), std::fflush(stdout);
    };
  const auto run_steps = [&](const run_options& how) {
    run_options here = how;
    here.one_thread = false;  // of the ranks of one process
    const std::vector<interval> mine = run(p, job.rank(), own, transport, here);
    if (!how.record) return timeline{.schedule = p.schedule};
    const auto cells = gather_values(job, mine);
    timeline t{.schedule = p.schedule, .intervals = rows<interval>::for_overwrite_like(p.schedule.cells)};
    for (std::uint32_t r = 0; r < cells.size(); ++r) std::copy(cells[r].begin(), cells[r].end(), t[r].begin());
    return t;
  };
  const auto worst_of = [&](errors worst) {
    for (const auto& theirs : gather_values(job, std::vector{worst})) worst = worse(worst, theirs[0]);
    return worst;
  };
  return measure(o, p, others, trainers, std::min(devices, static_cast<int>(o.where.size)), run_steps, worst_of);
}
#endif

}  // namespace

int main(int argc, char** argv) {
  try {
    const auto parsed = parse(argc, argv);
    if (!parsed) return 0;
    const options& o = *parsed;
    const program p = lower(make_schedule(o.family, o.plan));
    std::vector<schedule> others;
    for (const std::string& name : o.predict) {
      others.push_back(make_schedule(name, keep_taken(o.plan, find_family(name).limits)));
      require(others.back().stages() == p.schedule.stages(),
              fmt::format("--predict needs schedules of {} stages, as {} has; {} has {}", p.schedule.stages(), o.family,
                          name, others.back().stages()));
    }
    // All queues that CUDA has: streams that share one wait for each other.
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
#ifdef CUDA_MLP_HAS_NCCL
    if (o.transport == "nccl")
      return o.in_double ? run_over_nccl<double>(o, p, others) : run_over_nccl<float>(o, p, others);
#endif
    return o.in_double ? run_in_process<double>(o, p, others) : run_in_process<float>(o, p, others);
  } catch (const schedule_error& e) {
    fmt::print(stderr, "cuda_mlp: {}\n", e.what());
    return 2;
  } catch (const no_device& e) {
    fmt::print(stderr, "cuda_mlp: {}\n", e.what());
    return 3;
  } catch (const std::exception& e) {
    fmt::print(stderr, "cuda_mlp: {}\n", e.what());
    return 4;
  }
}
