// SPDX-License-Identifier: MIT
// Trains a small GPT on the characters of the library's headers under any schedule, with one thread per rank.
//
//   train                                                  ZB-V on 4 ranks, 8 micro-batches, 100 steps
//   train --schedule dualpipe --pp 4 --check --evaluate    compare with one device, then evaluate on held-out text
//   train --html last_step.html                            draw the measured timeline of the last step
//   train --pp 2 --one-thread --fit 20                     costs of layers from measured steps, beside those of each alone
//   train --schedule plan.json --pp 2                      a schedule of the tool, with the partition that it was planned for

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <pipesched/core/recompute.hpp>
#include <pipesched/core/transform.hpp>
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/io/model_json.hpp>
#include <pipesched/model/costs_of.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/simulate/fit_costs.hpp>
#include <pipesched/simulate/fit_model.hpp>
#include <string>
#include <vector>

#include "trainer.hpp"
#ifdef PIPESCHED_HAS_MPI
#include <pipesched/mpi/mpi_transport.hpp>
#endif

#ifndef PIPESCHED_SOURCE_DIR
#define PIPESCHED_SOURCE_DIR "."
#endif

namespace {

using namespace pipesched;
using real = float;
using seconds = std::chrono::duration<double>;
using std::chrono::steady_clock;

struct options {
  std::string family = "zbv", transport = "threads", html, fitted;
  std::vector<std::string> predict{};
  std::string data = std::filesystem::exists(PIPESCHED_SOURCE_DIR "/include") ? PIPESCHED_SOURCE_DIR "/include" : ".";
  schedule_params plan{.pp = 4, .micro = 8};
  train::model_sizes model;
  std::size_t steps = 100;
  std::uint64_t seed = 1;
  double rate = 0.003;
  bool check = false, evaluate = false, one_thread = false;
  std::string recompute = "none";
  partition layers{};  // per stage; empty: uniform
  std::size_t fit = 0;
};

std::string read_headers(const std::string& folder) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(folder)) throw schedule_error("--data " + folder + " is not a folder");
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() == ".hpp") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());  // the order of a listing is unspecified
  std::string all;
  for (const fs::path& path : paths) {
    std::ifstream file(path, std::ios::binary);
    all.append(std::istreambuf_iterator<char>(file), {});
  }
  return all;
}

