// SPDX-License-Identifier: MIT
// Chimera and Hanayo.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/generate/chimera.hpp"
#include "pipesched/generate/hanayo.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"

using namespace pipesched;
using namespace pipesched::tests;

static_assert(verify(make_chimera_schedule({.pp = 4, .micro = 8})));
static_assert(verify(make_hanayo_schedule({.pp = 2, .micro = 4, .waves = 2})));

namespace {

#ifdef PIPESCHED_SMALL_GRIDS
constexpr std::int64_t most_ranks = 4, most_micros = 9;
#else
constexpr std::int64_t most_ranks = 16, most_micros = 64;
#endif

const stage_costs backward_as_forward{.backward = per_stage(1)};

// The rows by the papers' definition in slots: micro-batch k of a stream runs forward through stage s in slot s + 2k, then
// backward at one stage per slot; each later unit is shifted by the length of one unit.
std::vector<std::string> rows_by_slots(std::int64_t stages, const std::vector<std::int64_t>& micro_of_stream,
                                       std::int64_t unit, std::int64_t shift, std::int64_t ranks, auto&& rank_of) {
  std::vector<std::map<std::int64_t, std::string>> slots(static_cast<std::size_t>(ranks));
  std::int64_t first = 0;
  for (std::size_t stream = 0; stream < micro_of_stream.size(); ++stream) {
    for (std::int64_t k = 0; k < micro_of_stream[stream]; ++k)
      for (std::int64_t s = 0; s < stages; ++s) {
        const std::int64_t start = k / unit * shift + k % unit * 2;
        auto& row = slots[static_cast<std::size_t>(rank_of(stream, s))];
        const auto put = [&](std::int64_t slot, char letter) {
          REQUIRE(row.count(slot) == 0);
          row[slot] = std::to_string(s) + letter + std::to_string(first + k);
        };
        put(start + s, 'F');
        put(start + 2 * stages - 1 - s, 'B');
      }
    first += micro_of_stream[stream];
  }
  std::vector<std::string> rows;
  for (const auto& row : slots) {
    std::string text;
    for (const auto& [slot, what] : row) text += (text.empty() ? "" : " ") + what;
    rows.push_back(text);
  }
  return rows;
}

}  // namespace

TEST_CASE("chimera, hanayo: equal their definition in slots, and no slot is taken twice") {
  for (std::int64_t pp = 1; pp <= std::min<std::int64_t>(most_ranks, 8); ++pp)
    for (std::int64_t micro = 1; micro <= 3 * pp + 1; ++micro) {
      CAPTURE(pp);
      CAPTURE(micro);
      if (pp % 2 == 0)
        REQUIRE(text_rows(make_chimera_schedule({.pp = pp, .micro = micro})) ==
                rows_by_slots(pp, {(micro + 1) / 2, micro / 2}, pp / 2, 2 * pp, pp,
                              [&](std::size_t stream, std::int64_t s) { return stream == 0 ? s : pp - 1 - s; }));
      for (std::int64_t waves = 1; waves <= 3; ++waves)
        REQUIRE(text_rows(make_hanayo_schedule({.pp = pp, .micro = micro, .waves = waves})) ==
                rows_by_slots(2 * pp * waves, {micro}, pp, 4 * pp * waves, pp, [&](std::size_t, std::int64_t s) {
                  const std::int64_t along = s % (2 * pp);
                  return along < pp ? along : 2 * pp - 1 - along;
                }));
    }
}

TEST_CASE("chimera, hanayo: valid for every pp up to 16, micro up to 64, waves up to 4, with the documented peaks") {
  for (std::int64_t pp = 1; pp <= most_ranks; ++pp)
    for (std::int64_t micro = 1; micro <= most_micros; ++micro)
      for (const bool forward_only : {false, true}) {
        CAPTURE(pp);
        CAPTURE(micro);
        CAPTURE(forward_only);
        const auto require_peak = [&](const schedule& s, std::int64_t rank, std::int64_t most) {
          const std::int64_t peak = peak_activations(s[static_cast<std::size_t>(rank)], forward_only);
          REQUIRE(peak <= most);
          if (micro >= pp && !forward_only) REQUIRE(peak == most);
        };
        if (pp % 2 == 0) {
          const schedule s = make_chimera_schedule({.pp = pp, .micro = micro, .forward_only = forward_only});
          REQUIRE(to_string(verify(s)) == "");
          for (std::int64_t rank = 0; rank < pp; ++rank)
            require_peak(s, rank, pp / 2 + 1 + std::min(rank, pp - 1 - rank));
        }
        for (std::int64_t waves = 1; waves <= 4; ++waves) {
          const schedule s =
              make_hanayo_schedule({.pp = pp, .micro = micro, .waves = waves, .forward_only = forward_only});
          REQUIRE(to_string(verify(s)) == "");
          for (std::int64_t rank = 0; rank < pp; ++rank) require_peak(s, rank, 2 * waves * pp - pp + 1 + rank);
        }
      }
}

