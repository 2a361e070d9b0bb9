// SPDX-License-Identifier: MIT
// expected: error: .*(non-constant condition for static assertion|static.assert.* is not an integral constant expression)
// expected: throw schedule_error\(.*needs an even number of pipeline ranks
#include <pipesched/pipesched.hpp>
#ifdef RIGHT
constexpr int pp = 6;
#else
constexpr int pp = 7;
#endif
static_assert(verify(pipesched::make_dualpipe_schedule({.pp = pp, .micro = 20})));
