// SPDX-License-Identifier: MIT
#pragma once

// The channels of one rank, each with a stream and a communicator of two ranks, and the end of them all when something fails:
// the first cause is reported to all processes, then messages are aborted. Nothing here waits without a bound, whatever a
// communicator or a kernel does.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/device/channel_progress.hpp"
#include "pipesched/device/handle.hpp"
#include "pipesched/device/message_library.hpp"
#include "pipesched/device/runtime.hpp"
#include "pipesched/execute/failure.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/program/launch_order.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Options of channel_transport.
struct channel_transport_options {
  std::vector<std::uint32_t> processes{};  ///< by pipeline rank: its process in the job; empty: the same number
  channel_options channel{};
  std::function<channel_options(const pipesched::channel&)>
      channel_of{};                ///< for each channel its own, instead of `channel`
  bool registers_buffers = false;  ///< registers all buffers with the library; on all ranks or none
  /// The order in which a rank starts its messages, the same on all ranks; empty: launch_order(program, rank). prepare() refuses
  /// one that does not fit the rank.
  std::function<std::vector<launch>(const program&, std::uint32_t rank)> order{};
  std::chrono::duration<double> time_limit = std::chrono::minutes(10);   ///< how long nothing may move within a step
  std::chrono::duration<double> start_limit = std::chrono::minutes(30);  ///< for connections and first messages
  std::chrono::duration<double> pause_limit =
      std::chrono::hours(1);  ///< how long a step may wait for a rank between its steps, beyond time_limit
  /// For each of on_failure, the aborted messages, and then a callback that the rank is in; NCCL needs half a second.
  std::chrono::duration<double> abort_limit = std::chrono::minutes(1);
  /// Called once before messages are aborted, with the cause, by a thread of the library: the place to abort the trainer's own
  /// communicators, whose kernels may keep the device.
  std::function<void(const std::string& cause)> on_failure{};
  /// Called when they have not ended within abort_limit; by default prints its text and ends the process, so that a launcher
  /// can restart the job.
  std::function<void(const std::string& text)> last_resort = [](const std::string& text) {
    std::fprintf(stderr, "pipesched: %s\n", text.c_str());
    std::_Exit(EXIT_FAILURE);
  };

  channel_options of(const pipesched::channel& c) const { return channel_of ? channel_of(c) : channel; }
};

namespace detail {

/// Runs each task in a thread of its own. False if some have not ended within the limit, which continue by themselves, or if
/// there is no thread.
inline bool run_within(std::chrono::duration<double> limit, std::vector<std::function<void()>> tasks) try {
  const auto left = std::make_shared<std::atomic<std::size_t>>(tasks.size());
  for (std::function<void()>& task : tasks)
    std::thread([left, task = std::move(task)] {
      try {
        task();
      } catch (...) {  // whatever a callback throws, the others run
      }
      --*left;
    }).detach();
  return wait_within(limit, [&] { return *left == 0; });
} catch (const std::system_error&) {
  return false;
}

/// A text that lives as long as the process: a connection that was given up may still read it.
inline const std::string& keep(std::string text) {
  static std::mutex& mutex = *new std::mutex;
  static std::deque<std::string>& kept = *new std::deque<std::string>;
  const std::lock_guard lock(mutex);
  return kept.emplace_back(std::move(text));
}

/// A color for each channel, from 0: no rank has two of one color. Ranks that connect their channels by color never wait in a
/// cycle, and many connect at once: by number, rank 0 would have to finish before rank 1 begins, and so on. Used only for
/// connecting; steps do not follow this order. A greedy edge coloring, with fewer than twice as many colors as the busiest rank
/// has channels.
inline std::vector<std::uint32_t> color_channels(const program& p) {
  std::vector<std::vector<bool>> used(p.actions.size());  // by rank and color
  std::vector<std::uint32_t> colors;
  for (const channel& c : p.channels) {
    std::uint32_t color = 0;
    const auto has_color = [&](std::uint32_t rank) { return color < used[rank].size() && used[rank][color]; };
    while (has_color(c.from) || has_color(c.to)) ++color;
    for (const std::uint32_t rank : {std::uint32_t{c.from}, std::uint32_t{c.to}}) {
      used[rank].resize(std::max<std::size_t>(used[rank].size(), color + 1));
      used[rank][color] = true;
    }
    colors.push_back(color);
  }
  return colors;
}

/// open(), connect(), make_id(), move(), register_memory() and close() are for the rank's own thread.
template <device_runtime R, message_library<typename R::stream> L>
class channel_set {
 public:
  using communicator = typename L::communicator;
  using status = typename L::status;

  struct own_channel {
    std::uint32_t from = 0, to = 0;
    bool sends = false, connected = false, warm = false;
    communicator of{};
    device_handle<R, typename R::stream> stream{};
    std::vector<std::pair<std::span<std::byte>, void*>> registered{};  // with handles
  };

