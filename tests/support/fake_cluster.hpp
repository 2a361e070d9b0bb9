// SPDX-License-Identifier: MIT
#pragma once

// Simulated devices and a simulated message library for many ranks. Enqueued work is recorded; play() then executes it in a
// random order that these rules allow, without knowledge of programs or transports:
//
// * the items of a hardware queue run in FIFO order; each stream has its own queue, or streams share queues;
// * a wait completes when the event has reached the record that the wait refers to;
// * a message runs when the n-th send and the n-th receive of its communicator are both at the front of their queues; their
//   sizes must be equal.
//
// A receive is reported, too, if it could get to the front of its queue, and so hold the device, before the trainer's kernels of
// this device have got as far as the test's plan says.
//
// Every stream has a vector clock, and a message joins the clocks of its two streams. Unordered accesses to the same memory
// are reported as races, and so is any runtime call by a thread that has not selected a device.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/device/message_library.hpp"
#include "pipesched/device/runtime.hpp"

namespace pipesched::tests {

class fake_cluster {
 public:
  enum class stream : int { none = -1 };
  enum class event : int {};
  enum class graph : int {};
  enum class communicator : int { none };
  enum status : int { good = 0, no_device = 101, made_to_fail = 700 };
  enum library_status : int { ok = 0, failed = 3, going = 7 };
  using range = std::pair<const void*, std::size_t>;

  /// @param queues  hardware queues per device, assigned to its streams round robin; 0: one per stream
  explicit fake_cluster(int queues = 0, std::uint64_t seed = 1) : queues_of_device_(queues), random_(seed) {}

  // Queries report the actual progress if true, else that everything has completed.
  bool live = false;
  // The runtime or library call with number `fails_at` fails; library call number `hangs_after` named `hangs_in` never
  // completes.
  std::int64_t calls = 0, fails_at = -1, hangs_after = 0;
  std::string hangs_in, fails_in;  // all runtime calls named `fails_in` fail
  std::string failed_call;
  std::thread::id failed_on;
  int makes = 0, messages = 0, closed = 0, aborts = 0, registered = 0;
  std::vector<std::string> races;
  std::vector<int> priorities;                     // of streams
  std::map<std::string, channel_options> options;  // of communicators, by name
  // The plan: by name of a communicator and number of its message, the kernels that the receiver's device has done before the
  // receive starts. Empty: any receive may start at any time.
  std::map<std::string, std::vector<std::uint64_t>> kernels_before_receive;
  // Mutants.
  std::atomic<bool> aborts_hang = false;  // while true, no abort returns
  std::atomic<int> hangs_on = -1;         // while this is a device, no kernel of its trainer ends
  bool aborts_break_peers = false;        // the peer's state() then reports a failure, as over a network
  bool aborted_sends_arrive = true;       // those that had not begun may, at random
  bool drops_waits_of_compute = false, drops_waits_of_messages = false;

