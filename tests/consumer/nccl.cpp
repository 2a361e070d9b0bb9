// Compiles and links what needs NCCL.
#include <cstdio>
#include <pipesched/device/nccl.hpp>
#include <pipesched/pipesched.hpp>

int main() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return 1;
  std::printf("NCCL %d\n", version);
}
