#include <pipesched/pipesched.hpp>

int main() { return verify(pipesched::make_dualpipe_schedule({.pp = 8, .micro = 20})) ? 0 : 1; }
