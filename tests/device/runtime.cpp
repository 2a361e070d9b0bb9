// SPDX-License-Identifier: MIT
// Failures of a runtime's calls as errors, and the fake runtime of these tests.

#include "pipesched/device/runtime.hpp"

#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <vector>

#include "support/fake_device.hpp"

using namespace pipesched;
using namespace pipesched::tests;

TEST_CASE("runtime: a call that failed throws its name, text, status and place; one that succeeded asks for no place") {
  fake_runtime runtime;
  int asked = 0;
  const auto where = [&] { return ++asked, std::string("rank 2 at 2F3"); };
  CHECK_NOTHROW(detail::require(runtime, fake_device::good, "EventQuery", where));
  CHECK(asked == 0);
  CHECK_THROWS_WITH_AS(detail::require(runtime, fake_device::made_to_fail, "EventQuery", where),
                       "fakeEventQuery: made to fail (700), rank 2 at 2F3", device_error);
}

TEST_CASE("runtime: the fake reports races, stale events and work that is not joined") {
  fake_device device;
  fake_device::stream a{}, b{};
  device.make_stream(0, a), device.make_stream(0, b);
  fake_device::event e{};
  device.make_event(0, e);
  int memory = 0;
  const fake_device::range all{&memory, sizeof memory};
  device.kernel(a, {}, {all}, [] {});
  device.kernel(b, {all}, {}, [] {});
  CHECK(device.races == std::vector<std::string>{"reads what is being written"});
  device.races.clear();
  device.record(e, b), device.wait(a, e);
  device.kernel(a, {}, {all}, [] {});  // after the reader, which never waited for the writer before it
  CHECK(device.races.empty());
  device.kernel(b, {}, {all}, [] {});
  CHECK(device.races == std::vector<std::string>{"writes what is being written"});
  fake_device::event never{};
  device.make_event(0, never);
  device.wait(a, never);
  CHECK(device.races.back() == "waits for an event that was never recorded");
  std::jthread([&] {
    bool done = false;
    CHECK(device.query(e, done) == fake_device::no_device);
    CHECK(device.races.back() == "EventQuery by a thread that has not selected a device");
    device.set_device(1);
    CHECK(device.query(e, done) == fake_device::good);
  }).join();
  fake_device::graph g{};
  device.begin_capture(a);
  CHECK(device.wait(a, e) == fake_device::isolation);
  device.record(e, a), device.wait(b, e);
  device.kernel(b, {}, {}, [] {});
  CHECK(device.end_capture(a, g) == fake_device::unjoined);
}
