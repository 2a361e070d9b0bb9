// Runs a schedule of two ranks in two processes. Each rank counts the forwards and backwards that it has run.
#include <cstdio>
#include <pipesched/execute/run.hpp>
#include <pipesched/mpi/mpi_transport.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/program/lower.hpp>
#include <vector>

struct trainer {
  std::vector<int> messages;
  int forwards = 0, backwards = 0;
  void forward(pipesched::task) { ++forwards; }
  void backward(pipesched::task) { ++backwards; }
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t n) {
    return std::as_writable_bytes(std::span(&messages[n], 1));
  }
};

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  const pipesched::program p = pipesched::lower(pipesched::make_1f1b_schedule({.pp = 2, .micro = 4}));
  trainer t;
  {
    pipesched::mpi_transport transport(MPI_COMM_WORLD);
    const std::uint32_t rank = transport.rank();
    t.messages.resize(p.pools[rank].buffers());
    pipesched::run(p, rank, t, transport);
    std::printf("rank %u: %d forwards, %d backwards\n", rank, t.forwards, t.backwards);
  }
  MPI_Finalize();
  return t.forwards == 4 && t.backwards == 4 ? 0 : 1;
}
