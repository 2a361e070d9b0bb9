// SPDX-License-Identifier: MIT
// expected: the transport has a member prepare that cannot be called as: void prepare\(const program&, memory\)
#include "transport.hpp"
struct other_transport : pipesched::recording_transport {
#ifdef RIGHT
  template <typename Memory>
  void prepare(const pipesched::program&, const Memory&) {}
#else
  void prepare(const pipesched::program&) {}
#endif
};
void run(const pipesched::program& p, trainer& t, other_transport& transport) { pipesched::run(p, 0, t, transport); }
