// SPDX-License-Identifier: MIT
// A step of execute() with threads neither allocates nor locks: operator new and pthread_mutex_lock count their calls. One
// program of its own, as both are replaced in all of it. Exits with 0 if there are none, and if the counters do count.

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

#include "pipesched/execute/executor.hpp"
#include "pipesched/execute/in_process.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
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

int main() {
  using namespace pipesched;
  int failures = 0;
  for (const family& f : families)
    for (const bool forward_only : {false, true}) {
      const program p = lower(f.make({.pp = 4, .micro = 8, .forward_only = forward_only}));
      in_process_hub hub(p);
      std::vector<tests::tanh_model<double>::trainer> trainers;
      for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank);
      timeline measured{.schedule = p.schedule, .intervals = rows<interval>::for_overwrite_like(p.schedule.cells)};
      std::barrier together(4);
      allocations = locks = 0;
      {
        std::vector<std::jthread> threads;
        for (std::uint32_t rank = 0; rank < 4; ++rank)
          threads.emplace_back([&, rank] {
            in_process transport(hub, rank);
            together.arrive_and_wait();
            counts = true;
            for (int step = 0; step < 3; ++step) execute(p, rank, trainers[rank], transport, measured[rank]);
            together.arrive_and_wait();
            counts = false;
          });
      }
      if (allocations + locks == 0) continue;
      std::printf("FAILED: %s: %d allocations, %d locks\n", f.name.data(), allocations.load(), locks.load());
      ++failures;
    }
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
