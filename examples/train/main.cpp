// SPDX-License-Identifier: MIT
// Trains a small GPT on the characters of the library's headers under any schedule, with one thread per rank.
//
//   train                                                  ZB-V on 4 ranks, 8 micro-batches, 100 steps
//   train --schedule dualpipe --pp 4 --check --evaluate    compare with one device, then evaluate on held-out text
//   train --html last_step.html                            draw the measured timeline of the last step
//   train --pp 2 --one-thread --fit 20                     costs of layers from measured steps, beside those of each alone
//   train --schedule plan.json --pp 2                      a schedule of the tool, with the partition that it was planned for

#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <pipesched/core/recompute.hpp>
#include <pipesched/core/transform.hpp>
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/program/lower.hpp>
#include <span>
#include <string>
#include <vector>

#include "options.hpp"
#include "reports.hpp"
#include "trainer.hpp"
#ifdef PIPESCHED_HAS_MPI
#include <pipesched/mpi/mpi_transport.hpp>
#endif

namespace {

using namespace pipesched;
using train::options;
using train::real;

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

void print_setup(const schedule& s, const train::model_sizes& sizes, const train::text& data) {
  fmt::print("{}: {} ranks, {} stages, {} micro-batches of {} x {} characters; {} layers of width {}\n", s.name.view(),
             s.pp(), s.stages(), s.micro, sizes.batch, sizes.context, sizes.layers, sizes.width);
  fmt::print("text: {} characters, {} distinct; an untrained model has a loss of {:.3f}\n", data.size(),
             data.vocabulary(), std::log(data.vocabulary()));
}

/// Trains, evaluates and prints.
/// @param own_rank   of this process; none if it has all ranks
/// @param run_steps  `run_steps(program, trainers, options)` runs steps of the ranks of this process
/// @param sum        adds up numbers over all processes
template <typename RunSteps, typename Sum>
void train_model(options o, std::optional<std::uint32_t> own_rank, RunSteps&& run_steps, Sum&& sum) {
  const train::text data(read_headers(o.data), o.seed);
  o.model.vocabulary = data.vocabulary();
  if (data.held_out() < o.model.context + 1)
    throw schedule_error(fmt::format("--data {} has {} characters in *.hpp; a context of {} needs at least {}", o.data,
                                     data.size(), o.model.context, 10 * (o.model.context + 1)));
  schedule plan = schedule_of(o);
  if (o.recompute != "none") plan = recompute(plan, {.inside_backward = o.recompute == "inside"});
  const program programs[] = {lower(plan), lower(keep_forwards(plan))};
  const auto& [training, evaluation] = programs;
  const schedule& s = training.schedule;
  print_setup(s, o.model, data);

  std::deque<train::trainer<real>> trainers;
  for (std::uint32_t rank = own_rank.value_or(0); rank < (own_rank ? *own_rank + 1 : s.pp()); ++rank)
    trainers.emplace_back(programs, rank, train::settings{o.model, &data, o.seed, o.rate, o.layers});
  const auto run_program = [&](const program& p, std::span<double> losses_of_micro, const run_options& options) {
    for (auto& trainer : trainers) trainer.begin(p, losses_of_micro);
    return run_steps(p, trainers, options);
  };

  train::loss_report report(o.steps, s.micro * o.model.rows());
  auto& reporter = own_rank ? trainers.front() : trainers[s.placement.rank_of_stage(0).back()];  // ends its steps last
  reporter.after_step = [&](std::size_t, std::span<double> of_step) {
    sum(of_step);  // over MPI only the rank of a micro-batch's last stage knows its loss; the others have 0
    report.add(train::mean(of_step));
  };
  std::vector<double> of_micro(o.steps * s.micro);
  const bool record = !o.html.empty() || !o.predict.empty();
  timeline last = run_program(training, of_micro, {.steps = o.steps, .record = record});
  reporter.after_step = {};
  report.end();

  if (o.check) train::print_comparison(report.losses(), on_one_device(o, data));
  if (o.evaluate) {
    constexpr std::size_t steps = 10;
    std::vector<double> held_out(steps * s.micro);
    run_program(evaluation, held_out, {.steps = steps});
    sum(held_out);
    fmt::print("held-out text: loss {:.4f}\n", train::mean(held_out));
  }
  if (record) last = scaled(starting_at_zero(std::move(last)), 1000);
  if (!o.predict.empty()) train::predict(o, last);
  if (!o.html.empty()) train::write_page(o.html, std::move(last));
  if (o.fit == 0) return;
  std::vector<timeline> measured;
  for (std::size_t step = 0; step < o.fit; ++step)
    measured.push_back(scaled(run_program(training, of_micro, {.record = true}), 1000));
  train::fit_layers(o, measured,
                    o.layers.layers.empty() ? uniform_partition(train::layers_of(o.model), s.stages()) : o.layers);
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
    train::require(size == o.plan.pp, fmt::format("--pp {0} needs {0} processes; got {1}", o.plan.pp, size));
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
    const auto o = train::parse(argc, argv);
    if (!o) return 0;
    if (o->transport == "mpi") return run_over_mpi(*o);
    run_in_threads(*o);
    return 0;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "train: not enough memory for a model of this size\n");
  } catch (const std::exception& e) {
    fmt::print(stderr, "train: {}\n", e.what());
  }
  return 2;
}
