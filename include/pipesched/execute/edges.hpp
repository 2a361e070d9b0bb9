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
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/device.hpp"
#include "pipesched/execute/message_library.hpp"
#include "pipesched/execute/notice_board.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched {

/// Options of edge_transport.
struct edge_transport_options {
  std::vector<int> rank_map = {};  ///< of every pipeline rank its rank in the communicator; empty: the same
  edge_options edge = {};
  std::function<edge_options(const channel&)> edge_of = {};  ///< for each channel its own, instead of `edge`
  bool timed = false;                                        ///< measure every cell: two events more for each
  bool enlists_buffers = false;                              ///< tell the library of all buffers; on all ranks or none
  std::chrono::duration<double> time_limit{60};              ///< how long nothing may move within a step
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

/// @pre every function but abort(), hear(), error(), stopped(), aborted() is called by the rank's own thread
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
    std::string name{};
  };

  edge_set(L library, notice_board& board, const edge_transport_options& options)
      : library_(std::move(library)), board_(board), options_(options) {}

  /// @throws device_error
  template <typename Where>
  void make(R& runtime, const program& p, std::uint32_t rank, int device, const Where& where) {
    const std::vector<std::uint32_t> rounds = split_rounds(p.channels, p.schedule.pp());
    rounds_ = count_rounds(rounds);
    for (std::uint32_t c = 0; c < p.channels.size(); ++c) {
      const channel& of = p.channels[c];
      if (of.from != rank && of.to != rank) continue;
      edge& e = edges_.emplace_back(edge{.channel = c, .round = rounds[c], .sends = of.from == rank});
      e.name = concat({"pipesched ", of.from, " to ", of.to});
      e.stream = make_stream(runtime, device, options_of(of).stream_priority, where);
    }
    std::sort(edges_.begin(), edges_.end(), [](const edge& a, const edge& b) { return a.round < b.round; });
    by_channel_.resize(p.channels.size());
    for (edge& e : edges_) by_channel_[e.channel] = &e;
  }
  /// Takes part in every round, with the edge that it has in it or with none. Collective.
  /// @throws device_error, pipeline_aborted
  template <typename Where>
  void split(communicator parent, const program& p, const Where& where) {
    std::size_t next = 0;
    for (std::uint32_t round = 0; round < rounds_; ++round) {
      edge none, &own = next < edges_.size() && edges_[next].round == round ? edges_[next++] : none;
      if (&own == &none) {
        split(parent, -1, 0, {}, none, where);
        continue;
      }
      const channel& c = p.channels[own.channel];
      split(parent, options_.rank_map[c.from], own.sends ? 0 : 1, options_of(c), own, where);
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
    settle(e.sends ? "Send" : "Recv", begun, where, [&](status& of) { return library_.state(e.of, of); });
  }
  template <typename Where>
  void enlist(edge& e, std::byte* bytes, std::size_t size, const Where& where) {
    void* handle = nullptr;
    require(library_, checked([&] { return library_.enlist(e.of, bytes, size, handle); }), "CommRegister", where);
    e.enlisted.push_back(handle);
  }

  /// Ends all messages under way, and tells all processes. The first failure of all is the cause.
  void abort(const std::string& text) {
    if (stop()) say(board_.tell_failure(text));
  }
  /// The same if another process has told of a failure; `place()`: where this one is. False if none has.
  template <typename Place>
  bool hear(Place&& place) {
    const auto failed = board_.failure();
    if (!failed) return false;
    const std::string here = place();  // before messages that are ended seem to have moved
    if (stop()) say(failed->find(here) == std::string::npos ? concat({*failed, "\nthis is ", here}) : *failed);
    return true;
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
      const bool asked = library_.succeeded(library_.state(e.of, of));
      if (asked && (library_.succeeded(of) || library_.in_progress(of))) continue;
      const channel& c = p.channels[e.channel];
      return concat({"messages from rank ", c.from, " to rank ", c.to, ": ", library_.text(of), " (", L::prefix, " ",
                     static_cast<int>(of), ")"});
    }
    return {};
  }

  /// Frees the communicators, once nothing is under way. Waits for the other ranks, but not for long.
  void close() {
    if (stopped()) return;
    const auto start = clock::now();
    for (edge& e : edges_) {
      for (void* handle : e.enlisted) library_.dismiss(e.of, handle);
      status of = library_.finalize(e.of);
      while (library_.in_progress(of) && clock::now() - start < options_.time_limit / 4 && !board_.failure()) {
        std::this_thread::yield();
        if (!library_.succeeded(library_.state(e.of, of))) break;
      }
      library_.succeeded(of) ? library_.destroy(e.of) : library_.abort(e.of);
    }
  }

 private:
  using clock = std::chrono::steady_clock;

  edge_options options_of(const channel& c) const { return options_.edge_of ? options_.edge_of(c) : options_.edge; }

  template <typename Where>
  void split(communicator parent, int color, int key, const edge_options& options, edge& own, const Where& where) {
    const status begun = checked([&] { return library_.split(parent, color, key, options, own.name, own.of); });
    settle("CommSplit", begun, where, [&](status& of) {
      const status asked = library_.state(parent, of);
      if (color < 0 || own.of == communicator{} || !library_.succeeded(asked) || !library_.succeeded(of)) return asked;
      return library_.state(own.of, of);
    });
    const std::lock_guard lock(mutex_);
    own.is_split = true;
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
  // Until what a call has begun has ended.
  template <typename Where, typename State>
  void settle(std::string_view name, status of, const Where& where, State&& state) {
    const auto start = clock::now();
    while (library_.in_progress(of)) {
      std::this_thread::yield();
      require(library_, checked([&] { return state(of); }), "CommGetAsyncError", where);
      if (clock::now() - start < options_.time_limit) continue;
      abort(concat({where(), ": ", L::prefix, name, " did not come to its end within the time limit"}));
      give_up();
    }
    require(library_, of, name, where);
  }

  // False if that has been done. A call that does not return is ended by it, too, after a while.
  bool stop() {
    std::unique_lock lock(mutex_, std::defer_lock);
    for (const auto start = clock::now(); !lock.try_lock() && clock::now() - start < options_.time_limit / 4;)
      std::this_thread::yield();
    if (stopped_.exchange(true)) return false;
    for (edge& e : edges_)
      if (e.of != communicator{}) library_.abort(e.of);
    return true;
  }
  void say(std::string cause) {
    cause_ = std::move(cause);
    aborted_.store(true, std::memory_order_release);
  }

  L library_;
  notice_board& board_;
  const edge_transport_options& options_;
  std::uint32_t rounds_ = 0;
  std::vector<edge> edges_;        // by round
  std::vector<edge*> by_channel_;  // none where it is not of this rank
  std::mutex mutex_;               // of the library, and of the edges' communicators
  std::atomic<bool> stopped_{false}, aborted_{false};
  std::string cause_;
};

}  // namespace detail

}  // namespace pipesched
