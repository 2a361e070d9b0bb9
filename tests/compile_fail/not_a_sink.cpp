// SPDX-License-Identifier: MIT
// expected: error: no matching function for call to 'repeat
// expected: note: .*cell_sink
#include <pipesched/pipesched.hpp>
#ifdef RIGHT
void take(pipesched::cell) {}
#else
void take(int*) {}
#endif
void emit() { pipesched::repeat(take, 8, pipesched::stage_ops(0).F(0)); }
