// SPDX-License-Identifier: MIT
// Throughput of the library in cells per second, beside the floor: std::fill over the same number of cells.
//
//   build/bench/pipesched_bench --benchmark_filter=/64/1024
//   build/bench/pipesched_bench --benchmark_filter=generate.*/32/256     families that search
//   build/bench/pipesched_bench --benchmark_filter=growth --benchmark_min_time=0.2
//
// growth: time to generate, fitted over sizes: four micro-batches per rank on more ranks, more micro-batches on 16 ranks.
// Every schedule is verified once before it is timed. Machines are noisy: compare rows of one run.

#include <benchmark/benchmark.h>
#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <ostream>
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/model/presets.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/plan/cell_plan.hpp>
#include <pipesched/plan/cell_presets.hpp>
#include <pipesched/plan/detail/word_evaluator.hpp>
#include <pipesched/plan/detail/words.hpp>
#include <pipesched/plan/divide.hpp>
#include <pipesched/program/launch_order.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/program/verify.hpp>
#include <pipesched/render/chrome_trace.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/render/svg.hpp>
#include <pipesched/support/random_numbers.hpp>
#include <sstream>
#include <streambuf>
#include <string>
#include <vector>

namespace {

std::size_t held = 0, max_held = 0;  // bytes from operator new, for the memory columns; the benches run on one thread

}  // namespace

void* operator new(std::size_t size) {
  void* block = std::malloc(size);
  if (!block) throw std::bad_alloc();
  held += malloc_usable_size(block);
  max_held = std::max(max_held, held);
  return block;
}
void operator delete(void* block) noexcept {
  if (block) held -= malloc_usable_size(block);
  std::free(block);
}
void operator delete(void* block, std::size_t) noexcept { operator delete(block); }
void* operator new(std::size_t size, std::align_val_t) {
  return operator new(size);
}  // malloc's alignment suffices here
void operator delete(void* block, std::align_val_t) noexcept { operator delete(block); }

namespace {

using namespace pipesched;

const schedule_params sizes[] = {{.pp = 8, .micro = 20}, {.pp = 64, .micro = 1024}};

schedule make_verified(const family& f, const schedule_params& p) {
  schedule s = f.make(p);
  if (const report r = verify(s); !r) {
    std::fputs(to_string(r).c_str(), stderr);
    std::exit(1);
  }
  return s;
}

std::size_t ops_of(const schedule& s) {
  std::size_t ops = 0;
  for (const cell& c : s.cells.all()) ops += c.size();
  return ops;
}

void count(benchmark::State& state, std::size_t items) {
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(items));
}

// The floor of generate: stores of as many cells as DualPipe of that size has.
void fill(benchmark::State& state, const schedule_params& p) {
  std::vector<cell> cells(make_dualpipe_schedule(p).cells.all().size());
  const cell value(op{pass::forward, 0, 1, 2});
  for (auto _ : state) {
    std::fill(cells.begin(), cells.end(), value);
    benchmark::DoNotOptimize(cells.data());
    benchmark::ClobberMemory();
  }
  count(state, cells.size());
}

void generate(benchmark::State& state, const family& f, const schedule_params& p) {
  const std::size_t cells = make_verified(f, p).cells.all().size();
  for (auto _ : state) benchmark::DoNotOptimize(f.make(p));
  count(state, cells);
}

enum class growing : std::int8_t { ranks_and_micro, micro };

void growth(benchmark::State& state, const family& f, growing what) {
  const std::int64_t size = state.range(0);
  const schedule_params p = what == growing::micro ? schedule_params{.pp = 16, .micro = size}
                                                   : schedule_params{.pp = size, .micro = 4 * size};
  const std::size_t ops = ops_of(make_verified(f, p));
  for (auto _ : state) benchmark::DoNotOptimize(f.make(p));
  state.SetComplexityN(static_cast<std::int64_t>(ops));
}

void generate_one_rank(benchmark::State& state, const family& f, const schedule_params& p) {
  const std::size_t cells = f.row(p, p.pp / 2).size();
  for (auto _ : state) benchmark::DoNotOptimize(f.row(p, p.pp / 2));
  count(state, cells);
}

