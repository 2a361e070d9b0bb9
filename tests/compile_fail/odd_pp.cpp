// SPDX-License-Identifier: MIT
// expected: schedule_error
#include <pipesched/pipesched.hpp>
#ifdef RIGHT
constexpr int pp = 6;
#else
constexpr int pp = 7;
#endif
static_assert(verify(pipesched::make_dualpipe_schedule({.pp = pp, .micro = 20})));
