// SPDX-License-Identifier: MIT
// A program run by four processes: gradients are those of one device, messages of any size arrive, failures end all ranks.
// Which part: the first argument. One line a case; the exit code is 0 if all is as expected. mpi.sh runs all parts.

#include "pipesched/mpi/run_mpi.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "pipesched/launch/environment.hpp"
#include "pipesched/launch/tcp_coordinator.hpp"
#include "pipesched/mpi/mpi_coordinator.hpp"
#include "pipesched/program/lower.hpp"
#include "support/place_to_fail.hpp"
#include "support/tanh_model.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using model = tanh_model<double>;
using trainer = model::trainer;
using seconds = std::chrono::duration<double>;
using clock_type = std::chrono::steady_clock;

std::uint32_t own = 0;  // rank
int failures = 0;
constexpr int rounds = 100;  // of each failure, at random places

void expect(bool good, const std::string& claim) {
  if (good) return;
  ++failures;
  std::printf("FAILED on rank %u: %s\n", own, claim.c_str());
  std::fflush(stdout);
}
// The line of a case, once all ranks are there.
void line(const std::string& text) {
  int all = 0;
  MPI_Allreduce(&failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  if (own == 0) std::printf("%s: %s\n", all == 0 ? "ok" : "FAILED", text.c_str());
  std::fflush(stdout);
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
bool told_of(const std::string& said, const place_to_fail& bad) {
  return has(said, "aborted by rank " + std::to_string(bad.rank) + " at ") && has(said, to_string(bad.at));
}

bool same(const trainer& a, const trainer& b) {
  bool equal = a.losses == b.losses;
  for (std::size_t i = 0; i < a.layers.size(); ++i) equal = equal && a.layers[i].gradient == b.layers[i].gradient;
  return equal;
}
void expect_as_one_device(trainer& t, const program& p, const std::string& name) {
  const schedule& s = p.schedule;
  const auto one = model::on_one_device(s.stages(), s.micro),
             in_order = model::on_one_device(s.stages(), s.micro, model::orders_of(s));
  for (std::uint32_t m = 0; m < s.micro; ++m) {
    const bool here = s.placement.rank_of(static_cast<std::uint16_t>(s.stages() - 1), m) == own;
    expect(t.losses[m] == (here ? one.losses[m] : -1), name + ": a loss");
  }
  if (s.forward_only) return;
  for (std::uint16_t stage : t.stages) {
    expect(t.layer_of(stage).gradient == in_order.layers[stage].gradient, name + ": a gradient, to the bit");
    for (std::size_t i = 0; i < model::width; ++i)
      for (std::size_t j = 0; j < model::width; ++j) {
        const double e = one.layers[stage].gradient[i][j], got = t.layer_of(stage).gradient[i][j];
        expect(std::abs(got - e) <= 1e-12 * (1 + std::abs(e)), name + ": a gradient");
      }
  }
}

void trains() {
  for (const char* name : {"1f1b", "interleaved_1f1b", "zbv", "dualpipe", "dualpipev", "chimera", "v_half"}) {
    for (const std::int64_t micro : {1, 4, 8, 17})
      for (const bool forward_only : {false, true}) {
        const program p = lower(make_schedule(name, {.pp = 4, .micro = micro, .forward_only = forward_only}));
        const std::string what = std::string(name) + " of " + std::to_string(micro) + (forward_only ? " forward" : "");
        trainer first(p, own);
        run_mpi(p, MPI_COMM_WORLD, first);
        expect_as_one_device(first, p, what);
        // 32 bytes a message: one block and a rest, whole blocks only, one byte more than a block, one of no blocks.
        for (const std::size_t block : {24u, 16u, 31u, 32u}) {
          mpi_transport transport(p, MPI_COMM_WORLD, std::chrono::seconds(60), block);
          for (int step = 0; step < 2; ++step) {
            trainer again(p, own);
            execute(p, own, again, transport);
            expect(same(first, again), what + ": twice the same to the bit");
          }
          transport.leave();
        }
      }
    line(std::string(name) + ": micro 1, 4, 8, 17, training and forward only, as one device, and twice the same");
  }
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  trainer t(p, own);
  std::vector<interval> record(p.schedule[own].size());
  run_mpi(p, MPI_COMM_WORLD, t, {.record = record, .zero = clock_type::now()});
  for (std::size_t i = 0; i < record.size(); ++i)
    expect(record[i].start <= record[i].end && (i == 0 || record[i - 1].end <= record[i].start), "a timeline");
  line("the measured timeline of a rank is in order");
}

void refuses() {
  const auto refusal = [](const program& p) {
    try {
      mpi_transport transport(p, MPI_COMM_WORLD);
    } catch (const schedule_error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  const program two = lower(make_1f1b_schedule({.pp = 2, .micro = 8}));
  expect(has(refusal(two), "a program of 2 pipeline ranks needs as many; the communicator has 4"), refusal(two));
  const program different = lower(make_1f1b_schedule({.pp = 4, .micro = own == 2 ? 9 : 8}));
  expect(has(refusal(different), "these have different ones"), "different programs are refused on all ranks");
  try {
    mpi_transport(different, MPI_COMM_WORLD, seconds(0));
    expect(false, "no time limit is refused");
  } catch (const schedule_error& e) {
    expect(has(e.what(), "a time limit is above 0 and at most 1e9 seconds; got 0"), e.what());
  }
  line("a communicator of the wrong size, ranks with different programs, and no time limit, are refused on all ranks");
}

// The text that a rank ends with: "" where it ends well, "own: ..." for an exception of its trainer.
std::string ends_with(const std::function<void()>& run) {
  try {
    run();
  } catch (const pipeline_aborted& e) {
    return e.what();
  } catch (const trainer_error& e) {
    try {
      std::rethrow_if_nested(e);
    } catch (const std::domain_error& inner) {
      expect(e.cause == inner.what(), "the trainer's own exception is nested");
      return std::string("own: ") + e.what();
    }
  }
  return {};
}

// Messages so long that they wait for their receivers, from and into buffers that are gone soon after the failure.
void throws_in_long_messages() {
  struct mover {
    std::vector<std::vector<std::byte>> buffers;
    int left;
    void run() {
      if (left-- == 0) throw std::domain_error("no more");
    }
    void forward(task) { run(); }
    void backward(task) { run(); }
    std::span<std::byte> buffer(std::uint32_t n) { return buffers[n]; }
  };
  std::mt19937_64 random(3);
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  for (int round = 0; round < 30; ++round) {
    const auto bad_rank = static_cast<std::uint32_t>(random() % 4);
    const int bad = static_cast<int>(random() % 16);
    mover m{std::vector(p.pools[own].buffers, std::vector<std::byte>(1 << 20)), own == bad_rank ? bad : -1};
    const std::string said = ends_with([&] { run_mpi(p, MPI_COMM_WORLD, m); });
    expect(has(said, "no more") && has(said, own == bad_rank ? "own" : "aborted by rank "), said);
  }
  line("30 exceptions while messages of 1 MiB are under way");
}

void throws() {
  std::mt19937_64 random(1);
  double slowest = 0;
  for (int round = 0; round < rounds; ++round) {
    const place_to_fail bad(random);
    const std::string text = "not a number in " + to_string(bad.at);
    trainer t(bad.p, own);
    if (own == bad.rank)
      t.before = [&](op o) {
        if (o == bad.at) throw std::domain_error(text);
      };
    MPI_Barrier(MPI_COMM_WORLD);
    const auto start = clock_type::now();
    const std::string said = ends_with([&] { run_mpi(bad.p, MPI_COMM_WORLD, t); });
    slowest = std::max(slowest, seconds(clock_type::now() - start).count());
    if (own == bad.rank)
      expect(said == detail::concat({"own: rank ", own, " at ", to_string(bad.in), ": ", text}),
             "on its own rank: " + said);
    else
      expect(told_of(said, bad) && has(said, text), "on another rank: " + said);
  }
  expect(slowest < 5, "ended soon after the exception");
  line(std::to_string(rounds) + " exceptions at random ops: on their own rank, and told to all others; the slowest " +
       std::to_string(slowest) + " s");
  throws_in_long_messages();
}

void wrong_size() {
  std::mt19937_64 random(2);
  for (const std::size_t block : {std::size_t{1} << 30, std::size_t{16}, std::size_t{5}}) {
    std::string example;
    int local = 0;
    for (int round = 0; round < rounds; ++round) {
      const place_to_fail bad(random);
      const std::size_t buffer = random() % bad.p.pools[bad.rank].buffers;
      trainer t(bad.p, own);
      if (own == bad.rank) t.short_buffer = buffer;
      const std::string said = ends_with([&] {
        mpi_transport transport(bad.p, MPI_COMM_WORLD, std::chrono::seconds(20), block);
        execute(bad.p, own, t, transport);
        transport.leave();
      });
      if (travels(bad.p, bad.rank, buffer))
        expect(has(said, "bytes where it leaves and") && has(said, " where it comes"), "a wrong size: " + said);
      else
        ++local, expect(said.empty(), "a size that is nobody else's: " + said);
      if (has(said, "32")) example = said;
    }
    expect(local < rounds / 2, "most messages travel");
    line(std::to_string(rounds - local) + " wrong sizes, blocks of " + std::to_string(block) + ": " + example);
  }
}

void leaves() {
  std::mt19937_64 random(3);
  struct gone {};
  for (int round = 0; round < rounds; ++round) {
    const place_to_fail bad(random);
    trainer t(bad.p, own);
    if (own == bad.rank)
      t.before = [&](op o) {
        if (o == bad.at) throw gone();
      };
    const std::string said = ends_with([&] {
      mpi_transport transport(bad.p, MPI_COMM_WORLD, std::chrono::seconds(20));
      try {
        execute(bad.p, own, t, transport);
      } catch (const gone&) {
        return;  // without a word
      }
      transport.leave();
    });
    if (own == bad.rank)
      expect(said.empty(), "the one that leaves: " + said);
    else
      expect(told_of(said, bad) && has(said, ": it left before the end of its step"), "a rank that leaves: " + said);
  }
  line(std::to_string(rounds) + " ranks that leave in the middle end the others");
}

// Is the rank among those of which nothing was heard?
bool silent(const std::string& said, std::uint32_t rank) {
  const std::size_t at = said.find("not waiting, or gone:");
  return at != said.npos && has(said.substr(at, said.find('\n', at) - at), " " + std::to_string(rank));
}

void stalls() {
  {
    constexpr double limit = 0.6;
    const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
    trainer t(p, own);
    if (own == 1)
      t.before = [](op o) {
        if (o.pass == pass::forward && o.micro == 3) std::this_thread::sleep_for(seconds(3 * limit));
      };
    MPI_Barrier(MPI_COMM_WORLD);
    const auto start = clock_type::now();
    const std::string said = ends_with([&] { run_mpi(p, MPI_COMM_WORLD, t, {.time_limit = seconds(limit)}); });
    const double took = seconds(clock_type::now() - start).count();
    expect(own == 1 || took < 1.25 * limit + 0.3, "ended in time, but " + std::to_string(took) + " s");
    expect(has(said, "nothing came within the time limit"), "a stall: " + said);
    expect(has(said, "not waiting, or gone: 1\n"), "who it was: " + said);
    for (const char* each : {"\nrank 0 at ", "\nrank 2 at ", "\nrank 3 at "})
      expect(has(said, each) && has(said, ", which waits for "), "where all are: " + said);
    if (own == 0) std::printf("%s", said.c_str());
    line("a stall ends all ranks; the limit is " + std::to_string(limit) + " s, rank 0 took " + std::to_string(took) +
         " s");
  }
  constexpr double limit = 0.1;
  std::mt19937_64 random(4);
  for (int round = 0; round < rounds; ++round) {
    const place_to_fail bad(random);
    trainer t(bad.p, own);
    if (own == bad.rank)
      t.before = [&](op o) {
        if (o == bad.at) std::this_thread::sleep_for(seconds(4 * limit));
      };
    const std::string said = ends_with([&] { run_mpi(bad.p, MPI_COMM_WORLD, t, {.time_limit = seconds(limit)}); });
    expect(has(said, "nothing came within the time limit"), "a stall: " + said);
    expect(own == bad.rank || silent(said, bad.rank), "who it was: " + said);
  }
  line(std::to_string(rounds) + " stalls at random ops end all ranks");
}

// A rank dies, the others must end, whoever does it. Each that does by itself writes a line into the file.
void killed(const std::string& file, std::uint64_t seed) {
  constexpr double limit = 0.5;
  std::mt19937_64 random(seed);
  const place_to_fail bad(random);
  trainer t(bad.p, own);
  if (own == bad.rank)
    t.before = [&](op o) {
      if (o == bad.at) std::raise(SIGKILL);
    };
  MPI_Barrier(MPI_COMM_WORLD);
  const auto start = clock_type::now();
  const std::string said = ends_with([&] { run_mpi(bad.p, MPI_COMM_WORLD, t, {.time_limit = seconds(limit)}); });
  const double took = seconds(clock_type::now() - start).count();
  expect(has(said, "nothing came within the time limit") && silent(said, bad.rank), said);
  expect(took < 1.25 * limit + 1, "ended in time, but " + std::to_string(took) + " s");
  std::ofstream(file + "." + std::to_string(own))
      << (failures == 0 ? "ok" : "FAILED") << ": rank " << own << " ended after " << took << " s, rank " << bad.rank
      << " killed at " << to_string(bad.at) << " of " << bad.p.schedule.name.view() << ": " << said;
  std::_Exit(failures);  // MPI_Finalize would wait for the dead
}

void coordinate(coordinator& job) {
  expect(job.rank() == own && job.size() == 4, "rank and size");
  for (const std::size_t length : {0u, 1u, 1'000'000u}) {
    const std::string text(length, static_cast<char>('a' + own));
    expect(job.broadcast(text) == std::string(length, 'a'), "what process 0 broadcasts");
    const auto all = gather(job, text);
    expect(all.size() == (own == 0 ? 4 : 0), "as many as gather");
    for (std::size_t r = 0; r < all.size(); ++r)
      expect(all[r] == std::string(length, static_cast<char>('a' + r)), "what process 0 gathers");
  }
  std::vector<parcel> mine,
      expected;  // two to the next process, in descending order one to each that is below this one
  for (const char* text : {"first", ""}) mine.push_back({(own + 1) % 4, text});
  for (std::uint32_t to = own; to-- > 0;) mine.push_back({to, std::to_string(own) + " to " + std::to_string(to)});
  for (std::uint32_t from = 0; from < 4; ++from) {
    if ((from + 1) % 4 == own)
      for (const char* text : {"first", ""}) expected.push_back({from, text});
    if (from > own) expected.push_back({from, std::to_string(from) + " to " + std::to_string(own)});
  }
  for (int round = 0; round < 50; ++round) expect(job.exchange(mine) == expected, "parcels");
  expect(job.exchange({}).empty(), "no parcels");
  if (own == 2) job.report_failure("rank 2 at 2F0: too warm");
  while (!job.failure()) std::this_thread::yield();
  expect(*job.failure() == "rank 2 at 2F0: too warm", *job.failure());
  const std::string aborted = ends_with([&] { job.broadcast(""); });
  expect(aborted == "aborted: rank 2 at 2F0: too warm", aborted);
  if (own == 3) expect(job.report_failure("later") == "rank 2 at 2F0: too warm", "the first failure");
}

void control() {
  const launch_environment e = read_launch_environment();
  expect(e.rank == own && e.size == 4 && e.local_rank == own && e.launcher == "mpirun" && !e.token.empty(),
         "the environment");
  {
    tcp_coordinator job(
        own, 4,
        [](std::span<std::byte> b) { MPI_Bcast(b.data(), static_cast<int>(b.size()), MPI_BYTE, 0, MPI_COMM_WORLD); },
        seconds(20));
    coordinate(job);
  }
  {
    tcp_coordinator job(e, seconds(20));
    coordinate(job);
  }
  line("coordinators over TCP, started over MPI and by the environment: broadcast, exchange, report a failure to all");
  {
    mpi_coordinator job(MPI_COMM_WORLD, seconds(20));
    coordinate(job);
  }
  {
    mpi_coordinator job(MPI_COMM_WORLD, seconds(1));
    job.broadcast("");
    if (own != 1) {
      const std::string late = ends_with([&] { job.broadcast(""); });
      expect(has(late, "waits for the others, and not all came in time"), late);
    }
    while (!job.failure()) std::this_thread::yield();
  }
  line("a coordinator over MPI: the same, and a process that does not come");
}

// One message of more than 2^31 bytes between two ranks.
void large() {
  constexpr std::size_t size = (std::size_t{1} << 31) + 12345;
  long long available = 0;
  std::string word;
  for (std::ifstream memory("/proc/meminfo"); memory >> word;)
    if (word == "MemAvailable:") memory >> available;
  MPI_Bcast(&available, 1, MPI_LONG_LONG, 0, MPI_COMM_WORLD);
  if (available < 6ll << 20) return line("skipped: a message of more than 2^31 bytes needs 6 GiB of free memory");
  MPI_Comm pair = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, own < 2 ? 0 : MPI_UNDEFINED, 0, &pair);
  if (own < 2) {
    struct copier {
      std::vector<std::uint64_t> words;
      std::uint32_t rank;
      static std::uint64_t value(std::size_t i) { return i * 0x9e3779b97f4a7c15u; }
      void forward(task) {
        if (rank == 0)
          for (std::size_t i = 0; i < words.size(); ++i) words[i] = value(i);
        else
          for (std::size_t i = 0; i + 1 < words.size(); ++i)
            if (words[i] != value(i)) throw std::domain_error("word " + std::to_string(i));
      }
      void backward(task) {}
      std::span<std::byte> buffer(std::uint32_t) { return std::as_writable_bytes(std::span(words)).first(size); }
    };
    const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 1, .forward_only = true}));
    copier c{std::vector<std::uint64_t>(size / 8 + 1), own};
    const std::string said = ends_with([&] { run_mpi(p, pair, c); });
    expect(said.empty(), "a large message: " + said);
    const auto tail = c.buffer(0).last(1)[0],
               last = static_cast<std::byte>(copier::value(size / 8) >> (size % 8 - 1) * 8);
    expect(tail == last, "the last byte of a large message");
    MPI_Comm_free(&pair);
  }
  line("a message of 2^31 + 12345 bytes arrives whole");
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  own = static_cast<std::uint32_t>(rank);
  const std::string part = argc > 1 ? argv[1] : "";
  try {
    if (size != 4) throw std::invalid_argument("run with mpirun -n 4");
    if (part == "trains")
      trains();
    else if (part == "refuses")
      refuses();
    else if (part == "throws")
      throws();
    else if (part == "wrong_size")
      wrong_size();
    else if (part == "leaves")
      leaves();
    else if (part == "stalls")
      stalls();
    else if (part == "killed" && argc == 4)
      killed(argv[2], std::stoull(argv[3]));
    else if (part == "control")
      control();
    else if (part == "large")
      large();
    else
      throw std::invalid_argument(
          "trains, refuses, throws, wrong_size, leaves, stalls, killed FILE SEED, control or large");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "rank %d: %s\n", rank, e.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return failures != 0;
}
