// SPDX-License-Identifier: MIT
#pragma once

// The communicators of one rank, of two ranks each: one for every channel that it sends into or receives from, with a
// stream of its own. And their end, when something fails: whoever stops them says why, to all processes.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/device/device.hpp"
#include "pipesched/device/message_library.hpp"
#include "pipesched/execute/callbacks.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Options of edge_transport.
struct edge_transport_options {
  std::vector<int> rank_map = {};  ///< of every pipeline rank its rank in the communicator; empty: the same
  edge_options edge = {};
  std::function<edge_options(const channel&)> edge_of = {};  ///< for each channel its own, instead of `edge`
  bool timed = false;                                        ///< measure every cell: two events more for each
  bool enlists_buffers = false;                              ///< tell the library of all buffers; on all ranks or none
  std::chrono::duration<double> time_limit{600};             ///< how long nothing may move within a step, in seconds
};

namespace detail {

/// The pipeline rank of this rank of the communicator. @throws schedule_error unless the map is one
template <typename L>
std::uint32_t pipeline_rank(L& library, typename L::communicator parent, std::uint32_t pp, std::vector<int>& map) {
  const auto where = [] { return std::string("looking for its pipeline rank"); };
  int own = 0, size = 0;
  require(library, library.rank_in(parent, own), "CommUserRank", where);
  require(library, library.size_of(parent, size), "CommCount", where);
  if (map.empty()) {
    if (static_cast<std::uint32_t>(size) != pp)
      throw schedule_error(concat(
          {"a program of ", pp, " pipeline ranks needs as many; the communicator has ", size, ": give a rank map"}));
    for (int r = 0; r < size; ++r) map.push_back(r);
  }
  if (map.size() != pp)
    throw schedule_error(
        concat({"a program of ", pp, " pipeline ranks needs a rank map of as many; got ", map.size()}));
  std::vector<bool> used(static_cast<std::size_t>(size));
  for (const int r : map) {
    if (r < 0 || r >= size || used[static_cast<std::size_t>(r)])
      throw schedule_error(
          concat({"a rank map has ranks of the communicator, 0 to ", size - 1, ", each at most once; got ", r}));
    used[static_cast<std::size_t>(r)] = true;
  }
  const auto at = std::find(map.begin(), map.end(), own);
  if (at == map.end())
    throw schedule_error(
        concat({"rank ", own, " of the communicator is not in the rank map: take_no_part() is for it"}));
  return static_cast<std::uint32_t>(at - map.begin());
}

/// @pre every function but abort(), hear(), hears_why(), error(), end_messages(), stopped(), aborted() and cause() is
/// called by the rank's own thread
template <device_runtime R, message_library<typename R::stream> L>
class edge_set {
 public:
  using communicator = typename L::communicator;
  using status = typename L::status;

  struct edge {
    std::uint32_t channel = 0, round = 0;
    bool sends = false;
    bool is_split = false;
    communicator of{};
    device_handle<R, typename R::stream> stream{};
    std::vector<void*> enlisted{};
  };

  edge_set(L library, coordinator& job, const edge_transport_options& options)
      : library_(std::move(library)), job_(job), options_(options) {}

  /// @throws device_error; schedule_error for limits of CTAs that cannot be
  template <typename Where>
  void make(R& runtime, const program& p, std::uint32_t rank, int device, const Where& where) {
    const std::vector<std::uint32_t> rounds = split_rounds(p.channels, p.schedule.pp());
    rounds_ = count_rounds(rounds);
    for (std::uint32_t c = 0; c < p.channels.size(); ++c) {
      const channel& of = p.channels[c];
      if (of.from != rank && of.to != rank) continue;
      edge& e = edges_.emplace_back(edge{.channel = c, .round = rounds[c], .sends = of.from == rank});
      check_ctas(options_of(of), concat({"the channel from rank ", of.from, " to rank ", of.to}));
      e.stream = make_stream(runtime, device, options_of(of).stream_priority, where);
    }
    std::sort(edges_.begin(), edges_.end(), [](const edge& a, const edge& b) { return a.round < b.round; });
    by_channel_.resize(p.channels.size());
    for (edge& e : edges_) by_channel_[e.channel] = &e;
  }
  /// Takes part in every round, with the edge that it has in it or with none. Collective.
  /// @throws device_error, pipeline_aborted; the parent may then only be aborted
  template <typename Where>
  void split(communicator parent, const program& p, const Where& where) {
    std::size_t next = 0;
    for (std::uint32_t round = 0; round < rounds_; ++round) {
      if (next == edges_.size() || edges_[next].round != round) {
        split(parent, -1, 0, {}, "", where);
        continue;
      }
      edge& own = edges_[next++];
      const channel& c = p.channels[own.channel];
      const communicator made = split(parent, options_.rank_map[c.from], own.sends ? 0 : 1, options_of(c),
                                      concat({"pipesched ", c.from, " to ", c.to}), where);
      const std::lock_guard lock(mutex_);
      own.of = made, own.is_split = true;
    }
  }

