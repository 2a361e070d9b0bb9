// SPDX-License-Identifier: MIT
// expected: error: no matching function for call to 'simulate
// expected: note: .*costs\.transfer\(rank, rank, t\)
#include <pipesched/pipesched.hpp>
struct costs {
  double duration(const pipesched::cell&) const { return 1; }
#ifdef RIGHT
  double transfer(std::uint32_t, std::uint32_t, pipesched::tensor_id) const { return 0; }
#endif
};
auto t = pipesched::simulate(pipesched::make_1f1b_schedule({.pp = 4, .micro = 8}), costs{});
