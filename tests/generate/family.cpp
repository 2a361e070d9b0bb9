// SPDX-License-Identifier: MIT
// Families of one's own: values of the same type as those of the library, checked and used alike.

#include "pipesched/generate/family.hpp"

#include <doctest/doctest.h>

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/generate/recognize.hpp"
#include "pipesched/simulate/closed_form_of.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

constexpr auto gpipe_rule = [](const pipeline_params& p, std::int64_t rank, auto& sink) {
  const stage_ops s(rank);
  repeat(sink, p.micro, s.F(0));
  repeat(sink, p.micro, s.B(0));
};

constexpr family own{.name = "own", .place = linear_placement, .emit = gpipe_rule};
constexpr family own_even{.name = "own", .limits = {.even_pp = true}, .place = linear_placement, .emit = gpipe_rule};
constexpr family own_looped{.name = "own", .place = looped_placement, .emit = gpipe_rule};
constexpr family own_elsewhere{
    .name = "own", .place = [](const family_params&) { return placement::linear(2); }, .emit = gpipe_rule};
constexpr family own_vee{.name = "own", .place = vee_placement, .emit = gpipe_rule};
constexpr family own_search{.name = "own",
                            .limits = {.takes = {parameter::memory_limit}},
                            .place = linear_placement,
                            .search = [](const family_params& p, const placement&) { return own.emit.rows(p); },
                            .check =
                                [](const family& f, const family_params& p) {
                                  if (p.memory_limit)
                                    throw schedule_error(std::string(f.name) + " keeps all activations");
                                }};

constexpr family own_with_less{
    .name = "own", .place = linear_placement, .search = [](const family_params& p, const placement&) {
      return own.emit.rows({.pp = p.pp - 1, .micro = p.micro});
    }};

static_assert(verify(own.make({.pp = 3, .micro = 4})));
static_assert(verify(own_search.make({.pp = 3, .micro = 4})));

}  // namespace

TEST_CASE("your own family: its parameters are checked like those of the library's families, and forward_only works") {
  const auto refused = [](const family& f, const family_params& p) { return refusal_of([&] { f.make(p); }); };
  CHECK(refused(own, {.pp = 3, .micro = 4}) == "");
  CHECK(refused(own_even, {.pp = 3, .micro = 4}) ==
        "own needs an even number of pipeline ranks; got pp = 3, nearest 2 or 4");
  CHECK(refused(own, {.pp = 4, .micro = 4294967300}) ==
        "own needs stages x micro-batches of at most 2^28; got 4 stages x micro = 4294967300, nearest micro = "
        "67108864");
  CHECK(refused(own_looped, {.pp = 4, .micro = 1 << 26}) ==
        "own needs stages x micro-batches of at most 2^28; got 8 stages x micro = 67108864, nearest micro = 33554432");
  CHECK(refused(own, {.pp = 4, .micro = 0}) == "own needs at least 1 micro-batch; got micro = 0, nearest 1");
  CHECK(refused(own_elsewhere, {.pp = 4, .micro = 4}) ==
        "own needs a placement on pp = 4 ranks; got one on 2, nearest 4");
  CHECK(refused(own, {.pp = 4294967298, .micro = 4}) ==
        "own needs at most 65536 pipeline ranks (stages are 16-bit numbers); got pp = 4294967298, nearest 65536");
  CHECK(refused(own, {.pp = 4, .micro = 4, .chunks = 2}) == "own takes no chunks; got chunks = 2");
  CHECK(refused(own, {.pp = 4, .micro = 4, .overlap = true}) == "own takes no overlap; got overlap = true");
  CHECK(refusal_of([] { own.row({.pp = 4, .micro = 4}, 4); }) ==
        "own needs a rank from 0 to pp - 1 = 3; got rank = 4, nearest 3");
  CHECK(refused(own_search, {.pp = 4, .micro = 4, .memory_limit = 2}) == "own keeps all activations");
  CHECK(refused(own_search, {.pp = 0, .micro = 4, .memory_limit = 2}) ==
        "own needs at least 1 pipeline rank; got pp = 0, nearest 1");

  const std::string too_few = "own needs a search that makes the rows of 4 ranks; got 3, nearest 4";
  CHECK(refused(own_with_less, {.pp = 4, .micro = 4}) == too_few);
  CHECK(refusal_of([] { own_with_less.row({.pp = 4, .micro = 4}, 3); }) == too_few);

  CHECK(refused({.name = "own", .place = linear_placement}, {.pp = 4, .micro = 4}) ==
        "own needs a place, and one of emit and search");
  CHECK(refused({.name = "own", .emit = gpipe_rule}, {.pp = 4, .micro = 4}) ==
        "own needs a place, and one of emit and search");
  family both = own;
  both.search = own_search.search;
  CHECK(refused(both, {.pp = 4, .micro = 4}) == "own needs a place, and one of emit and search");
  family none_per_rank = own;
  none_per_rank.limits.stages_per_rank = 0;
  CHECK(refused(none_per_rank, {.pp = 4, .micro = 4}) ==
        "own needs 1 to 256 stages_per_rank; got stages_per_rank = 0, nearest 1");

  const pipeline_params evaluation{.pp = 3, .micro = 4, .forward_only = true};
  const schedule s = own.make(evaluation);
  schedule expected = make_gpipe_schedule(evaluation);
  expected.name = "own";
  CHECK(s == expected);
  CHECK(to_string(verify(s)) == "");
  const auto row = s[1];
  CHECK(own.row(evaluation, 1) == std::vector(row.begin(), row.end()));
  CHECK(own_search.row(evaluation, 1) == own.row(evaluation, 1));
}