  /// As they were split: no rank has two of one round.
  std::vector<edge>& all() { return edges_; }
  const std::vector<edge>& all() const { return edges_; }
  edge& of(std::uint32_t channel) { return *by_channel_[channel]; }
  L& library() { return library_; }

  /// Starts a message. @throws device_error, pipeline_aborted
  template <typename Where>
  void move(edge& e, std::byte* bytes, std::size_t size, const Where& where) {
    const typename R::stream s = e.stream.handle();
    const status begun = checked(
        [&] { return e.sends ? library_.send(e.of, 1, bytes, size, s) : library_.receive(e.of, 0, bytes, size, s); });
    settle(e.sends ? "Send" : "Recv", begun, e.of, where);
  }
  template <typename Where>
  void enlist(edge& e, std::byte* bytes, std::size_t size, const Where& where) {
    void* handle = nullptr;
    require_good(checked([&] { return library_.enlist(e.of, bytes, size, handle); }), "CommRegister", where);
    e.enlisted.push_back(handle);
  }

  /// No message begins any more, and all processes are told why; the first failure of all is the cause.
  void abort(std::string text) {
    if (stopped_.exchange(true)) return;
    try {
      text = job_.report_failure(text);
    } catch (...) {  // of a job that cannot: what has failed here is known
    }
    say(std::move(text));
  }
  /// The same if another process has told of a failure; `place()`: where this one is. False if none has.
  template <typename Place>
  bool hear(const Place& place) {
    const auto failed = job_.failure();
    if (!failed) return false;
    const std::string here = place();
    std::string text = failed->find(here) == std::string::npos ? concat({*failed, "\nthis is ", here}) : *failed;
    if (!stopped_.exchange(true)) say(std::move(text));
    return true;
  }
  /// Where a message fails because another process ends, the notice of that may come a little later.
  template <typename Place>
  bool hears_why(const Place& place) {
    const auto start = clock::now();
    const auto wait = std::min<std::chrono::duration<double>>(options_.time_limit / 20, std::chrono::milliseconds(200));
    do {
      if (hear(place)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    } while (clock::now() - start < wait);
    return false;
  }
  /// Ends all messages under way. @pre stopped(). May wait until graphs that hold messages have been destroyed
  void end_messages() {
    std::unique_lock lock(mutex_, std::defer_lock);  // a call that does not return is ended by this, too
    for (const auto start = clock::now(); !lock.try_lock() && clock::now() - start < options_.time_limit / 4;)
      std::this_thread::yield();
    if (ended_.exchange(true)) return;
    std::vector<communicator> all;
    for (const edge& e : edges_)
      if (e.is_split) all.push_back(e.of);
    if (lock) lock.unlock();  // nobody begins a call any more, and whoever wants to may be the one that is waited for
    library_.abort(all);
  }
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }
  bool aborted() const { return aborted_.load(std::memory_order_acquire); }
  const std::string& cause() const { return cause_; }
  [[noreturn]] void give_up() const {
    while (!aborted()) std::this_thread::yield();  // whoever has stopped them is about to say why
    throw pipeline_aborted("aborted: " + cause_);
  }
  void require_going() const {
    if (stopped()) give_up();
  }

