// SPDX-License-Identifier: MIT
// expected: the transport has a member begin_cell that cannot be called as: void begin_cell\(std::uint32_t\)
#include "transport.hpp"
struct other_transport : pipesched::recording_transport {
#ifdef RIGHT
  void begin_cell(std::uint32_t) {}
#else
  void begin_cell(std::uint32_t, double) {}
#endif
};
void run(const pipesched::program& p, trainer& t, other_transport& transport) { pipesched::run(p, 0, t, transport); }