  /// Number of calls by this thread so far.
  std::int64_t own_calls() {
    const std::lock_guard lock(mutex_);
    return calls_of_thread_[std::this_thread::get_id()];
  }
  /// Number of enqueued items that have not run.
  std::size_t left() {
    const std::lock_guard lock(mutex_);
    std::size_t sum = 0;
    for (const queue& q : queues_) sum += q.items.size();
    return sum;
  }
  /// Runs everything that can run. Returns a description of the blocked queues; empty if all work has completed.
  std::string play() {
    const std::lock_guard lock(mutex_);
    advance();
    std::string left;
    for (std::size_t q = 0; q < queues_.size(); ++q)
      if (!queues_[q].items.empty()) left += describe(q) + "\n";
    return left;
  }
  /// Mutates the recorded work: moves every receive to right after the message before it in its channel.
  void hurry_receives() {
    for (queue& q : queues_)
      for (std::size_t i = 2; i < q.items.size(); ++i) {  // record, wait, receive
        if (q.items[i].is != kind::receive || q.items[i - 1].is != kind::wait || q.items[i - 2].is != kind::record)
          continue;
        std::size_t to = i - 2;
        while (to > 0 && q.items[to - 1].of != q.items[i].of) --to;
        if (to == 0) continue;  // the first one
        const auto begin = q.items.begin();
        std::rotate(begin + static_cast<std::ptrdiff_t>(to), begin + static_cast<std::ptrdiff_t>(i) - 2,
                    begin + static_cast<std::ptrdiff_t>(i) + 1);
      }
  }
  /// Mutates the recorded work: swaps the n-th message of a device with the next one. False if there are no two.
  bool swap_messages(int device, std::size_t n) {
    for (queue& q : queues_) {
      if (q.device != device) continue;
      for (std::size_t i = 0; i < q.items.size(); ++i) {
        if (q.items[i].is != kind::send && q.items[i].is != kind::receive) continue;
        if (n-- > 0) continue;
        for (std::size_t j = i + 1; j < q.items.size(); ++j)
          if (q.items[j].is == kind::send || q.items[j].is == kind::receive) {
            std::swap(q.items[i], q.items[j]);
            return true;
          }
        return false;
      }
    }
    return false;
  }

  status make_stream(int device, int priority, stream& s) {
    choose(device);
    return call("StreamCreateWithPriority", [&] {
      ++makes;
      priorities.push_back(priority);
      s = stream(static_cast<int>(streams_.size()));
      const int number = static_cast<int>(
          std::count_if(streams_.begin(), streams_.end(), [&](const stream_state& o) { return o.device == device; }));
      std::size_t q = queues_.size();
      for (std::size_t i = 0; i < queues_.size(); ++i)
        if (queues_of_device_ > 0 && queues_[i].device == device && queues_[i].number == number % queues_of_device_)
          q = i;
      if (q == queues_.size())
        queues_.push_back({device, queues_of_device_ > 0 ? number % queues_of_device_ : number, {}});
      streams_.push_back({device, q, {}});
      return good;
    });
  }
  status make_event(int device, event& e) {
    choose(device);
    return call("EventCreateWithFlags", [&] {
      ++makes;
      e = event(static_cast<int>(events_.size()));
      events_.push_back({});
      return good;
    });
  }
  status record(event e, stream s) {
    return call("EventRecord", [&] {
      put(s, {.is = kind::record, .event = e, .version = ++of(e).recorded});
      return good;
    });
  }
  status wait(stream s, event e) {
    return call("StreamWaitEvent", [&] {
      if (of(e).recorded == 0) races.push_back("waits for an event that was never recorded");
      const bool carries_messages = message_streams_.count(s) > 0;
      if (carries_messages ? drops_waits_of_messages : drops_waits_of_compute) return good;
      put(s, {.is = kind::wait, .event = e, .version = of(e).recorded});
      return good;
    });
  }
  status copy(stream s, void* to, const void* from, std::size_t size) {
    return call("MemcpyPeerAsync", [&] {
      const auto work = [=] { std::memcpy(to, from, size); };
      put(s, {.is = kind::work, .reads = {{from, size}}, .writes = {{to, size}}, .work = work});
      return good;
    });
  }
  status allocate_counters(int device, std::size_t count, std::uint32_t*& made) {
    choose(device);
    return call("HostAlloc", [&] {
      ++makes;
      made = counters_.emplace_back(count, 0u).data();  // for as long as the cluster: work may be played late
      return good;
    });
  }
  status write(stream s, std::uint32_t* counter, std::uint32_t value) {
    return call("StreamWriteValue32", [&] {
      put(s, {.is = kind::work, .work = [=] { std::atomic_ref(*counter).store(value, std::memory_order_release); }});
      return good;
    });
  }
  status query(event e, bool& done) {
    return call("EventQuery", [&] {
      if (live) advance();
      done = !live || of(e).has_reached(of(e).recorded);
      return good;
    });
  }
  status set_device(int device) {
    choose(device);
    return call("SetDevice", [] { return good; });
  }
  status other(std::string_view name) {
    return call(name, [] { return good; });
  }
  void kernel(stream s, const std::vector<range>& reads, const std::vector<range>& writes, std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    put(s, {.is = kind::work, .reads = reads, .writes = writes, .work = std::move(work), .of_trainer = true});
  }