  channel_set(L library, coordinator& job, const channel_transport_options& options, channel_progress<R>& progress)
      : library_(std::move(library)), job_(job), options_(options), progress_(progress) {}

  /// The channels of a rank for a program, new ones among them without a communicator, in the order in which they connect.
  /// Those of earlier programs stay. @throws device_error; schedule_error for limits of CTAs that cannot be
  void open(R& runtime, const program& p, std::uint32_t rank, int device, const auto& where) {
    const std::vector<std::uint32_t> colors = color_channels(p);
    by_channel_.assign(p.channels.size(), nullptr), order_.clear();
    for (std::uint32_t c = 0; c < p.channels.size(); ++c)
      if (p.channels[c].from == rank || p.channels[c].to == rank) order_.push_back(c);
    std::sort(order_.begin(), order_.end(), [&](auto a, auto b) { return colors[a] < colors[b]; });  // no two are equal
    for (const std::uint32_t c : order_) {
      const channel& of = p.channels[c];
      for (own_channel& known : all_)
        if (known.from == of.from && known.to == of.to) by_channel_[c] = &known;
      if (by_channel_[c] != nullptr) continue;
      const channel_options chosen = options_.of(of);
      require_ctas(chosen, concat({"the channel from rank ", of.from, " to rank ", of.to}));
      own_channel made{.from = of.from, .to = of.to, .sends = of.from == rank};
      made.stream = make_stream(runtime, device, chosen.stream_priority, where);
      const std::lock_guard lock(mutex_);  // the watchdog goes through all channels
      by_channel_[c] = &all_.emplace_back(std::move(made));
    }
  }
  /// Numbers of the program's channels, in the order in which they connect.
  const std::vector<std::uint32_t>& order() const { return order_; }
  own_channel& of(std::uint32_t channel) { return *by_channel_[channel]; }
  std::deque<own_channel>& all() { return all_; }
  L& library() { return library_; }

  /// These and move() throw device_error and pipeline_aborted.
  std::string make_id() {
    std::string id;
    call("GetUniqueId", [&] { return library_.make_id(id); });
    return id;
  }
  /// Waits for the other rank.
  void connect(own_channel& own, const channel& c, const std::string& id) {
    const std::string& name = keep(concat({"pipesched ", c.from, " to ", c.to}));
    const auto start = std::chrono::steady_clock::now();
    const std::function<bool()> goes_on = [&] {
      if (!hear() && std::chrono::steady_clock::now() - start > options_.start_limit)
        abort(concat({progress_.host_place(), ": no connection from rank ", c.from, " to rank ", c.to,
                      " within the time limit"}));
      return !stopped();
    };
    communicator made{};
    const status of = library_.connect(id, own.sends ? 0 : 1, options_.of(c), name, made, goes_on);
    if (library_.succeeded(of)) {
      const std::lock_guard lock(mutex_);
      own.of = made, own.connected = !stopped();
    }
    if (library_.succeeded(of) && !own.connected &&  // too late for the others' end
        !run_within(options_.abort_limit, {[library = library_, made]() mutable { library.abort(made); }}))
      end_process("a connection has not ended");
    require_good(of, "CommInitRank");
  }
  /// Registers memory with the library, unless that or more is known at this address.
  void register_memory(own_channel& c, std::span<std::byte> bytes) {
    for (const auto& [known, of] : c.registered)
      if (known.data() == bytes.data() && known.size() >= bytes.size()) return;
    void* handle = nullptr;
    call("CommRegister", [&] { return library_.register_memory(c.of, bytes.data(), bytes.size(), handle); });
    c.registered.emplace_back(bytes, handle);
  }
  /// Starts a message.
  void move(own_channel& c, std::span<std::byte> bytes) {
    const typename R::stream s = c.stream.handle();
    if (c.sends)
      call("Send", [&] { return library_.send(c.of, bytes.data(), bytes.size(), s); });
    else
      call("Recv", [&] { return library_.receive(c.of, bytes.data(), bytes.size(), s); });
  }

