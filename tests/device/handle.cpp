// SPDX-License-Identifier: MIT
// Handles of streams, events and graphs, and the numbers that a device writes.

#include "pipesched/device/handle.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "pipesched/device/runtime.hpp"
#include "support/fake_device.hpp"

using namespace pipesched;
using namespace pipesched::tests;

TEST_CASE("handles are destroyed once by their owner, and never if they are given up") {
  static int destroyed;
  destroyed = 0;
  struct counting_runtime : fake_runtime {
    static void destroy(stream) { ++destroyed; }
    static void destroy(event) { ++destroyed; }
    static void destroy(graph) { ++destroyed; }
  };
  using handle = device_handle<counting_runtime, fake_device::stream>;
  {
    handle own(counting_runtime{}, fake_device::stream(3)), taken(std::move(own)),
        given_up(counting_runtime{}, fake_device::stream(4));
    given_up.leak();
    CHECK(given_up.handle() == fake_device::stream(4));
    taken = handle(counting_runtime{}, fake_device::stream(5));
    CHECK(destroyed == 1);
  }
  CHECK(destroyed == 2);
}

TEST_CASE("handles: a stream or event that cannot be made throws status, call and place") {
  fake_device device;
  fake_runtime runtime{&device};
  const auto where = [] { return std::string("making a test"); };
  const auto refused = [&](auto&& make) {
    device.fails_at = device.calls;
    try {
      make();
    } catch (const device_error& e) {
      CHECK(e.status == fake_device::made_to_fail);
      CHECK(e.call == device.failed_call);
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(refused([&] { detail::make_event(runtime, 0, false, where); }) ==
        "fakeEventCreateWithFlags: made to fail (700), making a test");
  CHECK(refused([&] { detail::make_stream(runtime, 0, 0, where); }) ==
        "fakeStreamCreateWithPriority: made to fail (700), making a test");
  CHECK(refused([&] { detail::device_counters<fake_runtime>(runtime, 0, 3, where); }) ==
        "fakeHostAlloc: made to fail (700), making a test");
}

TEST_CASE("counters of a device start at 0, are written by streams, and are freed once") {
  static int freed;
  freed = 0;
  struct counting_runtime : fake_runtime {
    static void free_counters(std::uint32_t*) { ++freed; }
  };
  fake_device device;
  counting_runtime runtime{{&device}};
  fake_device::stream s{};
  device.make_stream(0, s);
  using counters = detail::device_counters<counting_runtime>;
  const auto where = [] { return std::string("a test"); };
  {
    counters three(runtime, 0, 3, where), none(runtime, 0, 0, where);
    CHECK(three.sum() == 0);
    device.write(s, three.at(1), 5), device.write(s, three.at(2), 7);
    CHECK(three.value(0) == 0);
    CHECK(three.value(1) == 5);
    CHECK(three.sum() == 12);
    counters taken(std::move(three));
    CHECK(taken.sum() == 12);
    taken.reset();
    CHECK(taken.sum() == 0);
  }
  CHECK(freed == 1);
}
