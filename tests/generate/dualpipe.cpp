// SPDX-License-Identifier: MIT
// DualPipe and DualPipeV.

#include <doctest/doctest.h>

#include <deque>
#include <string>

#include "pipesched/core/verify.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "pipesched/generate/dualpipev.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"

using namespace pipesched;
using namespace pipesched::tests;

static_assert(verify(make_dualpipe_schedule({.pp = 8, .micro = 20})));
static_assert(verify(make_dualpipe_schedule({.pp = 4, .micro = 3, .forward_only = true})));
static_assert(verify(make_dualpipev_schedule({.pp = 4, .micro = 10})));

namespace {

// A slow, independent implementation of the eight steps, as a trainer would run them: it counts micro-batches and keeps the
// pending W's in a queue. The library computes all positions in advance.
class machine {
 public:
  // Stage and first micro-batch of a stream; `near` is the one that reaches the rank first.
  struct stream {
    std::int64_t stage, first, forwards = 0, backwards = 0;
  };

  machine(std::int64_t half, std::int64_t depth, std::int64_t micro, stream near, stream far) : stream_{near, far} {
    const std::int64_t inner = half - depth - 1;
    for (std::int64_t i = 0; i < 2 * inner; ++i) forward(0);
    for (std::int64_t i = 0; i < depth + 1; ++i) forward(0), forward(1);
    for (std::int64_t i = 0; i < inner; ++i) backward(1, true), weights(), forward(1);
    for (std::int64_t i = 0; i < micro - 2 * half + depth + 1; ++i) {
      if (i == 0 && inner == 0)
        forward(0), backward(1, false);
      else
        both(0, 1);
      both(1, 0);
    }
    for (std::int64_t i = 0; i < inner; ++i) backward(1, false), both(1, 0);
    bool split = false;
    for (std::int64_t i = 0; i < depth + 1; ++i) {
      if (i == (depth + 1) / 2 && depth % 2 == 1) split = true;
      backward(1, split);
      if (i == (depth + 1) / 2 && depth % 2 == 0) split = true;
      backward(0, split);
    }
    for (std::int64_t i = 0; i < inner; ++i) weights(), backward(0, true);
    for (std::int64_t i = 0; i < depth + 1; ++i) weights();
    REQUIRE(postponed_.empty());
  }

  std::string text;

 private:
  std::string op_text(int which, char letter, std::int64_t micro) {
    return std::to_string(stream_[which].stage) + letter + std::to_string(stream_[which].first + micro);
  }
  void say(const std::string& word) { text += (text.empty() ? "" : " ") + word; }
  void forward(int which) { say(op_text(which, 'F', stream_[which].forwards++)); }
  void backward(int which, bool split) {
    const std::int64_t micro = stream_[which].backwards++;
    say(op_text(which, split ? 'I' : 'B', micro));
    if (split) postponed_.push_back(op_text(which, 'W', micro));
  }
  void both(int forwards, int backwards) {
    const std::string f = op_text(forwards, 'F', stream_[forwards].forwards++);
    say('(' + f + ';' + op_text(backwards, 'B', stream_[backwards].backwards++) + ')');
  }
  void weights() {
    say(postponed_.front());
    postponed_.pop_front();
  }

  stream stream_[2];
  std::deque<std::string> postponed_;
};

}  // namespace

TEST_CASE("dualpipe: the published order, cell for cell") {
  CHECK(text_rows(make_dualpipe_schedule({.pp = 8, .micro = 20})) == golden_rows("dualpipe_pp8_m20"));
  CHECK(text_rows(make_dualpipe_schedule({.pp = 4, .micro = 8})) == golden_rows("dualpipe_pp4_m8"));
}

TEST_CASE("dualpipev: the published order, cell for cell") {
  CHECK(text_rows(make_dualpipev_schedule({.pp = 4, .micro = 10})) == golden_rows("dualpipev_pp4_m10"));
}

TEST_CASE("dualpipev: PyTorch's order for 2 ranks and 4 micro-batches") {
  std::vector<std::string> rows = golden_csv_rows("dualpipev_pp2_v2_m4_compute_only");
  CHECK(text_rows(make_dualpipev_schedule({.pp = 2, .micro = 4})) == rows);
}

TEST_CASE("dualpipe: every accepted size up to 16 ranks equals the slow implementation of the eight steps") {
  for (std::int64_t pp = 2; pp <= 16; pp += 2)
    for (std::int64_t micro = 2 * pp; micro <= 3 * pp + 6; micro += 2) {
      CAPTURE(pp);
      CAPTURE(micro);
      const schedule s = make_dualpipe_schedule({.pp = pp, .micro = micro});
      for (std::int64_t rank = 0; rank < pp; ++rank) {
        const machine::stream down{rank, 0}, up{pp - 1 - rank, micro / 2};
        const bool upper = rank < pp / 2;
        const machine expected(pp / 2, upper ? rank : pp - 1 - rank, micro / 2, upper ? down : up, upper ? up : down);
        REQUIRE(to_string(s[static_cast<std::size_t>(rank)]) == expected.text);
      }
    }
}

