// SPDX-License-Identifier: MIT
// The coordinator over a key-value store, with processes in threads and a map as the store.

#include "pipesched/launch/store_coordinator.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace pipesched;

namespace {

using seconds = std::chrono::duration<double>;

struct map_store {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, std::string> values;

  key_value_store functions() {
    return {.set =
                [this](const std::string& key, const std::string& value) {
                  const std::lock_guard lock(mutex);
                  values[key] = value;
                  changed.notify_all();
                },
            .get =
                [this](const std::string& key) {
                  const std::lock_guard lock(mutex);
                  return values.at(key);
                },
            .wait =
                [this](const std::string& key, seconds limit) {
                  std::unique_lock lock(mutex);
                  return changed.wait_for(lock, limit, [&] { return values.count(key) > 0; });
                }};
  }
};

// The texts that the processes have thrown.
std::vector<std::string> run(map_store& store, std::uint32_t size, seconds limit,
                             const std::function<void(std::uint32_t, coordinator&)>& body,
                             const std::string& prefix = "job") {
  std::vector<std::string> said(size);
  std::vector<std::jthread> threads;
  for (std::uint32_t r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      store_coordinator job(store.functions(), r, size, limit, prefix);
      try {
        body(r, job);
      } catch (const std::exception& e) {
        said[r] = e.what();
      }
    });
  threads.clear();
  return said;
}

}  // namespace

TEST_CASE("store coordinator: broadcasts and exchanges reach every process, whatever they hold") {
  map_store store;
  for (const std::uint32_t size : {1u, 2u, 7u}) {
    std::mt19937 random(size);
    std::vector<std::vector<std::vector<parcel>>> sent(10, std::vector<std::vector<parcel>>(size));
    for (auto& round : sent)
      for (auto& mine : round)
        for (std::uint32_t to = 0; to < size; ++to)
          if (random() % 2) mine.push_back({to, std::string(random() % 40, static_cast<char>(random() % 256))});
    const auto said = run(
        store, size, seconds(20),
        [&](std::uint32_t r, coordinator& job) {
          for (std::size_t round = 0; round < sent.size(); ++round) {
            CHECK(job.broadcast(std::to_string(round + 100 * r)) == std::to_string(round));
            std::vector<parcel> expected;
            for (std::uint32_t from = 0; from < size; ++from)
              for (const parcel& p : sent[round][from])
                if (p.rank == r) expected.push_back({from, p.text});
            CHECK(job.exchange(sent[round][r]) == expected);
          }
        },
        "job of " + std::to_string(size));
    CHECK(said == std::vector<std::string>(size));
  }
}

TEST_CASE("store coordinator: all processes hear of a failure, and of a process that does not come") {
  map_store store;
  auto said = run(store, 3, seconds(20), [&](std::uint32_t r, coordinator& job) {
    job.broadcast("");
    CHECK(!job.failure());
    job.broadcast("");
    if (r == 1) CHECK(job.report_failure("rank 1 at 1F0: no memory") == "rank 1 at 1F0: no memory");
    if (r == 1) return;
    job.exchange({});
  });
  CHECK(said == std::vector<std::string>{"aborted: rank 1 at 1F0: no memory", "", "aborted: rank 1 at 1F0: no memory"});
  map_store other;
  said = run(other, 3, seconds(1), [&](std::uint32_t r, coordinator& job) {
    if (r != 2) job.broadcast("");
  });
  CHECK(said[0].find("aborted: process ") == 0);
  CHECK(said[0].find(" waits for the others, and not all came in time") != std::string::npos);
  CHECK(said[1].find(" waits for the others, and not all came in time") != std::string::npos);

  map_store stalls;
  said = run(stalls, 2, seconds(20), [&](std::uint32_t r, coordinator& job) {
    if (r == 0) job.report_position("rank 0 at 0F3", progress_state::waits);
    if (r == 1) job.report_position("rank 1 at 1F3", progress_state::stalled);
    while (!job.failure()) std::this_thread::yield();
    CHECK(*job.failure() == "rank 1 at 1F3: nothing moved within the time limit");
  });
  CHECK(said == std::vector<std::string>(2));
}

TEST_CASE("store coordinator: the first failure stays, also one that a process has not heard of yet") {
  map_store store;
  store_coordinator first(store.functions(), 0, 2), second(store.functions(), 1, 2);
  CHECK(!second.failure());  // which asks the store again after a while
  CHECK(first.report_failure("a") == "a");
  CHECK(second.report_failure("b") == "a");
  CHECK(first.report_failure("c") == "a");
  CHECK((first.failure() == "a" && second.failure() == "a"));
}

TEST_CASE("store coordinator: refuses what cannot be") {
  map_store store;
  CHECK_THROWS_WITH_AS(store_coordinator(store.functions(), 3, 3), "a job of 3 processes has no process 3",
                       schedule_error);
  CHECK_THROWS_WITH_AS(store_coordinator(store.functions(), 0, 1, seconds(0)),
                       "a time limit is above 0 and at most 1e9 seconds; got 0", schedule_error);
  store_coordinator alone(store.functions(), 0, 1);
  const parcel to_nobody{1, "x"};
  CHECK_THROWS_WITH_AS(alone.exchange({&to_nobody, 1}), "a job of 1 process has no process 1", schedule_error);
  CHECK(alone.broadcast("a") == "a");
}
