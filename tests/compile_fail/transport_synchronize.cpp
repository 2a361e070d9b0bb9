// SPDX-License-Identifier: MIT
// expected: the transport has a member synchronize that cannot be called as: void synchronize\(\)
#include "transport.hpp"
struct other_transport : pipesched::recording_transport {
#ifdef RIGHT
  void synchronize() {}
#else
  void synchronize(int) {}
#endif
};
void run(const pipesched::program& p, trainer& t, other_transport& transport) { pipesched::run(p, 0, t, transport); }