void verifying(benchmark::State& state, const family& f, const schedule_params& p) {
  const schedule s = make_verified(f, p);
  for (auto _ : state) benchmark::DoNotOptimize(verify(s));
  count(state, s.cells.all().size());
  state.counters["ops_per_second"] = benchmark::Counter(
      static_cast<double>(ops_of(s)), benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void simulating(benchmark::State& state, const family& f, const schedule_params& p) {
  const schedule s = make_verified(f, p);
  for (auto _ : state) benchmark::DoNotOptimize(simulate(s));
  const std::size_t before = held;
  max_held = held;
  benchmark::DoNotOptimize(simulate(s));
  state.counters["memory_of_schedule"] =
      static_cast<double>(max_held - before) / static_cast<double>(s.cells.all().size() * sizeof(cell));
  count(state, s.cells.all().size());
  state.counters["ops_per_second"] = benchmark::Counter(
      static_cast<double>(ops_of(s)), benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

// One step of a sweep of costs over one schedule. The row `simulate` verifies and copies the schedule in every step.
void sweeping(benchmark::State& state, const family& f, const schedule_params& p) {
  timeline t = simulate(make_verified(f, p));
  uniform_costs costs;
  for (auto _ : state) {
    costs.forward += 1;
    simulate_again(t, costs);
    benchmark::DoNotOptimize(t.intervals.all().data());
  }
  count(state, t.schedule.cells.all().size());
}

void bounding(benchmark::State& state, const family& f, const schedule_params& p) {
  const schedule s = make_verified(f, p);
  for (auto _ : state) benchmark::DoNotOptimize(lower_bound(s, uniform_costs{}));
  count(state, s.cells.all().size());
}

template <typename Render>
void rendering(benchmark::State& state, const family& f, const schedule_params& p, Render&& render) {
  const timeline t = simulate(make_verified(f, p));
  std::size_t bytes = 0;
  for (auto _ : state) bytes = render(t).size();
  count(state, t.schedule.cells.all().size());
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

// Throughput of lower(), verify() and launch_order() in ops per second.
void lowering(benchmark::State& state, const family& f, const schedule_params& p) {
  const schedule s = make_verified(f, p);
  for (auto _ : state) benchmark::DoNotOptimize(lower(s));
  count(state, ops_of(s));
}
// Partitions tried: each is a simulated step. One item is one op of a step.
void dividing(benchmark::State& state, const family& f, const schedule_params& p) {
  const model m = gemma_model();
  std::uint64_t evaluations = 0;
  for (auto _ : state) evaluations += divide(m, f, p, {.evaluations = 500}).evaluations;
  state.SetItemsProcessed(static_cast<std::int64_t>(evaluations * ops_of(f.make(p))));
}
// One evaluation of plan(), of the words of a family by DeepSeek-V3's costs, not folded; and simulate() of the schedule that these
// words stand for, W's in its gaps. `lengths`: micro-batches of different lengths, each with costs of its own.
struct word_problem {
  word_problem(const family& f, const schedule_params& p, bool lengths)
      : whole(make_verified(f, p)),
        costs(costs_with(lengths ? whole.micro : 0)),
        table(shape_of(whole), costs, pass_pair_set::forward_with_backward(), {}),
        words(detail::words_of(table, whole, false)) {}
  static schedule shape_of(schedule s) {
    s.cells = {};
    return s;
  }
  static stage_costs costs_with(std::uint32_t lengths) {
    stage_costs costs = deepseek_v3_costs();
    for (std::uint32_t m = 0; m < lengths; ++m) costs.micro_batches.push_back(1 + 0.05 * (m % 7));
    return costs;
  }

  schedule whole;
  stage_costs costs;
  detail::word_table table;
  detail::word_rows words;
};
void evaluating(benchmark::State& state, const family& f, const schedule_params& p, bool lengths) {
  const word_problem problem(f, p, lengths);
  detail::word_evaluator evaluator(problem.table);
  for (auto _ : state) benchmark::DoNotOptimize(evaluator.run(problem.words));
  count(state, ops_of(problem.whole));
}
void evaluating_by_simulate(benchmark::State& state, const family& f, const schedule_params& p) {
  const word_problem problem(f, p, false);
  const schedule s = schedule_of(problem.table, problem.words);
  for (auto _ : state) benchmark::DoNotOptimize(simulate(s, problem.costs));
  count(state, ops_of(problem.whole));
}
// The insides of cells: 600 of F and B with that many layers like DeepSeek-V3's, each task 0.5 to 1.5 times as long. One item is
// one cell; `gap` is the largest, in percent.
void planning_cells(benchmark::State& state) {
  detail::random_numbers random(1);
  std::vector<std::array<op_tasks, 2>> cells;
  for (int i = 0; i < 600; ++i) {
    std::vector<layer_tasks> layers(static_cast<std::size_t>(state.range(0)), deepseek_v3_layer_tasks());
    for (layer_tasks& l : layers) {
      for (auto* chain : {&l.forward, &l.backward})
        for (cell_task& t : *chain) t.duration *= 0.5 + random.unit();
      for (movable_task& t : l.weight) t.duration *= 0.5 + random.unit();
    }
    cells.push_back({tasks_of(layers, pass::forward), tasks_of(layers, pass::backward)});
  }
  double gap = 0;
  for (auto _ : state)
    for (const auto& [a, b] : cells) gap = std::max(gap, cell_plan(a, b).gap());
  count(state, cells.size());
  state.counters["gap"] = 100 * gap;
}
void checking(benchmark::State& state, const family& f, const schedule_params& p) {
  const program lowered = lower(make_verified(f, p));
  if (!verify(lowered)) std::exit(1);
  for (auto _ : state) benchmark::DoNotOptimize(verify(lowered));
  count(state, ops_of(lowered.schedule));
}
void ordering(benchmark::State& state, const family& f, const schedule_params& p) {
  const program lowered = lower(make_verified(f, p));
  for (auto _ : state) benchmark::DoNotOptimize(launch_order(lowered, 0, verified));
  count(state, ops_of(lowered.schedule));
}

// The executor alone: callbacks and a transport that do nothing, on one rank. One item is one cell.
struct idle_trainer {
  void forward(const task& t) { benchmark::DoNotOptimize(&t); }
  void backward(const task& t) { benchmark::DoNotOptimize(&t); }
  void backward_input(const task& t) { benchmark::DoNotOptimize(&t); }
  void backward_weight(const task& t) { benchmark::DoNotOptimize(&t); }
  std::span<std::byte> buffer(tensor_id, std::uint32_t n) { return std::span(bytes).subspan(n % 8, 1); }
  std::span<std::byte> weight_gradient(std::uint32_t) { return bytes; }
  void reduce(const reduction& r) { benchmark::DoNotOptimize(&r); }
  std::array<std::byte, 8> bytes{};
};
struct null_transport {
  void post_receive(const action& a, std::span<std::byte>) { benchmark::DoNotOptimize(&a); }
  void post_send(const action& a, std::span<const std::byte>) { benchmark::DoNotOptimize(&a); }
  void wait(std::uint32_t) {}
  void on_action(std::uint32_t n) { benchmark::DoNotOptimize(n); }
  void finish() {}
};
void executing(benchmark::State& state, const family& f, const schedule_params& p) {
  const program lowered = lower(make_verified(f, p));
  const std::int64_t rank = p.pp / 2;
  idle_trainer trainer;
  null_transport transport;
  for (auto _ : state) run(lowered, rank, trainer, transport);
  count(state, lowered.schedule[rank].size());
  state.counters["ns_per_cell"] =
      benchmark::Counter(static_cast<double>(lowered.schedule[rank].size()) * 1e-9,
                         benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

// One message with both ends on one thread: the cost of the library itself, beside memcpy.
void exchanging(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 1}));
  thread_world world(2);
  world.prepare(p);
  thread_transport a(world, 0), b(world, 1);
  const auto no_memory = [](const action&) { return std::span<std::byte>(); };
  a.prepare(p, no_memory), b.prepare(p, no_memory);
  std::vector<std::byte> from(size), to(size);
  const action receive = p.actions[1][0], send = p.actions[0][2];
  for (auto _ : state) {
    b.post_receive(receive, to);
    a.post_send(send, from);
    b.wait(receive.buffer);
    a.wait(send.buffer);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(size));
}
void copying(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  std::vector<std::byte> from(size), to(size);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), size);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(size));
}
// Round trips between two threads: half a round is the latency.
void crossing_threads(benchmark::State& state) {
  const std::int64_t rounds = 1000;
  const program p = lower(make_schedule("1f1b", {.pp = 2, .micro = rounds}));
  struct tiny : idle_trainer {
    std::span<std::byte> buffer(tensor_id, std::uint32_t n) { return std::span(messages).subspan(8 * n, 8); }
    std::vector<std::byte> messages = std::vector<std::byte>(8 * 64);
  };
  for (auto _ : state) {
    std::vector<tiny> trainers(2);
    thread_world world(2);
    run_all(p, trainers, world);
  }
  state.counters["ns_per_message"] = benchmark::Counter(
      2 * rounds * 1e-9, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

// Discards its input.
class null_buffer : public std::streambuf {
  int_type overflow(int_type c) override { return traits_type::not_eof(c); }
  std::streamsize xsputn(const char*, std::streamsize n) override { return n; }
};

void json_dump(benchmark::State& state, const family& f, const schedule_params& p) {
  const schedule s = make_verified(f, p);
  null_buffer nowhere;
  std::ostream out(&nowhere);
  for (auto _ : state) write_json(out, s);
  count(state, s.cells.all().size());
}

void json_parse(benchmark::State& state, const family& f, const schedule_params& p) {
  const schedule s = make_verified(f, p);
  std::ostringstream out;
  write_json(out, s);
  const std::string text = out.str();
  if (read_json(std::string_view(text)) != s) std::exit(1);
  for (auto _ : state) benchmark::DoNotOptimize(read_json(std::string_view(text)));
  count(state, s.cells.all().size());
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}

void register_all() {
  using benchmark::RegisterBenchmark;
  const auto name = [](const char* what, std::string_view family, const schedule_params& p) {
    return std::string(what) + '/' + (family.empty() ? "" : std::string(family) + '/') + std::to_string(p.pp) + '/' +
           std::to_string(p.micro);
  };
  for (const schedule_params& p : sizes) {
    RegisterBenchmark(name("fill", "", p).c_str(), fill, p);
    for (const family& f : families) RegisterBenchmark(name("generate", f.name, p).c_str(), generate, f, p);
    for (const family& f : families) RegisterBenchmark(name("verify", f.name, p).c_str(), verifying, f, p);
    for (const family& f : families) RegisterBenchmark(name("simulate", f.name, p).c_str(), simulating, f, p);
    for (const family& f : families) RegisterBenchmark(name("sweep", f.name, p).c_str(), sweeping, f, p);
    for (const family& f : families) RegisterBenchmark(name("lower", f.name, p).c_str(), lowering, f, p);
    for (const family& f : families)
      if (!f.limits.takes.contains(parameter::costs) && p.pp == 8)
        RegisterBenchmark(name("divide", f.name, p).c_str(), dividing, f, p);
    for (const family& f : families) RegisterBenchmark(name("launch_order", f.name, p).c_str(), ordering, f, p);
    for (const family& f : families) RegisterBenchmark(name("verify_program", f.name, p).c_str(), checking, f, p);
    for (const family& f : families) RegisterBenchmark(name("execute/noop", f.name, p).c_str(), executing, f, p);
    for (const family& f : families) RegisterBenchmark(name("lower_bound", f.name, p).c_str(), bounding, f, p);
    for (const family& f : families) {
      RegisterBenchmark(name("render_svg", f.name, p).c_str(), [f, p](benchmark::State& s) {
        rendering(s, f, p, [](const timeline& t) { return render_svg(t); });
      });
      RegisterBenchmark(name("chrome_trace", f.name, p).c_str(), [f, p](benchmark::State& s) {
        rendering(s, f, p, [](const timeline& t) { return render_chrome_trace(t, uniform_costs{}); });
      });
      RegisterBenchmark(name("render_html", f.name, p).c_str(), [f, p](benchmark::State& s) {
        rendering(s, f, p, [](const timeline& t) { return render_html(make_panel(t, uniform_costs{})); });
      });
    }
    for (const family& f : families) RegisterBenchmark(name("json_dump", f.name, p).c_str(), json_dump, f, p);
    for (const family& f : families) RegisterBenchmark(name("json_parse", f.name, p).c_str(), json_parse, f, p);
  }
  for (const std::int64_t size : {8, 1 << 16, 1 << 26}) {
    RegisterBenchmark("in_process/message", exchanging)->Arg(size);
    RegisterBenchmark("in_process/memcpy", copying)->Arg(size);
  }
  RegisterBenchmark("in_process/two_threads", crossing_threads)->UseRealTime();
  for (const family* f : {&one_f_one_b_family, &zbv_family, &dualpipe_family, &dualpipev_family}) {
    const schedule_params p{.pp = 8, .micro = 20};
    RegisterBenchmark(name("evaluate", f->name, p).c_str(), evaluating, *f, p, false);
    RegisterBenchmark(name("evaluate_lengths", f->name, p).c_str(), evaluating, *f, p, true);
    RegisterBenchmark(name("evaluate_by_simulate", f->name, p).c_str(), evaluating_by_simulate, *f, p);
  }
  RegisterBenchmark("cell_plan/layers", planning_cells)->Arg(2)->Arg(4)->Unit(benchmark::kMillisecond);
  const schedule_params middle{.pp = 32, .micro = 256};
  for (const family& f : families)
    RegisterBenchmark(name("generate", f.name, middle).c_str(), generate, f, middle)->Unit(benchmark::kMillisecond);
  for (const family& f : families) {
    const std::string row = "growth/" + std::string(f.name);
    const auto grow = [&](const char* of, growing what, std::int64_t from, std::int64_t to) {
      RegisterBenchmark((row + of).c_str(), growth, f, what)->RangeMultiplier(2)->Range(from, to)->Complexity();
    };
    grow("/ranks", growing::ranks_and_micro, 8, 128);
    grow("/micro", growing::micro, 32, 4096);
  }
  for (const schedule_params& p : {sizes[0], sizes[1], schedule_params{.pp = 4096, .micro = 16384}})
    for (const family& f : families)
      if (f.emit || p.pp <= sizes[0].pp)  // a search makes all rows
        RegisterBenchmark(name("generate_one_rank", f.name, p).c_str(), generate_one_rank, f, p);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