double mean(std::span<const double> v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

/// The schedule to train: of a family, or of a file of the tool's `plan` or `generate`, with its partition if it has one.
schedule schedule_of(options& o) {
  if (!o.family.ends_with(".json")) return make_schedule(o.family, o.plan);
  std::ifstream file(o.family, std::ios::binary);
  if (!file) throw schedule_error("--schedule " + o.family + ": cannot read the file");
  const auto document = nlohmann::json::parse(file, nullptr, false);
  if (document.is_discarded()) throw schedule_error("--schedule " + o.family + ": not JSON");
  const bool planned = document.is_object() && document.contains("schedule");
  const auto s = (planned ? document["schedule"] : document).get<schedule>();
  require_valid(s);
  if (s.pp() != o.plan.pp || s.micro != o.plan.micro)
    throw schedule_error(fmt::format("--schedule {} has {} ranks and {} micro-batches; --pp and --micro say {} and {}",
                                     o.family, s.pp(), s.micro, o.plan.pp, o.plan.micro));
  if (planned && document.contains("partition") && o.layers.layers.empty())
    document["partition"].get_to(o.layers.layers);
  return s;
}

/// Runs the same steps on one device, as a reference. Returns the loss of each step.
std::vector<double> on_one_device(const options& o, const train::text& data) {
  train::stage<real> model(o.model, {.begin = 0, .end = o.model.layers, .first = true, .last = true}, o.seed);
  train::adam<real> optimizer(model.parameters());
  train::stage<real>::activation kept(o.model, o.model.layers);
  train::stage<real>::context due(o.model, o.model.layers);
  std::vector<real> x(o.model.rows() * o.model.width);
  std::vector<double> losses(o.steps);
  const auto micro = static_cast<std::size_t>(o.plan.micro);
  for (std::size_t step = 0; step < o.steps; ++step) {
    for (std::size_t m = 0; m < micro; ++m) {
      data.draw(step, m, false, o.model, kept.tokens);
      losses[step] += model.forward(kept, x) / static_cast<double>(micro);
      model.backward_input(kept, due, x);
      model.backward_weight(kept, due);
    }
    optimizer.step(model.store(), 1 / static_cast<double>(micro), o.rate);
  }
  return losses;
}

/// A plot of ten lines and up to 60 columns, each the mean of equally many steps.
std::string loss_curve(const std::vector<double>& losses) {
  const std::size_t height = 10, width = std::min<std::size_t>(60, losses.size());
  std::vector<double> columns;
  for (std::size_t c = 0; c < width; ++c) {
    const std::size_t begin = c * losses.size() / width, end = (c + 1) * losses.size() / width;
    columns.push_back(mean(std::span(losses).subspan(begin, end - begin)));
  }
  const auto [least, most] = std::minmax_element(columns.begin(), columns.end());
  const double step = std::max(1e-9, (*most - *least) / static_cast<double>(height - 1));
  std::string text;
  for (std::size_t line = height; line-- > 0;) {
    text += fmt::format("{:7.3f} |", *least + static_cast<double>(line) * step);
    for (double value : columns) text += std::lround((value - *least) / step) == static_cast<long>(line) ? '*' : ' ';
    text += '\n';
  }
  return text + fmt::format("{:>9}{:-<{}}\n{:>9}1{:>{}}\n", '+', "", width, "", losses.size(), width - 1);
}

void write_page(const std::string& name, timeline last) {
  html_panel panel = make_panel(std::move(last));
  panel.title += " (measured, in ms)";
  std::ofstream file(name, std::ios::binary);
  if (!(file << render_html(panel)).flush()) throw schedule_error("--html " + name + ": cannot write the file");
}

/// Prints predicted times of a step, for this schedule and others, from costs fitted to the last step. The other schedules
/// need as many stages as this one.
void predict(const options& o, const timeline& last) {
  const stage_costs costs = fit_costs(last);
  fmt::print("last step: measured {:.1f} ms, simulated with the fitted costs {:.1f} ms\n", measure(last).makespan,
             measure(simulate(last.schedule, costs)).makespan);
  for (const std::string& name : o.predict)
    fmt::print("{}: {:.1f} ms with these costs\n", name,
               measure(simulate(make_schedule(name, keep_taken(o.plan, find_family(name).limits)), costs)).makespan);
}

/// The timeline of several runs of one program, with the shortest time of every cell, which no other process has delayed.
timeline shortest(std::span<const timeline> measured) {
  timeline t = measured[0];
  for (const timeline& other : measured)
    for (std::uint32_t rank = 0; rank < t.schedule.pp(); ++rank)
      for (std::size_t i = 0; i < t[rank].size(); ++i)
        t.intervals[rank][i].end =
            t[rank][i].start + std::min(t[rank][i].end - t[rank][i].start, other[rank][i].end - other[rank][i].start);
  return t;
}

/// Prints costs of layers fitted to measured steps, beside those of each layer alone.
void fit_layers(const options& o, const std::vector<timeline>& measured, const partition& layers) {
  const timeline times[] = {shortest(measured)};
  const model_fit fit = fit_model(times, std::span(&layers, 1), train::layers_of(o.model));
  const auto now = [] { return 1000 * seconds(steady_clock::now().time_since_epoch()).count(); };
  const model alone = train::costs_alone<real>(o.model, o.seed, measured.size(), now);
  std::vector<double> steps;
  for (const timeline& t : measured) steps.push_back(measure(t).makespan);
  std::nth_element(steps.begin(), steps.begin() + std::ssize(steps) / 2, steps.end());
  const schedule& s = times[0].schedule;
  fmt::print("step: measured {:.2f} ms, median of {}; simulated with the fitted costs {:.2f} ms\n",
             steps[steps.size() / 2], steps.size(),
             measure(simulate(s, costs_of(fit.fitted, layers, s.placement))).makespan);
  if (!o.fitted.empty()) {
    std::ofstream file(o.fitted, std::ios::binary);
    if (!(file << model_document(fit.fitted).dump(2) << '\n').flush())
      throw schedule_error("--fitted " + o.fitted + ": cannot write the file");
  }
  fmt::print("costs of layers in ms, fitted to {} steps and measured alone\n", measured.size());
  for (std::size_t i = 0; i < alone.layers.size(); ++i) {
    const layer &got = fit.fitted.layers[i], &expected = alone.layers[i];
    const auto print = [&](char letter, double time, double by_itself) {
      fmt::print("{:<9} {}  {:8.4f} {:8.4f}  {:+.1f} %\n", got.kind, letter, time, by_itself,
                 by_itself > 0 ? 100 * (time / by_itself - 1) : 0);
    };
    print('F', got.forward, expected.forward);
    if (got.backward) {
      print('B', *got.backward, expected.backward_times().whole);
    } else {
      print('I', got.backward_times().input, expected.backward_times().input);
      print('W', got.backward_times().weight, expected.backward_times().weight);
    }
  }
  for (const std::vector<std::string>& alike : fit.alike)
    fmt::print("these steps do not tell apart {}\n", fmt::join(alike, " and "));
}

/// Trains, evaluates and prints.
/// @param own_rank   of this process; none if it has all ranks
/// @param run_steps  `run_steps(program, trainers, options)` runs steps of the ranks of this process
/// @param sum        adds up numbers over all processes
template <typename RunSteps, typename Sum>
void train_model(const options& o, std::optional<std::uint32_t> own_rank, RunSteps&& run_steps, Sum&& sum) {
  const std::string characters = read_headers(o.data);
  const train::text data(characters, o.seed);
  options with_text = o;
  with_text.model.vocabulary = data.vocabulary();
  const train::model_sizes& sizes = with_text.model;
  if (data.held_out() < sizes.context + 1)
    throw schedule_error(fmt::format("--data {} has {} characters in *.hpp; a context of {} needs at least {}", o.data,
                                     data.size(), sizes.context, 10 * (sizes.context + 1)));
  schedule plan = schedule_of(with_text);
  const partition& layers = with_text.layers;
  if (o.recompute != "none") plan = recompute(plan, {.inside_backward = o.recompute == "inside"});
  const program programs[] = {lower(plan), lower(keep_forwards(plan))};
  const auto& [training, evaluation] = programs;
  const schedule& s = training.schedule;
  fmt::print("{}: {} ranks, {} stages, {} micro-batches of {} x {} characters; {} layers of width {}\n", s.name.view(),
             s.pp(), s.stages(), s.micro, sizes.batch, sizes.context, sizes.layers, sizes.width);
  fmt::print("text: {} characters, {} distinct; an untrained model has a loss of {:.3f}\n", data.size(),
             data.vocabulary(), std::log(data.vocabulary()));

  std::vector<double> losses;  // by step
  const bool terminal = isatty(STDOUT_FILENO);
  const auto start = steady_clock::now();
  const auto report = [&](std::size_t step, std::span<double> of_step) {
    sum(of_step);  // over MPI only the rank of a micro-batch's last stage knows its loss; the others have 0
    losses.push_back(mean(of_step));
    if (!terminal && step != 0 && (step + 1) % 10 != 0) return;
    const double done = static_cast<double>((step + 1) * s.micro * sizes.rows());
    fmt::print("{}step {:4} of {}   loss {:.4f}   {:.0f} characters/s{}", terminal ? "\r" : "", step + 1, o.steps,
               losses.back(), done / seconds(steady_clock::now() - start).count(), terminal ? "\x1b[K" : "\n");
    std::fflush(stdout);
  };

  std::deque<train::trainer<real>> trainers;
  const std::uint32_t last_rank = s.placement.rank_of_stage(0).back();
  for (std::uint32_t rank = own_rank.value_or(0); rank < (own_rank ? *own_rank + 1 : s.pp()); ++rank) {
    trainers.emplace_back(programs, rank, train::settings{sizes, &data, o.seed, o.rate, layers});
    if (own_rank || rank == last_rank) trainers.back().after_step = report;
  }
  const auto run_program = [&](const program& p, std::span<double> losses_of_micro, const run_options& options) {
    for (auto& trainer : trainers) trainer.begin(p, losses_of_micro);
    return run_steps(p, trainers, options);
  };
  std::vector<double> of_micro(o.steps * s.micro);
  const bool record = !o.html.empty() || !o.predict.empty();
  timeline last = run_program(training, of_micro, {.steps = o.steps, .record = record});
  fmt::print("{}{:.1f} s\n\n{}", terminal ? "\n" : "", seconds(steady_clock::now() - start).count(),
             loss_curve(losses));

  if (o.check) {
    const std::vector<double> expected = on_one_device(with_text, data);
    double most = 0;
    for (std::size_t i = 0; i < losses.size(); ++i)
      most = std::max(most, std::abs(losses[i] - expected[i]) / expected[i]);
    fmt::print("one device: last loss {:.4f}; largest relative difference of a step's loss {:.2g}\n", expected.back(),
               most);
  }
  if (o.evaluate) {
    constexpr std::size_t steps = 10;
    std::vector<double> held_out(steps * s.micro);
    run_program(evaluation, held_out, {.steps = steps});
    sum(held_out);
    fmt::print("held-out text: loss {:.4f}\n", mean(held_out));
  }
  if (record) last = scaled(starting_at_zero(std::move(last)), 1000);
  if (!o.predict.empty()) predict(o, last);
  if (!o.html.empty()) write_page(o.html, std::move(last));
  if (o.fit == 0) return;
  for (auto& trainer : trainers) trainer.after_step = {};
  std::vector<timeline> measured;
  std::vector<double> unused(s.micro);
  for (std::size_t step = 0; step < o.fit; ++step)
    measured.push_back(scaled(run_program(training, unused, {.record = true}), 1000));
  fit_layers(with_text, measured,
             layers.layers.empty() ? uniform_partition(train::layers_of(sizes), s.stages()) : layers);
}

void require(bool holds, const std::string& otherwise) {
  if (!holds) throw schedule_error(otherwise);
}

/// Runs all ranks as threads, or by turns on this one.
void run_in_threads(const options& o) {
  std::optional<thread_world> world;
  const auto run_steps = [&](const program& p, auto& trainers, run_options options) {
    if (!world) world.emplace(p.schedule.pp());
    options.one_thread = o.one_thread;
    return run_all(p, trainers, *world, options);
  };
  train_model(o, std::nullopt, run_steps, [](std::span<double>) {});
}

/// Runs the rank of this process. Only rank 0 prints.
int run_over_mpi([[maybe_unused]] const options& o) {
#ifdef PIPESCHED_HAS_MPI
  MPI_Init(nullptr, nullptr);
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (rank != 0) static_cast<void>(std::freopen("/dev/null", "w", stdout));
  try {
    require(size == o.plan.pp, fmt::format("--pp {0} needs {0} processes; got {1}", o.plan.pp, size));
    {
      mpi_transport transport(MPI_COMM_WORLD);
      const auto run_steps = [&](const program& p, auto& trainers, const run_options& options) {
        run(p, transport.rank(), trainers.front(), transport, options);
        return timeline{};
      };
      train_model(o, transport.rank(), run_steps, [](std::span<double> all) {
        MPI_Allreduce(MPI_IN_PLACE, all.data(), static_cast<int>(all.size()), MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
      });
    }
    MPI_Finalize();
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "train: rank {}: {}\n", rank, e.what());
    MPI_Abort(MPI_COMM_WORLD, 2);
    return 2;
  }
#else
  return 2;  // unreachable: main() refuses --transport mpi
#endif
}

}  // namespace

