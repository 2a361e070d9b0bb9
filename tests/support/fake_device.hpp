// SPDX-License-Identifier: MIT
#pragma once

// A simulated device that detects races. Enqueued work runs at once, or is captured into a graph. Every stream has a vector
// clock. Races are: an access that is not ordered after the last write to its memory, a write that is not ordered after the
// reads since then, a wait for an event that was never recorded, and any call by a thread that has not selected a device.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/device/runtime.hpp"

namespace pipesched::tests {

class fake_device {
 public:
  enum class stream : int {};
  enum class event : int {};
  enum class graph : int {};
  enum status : int {
    good = 0,
    no_device = 101,
    made_to_fail = 700,
    forbidden_in_capture = 900,
    isolation = 905,
    unjoined = 906
  };
  using range = std::pair<const void*, std::size_t>;

  // Number of calls since the last reset; the call with number `fails_at` fails.
  std::int64_t calls = 0, fails_at = -1;
  std::string failed_call;
  std::atomic<bool> hangs = false;  // queries never report completion
  int queries = 0, makes = 0, copies = 0, launches = 0;
  int selections = 0;
  std::vector<std::string> races;

  void reset_counts() {
    const std::lock_guard lock(mutex_);
    calls = queries = makes = copies = launches = selections = 0;
  }

  status make_stream(int device, stream& s) {
    choose(device);
    return call("StreamCreateWithPriority", false, [&] {
      ++makes;
      s = stream(static_cast<int>(streams_.size()));
      streams_.push_back({{}, 0, device});
      for (stream_state& each : streams_) each.clock.resize(streams_.size(), 0);
      return good;
    });
  }
  status make_event(int device, event& e) {
    choose(device);
    return call("EventCreateWithFlags", false, [&] {
      ++makes;
      e = event(static_cast<int>(events_.size()));
      events_.push_back({});
      return good;
    });
  }
  status record(event e, stream s) {
    return call("EventRecord", true, [&] {
      stream_state& in = of(s);
      tick(s);
      event_state& made = of(e);
      made = {in.clock, in.capture, true};
      return good;
    });
  }
  status wait(stream s, event e) {
    return call("StreamWaitEvent", true, [&] {
      stream_state& in = of(s);
      const event_state& made = of(e);
      if (!made.recorded) races.push_back("waits for an event that was never recorded");
      if (made.capture != in.capture && made.capture != capture_) return isolation;  // recorded outside this capture
      if (in.capture == 0 && made.capture != 0) in.capture = made.capture, joined_.push_back(s);
      if (in.capture != made.capture) return isolation;
      for (std::size_t i = 0; i < made.clock.size(); ++i) in.clock[i] = std::max(in.clock[i], made.clock[i]);
      return good;
    });
  }
  status copy(stream s, void* to, const void* from, std::size_t size) {
    return call("MemcpyPeerAsync", true, [&] {
      ++copies;
      run(s, {{from, size}}, {{to, size}}, [=] { std::memcpy(to, from, size); });
      return good;
    });
  }
  status allocate_counters(int device, std::size_t count, std::uint32_t*& made) {
    choose(device);
    return call("HostAlloc", false, [&] {
      ++makes;
      made = counters_.emplace_back(count, 0u).data();
      return good;
    });
  }
  status write(stream s, std::uint32_t* counter, std::uint32_t value) {
    return call("StreamWriteValue32", true, [&] {
      run(s, {}, {}, [=] { std::atomic_ref(*counter).store(value, std::memory_order_release); });
      return good;
    });
  }
  status query(event, bool& done) {
    return call("EventQuery", false, [&] {
      ++queries;
      done = !hangs;
      return good;
    });
  }
  status begin_capture(stream s) {
    return call("StreamBeginCapture", false, [&] {
      capture_ = ++captures_;
      origin_ = s;
      of(s).capture = capture_;
      joined_ = {s};
      captured_.clear();
      return good;
    });
  }
  status end_capture(stream s, graph& g) {
    return call("StreamEndCapture", true, [&] {
      status result = s == origin_ ? good : unjoined;
      for (const stream each : joined_) {
        if (of(s).clock[index(each)] < of(each).clock[index(each)]) result = unjoined;
        of(each).capture = 0;
      }
      capture_ = 0;
      g = graph(static_cast<int>(graphs_.size()));
      graphs_.push_back(std::move(captured_));
      captured_.clear();
      return result;
    });
  }
  status launch(graph g) {
    return call("GraphLaunch", false, [&] {
      ++launches;
      for (const auto& step : graphs_[static_cast<std::size_t>(g)]) step();
      return good;
    });
  }
  status set_device(int device) {
    choose(device);
    return call("SetDevice", true, [&] {
      ++selections;
      return good;
    });
  }
  status connect(int from_device) {
    choose(from_device);
    return other("DeviceEnablePeerAccess");
  }
  status other(std::string_view name) {
    return call(name, true, [] { return good; });
  }

  /// A kernel of a trainer.
  void kernel(stream s, const std::vector<range>& reads, const std::vector<range>& writes, std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    if (of(s).device != devices_[std::this_thread::get_id()])
      races.push_back("a kernel for another device than the thread's");
    run(s, reads, writes, std::move(work));
  }

