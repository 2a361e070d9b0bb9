// SPDX-License-Identifier: MIT
// expected: error: no matching function for call to 'emit_1f1b
// expected: note: .*cell_sink
#include <pipesched/pipesched.hpp>
#ifdef RIGHT
void take(pipesched::cell) {}
#else
void take(int*) {}
#endif
void emit() { pipesched::emit_1f1b({.pp = 4, .micro = 8}, 0, take); }
