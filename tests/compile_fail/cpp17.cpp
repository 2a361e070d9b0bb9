// SPDX-License-Identifier: MIT
// expected: error: .*pipesched needs C\+\+20: compile with -std=c\+\+20 or later
// compile: -std=c++17
#include <pipesched/pipesched.hpp>
