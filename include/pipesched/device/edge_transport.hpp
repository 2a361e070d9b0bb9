// SPDX-License-Identifier: MIT
#pragma once

// One rank of a program, with messages that a library sends from device to device, straight from the trainer's buffers into
// those of the other rank. Over NCCL: nccl.hpp.
//
//   compute            ... op that makes the message, record ready .......... wait moved, op that uses the buffer again
//   channel's stream   wait ready, send, record moved
//
// On the receiver's device a receive waits likewise for an event of the compute stream: recorded at the action before which
// the launch order has it, not where its buffer became free. So it reaches the device when the plan needs it, and holds no
// blocks of the device long before, however far the host has run ahead. A message that waits holds its stream. So every rank
// starts its messages in launch_order(): nothing waits in a cycle, not even if all streams of a device share one queue.
//
// A thread of its own looks after the rank: it hears of failures of others (coordinator), asks the library for errors, and
// sees whether anything still moves. When something fails, or the rank's own thread says so, it ends all messages under
// way, so that nothing keeps the device, or a call that waits for it; the rank's own thread throws from whatever it does
// next. Until then it has the graphs that hold messages, whose end an abort may wait for: hence a thread of its own.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/device/device.hpp"
#include "pipesched/device/edge_progress.hpp"
#include "pipesched/device/edges.hpp"
#include "pipesched/device/step_graph.hpp"
#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/executor.hpp"
#include "pipesched/program/launch_order.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// A transport. Construction, warm(), capture() and destruction are collective; ranks of the communicator that are in no
/// pipeline call take_no_part() instead of the first. Several pipelines may share a communicator and a job, each with its
/// own rank map, if all run the same program.
/// @pre one thread uses it; the program, the job and the trainer's buffers outlive it
template <device_runtime R, message_library<typename R::stream> L>
class edge_transport {
 public:
  using communicator = typename L::communicator;

  /// Splits a communicator for every channel of this rank off `parent`, which stays the user's, and makes all streams and
  /// events. @throws schedule_error, device_error, pipeline_aborted; if one rank does, all do, and the parent may then only
  /// be aborted. @pre calls with the parent do not wait (NCCL: non-blocking)
  edge_transport(R runtime, L library, const program& p, communicator parent, device_rank<R> where, coordinator& job,
                 edge_transport_options options = {})
      : runtime_(std::move(runtime)),
        p_(p),
        where_(where),
        job_(job),
        options_(std::move(options)),
        edges_(std::move(library), job, options_),
        progress_(runtime_, p, job.rank()) {
    try {
      detail::checked_time_limit(options_.time_limit);
      agree(p, job);
      progress_.set_rank(detail::pipeline_rank(edges_.library(), parent, p.schedule.pp(), options_.rank_map));
      edges_.make(runtime_, p, rank(), where_.device, here());
      make_events();
      watchdog_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
      edges_.split(parent, p, here());
    } catch (...) {
      abort(detail::text_of_exception());
      watchdog_ = {};
      edges_.end_messages();
      throw;
    }
  }
  edge_transport(const edge_transport&) = delete;
  edge_transport& operator=(const edge_transport&) = delete;
  /// Frees the communicators. A rank that leaves in the middle of a step, or with an exception, tells the others first.
  /// After a failure waits until the library has ended the messages under way, which may take as long as a kernel before them
  /// in the compute stream; then, at most a quarter of the time limit, until the device is through.
  ~edge_transport() {
    try {
      if (std::uncaught_exceptions() > exceptions_)
        abort("it left with an exception");
      else if (!finished_)
        abort("it left before the end of its step");
      watchdog_ = {};
      edges_.close();
    } catch (...) {  // no memory for a text
    }
    if (edges_.stopped()) drain();
  }

  /// For ranks of the communicator that are in no pipeline. @throws as the constructor
  static void take_no_part(L library, const program& p, communicator parent, coordinator& job,
                           const edge_transport_options& options = {}) {
    detail::edge_set<R, L> none(std::move(library), job, options);
    R runtime{};
    const auto where = [&] { return detail::concat({"process ", job.rank(), ", which is in no pipeline"}); };
    try {
      detail::checked_time_limit(options.time_limit);
      agree(p, job);
      none.make(runtime, p, p.schedule.pp(), 0, where);
      none.split(parent, p, where);
    } catch (...) {
      none.abort(detail::concat({where(), ": ", detail::text_of_exception()}));
      throw;
    }
  }

