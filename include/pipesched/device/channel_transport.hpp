// SPDX-License-Identifier: MIT
#pragma once

// One rank of a program, with messages that a library sends from device to device, straight from the trainer's buffers into
// those of the other rank. Over NCCL: nccl.hpp.
//
//   compute            ... op that makes the message, record ready .......... wait moved, op that uses the buffer again
//   channel's stream   wait ready, send, count, record moved
//
// A receive also waits for an event of the compute stream, recorded at the action before which the launch order has it, not
// where its buffer became free. So it reaches the device when the plan needs it, and holds no
// blocks of the device long before, however far the host has run ahead. A message that waits holds its stream. So every rank
// starts its messages in one order, launch_order(): nothing waits in a cycle, not even if all streams of a device share one
// queue.
//
// When something fails, a watchdog (channel_watchdog.hpp) ends all messages in progress, so that nothing keeps the device, or
// a call that waits for it. The rank's own thread throws from whatever it does next.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/device/channel_progress.hpp"
#include "pipesched/device/channel_set.hpp"
#include "pipesched/device/channel_watchdog.hpp"
#include "pipesched/device/clock.hpp"
#include "pipesched/device/graph.hpp"
#include "pipesched/execute/failure.hpp"
#include "pipesched/execute/trainer.hpp"
#include "pipesched/program/launch_order.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// A transport for run(). Its first run() connects the ranks that exchange messages and sends the first message of every
/// channel once, so that steps make no connection; a program with other channels adds them. prepare(), meet(), capture() and
/// destruction are collective.
///
/// The processes of a job may form several pipelines, each with its own `processes` and the same program. prepare(), meet() and
/// capture() are each one call of job.exchange(), which processes that are in no pipeline make, too.
/// @pre one thread uses it; the job, the programs and the trainer's buffers outlive it
template <device_runtime R, message_library<typename R::stream> L>
class channel_transport {
 public:
  using phase = typename detail::channel_progress<R>::phase;

  /// @throws schedule_error for time limits out of range, or if this process is not among options.processes; device_error
  channel_transport(R runtime, L library, device_rank<R> where, coordinator& job,
                    channel_transport_options options = {}) try
      : runtime_(std::move(runtime)),
        where_(where),
        job_(job),
        options_(std::move(options)),
        processes_(options_.processes),
        rank_(pipeline_rank()),
        progress_(runtime_, rank_),
        channels_(std::move(library), job, options_, progress_),
        clock_(runtime_, where, here()),
        watchdog_(channels_, progress_, job, options_) {
  } catch (...) {
    job.report_failure(detail::concat({"process ", job.rank(), ": ", detail::text_of_exception()}));
    throw;
  }
  channel_transport(const channel_transport&) = delete;
  channel_transport& operator=(const channel_transport&) = delete;
  /// Frees the communicators. A rank that leaves in the middle of a step, or with an exception, stops the others first. Takes
  /// at most four times the abort limit, then the last resort.
  ~channel_transport() {
    try {
      if (const std::string_view cause = departure_.cause(); !cause.empty()) abort(cause);
      watchdog_.stop();
      if (!channels_.stopped()) channels_.close();
    } catch (...) {  // no memory for a text
    }
    if (channels_.stopped()) channels_.is_stuck() ? progress_.leak_counters() : drain();
  }

  std::uint32_t rank() const { return rank_; }
  typename R::stream compute() const { return where_.compute; }
  std::size_t channels() { return channels_.all().size(); }
  const channel_transport_options& options() const { return options_; }
  /// Makes the rank's device this thread's, as kernels need.
  void select_device() { require(runtime_.set_device(where_.device), "SetDevice"); }

