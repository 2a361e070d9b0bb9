// SPDX-License-Identifier: MIT
// expected: the transport has a member meet that cannot be called as: std::chrono::steady_clock::time_point meet\(\)
#include "transport.hpp"
struct other_transport : pipesched::recording_transport {
#ifdef RIGHT
  std::chrono::steady_clock::time_point meet() { return {}; }
#else
  void meet() {}
#endif
};
void run(const pipesched::program& p, trainer& t, other_transport& transport) { pipesched::run(p, 0, t, transport); }
