// SPDX-License-Identifier: MIT
#pragma once

// One process per rank, with messages over MPI, on one host or many.
//
//   pipesched::mpi_transport transport(MPI_COMM_WORLD);
//   pipesched::run(program, transport.rank(), trainer, transport, {.steps = 100});
//
// Messages and notices of failure have a communicator each, so they never match a message of the user. A step allocates
// nothing, but for a message of more than `block` bytes: it has a derived datatype, of whole blocks and the rest. No count
// exceeds the range of int, so MPI 3 is enough.
//
// A rank that fails sends a notice to all others, which look for notices before each action and while they wait. A process
// that is killed sends none. By default, mpirun of Open MPI then kills the others at once. With --enable-recovery it leaves
// them alone; those that wait for the dead rank fail after the time limit, or after the pause limit if it died between steps, and
// notify the rest. MPI itself may also end a process whose connection breaks. After a rank has died, MPI_Finalize may block forever:
// call MPI_Abort.

#include <mpi.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/execute/failure.hpp"
#include "pipesched/execute/transport.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/mpi/detail/notices.hpp"
#include "pipesched/mpi/mpi_error.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// Options of mpi_transport.
struct mpi_options {
  /// How long a rank waits for one message before it fails; not counted while a rank is between steps.
  std::chrono::duration<double> time_limit{60};
  std::chrono::duration<double> pause_limit =
      std::chrono::hours(1);                 ///< how long a rank may be waited for between its steps
  std::size_t block = std::size_t{1} << 30;  ///< bytes, 1 to 2^31 - 1; the same on all ranks
};

/// One rank's transport: rank r of the program is rank r of the communicator. It may run any number of programs one after the
/// other, until a rank fails. Construction and destruction are collective.
/// @pre called by one thread at a time; it does not outlive MPI_Finalize
class mpi_transport {
 public:
  /// @throws schedule_error for a time limit or a block out of range
  explicit mpi_transport(MPI_Comm communicator, const mpi_options& options = {})
      : time_limit_(detail::checked_time_limit(options.time_limit)),
        pause_limit_(detail::checked_time_limit(options.pause_limit)),
        block_(options.block) {
    if (block_ < 1 || block_ > static_cast<std::size_t>(std::numeric_limits<int>::max()))
      throw schedule_error(detail::concat({"a block has 1 to 2147483647 bytes; got ", block_}));
    notices_ = std::make_unique<detail::mpi_notices>(communicator);
    data_ = detail::duplicate(communicator);
    MPI_Type_contiguous(static_cast<int>(block_), MPI_BYTE, &block_type_);
    MPI_Type_commit(&block_type_);
    rank_ = notices_->rank();
    set_between_steps(true);
  }
  mpi_transport(const mpi_transport&) = delete;
  mpi_transport& operator=(const mpi_transport&) = delete;
  /// A rank that leaves in the middle of a step stops the others, as abort() does. The communicators are not freed after a
  /// failure.
  ~mpi_transport() {
    try {
      if (const std::string_view cause = departure_.cause(); !cause.empty()) abort(cause);
      settle();
    } catch (...) {  // no memory for a text
    }
    MPI_Type_free(&block_type_);  // messages in progress keep it
    if (clean_) {
      MPI_Comm_free(&data_);
      notices_->free();
    } else {
      static_cast<void>(notices_.release());  // MPI may still read from them
    }
  }

  std::uint32_t rank() const { return rank_; }

