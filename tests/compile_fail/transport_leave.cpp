// SPDX-License-Identifier: MIT
// expected: the transport has a member leave that cannot be called as: void leave\(\)
#include "transport.hpp"
struct other_transport : pipesched::recording_transport {
#ifdef RIGHT
  void leave() {}
#else
  void leave(int) {}
#endif
};
void run(const pipesched::program& p, trainer& t, other_transport& transport) { pipesched::run(p, 0, t, transport); }
