// SPDX-License-Identifier: MIT
// DeepSeek's example of DualPipe, in CUDA with cuBLAS, through any schedule of the library; all ranks in this process,
// on one GPU or several.
//
//   cuda_mlp --check                              DualPipe, 8 ranks, 20 micro-batches; against the same on one device
//   cuda_mlp --schedule 1f1b --pp 4 --mode graph  a step captured once and replayed
//   cuda_mlp --transfer host --html step.html     with transfers to hide; what a step looked like, as measured
//   cuda_mlp --predict 1f1b,zb1p                  what others would take, by the times of this one

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <pipesched/generate/by_name.hpp>
#include <pipesched/notation.hpp>
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

#include "one_device.hpp"
#include "pipeline.hpp"

namespace {

using namespace pipesched;
using namespace cuda_mlp;

constexpr double tolerance = 1e-6;

struct options {
  std::string family = "dualpipe", mode = "threads", transfer = "none", html, trace, json;
  std::vector<std::string> predict{};
  schedule_params plan{.pp = 8, .micro = 20};
  mlp_sizes sizes;
  std::int64_t ranks_per_gpu = 0;  // 0: evenly
  std::size_t steps = 10;
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

/// The larger one; what is no number is larger than all.
double worse(double a, double b) { return std::isnan(a) || b <= a ? a : b; }

struct errors {
  double losses = 0, gradients = 0;  // relative: to the loss, to the largest of a stage's gradients
  bool passed() const { return losses <= tolerance && gradients <= tolerance; }
};

template <typename Real>
errors compare(const program& p, pipeline<Real>& ranks, const step_results<Real>& expected) {
  errors worst;
  const placement& where = p.schedule.placement;
  for (std::uint32_t rank = 0; rank < p.schedule.pp(); ++rank) {
    const std::vector<double> losses = ranks[rank].losses();
    for (std::uint32_t m = 0; m < p.schedule.micro; ++m)
      if (where.rank_of(p.schedule.stages() - 1, m) == rank)
        worst.losses = worse(worst.losses, std::abs(losses[m] - expected.losses[m]) / expected.losses[m]);
    for (const std::uint16_t stage : where.stages_of(rank)) {
      const std::vector<Real> got = ranks[rank].gradients_of(stage), &right = expected.gradients[stage];
      double most = 0, difference = 0;
      for (std::size_t i = 0; i < right.size(); ++i) {
        most = worse(most, std::abs(static_cast<double>(right[i])));
        difference = worse(difference, std::abs(static_cast<double>(got[i]) - static_cast<double>(right[i])));
      }
      worst.gradients = worse(worst.gradients, difference / most);
    }
  }
  return worst;
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

template <typename Real>
int run(const options& o, const program& p, const std::vector<schedule>& others) {
  const std::vector<int> devices = place_ranks(o);
  cudaDeviceProp gpu{};
  check(cudaGetDeviceProperties(&gpu, 0), "cudaGetDeviceProperties");
  fmt::print("{}: {} ranks on {} x {}, {} stages, {} micro-batches of {} rows; {} to {} to {}, {}\n",
             p.schedule.name.view(), p.schedule.pp(), devices.back() + 1, gpu.name, p.schedule.stages(),
             p.schedule.micro, o.sizes.rows, o.sizes.width, o.sizes.hidden, o.sizes.width,
             o.in_double ? "double" : "float");
  const run_mode mode = o.mode == "threads" ? run_mode::threads : o.mode == "turns" ? run_mode::turns : run_mode::graph;
  pipeline<Real> ranks(p, devices, o.sizes, {.transfer = o.transfer == "host", .overlap = !o.no_overlap});

  std::vector<double> ms = ranks.run(mode, o.steps);
  std::sort(ms.begin(), ms.end());
  const double median = (ms[(ms.size() - 1) / 2] + ms[ms.size() / 2]) / 2;
  fmt::print("a step: {:.3f} ms, the median of {}; the fastest {:.3f} ms\n", median, ms.size(), ms.front());
  nlohmann::ordered_json report = {{"gpu", gpu.name},
                                   {"gpus", devices.back() + 1},
                                   {"schedule", o.family},
                                   {"pp", o.plan.pp},
                                   {"micro", o.plan.micro},
                                   {"rows", o.sizes.rows},
                                   {"width", o.sizes.width},
                                   {"hidden", o.sizes.hidden},
                                   {"precision", o.in_double ? "double" : "float"},
                                   {"mode", o.mode},
                                   {"transfer", o.transfer},
                                   {"overlap", !o.no_overlap},
                                   {"steps", o.steps},
                                   {"ms_per_step", {{"median", median}, {"min", ms.front()}}}};

  errors worst;
  if (o.check) {
    check(cudaSetDevice(0), "cudaSetDevice");
    worst = compare(p, ranks, on_one_device<Real>(p.schedule.stages(), p.schedule.micro, o.sizes));
    fmt::print("one device: losses differ by {:.2g} at most, gradients by {:.2g}; allowed {:.2g}: {}\n", worst.losses,
               worst.gradients, tolerance, worst.passed() ? "passed" : "FAILED");
    report["check"] = {{"loss_error", worst.losses}, {"gradient_error", worst.gradients}, {"passed", worst.passed()}};
  }
  if (o.timed || !o.html.empty() || !o.trace.empty() || !o.predict.empty())
    use_timeline(o, ranks.run_timed(mode), others, report);
  if (!o.json.empty()) write("--json", o.json, report.dump(2) + "\n");
  return worst.passed() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    options o;
    CLI::App app("Trains a chain of two-layer perceptrons on GPUs through a schedule of the library.", "cuda_mlp");
    app.footer(
        "Ends with 0; 1 if the check failed; 2 on bad input; 3 if there is no CUDA device; 4 if a call of CUDA "
        "failed.");
    app.add_option("--schedule", o.family, "see: pipesched list")->capture_default_str();
    app.add_option("--pp", o.plan.pp, "ranks")->capture_default_str();
    app.add_option("--micro", o.plan.micro, "micro-batches of a step")->capture_default_str();
    app.add_option("--chunks", o.plan.chunks, "stages a rank, for interleaved families")->capture_default_str();
    app.add_option("--ranks-per-gpu", o.ranks_per_gpu, "unless given, ranks are spread evenly over all GPUs");
    app.add_option("--steps", o.steps, "that are timed")->capture_default_str();
    app.add_option("--mode", o.mode, "threads: one a rank; turns: one for all ranks; graph: captured and replayed")
        ->capture_default_str();
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
      others.push_back(make_schedule(name, o.plan));
      require(others.back().stages() == p.schedule.stages(),
              fmt::format("--predict needs schedules of {} stages, as {} has; {} has {}", p.schedule.stages(), o.family,
                          name, others.back().stages()));
    }
    // As many queues as CUDA has: streams that share one wait for each other.
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
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
