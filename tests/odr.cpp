// SPDX-License-Identifier: MIT
// A second object with every header, linked into the tests: a function that is not inline shows as a link error.

#include <pipesched/generate/families.hpp>
#include <pipesched/io/costs_json.hpp>
#include <pipesched/io/format.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/io/torch_csv.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/render/chrome_trace.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/render/svg.hpp>

pipesched::schedule made_in_another_object() { return pipesched::make_schedule("1f1b", {.pp = 2, .micro = 2}); }