  /// What has gone wrong with a message under way; empty if nothing has.
  std::string error(const program& p) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock() || stopped()) return {};
    for (const edge& e : edges_) {
      status of{};
      if (!e.is_split) continue;
      if (const status asked = library_.state(e.of, of); !library_.succeeded(asked)) of = asked;
      if (library_.succeeded(of) || library_.in_progress(of)) continue;
      const channel& c = p.channels[e.channel];
      return concat({"messages from rank ", c.from, " to rank ", c.to, ": ", library_.text(of), " (", L::prefix, " ",
                     static_cast<int>(of), ")"});
    }
    return {};
  }

  /// Frees the communicators, once nothing is under way. Waits for the other ranks, but not for long.
  void close() {
    if (stopped()) return end_messages();
    const auto start = clock::now();
    std::vector<communicator> unfinished;
    for (edge& e : edges_) {
      for (void* handle : e.enlisted) library_.dismiss(e.of, handle);
      status of = library_.finalize(e.of);
      while (library_.in_progress(of) && clock::now() - start < options_.time_limit / 4 && !job_.failure()) {
        std::this_thread::yield();
        if (!library_.succeeded(library_.state(e.of, of))) break;
      }
      if (library_.succeeded(of))
        library_.destroy(e.of);
      else
        unfinished.push_back(e.of);
    }
    library_.abort(unfinished);
  }

 private:
  using clock = std::chrono::steady_clock;

  // What a split is writing to, and reading from, until it has settled; the name until the communicator is freed.
  struct split_target {
    communicator of{};
    std::string name{};
  };

  edge_options options_of(const channel& c) const { return options_.edge_of ? options_.edge_of(c) : options_.edge; }

  template <typename Where>
  communicator split(communicator parent, int color, int key, const edge_options& options, const std::string& name,
                     const Where& where) {
    split_target& target = *keep(std::make_unique<split_target>(split_target{.name = name}));
    const status begun = checked([&] { return library_.split(parent, color, key, options, target.name, target.of); });
    // It may say that it has succeeded while it goes on; its communicator is there when the parent says that it has ended.
    settle("CommSplit", library_.succeeded(begun) ? ask(parent, where) : begun, parent, where);
    if (color < 0) return {};
    settle("CommSplit", ask(target.of, where), target.of, where);
    return target.of;
  }
  // For as long as the process lives: a split that failed may still be at it.
  static split_target* keep(std::unique_ptr<split_target> target) {
    struct kept {
      std::mutex mutex;
      std::vector<std::unique_ptr<split_target>> all;
    };
    static kept& forever = *new kept;
    const std::lock_guard lock(forever.mutex);
    return forever.all.emplace_back(std::move(target)).get();
  }

  // A call of the library: never two at a time, and none once the messages have been stopped.
  template <typename Call>
  status checked(Call&& call) {
    {
      const std::lock_guard lock(mutex_);
      if (!stopped()) return call();
    }
    give_up();
  }
  template <typename Where>
  status ask(communicator c, const Where& where) {
    status of{};
    require_good(checked([&] { return library_.state(c, of); }), "CommGetAsyncError", where);
    return of;
  }
  // Until what a call has begun with a communicator has ended.
  template <typename Where>
  void settle(std::string_view name, status of, communicator c, const Where& where) {
    const auto start = clock::now();
    for (auto heard = start; library_.in_progress(of); of = ask(c, where)) {
      std::this_thread::yield();
      const auto now = clock::now();
      if (now - heard > std::chrono::milliseconds(10)) hear(where), heard = now;
      if (now - start < options_.time_limit) continue;
      abort(concat({where(), ": ", L::prefix, name, " did not come to its end within the time limit"}));
    }
    require_good(of, name, where);
  }
  template <typename Where>
  void require_good(status of, std::string_view name, const Where& where) {
    if (library_.succeeded(of) || library_.in_progress(of)) return;
    if (hears_why(where)) give_up();
    require(library_, of, name, where);
  }

  void say(std::string cause) {
    cause_ = std::move(cause);
    aborted_.store(true, std::memory_order_release);
  }

  L library_;
  coordinator& job_;
  const edge_transport_options& options_;
  std::uint32_t rounds_ = 0;
  std::vector<edge> edges_;        // by round
  std::vector<edge*> by_channel_;  // none where it is not of this rank
  std::mutex mutex_;               // of the library, and of the edges' communicators
  std::atomic<bool> stopped_{false}, aborted_{false}, ended_{false};
  std::string cause_;
};

}  // namespace detail

}  // namespace pipesched