TEST_CASE("dualpipev: every accepted size up to 12 ranks equals the slow implementation of the eight steps") {
  for (std::int64_t pp = 1; pp <= 12; ++pp)
    for (std::int64_t micro = 2 * pp; micro <= 3 * pp + 5; ++micro) {
      CAPTURE(pp);
      CAPTURE(micro);
      const schedule s = make_dualpipev_schedule({.pp = pp, .micro = micro});
      for (std::int64_t rank = 0; rank < pp; ++rank) {
        const machine expected(pp, rank, micro, {rank, 0}, {2 * pp - 1 - rank, 0});
        REQUIRE(to_string(s[static_cast<std::size_t>(rank)]) == expected.text);
      }
    }
}

TEST_CASE("dualpipe: fewer micro-batches give the next accepted order without the surplus") {
  const schedule s =
      make_dualpipe_schedule({.pp = 4, .micro = 3});  // replica 0 has micro-batches 0 and 1, replica 1 has 2
  CHECK(to_string(s[0]) == "0F0 0F1 3F2 3I2 3W2 0B0 0B1");
  CHECK(verify(s));
}

TEST_CASE("dualpipe: micro-batches of both replicas are numbered over the whole step") {
  const schedule s = make_dualpipe_schedule({.pp = 2, .micro = 5});
  CHECK(s.placement.rank_of(0, 2) == 0);
  CHECK(s.placement.rank_of(0, 3) == 1);
  CHECK(verify(s));
}

TEST_CASE("dualpipe, dualpipev: the row of one rank equals that of the schedule") {
  for (const pipeline_params p : {pipeline_params{.pp = 8, .micro = 20}, pipeline_params{.pp = 8, .micro = 5},
                                  pipeline_params{.pp = 6, .micro = 14, .forward_only = true}}) {
    const schedule s = make_dualpipe_schedule(p), v = make_dualpipev_schedule(p);
    for (std::int64_t rank = 0; rank < p.pp; ++rank) {
      const auto r = static_cast<std::size_t>(rank);
      CHECK(make_dualpipe_row(p, rank) == std::vector(s[r].begin(), s[r].end()));
      CHECK(make_dualpipev_row(p, rank) == std::vector(v[r].begin(), v[r].end()));
    }
  }
}

TEST_CASE("dualpipe: the row of one of 4096 ranks is made without the others") {
  const auto row = make_dualpipe_row({.pp = 4096, .micro = 16384}, 1000);
  std::size_t ops = 0;
  for (const cell& c : row) ops += c.size();
  const std::size_t split = 2048;  // half the ranks: I and W apart, in step 3 and from step 6 on
  CHECK(ops == 2 * 16384 + split + 2048 - 1000 - 1);
}

TEST_CASE("dualpipe, dualpipev: bad parameters are refused with value, rule and nearest legal value") {
  const auto refused = [](std::int64_t pp, std::int64_t micro) {
    return refusal_of([&] { make_dualpipe_schedule({.pp = pp, .micro = micro}); });
  };
  CHECK(refused(7, 20) == "dualpipe needs an even number of pipeline ranks; got pp = 7, nearest 6 or 8");
  CHECK(refused(0, 20) == "dualpipe needs an even number of pipeline ranks; got pp = 0, nearest 2");
  CHECK(refused(-4, 20) == "dualpipe needs an even number of pipeline ranks; got pp = -4, nearest 2");
  CHECK(refused(8, 0) == "dualpipe needs at least 1 micro-batch; got micro = 0, nearest 1");
  CHECK(refused(8, -1) == "dualpipe needs at least 1 micro-batch; got micro = -1, nearest 1");
  CHECK(refused(65538, 4) ==
        "dualpipe needs at most 65536 pipeline ranks (stages are 16-bit numbers); got pp = 65538, nearest 65536");
  CHECK(refused(8, 5'000'000'000) ==
        "dualpipe needs stages x micro-batches of at most 2^28; got 8 stages x micro = 5000000000, nearest micro = "
        "33554432");
  CHECK(refusal_of([] { make_dualpipev_schedule({.pp = 40000, .micro = 4}); }) ==
        "dualpipev needs at most 32768 pipeline ranks (stages are 16-bit numbers); got pp = 40000, nearest 32768");
  CHECK(refusal_of([] { make_dualpipe_row({.pp = 8, .micro = 20}, 8); }) ==
        "dualpipe needs a rank from 0 to pp - 1 = 7; got rank = 8, nearest 7");
}