  /// No message starts any more, and all processes hear why. The first failure of the job is the cause.
  void abort(std::string text) {
    if (!cause_.claim(text, here)) return;
    try {
      text = job_.report_failure(text);
    } catch (...) {  // of a job that cannot: what has failed here is known
    }
    cause_.set(std::move(text), here);
  }
  /// The same if another process has reported a failure. Returns stopped().
  bool hear() {
    const auto failed = job_.failure();
    if (!failed || stopped()) return stopped();
    const std::string place = progress_.device_place();
    const bool is_known = failed->find(place) != std::string::npos;
    cause_.set(is_known ? *failed : concat({*failed, "\nthis is ", place}), elsewhere);
    return true;
  }
  /// If a message fails because another process ends, the notice of that may come a little later.
  bool hears_cause() {
    const auto wait = std::min<std::chrono::duration<double>>(options_.time_limit / 20, std::chrono::milliseconds(200));
    return wait_within(wait, [this] { return hear(); });
  }
  /// Ends all messages in progress, within three times the abort limit. Each communicator is aborted by a thread of its own, as
  /// one may wait for another. Once. @pre stopped()
  void end_messages() {
    if (options_.on_failure &&
        !run_within(options_.abort_limit, {[call = options_.on_failure, text = cause()] { call(text); }}))
      end_process("on_failure() has not returned");
    wait_within(options_.abort_limit / 4, [this] { return aborted(); });  // until the failure is reported
    if (!abort_within_limit(connected())) end_process("its messages have not ended");
  }
  bool stopped() const { return cause_.is_known(); }
  bool aborted() const { return cause_.is_final(); }
  /// True if something of these channels is still at work after the last resort.
  bool is_stuck() const { return stuck_.load(); }
  /// @pre stopped(). Waits until the thread that has stopped the messages knows the first failure of the job, at most a minute
  const std::string& cause() const { return cause_.text(std::chrono::minutes(1)); }
  /// For the rank's own thread, which ends with it.
  void require_going() const {
    if (!stopped()) return;
    progress_.set_phase(channel_progress<R>::phase::between_steps);
    throw pipeline_aborted("aborted: " + cause());
  }

  /// The last resort. @param what  "its messages have not ended"
  void end_process(std::string_view what) {
    stuck_.store(true);
    options_.last_resort(concat(
        {what, " within ", options_.abort_limit.count(), " seconds after a failure; ending the process: ", cause()}));
  }

  /// The error of a message in progress; empty without one.
  std::string find_error() {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock() || stopped()) return {};
    for (const own_channel& c : all_)
      if (c.connected)
        if (const status of = library_.state(c.of); !library_.succeeded(of))
          return concat({"messages from rank ", c.from, " to rank ", c.to, ": ", library_.text(of), " (", L::prefix,
                         " ", static_cast<int>(of), ")"});
    return {};
  }

  /// Frees the communicators, once no message is in progress, each in a thread of its own, as one may wait for the other rank:
  /// at most the abort limit.
  void close() {
    std::vector<std::function<void()>> closes;
    for (const own_channel& c : all_)
      if (c.connected)
        closes.push_back([library = library_, of = c.of, registered = c.registered]() mutable {
          for (const auto& [bytes, handle] : registered) library.deregister_memory(of, handle);
          library.close(of);
        });
    if (run_within(options_.abort_limit, std::move(closes))) return;
    abort(progress_.host_place() + ": its channels do not close");
    end_process("its channels have not closed");
  }

 private:
  enum failed_where : std::uint8_t { here, elsewhere };

  // A call of the library: never two at a time, and none once the messages have been stopped.
  template <typename Call>
  void call(std::string_view name, Call&& of_library) {
    status of{};
    {
      const std::lock_guard lock(mutex_);
      if (!stopped()) of = of_library();
    }
    require_good(of, name);
  }
  void require_good(status of, std::string_view name) {
    require_going();
    if (library_.succeeded(of)) return;
    if (hears_cause()) require_going();
    require(library_, of, name, [this] { return progress_.host_place(); });
  }
  struct connection {
    communicator of;
    bool sends;
  };
  // The communicators. A call of the rank's own thread that does not return is ended by the aborts, too: not waited for long.
  std::vector<connection> connected() {
    std::unique_lock lock(mutex_, std::defer_lock);
    wait_within(options_.abort_limit / 4, [&] { return lock.try_lock(); });
    std::vector<connection> all;
    for (const own_channel& c : all_)
      if (c.connected) all.push_back({c.of, c.sends});
    return all;
  }
  // Sends first. After an aborted receive the device computes from what is in its buffer, and a send that was aborted before it
  // began may still take that along, as NCCL's kernels look at the abort flag only where they wait. So receives are aborted a
  // little later: a rank that hears of the failure by then finishes no step with such numbers.
  bool abort_within_limit(const std::vector<connection>& all) {
    const auto pause =
        std::min<std::chrono::duration<double>>(options_.abort_limit / 10, std::chrono::milliseconds(200));
    std::vector<std::function<void()>> aborts;
    for (const connection& c : all)
      aborts.push_back([library = library_, c, pause]() mutable {
        if (!c.sends) std::this_thread::sleep_for(pause);
        library.abort(c.of);
      });
    return run_within(options_.abort_limit, std::move(aborts));
  }

  L library_;
  coordinator& job_;
  const channel_transport_options& options_;
  channel_progress<R>& progress_;
  std::deque<own_channel> all_;
  std::vector<own_channel*> by_channel_;  // of the program; none where it is not of this rank
  std::vector<std::uint32_t> order_;
  std::mutex mutex_;  // of the library, the list of channels and their communicators
  first_cause cause_;
  std::atomic<bool> stuck_{false};
};

}  // namespace detail

}  // namespace pipesched
