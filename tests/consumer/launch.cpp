// A job of one process: finds itself, and gets back what it gives.
#include <cstdio>
#include <pipesched/launch/tcp_coordinator.hpp>

int main() {
  pipesched::tcp_coordinator job(0, 1, [](std::span<std::byte>) {});
  const std::string text = job.broadcast("alone");
  std::printf("%s\n", text.c_str());
  return text == "alone" ? 0 : 1;
}