TEST_CASE("your own family: a row is refused as the whole schedule is") {
  const auto rows_are_refused_alike = [](const family& f, const family_params& p) {
    const std::string whole = refusal_of([&] { f.make(p); });
    CHECK(refusal_of([&] { f.row(p, 0); }) == whole);
    return whole;
  };
  CHECK(rows_are_refused_alike(own, {.pp = 3, .micro = 4}) == "");
  CHECK(rows_are_refused_alike(own_elsewhere, {.pp = 2, .micro = 4}) == "");
  CHECK(rows_are_refused_alike(own_elsewhere, {.pp = 4, .micro = 4}) ==
        "own needs a placement on pp = 4 ranks; got one on 2, nearest 4");
  CHECK(rows_are_refused_alike(own_looped, {.pp = 4, .micro = 1 << 26}) ==
        "own needs stages x micro-batches of at most 2^28; got 8 stages x micro = 67108864, nearest micro = 33554432");
  for (const family& f : {own_looped, own_vee}) {
    CHECK(rows_are_refused_alike(f, {.pp = 65536, .micro = 4}) != "");
    CHECK(rows_are_refused_alike(f, {.pp = 4, .micro = (1 << 25) + 1}) != "");
    CHECK(rows_are_refused_alike(f, {.pp = 4, .micro = 4}) == "");
  }
}

namespace {

// All forwards, then the backwards from the middle micro-batch on: an order that no family of the library has.
constexpr family from_the_middle{
    .name = "from_the_middle",
    .place = linear_placement,
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const stage_ops s(rank);
          repeat(sink, p.micro, s.F(0));
          for (std::int64_t m = 0; m < p.micro; ++m) sink(s.B((m + p.micro / 2) % p.micro));
        },
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      return closed_form{.formula = "(PP-1)(F+B)",
                         .source = "none",
                         .assumes = "micro > 1",
                         .bubble = static_cast<double>(p.pp - 1) * (t.F + t.B),
                         .fails = detail::first_failing({{p.micro > 1, "micro > 1"}})};
    }};

}  // namespace

TEST_CASE("your own family: its order is recognized, alone or among others") {
  schedule s = from_the_middle.make({.pp = 3, .micro = 4});
  s.name = "torch_csv";
  CHECK(recognize_family(s) == "");
  CHECK(recognize_family(s, {}, std::span(&from_the_middle, 1)) == "from_the_middle");
  const std::array both{own, from_the_middle};
  CHECK(recognize_family(s, {}, both) == "from_the_middle");
  CHECK(recognize_family(s, "own", both) == "from_the_middle");
  CHECK(recognize_family(make_gpipe_schedule({.pp = 3, .micro = 4}), {}, both) == "own");
  CHECK(recognize_family(make_1f1b_schedule({.pp = 3, .micro = 4}), {}, both) == "");
  const auto none_may_be_made = [](const family&, const schedule_params&) { return false; };
  CHECK(recognize_family(s, {}, none_may_be_made, both) == "");
}

TEST_CASE("your own family: its formula stands beside a schedule, with every assumption checked") {
  const schedule s = from_the_middle.make({.pp = 3, .micro = 4});
  CHECK(!closed_form_of(s, uniform_costs{}));  // the library has no family of that name
  const auto form = closed_form_of(from_the_middle, s, uniform_costs{.forward = 2});
  REQUIRE(form.has_value());
  CHECK(form->holds());
  CHECK(form->bubble == 2 * (2 + 2));
  CHECK(form->bubble == measure(simulate(s, uniform_costs{.forward = 2}), uniform_costs{.forward = 2}).max_bubble);
  CHECK(closed_form_of(from_the_middle, s, uniform_costs{.transfer_time = 1})->fails == "transfers take no time");
  CHECK(closed_form_of(from_the_middle, from_the_middle.make({.pp = 3, .micro = 1}), uniform_costs{})->fails ==
        "micro > 1");
  const schedule other = make_1f1b_schedule({.pp = 3, .micro = 4});
  CHECK(closed_form_of(from_the_middle, other, uniform_costs{})->fails == "the order is the family's own");
  CHECK(!closed_form_of(own, s, uniform_costs{}));
  family even = from_the_middle;  // whose formula never gets sizes that the family does not take
  even.limits.even_pp = true;
  CHECK(!closed_form_of(even, s, uniform_costs{}));
}