  std::uint32_t rank() const { return progress_.rank(); }
  typename R::stream compute() const { return where_.compute; }
  /// How many streams the rank has, with the trainer's.
  std::size_t streams() const { return edges_.all().size() + 1; }
  /// Makes the rank's device this thread's, as kernels need.
  void select_device() { require(runtime_.set_device(where_.device), "SetDevice"); }

  /// Sends the first message of every channel once, with whatever is in the trainer's buffers, so that all connections are
  /// there. Before the first step.
  template <typename Trainer>
  void warm(Trainer& trainer) {
    begin();
    progress_.at(no_slot);
    finished_ = true;
    for (auto& e : edges_.all()) {  // as they were split: in each round with one other rank
      progress_.begin();            // each has the time limit
      if (options_.enlists_buffers) enlist(trainer, e);
      const std::uint32_t i = first_launch(e.channel), first = launches()[i].action;
      post(row()[first], first, detail::message_memory(trainer, rank(), row()[first]));
      start(i);
      wait(posts_[first].buffer);
    }
    warm_ = true;
    synchronize();
  }

  void at(std::uint32_t action) {
    edges_.require_going();
    if (action == 0) begin();
    progress_.at(action);
    while (next_ < launches().size() && launches()[next_].issue_before <= action)
      start(next_++), progress_.started(next_);
  }
  void post_receive(const action& a, std::span<std::byte> bytes) { post(a, progress_.at(), bytes); }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    post(a, progress_.at(), {const_cast<std::byte*>(bytes.data()), bytes.size()});  // only read
  }
  void wait_received(std::uint32_t n, bool weights) { wait(weights ? reductions_at() + n : n); }
  void wait_sent(std::uint32_t n) { wait(n); }
  void wait_weights_sent() {
    for (std::size_t n = weights_at(); n < buffers_.size(); ++n) wait(n);
  }
  void finish() {
    at(static_cast<std::uint32_t>(row().size()));
    for (std::size_t n = 0; n < buffers_.size(); ++n) wait(n);
    finished_ = true;
  }
  /// The executor calls these around every cell.
  void begin_cell(std::uint32_t i) { clock().record(runtime_, where_.compute, 2 * std::size_t{i}, here()); }
  void end_cell(std::uint32_t i) { clock().record(runtime_, where_.compute, 2 * std::size_t{i} + 1, here()); }

  /// From here on cells are timed. Devices have no common clock: start it where all ranks are at one time.
  void start_clock() { clock().record_zero(runtime_, where_.compute, here()); }

  /// Waits until the device has come to the end of the step: the only wait for a device that there is, outside of steps. A
  /// rank that has begun a step and does nothing for the time limit, not even this, is taken for stalled.
  /// @throws device_error if the device has failed; pipeline_aborted if another rank has, a message has, or nothing moved
  /// within the time limit
  void synchronize() {
    progress_.set_busy(true);
    clock().record_end(runtime_, where_.compute, here());
    for (std::uint64_t round = 0; !clock().ended(runtime_, here()); ++round) {
      edges_.require_going();
      if (round >= 64) std::this_thread::yield();
    }
    edges_.require_going();  // messages that are aborted end, too
    progress_.set_busy(false);
  }

  /// When the cells of the last step ran, in seconds since start_clock(). @throws schedule_error unless timed.
  /// @pre synchronize() has returned
  void read_times(std::span<interval> cells) { clock().read(runtime_, cells, here()); }

  /// Captures a step of this rank into a graph. All ranks do, and replay it together: launch() it, then synchronize(). A
  /// replayed step must take less than the time limit, as nobody sees it move. The graph goes before the transport.
  /// @throws schedule_error, with the reason, where it cannot be captured; whatever the trainer throws
  template <typename Trainer>
  step_graph<R> capture(Trainer& trainer) {
    const auto refuse = [](std::string_view why) { throw schedule_error(detail::concat({"no graph: ", why})); };
    if (!warm_)
      refuse("the first message of a channel connects its ranks, which cannot be captured; call warm() before");
    if (clock().timed()) refuse("the cells of a graph cannot be timed; make the transport without .timed");
    if (const std::string why = edges_.library().refuses_capture(); !why.empty()) refuse(why);
    job_.broadcast("capture");
    struct guard {
      edge_transport& t;
      explicit guard(edge_transport& of) : t(of) { t.progress_.set_capturing(true); }
      ~guard() { t.progress_.set_capturing(false), t.progress_.set_busy(false), t.finished_ = true; }
    } captures(*this);
    return {runtime_, std::span(&where_, 1), [&] { execute(p_, rank(), trainer, *this); }};
  }

  /// Tells all ranks to stop, unless one has already; the messages under way end soon after.
  void abort(std::string_view cause) { edges_.abort(detail::concat({here()(), ": ", cause})); }
  bool aborted() const { return edges_.aborted(); }
  /// The rank that failed first, where it was, and the text. @pre aborted()
  const std::string& cause() const { return edges_.cause(); }

 private:
  using event = device_handle<R, typename R::event>;

  struct buffer {
    event ready{};                 // a send: its message is complete; a receive: the plan has reached it
    std::uint32_t last = no_slot;  // its message, by launch; no_slot: not started
    bool pending = false;          // posted, and not waited for
  };
  struct posted_message {
    std::byte* bytes = nullptr;
    std::size_t size = 0;
    std::uint32_t buffer = 0;
  };

  static void agree(const program& p, coordinator& job) {
    const std::string own = detail::concat({fingerprint(p)});
    if (job.broadcast(own) != own) throw schedule_error("the processes of a job run one program; this one has another");
  }

  // Buffers are counted from those of tensors on; then come those of weight gradients received, then one for each sent.
  std::uint32_t reductions_at() const { return p_.pools[rank()].buffers; }
  std::uint32_t weights_at() const { return reductions_at() + p_.pools[rank()].reductions; }
  std::span<const action> row() const { return progress_.row(); }
  const std::vector<launch>& launches() const { return progress_.launches(); }
  detail::rank_clock<R>& clock() { return clock_.front(); }
  auto here() const {
    return [this] { return progress_.host_place(); };
  }
  void require(typename R::status status, std::string_view call) { detail::require(runtime_, status, call, here()); }

  void make_events() {
    clock_.emplace_back(runtime_, where_.device, p_.schedule[rank()].size(), options_.timed, here());
    for (std::uint32_t n = weights_at() + weight_gradients_sent(row()); n > 0; --n)
      buffers_.push_back({.ready = detail::make_event(runtime_, where_.device, false, here())});
    progress_.make_events(where_.device);
    posts_.resize(row().size());
  }

  void begin() {
    next_ = weights_ = 0;
    for (buffer& b : buffers_) b.pending = false;  // of a step that was not finished
    finished_ = false;
    progress_.begin();
  }
  void post(const action& a, std::uint32_t action, std::span<std::byte> bytes) {
    std::uint32_t n = a.buffer;
    if (is_weight_gradient(a))
      n = a.kind == action_kind::receive ? reductions_at() + a.buffer : weights_at() + weights_++;
    posts_[action] = {bytes.data(), bytes.size(), n};
    buffer& b = buffers_[n];
    if (a.kind == action_kind::send) record_ready(b);
    b.last = no_slot, b.pending = true;
  }
  void record_ready(buffer& b) { require(runtime_.record(b.ready.handle(), where_.compute), "EventRecord"); }
  void start(std::uint32_t i) {
    const posted_message& m = posts_[launches()[i].action];
    const action& a = row()[launches()[i].action];
    auto& e = edges_.of(a.channel);
    if (a.kind == action_kind::receive) record_ready(buffers_[m.buffer]);
    require(runtime_.wait(e.stream.handle(), buffers_[m.buffer].ready.handle()), "StreamWaitEvent");
    edges_.move(e, m.bytes, m.size, here());
    require(runtime_.record(progress_.moved(i), e.stream.handle()), "EventRecord");
    buffers_[m.buffer].last = i;
  }
  void wait(std::size_t n) {
    buffer& b = buffers_[n];
    if (!b.pending) return;
    if (b.last == no_slot)
      throw schedule_error("a message is waited for before it is started: is this another program?");
    require(runtime_.wait(where_.compute, progress_.moved(b.last)), "StreamWaitEvent");
    b.pending = false;
  }

  std::uint32_t first_launch(std::uint32_t channel) const {
    const auto is_of_it = [&](const launch& l) { return row()[l.action].channel == channel; };
    return static_cast<std::uint32_t>(std::find_if(launches().begin(), launches().end(), is_of_it) -
                                      launches().begin());
  }
  template <typename Trainer, typename Edge>
  void enlist(Trainer& trainer, Edge& e) {
    std::vector<std::byte*> known;
    for (const action& a : row()) {
      if (!is_message(a) || a.channel != e.channel) continue;
      const std::span<std::byte> bytes = detail::message_memory(trainer, rank(), a);
      if (std::find(known.begin(), known.end(), bytes.data()) != known.end()) continue;
      known.push_back(bytes.data());
      edges_.enlist(e, bytes.data(), bytes.size(), here());
    }
  }

  // Until the streams are empty, at most a quarter of the time limit: messages may be writing into the trainer's buffers.
  void drain() noexcept {
    if (clock_.empty()) return;
    const auto limit = std::chrono::duration_cast<std::chrono::nanoseconds>(options_.time_limit / 4);
    const auto until = std::chrono::steady_clock::now() + limit;
    for (const auto& e : edges_.all()) detail::wait_until_empty(runtime_, clock().end(), e.stream.handle(), until);
    detail::wait_until_empty(runtime_, clock().end(), where_.compute, until);
  }

  void watch(const std::stop_token& stop) {
    try {
      R runtime = runtime_;
      // A thread that has chosen no device takes device 0, and makes a context of some 500 MiB there.
      detail::require(runtime, runtime.set_device(where_.device), "SetDevice", here());
      watch_until(stop);
    } catch (...) {  // of the device or the job
      fail(detail::text_of_exception());
      edges_.end_messages();
    }
  }
  void watch_until(const std::stop_token& stop) {
    using clock_type = std::chrono::steady_clock;
    const auto tick = std::clamp<std::chrono::duration<double>>(options_.time_limit / 100, std::chrono::milliseconds(1),
                                                                std::chrono::milliseconds(20));
    typename detail::edge_progress<R>::position last;
    auto since = clock_type::now(), told = since - std::chrono::seconds(2);  // when it last moved; said where it is
    bool stands_still = false;
    std::mutex unused;
    std::unique_lock lock(unused);
    std::condition_variable_any never;
    const auto place = [&] { return progress_.device_place(); };
    while (true) {
      never.wait_for(lock, stop, tick, [] { return false; });
      edges_.hear(place);
      if (const std::string error = edges_.error(p_); !error.empty() && !edges_.hears_why(place)) fail(error);
      if (edges_.stopped()) return edges_.end_messages();
      if (stop.stop_requested()) return;
      const auto now = clock_type::now();
      const auto come = progress_.now(last);
      if (!(come == last) || !progress_.busy()) last = come, since = now, stands_still = false;
      const bool stood_still = std::exchange(stands_still, now - since > options_.time_limit / 2);
      if (stands_still != stood_still || now - told > std::chrono::seconds(1))
        job_.report_position(place(), stands_still), told = now;
      if (now - since > options_.time_limit) fail("nothing moved within the time limit");
    }
  }
  void fail(std::string_view cause) { edges_.abort(detail::concat({progress_.device_place(), ": ", cause})); }

  R runtime_;
  const program& p_;
  device_rank<R> where_;
  coordinator& job_;
  edge_transport_options options_;
  detail::edge_set<R, L> edges_;
  detail::edge_progress<R> progress_;
  std::vector<detail::rank_clock<R>> clock_;  // one
  std::vector<buffer> buffers_;
  std::vector<posted_message> posts_;  // by action
  std::uint32_t next_ = 0, weights_ = 0;
  bool finished_ = true, warm_ = false;
  int exceptions_ = std::uncaught_exceptions();
  std::jthread watchdog_;  // last: it uses all of these
};

}  // namespace pipesched
