// Runs a schedule of two ranks in two processes. Each rank counts the forwards and backwards that it has run.
#include <cstdio>
#include <pipesched/mpi/run_mpi.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/program/lower.hpp>
#include <vector>

struct trainer {
  std::vector<int> messages;
  int forwards = 0, backwards = 0;
  void forward(pipesched::task) { ++forwards; }
  void backward(pipesched::task) { ++backwards; }
  std::span<std::byte> buffer(std::uint32_t n) { return std::as_writable_bytes(std::span(&messages[n], 1)); }
};

int main(int argc, char** argv) {
  int provided = 0, rank = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const pipesched::program p = pipesched::lower(pipesched::make_1f1b_schedule({.pp = 2, .micro = 4}));
  trainer t{std::vector<int>(p.pools[static_cast<std::size_t>(rank)].buffers)};
  pipesched::run_mpi(p, MPI_COMM_WORLD, t);
  std::printf("rank %d: %d forwards, %d backwards\n", rank, t.forwards, t.backwards);
  MPI_Finalize();
  return t.forwards == 4 && t.backwards == 4 ? 0 : 1;
}
