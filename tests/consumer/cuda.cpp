// Compiles and links what needs the CUDA runtime. Runs anywhere: it asks for the devices, which may be none.
#include <cstdio>
#include <pipesched/device/cuda.hpp>
#include <pipesched/pipesched.hpp>

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess) devices = 0;
  std::printf("%d devices\n", devices);
}