  library_status make_id(std::string& id) {
    return library_call("GetUniqueId", [&] { return id = "id " + std::to_string(++ids_), ok; });
  }
  // Waits for the other end.
  library_status connect(const std::string& id, int end, const channel_options& with, const std::string& name,
                         communicator& made, const std::function<bool()>& goes_on) {
    const library_status begun = library_call("CommInitRank", [&] {
      pair& p = pairs_[id];
      p.ends[end] = true;
      if (p.first == communicator::none) {
        p.first = communicator(static_cast<int>(sides_.size()) + 1);
        for (const int rank : {0, 1})
          sides_.push_back({.rank = rank, .other = static_cast<int>(p.first) + 1 - rank, .name = name});
      }
      options[name] = with;
      made = communicator(static_cast<int>(p.first) + end);
      return ok;
    });
    const auto complete = [&] {
      const std::lock_guard lock(mutex_);
      return pairs_[id].ends[0] && pairs_[id].ends[1];
    };
    while (begun == going || (begun == ok && !complete())) {
      if (!goes_on()) return going;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return begun;
  }
  library_status state(communicator c) {
    return library_call("CommGetAsyncError", [&] { return of(c).broken ? failed : ok; });
  }
  library_status message(communicator c, bool sends, std::byte* bytes, std::size_t size, stream s) {
    const library_status begun = library_call(sends ? "Send" : "Recv", [&] {
      if (of(c).rank != (sends ? 0 : 1) || of(c).aborted) return failed;
      ++messages;
      if (!of(c).registered.empty() && !is_registered(of(c), bytes, size))
        races.push_back("a message from or into memory of which only a part is registered");
      message_streams_[s] = true;
      put(s,
          {.is = sends ? kind::send : kind::receive, .of = c, .number = of(c).issued++, .bytes = bytes, .size = size});
      return ok;
    });
    while (begun == going && !is_aborted(c)) std::this_thread::sleep_for(std::chrono::microseconds(100));
    return begun == going ? failed : begun;
  }
  library_status close() {
    return library_call("CommDestroy", [&] { return ++closed, ok; });
  }
  void abort(communicator c) {
    library_call("CommAbort", [&] {
      ++aborts;
      of(c).aborted = true;
      if (aborts_break_peers) of(communicator(of(c).other)).broken = true;
      return ok;
    });
    if (aborts_break_peers) std::this_thread::sleep_for(std::chrono::milliseconds(30));
    while (aborts_hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  library_status register_memory(communicator c, const range& memory) {
    return library_call("CommRegister", [&] { return ++registered, of(c).registered.push_back(memory), ok; });
  }
  // Makes state() report a failure for the communicators with this name.
  void break_communicators(std::string_view name) {
    const std::lock_guard lock(mutex_);
    for (side& s : sides_) s.broken = s.broken || s.name == name;
  }

 private:
  enum class kind { work, record, wait, send, receive };
  struct item {
    kind is = kind::work;
    fake_cluster::event event{};
    std::uint64_t version = 0;
    communicator of{};
    std::uint64_t number = 0;
    std::byte* bytes = nullptr;
    std::size_t size = 0;
    std::vector<range> reads{}, writes{};
    std::function<void()> work{};
    bool of_trainer = false;
    stream in{};
  };
  struct queue {
    int device = 0, number = 0;
    std::deque<item> items;
  };
  using clock = std::map<int, std::uint64_t>;  // by stream
  struct stream_state {
    int device = 0;
    std::size_t queue = 0;
    clock now;
  };
  struct event_state {
    std::uint64_t recorded = 0;
    std::map<std::uint64_t, clock> at;  // by record; those of different streams come in any order
    bool has_reached(std::uint64_t version) const { return version == 0 || at.count(version) > 0; }
  };
  struct side {  // one end of a communicator
    int rank = 0, other = 0;
    std::uint64_t issued = 0, done = 0;
    bool aborted = false, broken = false;
    std::string name{};
    std::vector<range> registered{};
  };
  struct pair {
    bool ends[2]{};
    communicator first = communicator::none;
  };
  struct memory_state {
    std::pair<int, std::uint64_t> write{-1, 0};  // stream and its time
    clock reads;
  };

  template <typename Body>
  status call(std::string_view name, Body&& body) {
    const std::lock_guard lock(mutex_);
    ++calls_of_thread_[std::this_thread::get_id()];
    if (devices_.count(std::this_thread::get_id()) == 0) {  // a real runtime would create a context on device 0
      races.push_back(std::string(name) + " by a thread that has not selected a device");
      return no_device;
    }
    if (calls++ == fails_at || name == fails_in) {
      failed_call = "fake" + std::string(name), failed_on = std::this_thread::get_id();
      return made_to_fail;
    }
    return body();
  }
  void choose(int device) {
    const std::lock_guard lock(mutex_);
    devices_[std::this_thread::get_id()] = device;
  }
  template <typename Body>
  library_status library_call(std::string_view name, Body&& body) {
    const std::lock_guard lock(mutex_);
    const std::int64_t number = calls++;
    ++calls_of_thread_[std::this_thread::get_id()];
    const bool hangs = name == hangs_in && hangs_after-- == 0;
    if (number == fails_at || hangs) {
      failed_call = "lib" + std::string(name), failed_on = std::this_thread::get_id();
      return hangs ? going : failed;
    }
    return body();
  }
  stream_state& of(stream s) { return streams_.at(static_cast<std::size_t>(s)); }
  event_state& of(event e) { return events_.at(static_cast<std::size_t>(e)); }
  side& of(communicator c) { return sides_.at(static_cast<std::size_t>(c) - 1); }
  static bool is_registered(const side& s, const std::byte* bytes, std::size_t size) {
    return std::any_of(s.registered.begin(), s.registered.end(), [&](const range& r) {
      return r.first <= bytes && bytes + size <= static_cast<const std::byte*>(r.first) + r.second;
    });
  }
  bool is_aborted(communicator c) {
    const std::lock_guard lock(mutex_);
    return of(c).aborted;
  }

  void put(stream s, item i) {
    i.in = s;
    queue& q = queues_[of(s).queue];
    q.items.push_back(std::move(i));
    if (q.items.size() == 1) check_plan(q);
  }
  void pop(queue& q) {
    q.items.pop_front();
    check_plan(q);
  }
  // The kernels of the stream's device that it has waited for, whatever order the queues run in.
  std::uint64_t kernels_before(stream s) {
    const std::deque<std::pair<int, std::uint64_t>>& kernels = kernels_[of(s).device];
    clock& now = of(s).now;
    return static_cast<std::uint64_t>(
        std::count_if(kernels.begin(), kernels.end(), [&](const auto& k) { return k.second <= now[k.first]; }));
  }
  void check_plan(const queue& q) {
    if (kernels_before_receive.empty() || q.items.empty() || q.items.front().is != kind::receive) return;
    const item& i = q.items.front();
    const std::vector<std::uint64_t>& plan = kernels_before_receive[of(i.of).name];
    if (i.number >= plan.size())
      races.push_back("a receive that is not in the plan");
    else if (kernels_before(i.in) < plan[i.number])
      races.push_back("a receive before its planned action");
  }

  bool can_run(std::size_t q) {
    if (queues_[q].items.empty()) return false;
    const item& i = queues_[q].items.front();
    if (i.of_trainer && queues_[q].device == hangs_on) return false;
    if (i.is == kind::wait) return of(i.event).has_reached(i.version);
    if (i.is != kind::send && i.is != kind::receive) return true;
    return of(i.of).aborted || (of(i.of).done == i.number && other_side(i) < queues_.size());
  }
  // The queue with the matching send or receive at its front; queues_.size() if no queue has it.
  std::size_t other_side(const item& i) {
    for (std::size_t q = 0; q < queues_.size(); ++q) {
      if (queues_[q].items.empty()) continue;
      const item& front = queues_[q].items.front();
      if (static_cast<int>(front.of) == of(i.of).other && front.number == i.number && front.is != i.is &&
          of(front.of).done == front.number && (aborted_sends_arrive || !of(front.of).aborted))
        return q;
    }
    return queues_.size();
  }
  void advance() {
    std::vector<std::size_t> able;
    while (true) {
      able.clear();
      for (std::size_t q = 0; q < queues_.size(); ++q)
        if (can_run(q)) able.push_back(q);
      if (able.empty()) return;
      take(able[random_() % able.size()]);
    }
  }
  void take(std::size_t q) {
    item i = std::move(queues_[q].items.front());
    clock& now = of(i.in).now;
    const int s = static_cast<int>(i.in);
    if (i.is == kind::send || i.is == kind::receive) {
      if (of(i.of).aborted) {
        ++of(i.of).done;
      } else {
        const std::size_t other = other_side(i);
        item there = std::move(queues_[other].items.front());
        const item &from = i.is == kind::send ? i : there, &into = i.is == kind::send ? there : i;
        if (from.size != into.size) races.push_back("a send and its receive differ in size");
        ++of(i.of).done, ++of(there.of).done;
        join(now, of(there.in).now), join(of(there.in).now, now);
        touch(static_cast<int>(from.in), {{from.bytes, from.size}}, {});
        touch(static_cast<int>(into.in), {}, {{into.bytes, into.size}});
        std::memcpy(into.bytes, from.bytes, std::min(from.size, into.size));
        join(now, of(there.in).now), join(of(there.in).now, now);
        pop(queues_[other]);
      }
    } else if (i.is == kind::wait) {
      join(now, of(i.event).at[i.version]);
    } else if (i.is == kind::record) {
      ++now[s];
      of(i.event).at[i.version] = now;
    } else {
      touch(s, i.reads, i.writes);
      i.work();
      if (i.of_trainer) kernels_[of(i.in).device].emplace_back(s, now[s]);
    }
    pop(queues_[q]);
  }
  static void join(clock& into, const clock& from) {
    for (const auto& [s, when] : from) into[s] = std::max(into[s], when);
  }
  void touch(int s, const std::vector<range>& reads, const std::vector<range>& writes) {
    clock& now = of(stream(s)).now;
    const std::uint64_t when = ++now[s];
    const auto after = [&](int other, std::uint64_t time) { return time == 0 || now[other] >= time; };
    for (const range& r : reads) {
      memory_state& m = memory_[r.first];
      if (!after(m.write.first, m.write.second)) races.push_back("reads what is being written");
      m.reads[s] = when;
    }
    for (const range& r : writes) {
      memory_state& m = memory_[r.first];
      if (!after(m.write.first, m.write.second)) races.push_back("writes what is being written");
      for (const auto& [reader, time] : m.reads)
        if (!after(reader, time)) races.push_back("writes what is being read");
      m.reads.clear();
      m.write = {s, when};
    }
  }
  std::string describe(std::size_t q) {
    const item& i = queues_[q].items.front();
    const std::string at = "device " + std::to_string(queues_[q].device) + ": ";
    if (i.is == kind::wait) return at + "waits for another queue";
    return at + (i.is == kind::send ? "sends message " : "receives message ") + std::to_string(i.number) + " of " +
           of(i.of).name;
  }

  std::mutex mutex_;
  int queues_of_device_;
  std::mt19937_64 random_;
  std::vector<stream_state> streams_;
  std::vector<event_state> events_;
  std::vector<queue> queues_;
  std::map<std::string, pair> pairs_;  // by id
  int ids_ = 0;
  std::deque<std::vector<std::uint32_t>> counters_;
  std::vector<side> sides_;
  std::map<stream, bool> message_streams_;
  std::map<int, std::deque<std::pair<int, std::uint64_t>>> kernels_;  // by device: stream and its time
  std::map<const void*, memory_state> memory_;                        // by first byte
  std::map<std::thread::id, std::int64_t> calls_of_thread_;
  std::map<std::thread::id, int> devices_;  // selected, by thread
};

struct cluster_runtime {
  using status = fake_cluster::status;
  using stream = fake_cluster::stream;
  using event = fake_cluster::event;
  using graph = fake_cluster::graph;
  static constexpr std::string_view prefix = "fake";

  fake_cluster* cluster = nullptr;

  static bool succeeded(status s) { return s == fake_cluster::good; }
  static std::string text(status s) {
    return s == fake_cluster::no_device ? "the thread has not selected a device" : "made to fail";
  }
  static constexpr status no_device = fake_cluster::no_device;
  static status count_devices(int& count) { return count = 1, fake_cluster::good; }
  status set_device(int device) { return cluster->set_device(device); }
  status make_stream(int device, int priority, stream& s) { return cluster->make_stream(device, priority, s); }
  status make_event(int device, bool, event& e) { return cluster->make_event(device, e); }
  status connect(int, int) { return fake_cluster::good; }
  status record(event e, stream s) { return cluster->record(e, s); }
  status wait(stream s, event e) { return cluster->wait(s, e); }
  status copy(stream s, void* to, int, const void* from, int, std::size_t n) { return cluster->copy(s, to, from, n); }
  status allocate_counters(int device, std::size_t n, std::uint32_t*& made) {
    return cluster->allocate_counters(device, n, made);
  }
  static void free_counters(std::uint32_t*) {}
  status write(stream s, std::uint32_t* counter, std::uint32_t value) { return cluster->write(s, counter, value); }
  status query(event e, bool& done) { return cluster->query(e, done); }
  status elapsed_ms(event, event, float& ms) { return ms = 1, cluster->other("EventElapsedTime"); }
  status begin_capture(stream) { return fake_cluster::made_to_fail; }
  status end_capture(stream, graph&) { return fake_cluster::made_to_fail; }
  status launch(graph, stream) { return fake_cluster::made_to_fail; }
  static void destroy(stream) {}
  static void destroy(event) {}
  static void destroy(graph) {}
};
static_assert(device_runtime<cluster_runtime>);

struct cluster_library {
  using status = fake_cluster::library_status;
  using communicator = fake_cluster::communicator;
  using stream = fake_cluster::stream;
  static constexpr std::string_view prefix = "lib";

  fake_cluster* cluster = nullptr;

  static bool succeeded(status s) { return s == fake_cluster::ok; }
  static std::string text(status s) { return s == fake_cluster::failed ? "made to fail" : "given up"; }
  status make_id(std::string& id) { return cluster->make_id(id); }
  status connect(const std::string& id, int end, const channel_options& with, const std::string& name,
                 communicator& made, const std::function<bool()>& goes_on) {
    return cluster->connect(id, end, with, name, made, goes_on);
  }
  status send(communicator c, const void* from, std::size_t size, stream s) {
    return cluster->message(c, true, static_cast<std::byte*>(const_cast<void*>(from)), size, s);
  }
  status receive(communicator c, void* into, std::size_t size, stream s) {
    return cluster->message(c, false, static_cast<std::byte*>(into), size, s);
  }
  status state(communicator c) { return cluster->state(c); }
  status register_memory(communicator c, void* memory, std::size_t size, void*&) {
    return cluster->register_memory(c, {memory, size});
  }
  static status deregister_memory(communicator, void*) { return fake_cluster::ok; }
  void close(communicator c) {
    if (!succeeded(cluster->close())) abort(c);
  }
  void abort(communicator c) { cluster->abort(c); }
  static std::string refuses_capture() { return {}; }
};
static_assert(message_library<cluster_library, fake_cluster::stream>);

}  // namespace pipesched::tests
