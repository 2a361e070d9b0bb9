// Verifies a schedule of two ranks and runs it in two threads. Each rank sums the micro-batches that pass through it.
#include <cstdio>
#include <pipesched/execute/run.hpp>
#include <pipesched/execute/thread_transport.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/version.hpp>
#include <vector>

#if PIPESCHED_VERSION < 200
#error "an older version was found"
#endif

struct trainer {
  std::vector<int> messages;
  int forwards = 0;
  void forward(pipesched::task) { ++forwards; }
  void backward(pipesched::task) { --forwards; }
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t n) { return std::as_writable_bytes(std::span(&messages[n], 1)); }
};

int main() {
  const pipesched::schedule s = pipesched::make_1f1b_schedule({.pp = 2, .micro = 4});
  if (!verify(s)) return 1;
  const pipesched::program p = pipesched::lower(s);
  std::vector<trainer> trainers;
  for (const auto& sizes : p.pools) trainers.push_back({std::vector<int>(sizes.owned_buffers())});
  pipesched::thread_world world(2);
  pipesched::run_all(p, trainers, world);
  std::printf("pipesched %s\n", pipesched::library_version.data());
}