 private:
  struct stream_state {
    std::vector<std::uint64_t> clock;
    int capture = 0;  // 0: none
    int device = 0;
  };
  struct event_state {
    std::vector<std::uint64_t> clock;
    int capture = 0;
    bool recorded = false;
  };
  struct access {
    stream by{};
    std::uint64_t tick = 0;  // 0: no access
  };
  struct memory_state {
    access write;
    std::map<int, std::uint64_t> reads;  // since then, by stream
  };

  template <typename Body>
  status call(std::string_view name, bool allowed_in_capture, Body&& body) {
    const std::lock_guard lock(mutex_);
    if (devices_.count(std::this_thread::get_id()) == 0) {  // a real runtime would create a context on device 0
      races.push_back(std::string(name) + " by a thread that has not selected a device");
      return no_device;
    }
    if (calls++ == fails_at) {
      failed_call = std::string("fake") + std::string(name);
      return made_to_fail;
    }
    if (capture_ != 0 && !allowed_in_capture) return forbidden_in_capture;
    return body();
  }
  void choose(int device) {
    const std::lock_guard lock(mutex_);
    devices_[std::this_thread::get_id()] = device;
  }
  static std::size_t index(stream s) { return static_cast<std::size_t>(s); }
  stream_state& of(stream s) { return streams_.at(index(s)); }
  event_state& of(event e) { return events_.at(static_cast<std::size_t>(e)); }
  std::uint64_t tick(stream s) { return ++of(s).clock[index(s)]; }

  bool after(stream s, stream other, std::uint64_t tick) { return tick == 0 || of(s).clock[index(other)] >= tick; }
  void run(stream s, const std::vector<range>& reads, const std::vector<range>& writes, std::function<void()> work) {
    const std::uint64_t now = tick(s);
    for (const auto& [at, size] : reads) {
      memory_state& m = memory_[at];
      if (!after(s, m.write.by, m.write.tick)) races.push_back("reads what is being written");
      m.reads[static_cast<int>(s)] = now;
    }
    for (const auto& [at, size] : writes) {
      memory_state& m = memory_[at];
      if (!after(s, m.write.by, m.write.tick)) races.push_back("writes what is being written");
      for (const auto& [reader, when] : m.reads)
        if (!after(s, stream(reader), when)) races.push_back("writes what is being read");
      m.reads.clear();
      m.write = {s, now};
    }
    if (of(s).capture != 0)
      captured_.push_back(std::move(work));
    else
      work();
  }

  std::mutex mutex_;
  std::vector<stream_state> streams_;
  std::vector<event_state> events_;
  std::map<const void*, memory_state> memory_;  // by first byte
  std::vector<std::vector<std::function<void()>>> graphs_;
  std::vector<std::function<void()>> captured_;
  std::vector<stream> joined_;
  std::map<std::thread::id, int> devices_;
  std::deque<std::vector<std::uint32_t>> counters_;
  stream origin_{};
  int capture_ = 0, captures_ = 0;
};

/// The device_runtime of fake_device: an example of a port to another device.
struct fake_runtime {
  using status = fake_device::status;
  using stream = fake_device::stream;
  using event = fake_device::event;
  using graph = fake_device::graph;
  static constexpr std::string_view prefix = "fake";

  fake_device* device = nullptr;

  static bool succeeded(status s) { return s == fake_device::good; }
  static std::string text(status s) {
    return s == fake_device::made_to_fail           ? "made to fail"
           : s == fake_device::no_device            ? "the thread has not selected a device"
           : s == fake_device::forbidden_in_capture ? "not allowed during capture"
           : s == fake_device::isolation            ? "depends on uncaptured work"
                                                    : "not joined";
  }
  static constexpr status no_device = fake_device::no_device;
  static status count_devices(int& count) { return count = 1, fake_device::good; }
  status set_device(int which) { return device->set_device(which); }
  status make_stream(int which, int, stream& s) { return device->make_stream(which, s); }
  status make_event(int which, bool, event& e) { return device->make_event(which, e); }
  status connect(int from, int) { return device->connect(from); }
  status record(event e, stream s) { return device->record(e, s); }
  status wait(stream s, event e) { return device->wait(s, e); }
  status copy(stream s, void* to, int, const void* from, int, std::size_t n) { return device->copy(s, to, from, n); }
  status allocate_counters(int which, std::size_t n, std::uint32_t*& made) {
    return device->allocate_counters(which, n, made);
  }
  static void free_counters(std::uint32_t*) {}
  status write(stream s, std::uint32_t* counter, std::uint32_t value) { return device->write(s, counter, value); }
  status query(event e, bool& done) { return device->query(e, done); }
  status elapsed_ms(event, event, float& ms) {
    ms = 1;
    return device->other("EventElapsedTime");
  }
  status begin_capture(stream s) { return device->begin_capture(s); }
  status end_capture(stream s, graph& g) { return device->end_capture(s, g); }
  status launch(graph g, stream) { return device->launch(g); }
  static void destroy(stream) {}
  static void destroy(event) {}
  static void destroy(graph) {}
};
static_assert(device_runtime<fake_runtime>);

}  // namespace pipesched::tests