  /// @throws schedule_error, on some rank, unless all have the same program and the same size for each message; device_error;
  /// pipeline_aborted
  template <typename Memory>
  void prepare(const program& p, const Memory& memory) {
    require_shape(p);
    program_ = &p;
    progress_.prepare(p, options_.order ? options_.order(p, rank_) : launch_order(p, rank_), where_.device, here());
    channels_.open(runtime_, p, rank_, where_.device, here());
    while (buffers_.size() < p.pools[rank_].buffers())
      buffers_.push_back({.ready = detail::make_event(runtime_, where_.device, false, here()),
                          .moved = detail::make_event(runtime_, where_.device, false, here())});
    const std::vector<std::string> ids = exchange(memory);
    progress_.set_phase(phase::connects);
    for (const std::uint32_t c : channels_.order()) {
      if (channels_.of(c).connected) continue;
      progress_.advance();  // each has the time limit of the start
      channels_.connect(channels_.of(c), p.channels[c], ids[c]);
    }
    if (options_.registers_buffers) register_memory(memory);
    send_first_messages(memory);
  }

  void on_action(std::uint32_t action) {
    channels_.require_going();
    if (action == 0) {
      for (buffer& b : buffers_) b.message = message_state::none;  // of a step that was not finished
      departure_.in_step = true;
      progress_.begin(0);
    }
    progress_.at(action);
    for (std::uint32_t i = progress_.started(); i < launches().size() && launches()[i].issue_before <= action; ++i)
      start(i), progress_.started(i + 1);
  }
  void post_receive(const action& a, std::span<std::byte> bytes) { post(a, bytes); }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    post(a, {const_cast<std::byte*>(bytes.data()), bytes.size()});  // only read
  }
  void wait(std::uint32_t n) {
    buffer& b = buffers_[n];
    if (b.message == message_state::none) return;
    if (b.message == message_state::posted)
      throw schedule_error("a message is waited for before it is started: is this another program?");
    detail::wait(runtime_, where_.compute, b.moved.handle(), here());
    b.message = message_state::none;
  }
  void finish() {
    on_action(static_cast<std::uint32_t>(row().size()));
    for (std::uint32_t n = 0; n < buffers_.size(); ++n) wait(n);
    departure_.in_step = false;
  }
  /// Waits until the device has finished the step: the only wait for a device. @throws device_error if the device
  /// has failed; pipeline_aborted if another rank has, a message has, or nothing moved within the time limit
  void synchronize() {
    clock_.record_end(here());
    detail::wait_within(std::chrono::duration<double>::max(), [this] {
      const bool ended = clock_.ended(here());
      channels_.require_going();  // messages that are aborted end, too
      return ended;
    });
    progress_.set_phase(phase::between_steps);
  }

  std::chrono::steady_clock::time_point meet() {
    job_.exchange({});
    return std::chrono::steady_clock::now();
  }
  /// Devices have no common clock: cells are in seconds since this call on each rank.
  void start_clock() { clock_.start(program_->schedule[rank_].size(), here()); }
  void begin_cell(std::uint32_t i) { clock_.record(2 * std::size_t{i}, here()); }
  void end_cell(std::uint32_t i) { clock_.record(2 * std::size_t{i} + 1, here()); }
  /// @pre synchronize() has returned
  void read_clock(std::span<interval> cells) { clock_.read(cells, here()); }

  /// A step of this rank as a graph. Destroy it before the transport. All ranks launch theirs together.
  struct captured_step {
    channel_transport* transport;
    step_graph<R> graph;

    void launch() {
      transport->progress_.at(static_cast<std::uint32_t>(transport->row().size()));
      transport->progress_.begin(static_cast<std::uint32_t>(transport->launches().size()));
      graph.launch();
    }
  };
  /// @throws schedule_error, with the reason, where a step cannot be captured; whatever enqueue() throws
  template <typename Enqueue>
  captured_step capture(Enqueue&& enqueue) {
    if (const std::string why = channels_.library().refuses_capture(); !why.empty())
      throw schedule_error("no graph: " + why);
    meet();
    progress_.set_phase(phase::captures);
    const auto end = [](channel_transport* of) {
      of->progress_.set_phase(phase::between_steps), of->departure_.in_step = false;
    };
    const std::unique_ptr<channel_transport, decltype(end)> at_the_end(this);
    return captured_step{this, step_graph<R>(runtime_, std::span(&where_, 1), enqueue)};
  }

  /// Stops all ranks, unless one has already; its messages end soon after.
  void abort(std::string_view cause) {
    progress_.set_phase(phase::between_steps);
    channels_.abort(detail::concat({here()(), ": ", cause}));
    departure_.in_step = false;
  }
  bool aborted() const { return channels_.aborted(); }
  /// The rank that failed first, its place, and the text. @pre aborted()
  const std::string& cause() const { return channels_.cause(); }

 private:
  enum class message_state : std::uint8_t { none, posted, started };  // none: or waited for
  struct buffer {
    device_handle<R, typename R::event> ready{};  // a send: its message is complete; a receive: the plan has reached it
    device_handle<R, typename R::event> moved{};
    std::span<std::byte> bytes{};
    message_state message{};
  };

  std::span<const action> row() const { return program_->actions[rank_]; }
  const std::vector<launch>& launches() const { return progress_.launches(); }
  auto here() const {
    return [this] { return progress_.host_place(); };
  }
  void require(typename R::status status, std::string_view call) { detail::require(runtime_, status, call, here()); }

  std::uint32_t pipeline_rank() {
    for (std::uint32_t process = 0; options_.processes.empty() && process < job_.size(); ++process)
      processes_.push_back(process);
    const auto at = std::find(processes_.begin(), processes_.end(), job_.rank());
    if (at == processes_.end())
      throw schedule_error(detail::concat({"process ", job_.rank(), " is not among the processes of this pipeline"}));
    return static_cast<std::uint32_t>(at - processes_.begin());
  }
  void require_shape(const program& p) const {
    if (processes_.size() != p.actions.size())
      throw schedule_error(detail::concat({"a program of ", detail::count_text(p.actions.size(), "rank"),
                                           " needs as many processes; got ", processes_.size(),
                                           options_.processes.empty() ? ": name them in .processes" : ""}));
    std::vector<bool> used(job_.size());
    for (const std::uint32_t process : processes_) {
      if (process >= job_.size() || used[process])
        throw schedule_error(
            detail::concat({"a pipeline has processes 0 to ", job_.size() - 1, ", each at most once; got ", process}));
      used[process] = true;
    }
  }

  // The facts of a channel that its sender passes to its receiver: the program and the sizes of the messages. An id follows
  // if the two are to connect. @param hash  fingerprint() of the program
  template <typename Memory>
  std::vector<std::uint64_t> facts_of(std::uint64_t hash, std::uint32_t channel, const Memory& memory) const {
    std::vector<std::uint64_t> facts{hash};
    for (const action& a : row())
      if (is_message(a) && a.channel == channel) facts.push_back(memory(a).size());
    return facts;
  }
  // Collective. Returns the ids of channels that are to be connected, by channel.
  template <typename Memory>
  std::vector<std::string> exchange(const Memory& memory) {
    const std::uint64_t hash = fingerprint(*program_);
    std::vector<std::string> ids(program_->channels.size());
    std::vector<parcel> mine;
    for (const std::uint32_t c : channels_.order()) {
      if (!channels_.of(c).sends) continue;
      const std::vector<std::uint64_t> facts = facts_of(hash, c, memory);
      if (!channels_.of(c).connected) ids[c] = channels_.make_id();
      std::string text(reinterpret_cast<const char*>(facts.data()), facts.size() * sizeof facts[0]);
      mine.push_back({processes_[program_->channels[c].to], text + ids[c]});
    }
    const std::vector<parcel> received = job_.exchange(mine);
    for (const std::uint32_t c : channels_.order())
      if (!channels_.of(c).sends) ids[c] = id_from(received, c, facts_of(hash, c, memory));
    return ids;
  }
  // The id for a channel, from the facts of its sender. @throws schedule_error if the two sides differ
  std::string id_from(const std::vector<parcel>& received, std::uint32_t c, const std::vector<std::uint64_t>& own) {
    const std::uint32_t from = program_->channels[c].from;
    const auto given =
        std::find_if(received.begin(), received.end(), [&](const parcel& p) { return p.rank == processes_[from]; });
    const std::size_t size = own.size() * sizeof own[0];
    if (given == received.end() || given->text.size() < size ||
        std::memcmp(given->text.data(), own.data(), sizeof own[0]) != 0)
      throw schedule_error(detail::concat({"the ranks of a job run one program; rank ", from, " has another one"}));
    std::vector<std::uint64_t> theirs(own.size());
    std::memcpy(theirs.data(), given->text.data(), size);
    const auto differs = std::mismatch(own.begin(), own.end(), theirs.begin());
    if (differs.first != own.end())
      throw schedule_error(
          detail::concat({"message ", differs.first - own.begin() - 1, " from rank ", from, " has ", *differs.second,
                          " bytes at its sender and ", *differs.first, " at its receiver"}));
    return given->text.substr(size);
  }
  // Sends the first message of every new channel, with whatever is in the trainer's buffers.
  template <typename Memory>
  void send_first_messages(const Memory& memory) {
    for (const std::uint32_t c : channels_.order()) {
      if (std::exchange(channels_.of(c).warm, true)) continue;
      progress_.advance();
      const auto first = std::find_if(launches().begin(), launches().end(),
                                      [&](const launch& l) { return row()[l.action].channel == c; });
      if (first == launches().end()) continue;  // a channel without messages
      const action& a = row()[first->action];
      post(a, memory(a));
      start(static_cast<std::uint32_t>(first - launches().begin()));
      wait(a.buffer);
    }
    progress_.advance();
    synchronize();
  }
  // Registers the largest memory at every address: a message that is registered on one of its ranks alone may hang.
  template <typename Memory>
  void register_memory(const Memory& memory) {
    std::map<std::pair<std::uint32_t, std::byte*>, std::size_t> sizes;  // by channel and address
    for (const action& a : row())
      if (is_message(a)) {
        const std::span<std::byte> bytes = memory(a);
        std::size_t& size = sizes[{a.channel, bytes.data()}];
        size = std::max(size, bytes.size());
      }
    for (const auto& [at, size] : sizes) channels_.register_memory(channels_.of(at.first), {at.second, size});
  }

  void post(const action& a, std::span<std::byte> bytes) {
    buffer& b = buffers_[a.buffer];
    if (a.kind == action_kind::send) detail::record(runtime_, b.ready.handle(), where_.compute, here());
    b.bytes = bytes, b.message = message_state::posted;
  }
  void start(std::uint32_t i) {
    const action& a = row()[launches()[i].action];
    auto& c = channels_.of(a.channel);
    buffer& b = buffers_[a.buffer];
    const typename R::stream s = c.stream.handle();
    if (a.kind == action_kind::receive) detail::record(runtime_, b.ready.handle(), where_.compute, here());
    detail::wait(runtime_, s, b.ready.handle(), here());
    channels_.move(c, b.bytes);
    require(runtime_.write(s, progress_.counter(a.channel), progress_.number(i) + 1), "StreamWriteValue32");
    detail::record(runtime_, b.moved.handle(), s, here());  // last, as a capture must end in the compute stream
    b.message = message_state::started;
  }

  // Until the streams are empty, at most the abort limit: messages may be writing into the trainer's buffers. A device that
  // does not end keeps the counters: to free them could wait for it.
  void drain() noexcept {
    const auto limit = std::chrono::duration_cast<std::chrono::nanoseconds>(options_.abort_limit);
    const auto until = std::chrono::steady_clock::now() + limit;
    bool empty = true;
    for (const auto& c : channels_.all()) empty = clock_.wait_until_empty(c.stream.handle(), until) && empty;
    empty = clock_.wait_until_empty(where_.compute, until) && empty;
    if (!empty) progress_.leak_counters();
  }

  R runtime_;
  device_rank<R> where_;
  coordinator& job_;
  channel_transport_options options_;
  std::vector<std::uint32_t> processes_;  // by pipeline rank
  std::uint32_t rank_;
  const program* program_ = nullptr;
  detail::channel_progress<R> progress_;
  detail::channel_set<R, L> channels_;
  detail::rank_clock<R> clock_;
  std::vector<buffer> buffers_;
  detail::departure departure_;
  detail::channel_watchdog<R, L> watchdog_;  // last: it uses all of these
};

}  // namespace pipesched
