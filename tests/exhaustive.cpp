// SPDX-License-Identifier: MIT
// Every family at all sizes up to 32 ranks and 96 micro-batches, for training and forward only.

#include <doctest/doctest.h>

#include <cstdint>
#include <pipesched/generate/families.hpp>
#include <pipesched/pipesched.hpp>

#include "laws.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

#ifdef PIPESCHED_SMALL_GRIDS  // as for_all_families does
constexpr std::int64_t max_pp = 4, max_micro = 8;
#else
constexpr std::int64_t max_pp = 32, max_micro = 96;
#endif

TEST_CASE("every family: valid, with the papers' peak and bubble, over the whole grid" * doctest::test_suite("slow")) {
  std::int64_t schedules = 0;
  for_all_families(max_pp, max_micro, [&](const family& f, const schedule_params& p) {
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    CAPTURE(p.forward_only);
    const schedule s = f.make(p);
    const timeline t = simulate(s);  // verifies
    REQUIRE(to_string(verify(t.schedule)) == "");
    REQUIRE(broken_peak(s, p) == "");
    REQUIRE(broken_bubble(t, p) == "");
    REQUIRE((s.name == f.name && s.pp() == p.pp && s.micro == p.micro && s.forward_only == p.forward_only));
    ++schedules;
  });
  // All families at every pp, DualPipe and Chimera only at even pp.
  CHECK(schedules == ((std::ssize(families) - 2) * max_pp + 2 * (max_pp / 2)) * max_micro * 2);
}
