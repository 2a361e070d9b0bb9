// SPDX-License-Identifier: MIT
// Over channels, failures of every sort at random places, in programs of random families and sizes, end all ranks within the
// limits.

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/execute/run.hpp"
#include "support/channel_job.hpp"
#include "support/place_to_fail.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

enum class channel_failure { throws, stalls, kernel_hangs, abort_hangs };

// The limits of a job. Those that a failure does not take are so long that a busy machine keeps them.
channel_transport_options limits_for(channel_failure how) {
  const bool stops = how == channel_failure::stalls || how == channel_failure::kernel_hangs;
  using std::chrono::milliseconds;
  return {.time_limit = stops ? milliseconds(50) : milliseconds(20'000),
          .start_limit = milliseconds(20'000),
          .abort_limit = how == channel_failure::throws ? milliseconds(5'000) : milliseconds(30)};
}

struct failed_job {
  place_to_fail bad;
  channel_job& job;
  std::vector<std::string> said;
  std::chrono::duration<double> took;  // from the failure to the end of the last rank
  int resorts = 0;                     // last resorts
  int unended = 0;                     // ranks of which that was as their messages had not ended
};

// A value that is never destroyed, as what hangs uses it.
template <typename T, typename... Args>
T& kept(Args&&... args) {
  static std::deque<T>& all = *new std::deque<T>;
  return all.emplace_back(std::forward<Args>(args)...);
}

failed_job fail_at_random(channel_failure how, std::mt19937_64& random) {
  using clock = std::chrono::steady_clock;
  const auto& bad = kept<place_to_fail>(any_program(random), random);
  const std::uint64_t step = random() % 3;
  std::atomic<int> resorts = 0, unended = 0;
  std::atomic<bool> stalls = how == channel_failure::stalls;
  std::atomic<clock::time_point> failed = clock::now();
  channel_transport_options options = limits_for(how);
  options.last_resort = [&](const std::string& text) {
    ++resorts, stalls = false;
    if (text.find("its messages have not ended") == 0) ++unended;
  };
  channel_job& j = kept<channel_job>(bad.p, 0, random(), options);
  j.cluster.live = true;
  // Elsewhere the limits are so short that a rank may hear of the failure too late.
  j.cluster.aborted_sends_arrive = how == channel_failure::throws;
  j.on_device[bad.rank].fails = [&, left = step](op o) mutable {
    if (o != bad.at || left-- != 0) return;
    failed = clock::now();
    if (how == channel_failure::kernel_hangs) j.cluster.hangs_on = static_cast<int>(bad.rank);
    if (how == channel_failure::abort_hangs) j.cluster.aborts_hang = true;
    if (how == channel_failure::throws || how == channel_failure::abort_hangs) throw std::domain_error("not a number");
    while (stalls) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  auto said =
      j.run([&](std::uint32_t r, cluster_transport& t) { run(bad.p, r, j.on_device[r], t, {.steps = step + 2}); });
  const auto took = clock::now() - failed.load();
  j.cluster.aborts_hang = false;
  return {bad, j, std::move(said), took, resorts, unended};
}

}  // namespace

TEST_CASE("channels: failures of every sort, a hundred each at random places, end all ranks within the limits") {
  using enum channel_failure;
  for (const channel_failure how : {throws, stalls, kernel_hangs, abort_hangs}) {
    std::mt19937_64 random(static_cast<std::uint64_t>(how));
    const channel_transport_options limits = limits_for(how);
    std::chrono::duration<double> longest{};
    int heard = 0, named = 0;  // texts; with a line for the rank that fails
    for (int round = 0; round < failures_of_a_sort(); ++round) {
      const failed_job end = fail_at_random(how, random);
      const std::string place = detail::concat({"rank ", end.bad.rank, " at ", to_string(end.bad.in)});
      CAPTURE(static_cast<int>(how));
      CAPTURE(round);
      CAPTURE(place);
      const std::string program_name(end.bad.p.schedule.name.view());
      CAPTURE(program_name);
      longest = std::max(longest, end.took);
      const bool is_thrown = how == throws || how == abort_hangs;
      for (std::uint32_t r = 0; r < end.said.size(); ++r) {
        const std::string& text = end.said[r];
        CAPTURE(text);
        if (is_thrown && r == end.bad.rank)
          CHECK(text == place + ": not a number");
        else if (is_thrown)
          CHECK(text.find(detail::concat({"aborted: ", place, ": not a number\nthis is rank ", r, " at "})) == 0);
        else
          CHECK((text.find("aborted: rank ") == 0 && text.find("nothing moved within the time limit\n") != text.npos));
        named += !is_thrown && text.find(detail::concat({"\nrank ", end.bad.rank, " at "})) != text.npos, ++heard;
      }
      if (how == throws) CHECK(end.resorts == 0);
      if (how == abort_hangs) CHECK(end.unended == static_cast<int>(end.said.size()));
    }
    if (how == stalls || how == kernel_hangs)
      CHECK(10 * named > 8 * heard);  // a busy machine may be late with a position
    // Three times the abort limit for messages, once more for the rank's own callback, and what a busy machine takes.
    const auto limit =
        (how == stalls || how == kernel_hangs ? limits.time_limit : std::chrono::seconds(0)) + 4 * limits.abort_limit;
    CHECK(longest < limit + std::chrono::seconds(2));
    MESSAGE(failures_of_a_sort(), " failures: ", longest.count(), " s at most; the limits are ", limit.count(), " s");
  }
}