  /// Makes room for the messages of a program. Collective.
  /// @throws schedule_error, on all ranks, unless all run the same program with as many ranks as the communicator has; the
  /// transport can then run another one. pipeline_aborted if a rank has failed
  template <typename Memory>
  void prepare(const program& p, const Memory&) {
    program_ = nullptr, at_ = no_slot, refused_ = false;
    const std::uint64_t own = fingerprint(p) ^ block_;
    agree(own, ~own);  // the greatest and, by its complement, the least
    const auto& [failed, left, stay, greatest, least] = notices_->agreement();
    refused_ = greatest != ~least || notices_->size() != p.actions.size();
    if (greatest != ~least)
      throw schedule_error("all ranks of a communicator run the same program; these have different ones");
    if (refused_)
      throw schedule_error(detail::concat({"a program of ", detail::count_text(p.actions.size(), "rank"),
                                           " needs a communicator of as many; this one has ", notices_->size()}));
    program_ = &p;
    transfers_.assign(p.pools[rank_].buffers(), {});
  }
  void on_action(std::uint32_t n) {
    at_ = n, departure_.in_step = true;
    set_between_steps(false);
    listen();
  }
  void post_receive(const action& a, std::span<std::byte> bytes) {
    post(a, bytes, program_->channels[a.channel].from, MPI_Irecv, "MPI_Irecv");
  }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    post(a, bytes, program_->channels[a.channel].to, MPI_Isend, "MPI_Isend");
  }
  void wait(std::uint32_t n) {
    transfer& t = transfers_[n];
    if (!t.done()) wait_until([&] { return test(t); });
  }
  void finish() {
    on_action(static_cast<std::uint32_t>(program_->actions[rank_].size()));
    for (std::uint32_t n = 0; n < transfers_.size(); ++n) wait(n);
    departure_.in_step = false;
    set_between_steps(true);
  }

  /// Blocks until all ranks are here. @throws pipeline_aborted if a rank has failed, or stalls in its step
  std::chrono::steady_clock::time_point meet() {
    agree();
    return clock::now();
  }
  /// The same after the last step: no rank returns before all have finished.
  void leave() {
    agree();
    listen();  // a rank that arrived may have failed while it waited for this one
  }
  /// Stops all ranks, unless one has failed before: the first cause is kept. If two fail at the same time, each other rank
  /// keeps the one that it hears of first. Texts of more than 2000 bytes are cut.
  ///
  /// Blocks until no rank receives any more, so that the trainers' buffers are free; at most a quarter of the time limit, if
  /// a rank does not answer because it is dead or in a long op. That rank's messages may still arrive, so the buffers must
  /// then live until the process ends. So a rank that waits for a dead one has left after at most 1.25 time limits.
  void abort(std::string_view cause) {
    if (refused_) return;
    report(cause);
    settle();
  }

 private:
  using clock = std::chrono::steady_clock;

  // The last message that was posted with a buffer.
  struct transfer {
    MPI_Request request = MPI_REQUEST_NULL;
    std::size_t bytes = 0;
    action posted{};

    bool done() const { return request == MPI_REQUEST_NULL; }
    bool receives() const { return posted.kind == action_kind::receive; }
  };

  template <typename Byte, typename Call>
  void post(const action& a, std::span<Byte> bytes, int peer, Call call, const char* name) {
    wait(a.buffer);  // at once, as the program is valid
    transfer& t = transfers_[a.buffer];
    t.bytes = bytes.size(), t.posted = a;
    const bool in_blocks = bytes.size() > block_;
    MPI_Datatype type = in_blocks ? blocks_and_rest(t) : MPI_BYTE;
    const int count = in_blocks ? 1 : static_cast<int>(bytes.size());
    check(call(bytes.data(), count, type, peer, 0, data_, &t.request), t, name);
    if (in_blocks) MPI_Type_free(&type);  // the message keeps it
  }
  MPI_Datatype blocks_and_rest(const transfer& t) {
    const std::size_t rest = t.bytes % block_;
    const std::array counts{static_cast<int>(t.bytes / block_), static_cast<int>(rest)};
    const std::array at{MPI_Aint{0}, static_cast<MPI_Aint>(t.bytes - rest)};
    const std::array types{block_type_, MPI_BYTE};
    MPI_Datatype made = MPI_DATATYPE_NULL;
    check(MPI_Type_create_struct(2, counts.data(), at.data(), types.data(), &made), t, "MPI_Type_create_struct");
    check(MPI_Type_commit(&made), t, "MPI_Type_commit");
    return made;
  }
  // True if a message is done.
  bool test(transfer& t) {
    int done = 0, error = MPI_SUCCESS;
    MPI_Status status;
    const int code = MPI_Test(&t.request, &done, &status);
    if (code != MPI_SUCCESS) {
      t.request = MPI_REQUEST_NULL;
      MPI_Error_class(code, &error);
      if (error != MPI_ERR_TRUNCATE) check(code, t, "MPI_Test");
    } else if (done == 0) {
      return false;
    }
    if (t.receives()) check_size(t, status, error == MPI_ERR_TRUNCATE);
    return true;
  }
  void check_size(const transfer& t, const MPI_Status& status, bool truncated) {
    MPI_Count got = 0;
    MPI_Get_elements_x(&status, MPI_BYTE, &got);
    const std::size_t sent = std::max(static_cast<std::size_t>(got), truncated ? t.bytes : 0);
    if (sent == t.bytes && !truncated) return;
    // MPI need not report the size of a longer message; Open MPI does.
    fail(detail::concat({to_string(t.posted.what), " has ", sent == t.bytes ? "more than " : "", sent,
                         " bytes at its sender and ", t.bytes, " at its receiver"}));
  }
  void check(int status, const transfer& t, const char* call) {
    if (status == MPI_SUCCESS) return;
    const std::string text =
        detail::concat({call, " of ", describe(*program_, t.posted), ": ", detail::mpi_error_text(status)});
    report(text);
    throw mpi_error(status, text);
  }

  // Waits for all ranks, and leaves the greatest of both numbers in notices_->agreement(): 1 if a rank has failed; the number,
  // from 1, of one that leaves; 1 if one stays; the two.
  void agree(std::uint64_t first = 0, std::uint64_t second = 0) {
    set_between_steps(false);
    listen();
    agrees_ = true;
    notices_->start_agreement({0, 0, 1, first, second});
    // A number above 0 is of a rank that has failed: its notice will come.
    wait_until([&] { return notices_->agreed() && notices_->agreement()[0] == 0; });
    agrees_ = false;
    if (const std::uint64_t left = notices_->agreement()[1]; left > 0)
      fail(detail::concat({"rank ", left - 1, " has left, and others wait for it"}));
    set_between_steps(true);
  }
  template <typename Done>
  void wait_until(Done&& done) {
    const auto ends = [&] {
      if (done()) return true;
      listen();
      return false;
    };
    const auto pauses = [this] { return notices_->positions().any_between_steps(); };
    const auto comes = [&] { return detail::wait_within(time_limit_ / 2, ends, false, pauses, pause_limit_ / 2); };
    if (comes()) return;
    notices_->report_position(place(), progress_state::waits);
    if (!comes()) fail("nothing came within the time limit\n" + positions());
  }
  void set_between_steps(bool is) {
    if (is == std::exchange(between_steps_, is)) return;
    notices_->report_state(is ? progress_state::between_steps : progress_state::moves);
  }
  void report(std::string_view cause) {
    if (!aborted()) notices_->report_failure(detail::concat({place(), ": ", cause}));
  }
  bool aborted() { return notices_->failure().has_value(); }
  void listen() {
    if (aborted()) give_up();
  }
  [[noreturn]] void give_up() { throw pipeline_aborted("aborted by " + *notices_->failure()); }
  [[noreturn]] void fail(std::string_view cause) {
    report(cause);
    give_up();
  }

  std::string place() const {
    const auto is_pending = [&](std::uint32_t n) { return !transfers_[n].done(); };
    return detail::place_of(program_, rank_, at_, is_pending);
  }
  // All ranks that wait, as they report half-way to the time limit, after the numbers of the others.
  std::string positions() {
    std::string waiting, silent;
    const auto& all = notices_->positions().all();
    for (std::uint32_t r = 0; r < all.size(); ++r)
      if (!all[r].place.empty() && clock::now() - all[r].when < time_limit_)
        waiting += all[r].place + "\n";
      else
        silent += detail::concat({" ", r});
    return silent.empty() ? waiting : detail::concat({"not waiting, or gone:", silent, "\n", waiting});
  }

  // Cancels all receives, then waits until every rank has: the trainers' buffers are free from then on.
  void settle() noexcept try {
    if (std::exchange(settled_, true)) return;
    for_each_receive([](MPI_Request& request) { MPI_Cancel(&request); });
    for (const auto start = clock::now(); !cancelled() || !ended(); std::this_thread::yield())
      if (clock::now() - start > (aborted() ? time_limit_ / 4 : time_limit_)) return;
    clean_ = !aborted() && notices_->agreement()[0] == 0 && notices_->agreement()[2] == 0;
  } catch (...) {  // of MPI, or no memory for a text
  }
  bool cancelled() {
    bool all = true;
    for_each_receive([&](MPI_Request& request) {
      int done = 0;
      if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) request = MPI_REQUEST_NULL, done = 1;
      all = all && done != 0;
    });
    return all;
  }
  template <typename F>
  void for_each_receive(F&& f) {
    for (transfer& t : transfers_)
      if (t.receives() && !t.done()) f(t.request);
  }
  // True once every rank settles, or is in an agreement that a failed rank has joined.
  bool ended() {
    if (!agrees_) notices_->start_agreement({aborted(), rank_ + 1, 0, 0, 0}), agrees_ = true;
    if (!notices_->agreed()) return false;
    const auto& [failed, left, stay, first, second] = notices_->agreement();
    if (failed != 0 || (!aborted() && stay == 0)) return true;
    agrees_ = false;  // ranks that stay have been in that one: those that it has not ended join another one
    return false;
  }

  std::chrono::duration<double> time_limit_, pause_limit_;
  std::size_t block_;
  std::unique_ptr<detail::mpi_notices> notices_;
  MPI_Comm data_ = MPI_COMM_NULL;
  MPI_Datatype block_type_ = MPI_DATATYPE_NULL;
  std::uint32_t rank_ = 0, at_ = no_slot;
  const program* program_ = nullptr;
  std::vector<transfer> transfers_;  // by buffer
  bool agrees_ = false;              // takes part in an agreement
  bool between_steps_ = false;       // as the other ranks know it
  bool refused_ = false;             // all ranks have refused the program
  bool settled_ = false, clean_ = false;
  detail::departure departure_;
};

static_assert(transport<mpi_transport>);

}  // namespace pipesched
