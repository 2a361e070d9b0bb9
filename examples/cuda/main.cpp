// SPDX-License-Identifier: MIT
// DeepSeek's example of DualPipe, in CUDA with cuBLAS, through any schedule of the library: all ranks in this process, on
// one GPU or several; or over NCCL, each in a process of its own, as a launcher starts them.
//
//   cuda_mlp --check                              DualPipe, 8 ranks, 20 micro-batches; against the same on one device
//   cuda_mlp --schedule 1f1b --pp 4 --mode graph  a step captured once and replayed
//   cuda_mlp --transfer host --html step.html     with transfers to hide; what a step looked like, as measured
//   cuda_mlp --predict 1f1b,zb1p                  what others would take, by the times of this one
//   mpirun -n 8 cuda_mlp --transport nccl --check            or torchrun --no-python --nproc-per-node 8, or srun -n 8
//   mpirun -n 8 cuda_mlp --transport nccl --fail 3,5,throw   what all ranks say when one fails

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <pipesched/core/notation.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/launch/environment.hpp>
#include <pipesched/launch/tcp_coordinator.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/render/chrome_trace.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/simulate/fit_costs.hpp>
#include <pipesched/simulate/metrics.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "compare.hpp"
#include "one_device.hpp"
#include "pipeline.hpp"
#ifdef CUDA_MLP_HAS_NCCL
#include "distributed.hpp"
#endif

namespace {

using namespace pipesched;
using namespace cuda_mlp;

struct options {
  std::string family = "dualpipe", mode = "threads", transport = "peer", transfer = "none", html, trace, json;
  std::vector<std::string> predict{};
  schedule_params plan{.pp = 8, .micro = 20};
  mlp_sizes sizes;
  std::int64_t ranks_per_gpu = 0;  // 0: evenly
  std::size_t steps = 10;
  double time_limit = 60;  // seconds
  failure_on_demand failure;
  bool check = false, timed = false, in_double = false, no_overlap = false;
};

struct no_device : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void require(bool holds, const std::string& otherwise) {
  if (!holds) throw schedule_error(otherwise);
}

int count_devices() {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess)
    throw no_device(std::string("no CUDA device: ") + cudaGetErrorString(status));
  if (count == 0) throw no_device("no CUDA device: the driver counts 0");
  return count;
}

/// The device of every rank.
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

/// What was asked for of a measured step: pictures of it, and what others would take by its costs.
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

/// @param gpus  how many all ranks have together
template <typename Real, typename Ranks>
int measure(const options& o, const program& p, const std::vector<schedule>& others, Ranks& ranks, int gpus) {
  cudaDeviceProp gpu{};
  check(cudaGetDeviceProperties(&gpu, 0), "cudaGetDeviceProperties");
  const bool reports = ranks.reports();
  if (reports)
    fmt::print("{}: {} ranks on {} x {}, {} stages, {} micro-batches of {} rows; {} to {} to {}, {}\n",
               p.schedule.name.view(), p.schedule.pp(), gpus, gpu.name, p.schedule.stages(), p.schedule.micro,
               o.sizes.rows, o.sizes.width, o.sizes.hidden, o.sizes.width, o.in_double ? "double" : "float");
  const run_mode mode = o.mode == "threads" ? run_mode::threads : o.mode == "turns" ? run_mode::turns : run_mode::graph;
  std::vector<double> ms = ranks.run(mode, o.steps);
  std::sort(ms.begin(), ms.end());
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
    worst = ranks.worst_errors(on_one_device<Real>(p.schedule.stages(), p.schedule.micro, o.sizes));
    if (reports)
      fmt::print("one device: losses differ by {:.2g} at most, gradients by {:.2g}; allowed {:.2g}: {}\n", worst.losses,
                 worst.gradients, tolerance, worst.passed() ? "passed" : "FAILED");
    report["check"] = {{"loss_error", worst.losses}, {"gradient_error", worst.gradients}, {"passed", worst.passed()}};
  }
  if (o.timed || !o.html.empty() || !o.trace.empty() || !o.predict.empty()) {
    const timeline t = ranks.run_timed(mode);
    if (reports) use_timeline(o, t, others, report);
  }
  if (reports && !o.json.empty()) write("--json", o.json, report.dump(2) + "\n");
  return worst.passed() ? 0 : 1;
}

