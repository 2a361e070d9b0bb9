// SPDX-License-Identifier: MIT
// expected: cell_sink
#include <pipesched/pipesched.hpp>
#ifdef RIGHT
void take(pipesched::cell) {}
#else
void take(int*) {}
#endif
void emit() { pipesched::emit_1f1b({.pp = 4, .micro = 8}, 0, take); }