TEST_CASE("chimera: the paper's bubble ratio (D-2)/(2N+D-2) and memory of D/2+1 to D activations") {
  for (std::int64_t pp : {2, 4, 6, 8, 12})
    for (std::int64_t micro : {pp, 2 * pp, 5 * pp}) {
      CAPTURE(pp);
      CAPTURE(micro);
      const schedule s = make_chimera_schedule({.pp = pp, .micro = micro});
      const auto D = static_cast<double>(pp), N = static_cast<double>(micro);
      CHECK(measure(simulate(s, backward_as_forward)).bubble_ratio == doctest::Approx((D - 2) / (2 * N + D - 2)));
      const metrics m = measure(simulate(s));
      if (micro == pp) CHECK(m.makespan == 3 * N + 2 * (D - 2));  // B = 2F
      for (std::int64_t rank = 0; rank < pp; ++rank)
        CHECK(m.ranks[static_cast<std::size_t>(rank)].peak_activations == pp / 2 + 1 + std::min(rank, pp - 1 - rank));
    }
}

TEST_CASE("hanayo: the bubble is the same for any number of waves, and the peak is the documented one") {
  for (std::int64_t pp : {1, 2, 3, 4, 7})
    for (std::int64_t waves = 1; waves <= 4; ++waves)
      for (std::int64_t micro : {pp, 3 * pp}) {
        CAPTURE(pp);
        CAPTURE(waves);
        CAPTURE(micro);
        const schedule s = make_hanayo_schedule({.pp = pp, .micro = micro, .waves = waves});
        const double work = static_cast<double>(2 * waves * micro), wait = 2 * static_cast<double>(pp - 1);
        CHECK(measure(simulate(s, backward_as_forward)).makespan == 2 * work + wait);
        const metrics m = measure(simulate(s));
        if (micro == pp) CHECK(m.makespan == 3 * work + 2 * wait);
        for (std::int64_t rank = 0; rank < pp; ++rank)
          CHECK(m.ranks[static_cast<std::size_t>(rank)].peak_activations ==
                shares(2 * waves * pp - pp + 1 + rank, 2 * waves));
      }
}

TEST_CASE("chimera, hanayo: the row of one rank equals that of the schedule; bad parameters are refused") {
  for (std::int64_t rank = 0; rank < 4; ++rank) {
    const auto row_of = [&](const schedule& s) {
      const auto row = s[static_cast<std::size_t>(rank)];
      return std::vector(row.begin(), row.end());
    };
    const pipeline_params p{.pp = 4, .micro = 7};
    CHECK(make_chimera_row(p, rank) == row_of(make_chimera_schedule(p)));
    const hanayo_params h{.pp = 4, .micro = 7, .waves = 3};
    CHECK(make_hanayo_row(h, rank) == row_of(make_hanayo_schedule(h)));
  }
  CHECK(refusal_of([] { make_chimera_schedule({.pp = 5, .micro = 8}); }) ==
        "chimera needs an even number of pipeline ranks; got pp = 5, nearest 4 or 6");
  CHECK(refusal_of([] { make_hanayo_schedule({.pp = 4, .micro = 8, .waves = 0}); }) ==
        "hanayo needs 1 to 128 waves; got waves = 0, nearest 1");
  CHECK(refusal_of([] { make_hanayo_schedule({.pp = 4, .micro = 8, .waves = 129}); }) ==
        "hanayo needs 1 to 128 waves; got waves = 129, nearest 128");
  CHECK(refusal_of([] { make_hanayo_row({.pp = 4, .micro = 8}, 4); }).find("nearest 3") != std::string::npos);
}