template <typename Real>
int run(const options& o, const program& p, const std::vector<schedule>& others) {
  const std::vector<int> devices = place_ranks(o);
  pipeline<Real> ranks(p, devices, o.sizes, {o.transfer == "host", !o.no_overlap, o.failure},
                       std::chrono::duration<double>(o.time_limit));
  check(cudaSetDevice(0), "cudaSetDevice");
  return measure<Real>(o, p, others, ranks, devices.back() + 1);
}

#ifdef CUDA_MLP_HAS_NCCL
template <typename Real>
int run_over_nccl(const options& o, const launch_environment& where, const program& p,
                  const std::vector<schedule>& others) {
  const auto devices = static_cast<std::uint32_t>(count_devices());
  const std::chrono::duration<double> limit(o.time_limit);
  tcp_coordinator control(where, limit);
  const int device = cuda::pick_device(where);
  distributed<Real> rank(p, control, device, o.sizes, {o.transfer == "host", !o.no_overlap, o.failure}, limit);
  return measure<Real>(o, p, others, rank, static_cast<int>(std::min(devices, where.size)));
}
#endif

failure_on_demand parse_failure(const std::string& text) {
  failure_on_demand f;
  std::string how(8, 0);
  if (text.empty()) return f;
  const int read = std::sscanf(text.c_str(), "%u,%u,%7s", &f.rank, &f.micro, how.data());
  how.resize(how.find('\0'));
  f.how = how == "throw"   ? failure_on_demand::throws
          : how == "kill"  ? failure_on_demand::is_killed
          : how == "stall" ? failure_on_demand::stalls
                           : failure_on_demand::none;
  require(read == 3 && f.how != failure_on_demand::none,
          "--fail is a rank, a micro-batch and throw, kill or stall, such as 3,5,throw; got " + text);
  return f;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    options o;
    std::string fail;
    CLI::App app("Trains a chain of two-layer perceptrons on GPUs through a schedule of the library.", "cuda_mlp");
    app.footer(
        "Ends with 0; 1 if the check failed; 2 on bad input; 3 if there is no CUDA device; 4 if a call of CUDA "
        "failed.");
    app.add_option("--schedule", o.family, "see: pipesched list")->capture_default_str();
    app.add_option("--pp", o.plan.pp, "ranks")->capture_default_str();
    app.add_option("--micro", o.plan.micro, "micro-batches of a step")->capture_default_str();
    app.add_option("--chunks", o.plan.chunks, "stages per rank, for interleaved families; default 2");
    app.add_option("--ranks-per-gpu", o.ranks_per_gpu, "unless given, ranks are spread evenly over all GPUs");
    app.add_option("--steps", o.steps, "that are timed")->capture_default_str();
    app.add_option("--mode", o.mode, "threads: one a rank; turns: one for all ranks; graph: captured and replayed")
        ->capture_default_str();
    app.add_option("--transport", o.transport,
                   "peer: all ranks in this process; nccl: one in each of the processes that a launcher has started")
        ->capture_default_str();
    app.add_option("--time-limit", o.time_limit, "seconds without anything moving after which all ranks give up")
        ->capture_default_str();
    app.add_option("--fail", fail, "see a failure: rank,micro,throw or kill or stall");
    app.add_option("--transfer", o.transfer, "between the halves of an op: none, or host: to host memory and back")
        ->capture_default_str();
    app.add_flag("--no-overlap", o.no_overlap, "overlapped pairs one op after the other");
    app.add_flag("--double", o.in_double, "double instead of float");
    app.add_option("--rows", o.sizes.rows, "of a micro-batch")->capture_default_str();
    app.add_option("--width", o.sizes.width)->capture_default_str();
    app.add_option("--hidden", o.sizes.hidden)->capture_default_str();
    app.add_flag("--check", o.check, "run the same step on one device, too, and compare losses and gradients");
    app.add_flag("--timed", o.timed, "time every cell of one step, too; so do the options below");
    app.add_option("--predict", o.predict,
                   "schedules a,b,c of as many stages: their time by the costs of a measured step")
        ->delimiter(',');
    app.add_option("--html", o.html, "a file for the measured timeline of a step");
    app.add_option("--trace", o.trace, "the same for Perfetto");
    app.add_option("--json", o.json, "a file for what was measured");
    try {
      app.parse(argc, argv);
    } catch (const CLI::CallForHelp& e) {
      return app.exit(e);
    } catch (const CLI::ParseError& e) {
      throw schedule_error(e.what());
    }
    require(o.mode == "threads" || o.mode == "turns" || o.mode == "graph",
            "--mode is threads, turns or graph; got " + o.mode);
    require(o.transfer == "none" || o.transfer == "host", "--transfer is none or host; got " + o.transfer);
    require(o.transport == "peer" || o.transport == "nccl", "--transport is peer or nccl; got " + o.transport);
    require(o.time_limit > 0 && o.time_limit <= 1e6,
            fmt::format("--time-limit is above 0, at most 1000000 seconds; got {}", o.time_limit));
    o.failure = parse_failure(fail);
    launch_environment where;
    if (o.transport == "nccl") {
#ifndef CUDA_MLP_HAS_NCCL
      throw schedule_error("--transport nccl: this was built without NCCL");
#endif
      where = read_launch_environment();
      require(o.mode != "turns", "--mode is threads or graph with --transport nccl; got turns");
      require(o.ranks_per_gpu == 0, "--ranks-per-gpu is for --transport peer; a launcher places processes");
      if (app.count("--pp") == 0) o.plan.pp = where.size;
      require(o.plan.pp == where.size, fmt::format("--pp {} needs as many processes; the launcher ({}) has started {}",
                                                   o.plan.pp, where.launcher, where.size));
    }
    const std::pair<const char*, int> numbers[] = {
        {"rows", o.sizes.rows}, {"width", o.sizes.width}, {"hidden", o.sizes.hidden}};
    for (const auto& [name, value] : numbers)
      require(value >= 1 && value <= 16384, fmt::format("--{} is from 1 to 16384; got {}", name, value));
    require(o.steps >= 1 && o.steps <= 1'000'000, fmt::format("--steps is from 1 to 1000000; got {}", o.steps));
    require(o.plan.pp <= 256, fmt::format("--pp is at most 256; got {}", o.plan.pp));
    require(o.plan.micro <= 100'000, fmt::format("--micro is at most 100000; got {}", o.plan.micro));
    require(o.ranks_per_gpu >= 0 && o.ranks_per_gpu <= 256,
            fmt::format("--ranks-per-gpu is from 1 to 256; got {}", o.ranks_per_gpu));

    const program p = lower(make_schedule(o.family, o.plan));
    std::vector<schedule> others;
    for (const std::string& name : o.predict) {
      others.push_back(make_schedule(name, keep_taken(o.plan, find_family(name).limits)));
      require(others.back().stages() == p.schedule.stages(),
              fmt::format("--predict needs schedules of {} stages, as {} has; {} has {}", p.schedule.stages(), o.family,
                          name, others.back().stages()));
    }
    // As many queues as CUDA has: streams that share one wait for each other.
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
#ifdef CUDA_MLP_HAS_NCCL
    if (o.transport == "nccl")
      return o.in_double ? run_over_nccl<double>(o, where, p, others) : run_over_nccl<float>(o, where, p, others);
#endif
    return o.in_double ? run<double>(o, p, others) : run<float>(o, p, others);
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
