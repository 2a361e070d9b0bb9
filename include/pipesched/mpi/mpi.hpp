// SPDX-License-Identifier: MIT
#pragma once

// Every rank a process, messages by MPI: one host or many. Data and notices of failure travel in two communicators of their
// own, so neither meets a message of the user's. Nothing is allocated between the constructor and a failure.
//
// A message of at most `block` bytes is one MPI message; a longer one is two: its whole blocks, as one derived datatype,
// and the rest, which may be empty. So no count is above what an int holds, and MPI 3 is enough.
//
// When a rank throws, gives up or leaves, it tells all others, who look for such notices whenever they wait and before each
// action. A process that is killed tells nobody. Open MPI's mpirun then kills the others at once; with --enable-recovery it
// leaves them alone, and those that wait for the dead one give up after the time limit and tell the rest. MPI itself may
// also end a process whose connection breaks. After a failure that left a rank dead, MPI_Finalize may wait for ever: call
// MPI_Abort.

#include <mpi.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// A call of MPI that failed, on the rank where it did.
struct mpi_error : std::runtime_error {
  mpi_error(int status, const std::string& text) : std::runtime_error(text), code(status) {}
  int code;  ///< what the call returned
};

/// One rank's side: rank r of the program is rank r of the communicator. The constructor and the destructor are collective.
///
/// After a failure the destructor waits until no rank is receiving any more, so that the trainers' buffers are free; for a
/// rank that does not answer (dead, or in a long op) no longer than a quarter of the time limit. Then messages of that rank
/// may still come: the buffers must live until the process ends. After a failure the two communicators are not freed: what
/// is left in them meets nobody. A rank that another one lets down has left after at most 1.25 time limits of waiting, 1.0
/// of them until the exception.
/// @pre called by one thread at a time; the program and the trainer's buffers outlive it; it does not outlive MPI_Finalize
class mpi_transport {
 public:
  /// @param time_limit  how long a rank waits for one message before it gives up, and all others with it
  /// @param block       bytes, 1 to 2^31 - 1; the same on all ranks
  /// @throws schedule_error, on all ranks, unless the communicator has the program's number of ranks, all with the same
  /// program; for a time limit or a block that cannot be
  mpi_transport(const program& p, MPI_Comm communicator,
                std::chrono::duration<double> time_limit = std::chrono::seconds(60), std::size_t block = 1u << 30)
      : program_(p), time_limit_(detail::checked_time_limit(time_limit)), block_(block) {
    if (block < 1 || block > static_cast<std::size_t>(std::numeric_limits<int>::max()))
      throw schedule_error(concat({"a block has 1 to 2147483647 bytes; got ", block}));
    require(MPI_Comm_dup(communicator, &data_), "MPI_Comm_dup");
    require(MPI_Comm_dup(communicator, &notices_), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(data_, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(notices_, MPI_ERRORS_RETURN);
    int size = 0, rank = 0;
    MPI_Comm_size(data_, &size);
    MPI_Comm_rank(data_, &rank);
    const std::uint64_t own = fingerprint(p) ^ block;
    std::array<std::uint64_t, 2> all{own, ~own};  // the greatest, and by its complement the least
    require(MPI_Allreduce(MPI_IN_PLACE, all.data(), 2, MPI_UINT64_T, MPI_MAX, notices_), "MPI_Allreduce");
    const bool same = all[0] == ~all[1];
    if (!same || static_cast<std::uint32_t>(size) != p.schedule.pp()) {
      MPI_Comm_free(&data_);
      MPI_Comm_free(&notices_);
      if (!same) throw schedule_error("the ranks of a communicator run one program; these have different ones");
      throw schedule_error(
          concat({"a program of ", p.schedule.pp(), " pipeline ranks needs as many; the communicator has ", size}));
    }
    MPI_Type_contiguous(static_cast<int>(block), MPI_BYTE, &block_type_);
    MPI_Type_commit(&block_type_);
    rank_ = static_cast<std::uint32_t>(rank);
    reductions_at_ = p.pools[rank_].buffers;
    weights_at_ = reductions_at_ + p.pools[rank_].reductions;
    transfers_.resize(weights_at_ + weight_gradients_sent(p.actions[rank_]));
    heard_.resize(p.schedule.pp());
    mail_ = std::make_unique<mail>(p.schedule.pp());
  }
  mpi_transport(const mpi_transport&) = delete;
  mpi_transport& operator=(const mpi_transport&) = delete;
  /// A rank that leaves in the middle of a step tells the others.
  ~mpi_transport() {
    const bool thrown = std::uncaught_exceptions() > exceptions_;
    try {
      if (thrown || !finished_) abort(thrown ? "it left with an exception" : "it left before the end of its step");
      settle();
    } catch (...) {  // no memory for a text
    }
    if (mail_ != nullptr) static_cast<void>(mail_.release());  // still being read
  }

  std::uint32_t rank() const { return rank_; }

  /// Tells all ranks to stop, unless one has already: the first cause is the one that is told. Of two that fail at the same
  /// time, a rank tells of the one it hears of first. Texts of more than 2000 bytes are cut.
  void abort(std::string_view cause) {
    hear();
    if (aborted_) return;
    aborted_ = true;
    cause_ = concat({"rank ", rank_, " at ", place(), ": ", cause});
    tell(notice::failed, cause_);
  }

  void at(std::uint32_t action) {
    at_ = action, finished_ = false;
    listen();
  }

  void post_receive(const action& a, std::span<std::byte> bytes) {
    transfer& t = transfers_[is_weight_gradient(a) ? reductions_at_ + a.buffer : a.buffer];
    t.receives = true;
    post(t, a.what, program_.channels[a.channel].from, bytes, MPI_Irecv, "MPI_Irecv");
  }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    transfer& t = transfers_[is_weight_gradient(a) ? weights_at_ + weights_++ : a.buffer];
    post(t, a.what, program_.channels[a.channel].to, bytes, MPI_Isend, "MPI_Isend");
  }
  void wait_received(std::uint32_t n, bool weights) { wait(transfers_[weights ? reductions_at_ + n : n]); }
  void wait_sent(std::uint32_t n) { wait(transfers_[n]); }
  void wait_weights_sent() {
    for (std::size_t n = weights_at_; n < transfers_.size(); ++n) wait(transfers_[n]);
  }
  void finish() {
    at(static_cast<std::uint32_t>(program_.actions[rank_].size()));
    for (transfer& t : transfers_) wait(t);
    weights_ = 0;
    finished_ = true;
  }

  /// Waits, within the time limit, until every rank has come here or failed: after the last step, where a rank must know
  /// how the others ended. Collective.
  /// @throws pipeline_aborted if one has failed. @pre finish() has returned; no step follows
  void leave() {
    start_agreement();
    wait_until([&] { return agreed() && mail_->failed[1] == 0; });
    listen();  // one may have agreed, and given up while this rank was late
  }

 private:
  using clock = std::chrono::steady_clock;

  // What was posted from or into one buffer.
  struct transfer {
    std::array<MPI_Request, 2> requests{MPI_REQUEST_NULL, MPI_REQUEST_NULL};  // the whole blocks, the rest
    std::size_t bytes = 0, whole = 0;                                         // in all, in whole blocks
    tensor_id what{};
    int peer = 0;
    bool receives = false;

    bool done() const { return requests[0] == MPI_REQUEST_NULL && requests[1] == MPI_REQUEST_NULL; }
  };
  // Small enough to leave at once, whether or not the other rank listens.
  struct notice {
    enum : char { waiting, failed } kind = waiting;
    std::array<char, 2000> text{};
  };
  // What MPI reads after a rank has gone on; it outlives the transport where not all has been read.
  struct mail {
    explicit mail(std::size_t ranks) : requests(2 * ranks, MPI_REQUEST_NULL) {}
    std::array<notice, 2> notices;
    std::vector<MPI_Request> requests;  // by kind and rank
    std::array<int, 2> failed{};        // this rank, any rank
  };
  struct position {
    clock::time_point when{};
    notice told{};
  };

  static std::string concat(std::initializer_list<detail::piece> pieces) { return detail::concat(pieces); }

  static std::string error_text(int status) {
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(status, text.data(), &length);
    return {text.data(), static_cast<std::size_t>(length)};
  }
  static void require(int status, const char* call) {
    if (status != MPI_SUCCESS) throw mpi_error(status, concat({call, ": ", error_text(status)}));
  }
  void check(const transfer& t, int status, const char* call) {
    if (status == MPI_SUCCESS) return;
    const std::string text = concat({call, " of ", describe(t), ": ", error_text(status)});
    abort(text);
    throw mpi_error(status, text);
  }

  template <typename Byte, typename Call>
  void post(transfer& t, tensor_id what, int peer, std::span<Byte> bytes, Call call, const char* name) {
    wait(t);  // it is free, as the program is valid
    t.bytes = bytes.size(), t.what = what, t.peer = peer;
    t.whole = bytes.size() > block_ ? bytes.size() - bytes.size() % block_ : 0;
    const int blocks = static_cast<int>(t.whole / block_), rest = static_cast<int>(t.bytes - t.whole);
    if (blocks > 0) check(t, call(bytes.data(), blocks, block_type_, peer, 0, data_, &t.requests[0]), name);
    check(t, call(bytes.data() + t.whole, rest, MPI_BYTE, peer, 0, data_, &t.requests[1]), name);
  }
  bool test(transfer& t) {
    for (std::size_t part = 0; part < 2; ++part) {
      if (t.requests[part] == MPI_REQUEST_NULL) continue;
      int done = 0;
      MPI_Status status;
      const int code = MPI_Test(&t.requests[part], &done, &status);
      int kind = MPI_SUCCESS;
      if (code != MPI_SUCCESS) {
        t.requests[part] = MPI_REQUEST_NULL;
        MPI_Error_class(code, &kind);
        if (kind != MPI_ERR_TRUNCATE) check(t, code, "MPI_Test");
      } else if (done == 0) {
        return false;
      }
      if (!t.receives) continue;
      MPI_Count came = 0;
      MPI_Get_elements_x(&status, part == 0 ? block_type_ : MPI_BYTE, &came);
      const std::size_t before = part == 0 ? 0 : t.whole, expected = part == 0 ? t.whole : t.bytes - t.whole;
      auto got = static_cast<std::size_t>(came);
      if (kind == MPI_ERR_TRUNCATE) got = std::max(got, expected);  // MPI need not tell the size; Open MPI does
      if (kind == MPI_ERR_TRUNCATE || got != expected) wrong_size(t, before, got, expected);
    }
    return true;
  }
  [[noreturn]] void wrong_size(const transfer& t, std::size_t before, std::size_t came, std::size_t expected) {
    std::string leaves = concat({before + came});
    if (came == expected) leaves = "more than " + leaves;
    if (came != expected && before == 0 && came > 0 && came % block_ == 0)
      leaves += " or more";  // whole blocks: a rest
    abort(concat({to_string(t.what), " has ", leaves, " bytes where it leaves and ", t.bytes, " where it comes"}));
    give_up();
  }

  void wait(transfer& t) {
    if (t.done()) return;
    waits_for_ = &t;
    wait_until([&] { return test(t); });
    waits_for_ = nullptr;
  }
  template <typename Done>
  void wait_until(Done&& done) {
    if (done()) return;
    const auto start = clock::now();
    bool told = false;
    for (std::uint64_t round = 1; !done(); ++round) {
      listen();
      if (round < 64) continue;
      std::this_thread::yield();
      if (round % 64 != 0) continue;
      const std::chrono::duration<double> waited = clock::now() - start;
      if (!told && waited > time_limit_ / 2) tell(notice::waiting, place()), told = true;
      if (waited > time_limit_) {
        abort("nothing came within the time limit\n" + positions());
        give_up();
      }
    }
  }
  void listen() {
    hear();
    if (aborted_) give_up();
  }
  [[noreturn]] void give_up() const { throw pipeline_aborted("aborted by " + cause_); }

  // Takes what other ranks have told.
  void hear() {
    for (int there = 0;;) {
      MPI_Status status;
      if (MPI_Iprobe(MPI_ANY_SOURCE, 0, notices_, &there, &status) != MPI_SUCCESS || there == 0) return;
      position& from = heard_[static_cast<std::size_t>(status.MPI_SOURCE)];
      if (MPI_Recv(&from.told, sizeof(notice), MPI_BYTE, status.MPI_SOURCE, 0, notices_, &status) != MPI_SUCCESS)
        return;
      from.when = clock::now();
      if (from.told.kind != notice::failed || aborted_) continue;
      aborted_ = true;
      cause_ = from.told.text.data();
    }
  }
  // Tells all other ranks, unless the last notice of this kind is still on its way.
  void tell(decltype(notice::kind) kind, std::string_view text) {
    const auto k = static_cast<std::size_t>(kind);
    const std::size_t ranks = heard_.size();
    const auto requests = std::span(mail_->requests).subspan(k * ranks, ranks);
    int sent = 0;
    MPI_Testall(static_cast<int>(ranks), requests.data(), &sent, MPI_STATUSES_IGNORE);
    if (sent == 0) return;
    notice& n = mail_->notices[k];
    n.kind = kind;
    text = text.substr(0, n.text.size() - 1);
    *std::copy(text.begin(), text.end(), n.text.begin()) = 0;
    for (std::uint32_t r = 0; r < ranks; ++r)
      if (r != rank_) MPI_Isend(&n, sizeof(notice), MPI_BYTE, static_cast<int>(r), 0, notices_, &requests[r]);
  }

  static std::string describe(const transfer& t) {
    return concat({to_string(t.what), t.receives ? " from rank " : " to rank ", t.peer});
  }
  // Where this rank is, and the message it waits for if it waits for one.
  std::string place() const {
    const auto row = program_.actions[rank_];
    std::string text = "its end";
    if (at_ < row.size() && row[at_].kind == action_kind::compute)
      text = to_string(program_.schedule[rank_][row[at_].index]);
    else if (at_ < row.size())
      text = to_string(row[at_].what);
    if (waits_for_ != nullptr) text += ", which waits for " + describe(*waits_for_);
    return text;
  }
  // Where all ranks are that have told so lately: those that wait do, half-way to the limit.
  std::string positions() const {
    std::string text, silent;
    for (std::uint32_t r = 0; r < heard_.size(); ++r) {
      if (r == rank_)
        text += concat({"rank ", r, " at ", place(), "\n"});
      else if (clock::now() - heard_[r].when < time_limit_)
        text += concat({"rank ", r, " at ", std::string_view(heard_[r].told.text.data()), "\n"});
      else
        silent += concat({" ", r});
    }
    if (!silent.empty()) silent = "not waiting, or gone:" + silent + "\n";
    return silent + text;
  }

  void start_agreement() {
    if (agreement_started_) return;
    agreement_started_ = true;
    mail_->failed[0] = aborted_;
    if (MPI_Iallreduce(&mail_->failed[0], &mail_->failed[1], 1, MPI_INT, MPI_MAX, notices_, &agreement_) != MPI_SUCCESS)
      aborted_ = true;
  }
  bool agreed() {
    int done = 0;
    return MPI_Test(&agreement_, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done != 0;
  }
  // Ends all receives, then waits until all ranks have: nobody touches the buffers any more.
  void settle() {
    const auto start = clock::now();
    const auto within_limit = [&](auto&& done) {
      while (!done()) {
        hear();
        if (clock::now() - start > (aborted_ ? time_limit_ / 4 : time_limit_)) return false;
        std::this_thread::yield();
      }
      return true;
    };
    for (transfer& t : transfers_)
      for (MPI_Request& request : t.requests)
        if (t.receives && request != MPI_REQUEST_NULL) MPI_Cancel(&request);
    const bool ended = within_limit([&] {
      bool all = true;
      for (transfer& t : transfers_)
        for (MPI_Request& request : t.requests) {
          int done = 1;
          if (!t.receives || request == MPI_REQUEST_NULL) continue;
          if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) request = MPI_REQUEST_NULL;
          all = all && done != 0;
        }
      return all;
    });
    MPI_Type_free(&block_type_);  // what is under way keeps it
    if (ended) start_agreement();
    if (!ended || !within_limit([&] { return agreed(); }) || mail_->failed[1] != 0 || aborted_) return;
    MPI_Waitall(static_cast<int>(mail_->requests.size()), mail_->requests.data(), MPI_STATUSES_IGNORE);
    MPI_Comm_free(&data_);
    MPI_Comm_free(&notices_);
    mail_.reset();
  }

  const program& program_;
  std::chrono::duration<double> time_limit_;
  std::size_t block_;
  MPI_Comm data_ = MPI_COMM_NULL, notices_ = MPI_COMM_NULL;
  MPI_Datatype block_type_ = MPI_DATATYPE_NULL;
  std::uint32_t rank_ = 0, at_ = 0;
  std::size_t reductions_at_ = 0, weights_at_ = 0, weights_ = 0;  // weights_: sent in this step
  std::vector<transfer> transfers_;  // by buffer, then by reduction buffer, then the weight gradients sent
  const transfer* waits_for_ = nullptr;
  std::vector<position> heard_;
  std::unique_ptr<mail> mail_;
  MPI_Request agreement_ = MPI_REQUEST_NULL;
  bool agreement_started_ = false, finished_ = true, aborted_ = false;
  std::string cause_;
  int exceptions_ = std::uncaught_exceptions();
};

static_assert(transport<mpi_transport>);

}  // namespace pipesched
