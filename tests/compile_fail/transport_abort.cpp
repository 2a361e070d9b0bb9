// SPDX-License-Identifier: MIT
// expected: the transport has a member abort that cannot be called as: void abort\(std::string_view\)
#include "transport.hpp"
struct other_transport : pipesched::recording_transport {
#ifdef RIGHT
  void abort(std::string_view) {}
#else
  void abort(std::uint32_t, std::string_view) {}
#endif
};
void run(const pipesched::program& p, trainer& t, other_transport& transport) { pipesched::run(p, 0, t, transport); }
