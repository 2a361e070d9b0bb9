// SPDX-License-Identifier: MIT
// A step over threads neither allocates nor locks, and a draw of simulate_noise() does not allocate: operator new and
// pthread_mutex_lock count their calls. One program of its own, as both are replaced in all of it. Exits with 0 if both counts
// are 0, and if the counters do count.

#include <pthread.h>

#include <atomic>
#include <barrier>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/execute/thread_transport.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/simulate/noise.hpp"
#include "support/tanh_model.hpp"

namespace {
std::atomic<bool> counts = false;
std::atomic<int> allocations = 0, locks = 0;
}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
  if (counts) ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// The linker makes this of every call of pthread_mutex_lock.
extern "C" int __real_pthread_mutex_lock(pthread_mutex_t* mutex);
extern "C" int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  if (counts) ++locks;
  return __real_pthread_mutex_lock(mutex);
}

using namespace pipesched;

// Steps with long numbers, so that a text of one would be allocated. Counted from the begin of the second to the end of the
// last, which is measured.
constexpr std::size_t first = 1'000'000'000;
struct counted_trainer : tests::tanh_model<double>::trainer {
  using tests::tanh_model<double>::trainer::trainer;
  std::barrier<>*all_begin = nullptr, *all_end = nullptr;
  void begin_step(std::size_t step) {
    if (step != first + 1) return;
    all_begin->arrive_and_wait();
    counts = true;
  }
  void end_step(std::size_t step) {
    if (step != first + 4) return;
    all_end->arrive_and_wait();
    counts = false;
  }
};

// Allocations of so many draws.
int allocations_of(const schedule& s, std::uint32_t draws) {
  allocations = 0, counts = true;
  simulate_noise(s, stage_costs{.transfer_time = 1, .transfers_busy = link_busy::both}, {.draws = draws}, verified);
  counts = false;
  return allocations;
}

int main() {
  int failures = 0;
  for (const family& f : families)
    for (const bool forward_only : {false, true}) {
      const program p = lower(f.make({.pp = 4, .micro = 8, .forward_only = forward_only}));
      thread_world world(4);
      std::vector<counted_trainer> trainers;
      for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank);
      std::barrier<> all_begin(4), all_end(4);
      for (counted_trainer& t : trainers) t.all_begin = &all_begin, t.all_end = &all_end;
      allocations = locks = 0;
      run_all(p, trainers, world, {.steps = 5, .first_step = first, .record = true});
      if (allocations + locks == 0) continue;
      std::printf("FAILED: %s: %d allocations, %d locks\n", f.name.data(), allocations.load(), locks.load());
      ++failures;
    }
  for (const family& f : families) {
    const schedule s = f.make({.pp = 4, .micro = 8});
    const int few = allocations_of(s, 2), many = allocations_of(s, 200);
    if (few == many) continue;
    std::printf("FAILED: %s: %d allocations for 2 draws, %d for 200\n", f.name.data(), few, many);
    ++failures;
  }
  allocations = locks = 0;
  counts = true;
  {
    std::mutex mutex;
    const std::lock_guard lock(mutex);
    ::operator delete(::operator new(1));
  }
  counts = false;
  if (allocations != 1 || locks != 1) {
    std::printf("FAILED: the counters do not count: %d, %d\n", allocations.load(), locks.load());
    ++failures;
  }
  if (failures == 0) std::printf("no allocation and no lock in steps of %zu families\n", std::size(families));
  return failures;
}
