// SPDX-License-Identifier: MIT
// A second object with every header, linked into the tests: a function that is not inline shows as a link error.

#include <pipesched/io/format.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/pipesched.hpp>

pipesched::schedule made_in_another_object() { return pipesched::make_schedule("1f1b", {.pp = 2, .micro = 2}); }