int main(int argc, char** argv) {
  try {
    options o;
    CLI::App app("Trains a small GPT under a pipeline schedule.", "train");
    app.add_option("--schedule", o.family, "a family, see: pipesched list; or a JSON file of pipesched plan")
        ->capture_default_str();
    app.add_option("--pp", o.plan.pp, "ranks")->capture_default_str();
    app.add_option("--micro", o.plan.micro, "micro-batches per step")->capture_default_str();
    app.add_option("--chunks", o.plan.chunks, "stages per rank, for interleaved families; default 2");
    app.add_option("--steps", o.steps)->capture_default_str();
    app.add_option("--transport", o.transport, "threads or mpi")->capture_default_str();
    app.add_option("--data", o.data, "folder whose *.hpp files are the text")->capture_default_str();
    app.add_option("--seed", o.seed)->capture_default_str();
    app.add_option("--layers", o.model.layers)->capture_default_str();
    app.add_option("--width", o.model.width)->capture_default_str();
    app.add_option("--heads", o.model.heads)->capture_default_str();
    app.add_option("--context", o.model.context, "characters per sequence")->capture_default_str();
    app.add_option("--batch", o.model.batch, "sequences per micro-batch")->capture_default_str();
    app.add_option("--learning-rate", o.rate)->capture_default_str();
    app.add_option("--recompute", o.recompute, "none; all, between other ops; or inside, in the backward")
        ->check(CLI::IsMember({"none", "all", "inside"}))
        ->capture_default_str();
    app.add_option("--html", o.html, "write the measured timeline of the last step to this file");
    app.add_option("--predict", o.predict,
                   "predict the time of schedules a,b,c with as many stages, from the last step")
        ->delimiter(',');
    app.add_option(
           "--partition", o.layers.layers,
           "layers per stage, with the embedding in the first and the head in the last: 3,2,2,3; default uniform")
        ->delimiter(',');
    app.add_option("--fit", o.fit,
                   "fit costs of layers to so many more steps, and print them beside those of each layer alone");
    app.add_option("--fitted", o.fitted, "with --fit: write the fitted model to this file, for pipesched plan --model");
    app.add_flag("--one-thread", o.one_thread, "run all ranks by turns on one thread, so that none disturbs another");
    app.add_flag("--check", o.check, "also run the same steps on one device and compare the losses");
    app.add_flag("--evaluate", o.evaluate, "print the loss on held-out text at the end");
    try {
      app.parse(argc, argv);
    } catch (const CLI::CallForHelp& e) {
      return app.exit(e);
    }
    const train::model_sizes& m = o.model;
    require(o.transport == "threads" || o.transport == "mpi", "--transport must be threads or mpi; got " + o.transport);
#ifndef PIPESCHED_HAS_MPI
    require(o.transport == "threads", "--transport mpi: this program was built without MPI");
#endif
    require(o.transport == "threads" || (o.html.empty() && o.predict.empty() && o.fit == 0 && !o.one_thread),
            "--html, --predict, --fit and --one-thread need all ranks in one process: --transport threads");
    const std::pair<const char*, std::size_t> numbers[] = {
        {"layers", m.layers}, {"width", m.width}, {"heads", m.heads}, {"context", m.context}, {"batch", m.batch}};
    for (const auto& [name, value] : numbers)
      require(value >= 1 && value <= 4096,
              fmt::format("--{} must be from 1 to 4096; got {}, nearest {}", name, value, value < 1 ? 1 : 4096));
    require(o.steps >= 1 && o.steps <= 1'000'000,
            fmt::format("--steps must be from 1 to 1000000; got {}, nearest {}", o.steps, o.steps < 1 ? 1 : 1000000));
    require(o.fitted.empty() || o.fit > 0, "--fitted needs --fit");
    require(o.fit <= 1000, fmt::format("--fit must be at most 1000; got {}, nearest 1000", o.fit));
    require(o.plan.pp <= 256, fmt::format("--pp must be at most 256; got {}, nearest 256", o.plan.pp));
    require(m.width % m.heads == 0,
            fmt::format("--width must be a multiple of --heads; got {} and {}", m.width, m.heads));
    require(o.rate > 0 && std::isfinite(o.rate),
            fmt::format("--learning-rate must be positive and finite; got {}", o.rate));
    if (o.transport == "mpi") return run_over_mpi(o);
    run_in_threads(o);
    return 0;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "train: not enough memory for a model of this size\n");
  } catch (const std::exception& e) {
    fmt::print(stderr, "train: {}\n", e.what());
  }
  return 2;
}
