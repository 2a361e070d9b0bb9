// SPDX-License-Identifier: MIT
// expected: error: no matching function for call to 'run
// expected: note: .*t\.wait\(n\)
#include <pipesched/execute/run.hpp>
struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
};
struct other_transport {
  void post_receive(const pipesched::action&, std::span<std::byte>) {}
  void post_send(const pipesched::action&, std::span<const std::byte>) {}
#ifdef RIGHT
  void wait(std::uint32_t) {}
#endif
  void on_action(std::uint32_t) {}
  void finish() {}
};
void run_rank(const pipesched::program& p, trainer& t, other_transport& transport) {
  pipesched::run(p, 0, t, transport);
}
