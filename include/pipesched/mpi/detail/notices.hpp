// SPDX-License-Identifier: MIT
#pragma once

// Notices between the ranks of a communicator: failures, and positions of ranks that wait. They have a communicator of their
// own, so they never match a message of the user.

#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/execute/failure.hpp"
#include "pipesched/launch/coordinator.hpp"
#include "pipesched/launch/detail/texts.hpp"
#include "pipesched/mpi/mpi_error.hpp"

namespace pipesched::detail {

/// A communicator of the library's own, whose errors are returned. Collective. @throws mpi_error
inline MPI_Comm duplicate(MPI_Comm communicator) {
  MPI_Comm made = MPI_COMM_NULL;
  require_mpi(MPI_Comm_dup(communicator, &made), "MPI_Comm_dup");
  MPI_Comm_set_errhandler(made, MPI_ERRORS_RETURN);
  return made;
}
inline std::uint32_t size_of(MPI_Comm communicator) {
  int size = 0;
  MPI_Comm_size(communicator, &size);
  return static_cast<std::uint32_t>(size);
}

/// Construction is collective. After a failure, MPI may still read from this object when its owner ends: then the owner leaks
/// it. Otherwise the owner calls free(). Called by one thread at a time.
class mpi_notices {
 public:
  /// Longer texts are cut. Short messages go at once, whether or not their receiver looks for them.
  static constexpr std::size_t max_text = 2000;

  explicit mpi_notices(MPI_Comm communicator)
      : communicator_(duplicate(communicator)), positions_(size_of(communicator)) {
    int rank = 0;
    MPI_Comm_rank(communicator_, &rank);
    rank_ = static_cast<std::uint32_t>(rank);
    requests_.resize(2 * positions_.all().size(), MPI_REQUEST_NULL);
  }
  mpi_notices(const mpi_notices&) = delete;
  mpi_notices& operator=(const mpi_notices&) = delete;
  /// Collective. @pre no rank has failed
  void free() {
    MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
    MPI_Comm_free(&communicator_);
  }

  std::uint32_t rank() const { return rank_; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(positions_.all().size()); }

  /// The first failure that this rank has heard of, its own included.
  std::optional<std::string> failure() {
    receive();
    return failure_.get();
  }
  /// The last position of each rank, as far as this rank has heard.
  const position_board& positions() {
    receive();
    return positions_;
  }

  /// Sends a failure of this rank to all others, unless one is known. Returns the first.
  const std::string& report_failure(const std::string& cause) {
    receive();
    if (failure_.set(cause)) send(kind::failure, cause);
    return failure_.text();
  }
  /// Sends the position of this rank to all others. False if it is not sent because the last one is still on its way.
  bool report_position(std::string_view place, progress_state state) {
    const std::string text = pack(place, state);
    positions_.set(rank_, text);
    return send(kind::position, text);
  }
  /// Sends a state of this rank, without a place, to all others. Unlike a position it always goes, and allocates nothing.
  void report_state(progress_state state) {
    static constexpr std::array states{progress_state::moves, progress_state::waits, progress_state::stalled,
                                       progress_state::between_steps};  // for as long as MPI may read them
    const auto& kept = *std::find(states.begin(), states.end(), state);
    static_assert(sizeof kept == 1);  // the byte with which pack() begins
    const std::string_view packed(reinterpret_cast<const char*>(&kept), 1);
    positions_.set(rank_, packed);
    for (std::uint32_t r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      MPI_Request request = MPI_REQUEST_NULL;
      MPI_Isend(packed.data(), 1, MPI_BYTE, static_cast<int>(r), static_cast<int>(kind::position), communicator_,
                &request);
      if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);  // none if the send has failed
    }
  }
  /// True once the failure of this rank, if it has reported one, has gone to all others.
  bool has_sent_failure() { return is_sent(kind::failure); }

  using numbers = std::array<std::uint64_t, 5>;
  /// Begins to find the greatest of each number over all ranks. Collective. @pre the last agreement has completed
  void start_agreement(const numbers& own) {
    given_ = own;
    const int count = static_cast<int>(given_.size());
    require_mpi(MPI_Iallreduce(given_.data(), agreed_.data(), count, MPI_UINT64_T, MPI_MAX, communicator_, &agreement_),
                "MPI_Iallreduce");
  }
  /// True once all ranks have begun the agreement.
  bool agreed() {
    int done = 0;
    require_mpi(MPI_Test(&agreement_, &done, MPI_STATUS_IGNORE), "MPI_Test");
    return done != 0;
  }
  /// The greatest numbers. @pre agreed()
  const numbers& agreement() const { return agreed_; }

 private:
  enum class kind : std::uint8_t { position, failure };  // also the tag

  std::span<MPI_Request> requests(kind k) {
    return std::span(requests_).subspan(static_cast<std::size_t>(k) * size(), size());
  }
  bool is_sent(kind k) {
    int sent = 0;
    MPI_Testall(static_cast<int>(size()), requests(k).data(), &sent, MPI_STATUSES_IGNORE);
    return sent != 0;
  }
  bool send(kind k, std::string_view text) {
    if (!is_sent(k)) return false;
    std::string& out = sent_[static_cast<std::size_t>(k)];
    out = text.substr(0, max_text);
    for (std::uint32_t r = 0; r < size(); ++r)
      if (r != rank_)
        MPI_Isend(out.data(), static_cast<int>(out.size()), MPI_BYTE, static_cast<int>(r), static_cast<int>(k),
                  communicator_, &requests(k)[r]);
    return true;
  }
  void receive() {
    for (int there = 0, length = 0;;) {
      MPI_Status status;
      if (MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, communicator_, &there, &status) != MPI_SUCCESS || there == 0) return;
      const int from = status.MPI_SOURCE, tag = status.MPI_TAG;
      MPI_Get_count(&status, MPI_BYTE, &length);
      std::string text(static_cast<std::size_t>(length), ' ');
      if (MPI_Recv(text.data(), length, MPI_BYTE, from, tag, communicator_, MPI_STATUS_IGNORE) != MPI_SUCCESS) return;
      if (static_cast<kind>(tag) == kind::position)
        positions_.set(static_cast<std::uint32_t>(from), text);
      else
        failure_.set(std::move(text));
    }
  }

  MPI_Comm communicator_;
  std::uint32_t rank_ = 0;
  position_board positions_;
  first_cause failure_;
  std::array<std::string, 2> sent_;    // by kind
  std::vector<MPI_Request> requests_;  // by kind and rank
  numbers given_{}, agreed_{};
  MPI_Request agreement_ = MPI_REQUEST_NULL;
};

}  // namespace pipesched::detail
