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
constexpr std::int64_t max_pp = 4, max_micro = 8, exact_peaks = 2203, stated_bubbles = 306;
#else
constexpr std::int64_t max_pp = 32, max_micro = 96, exact_peaks = 1378516, stated_bubbles = 28006;
#endif

TEST_CASE("every family: valid, with the peak and bubble that it states, over the whole grid" *
          doctest::test_suite("slow")) {
  std::int64_t schedules = 0, peaks = 0, bubbles = 0;
  for_all_families(max_pp, max_micro, [&](const family& f, const schedule_params& p) {
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    CAPTURE(p.forward_only);
    const schedule s = f.make(p);
    const timeline t = simulate(s);  // verifies
    REQUIRE(to_string(verify(t.schedule)) == "");
    REQUIRE(broken_peak(f, s, p) == "");
    REQUIRE(broken_bubble(f, t, p) == "");
    for (std::int64_t rank = 0; rank < p.pp; ++rank) peaks += peak_of(f, p, rank).exact;
    bubbles += bubble_of(f, p).has_value();
    REQUIRE((s.name == f.name && s.pp() == p.pp && s.micro == p.micro && s.forward_only == p.forward_only));
    ++schedules;
  });
  // All families at every pp, DualPipe and Chimera only at even pp.
  CHECK(schedules == ((std::ssize(families) - 2) * max_pp + 2 * (max_pp / 2)) * max_micro * 2);
  CHECK(peaks == exact_peaks);  // no family states less than it did
  CHECK(bubbles == stated_bubbles);
}
