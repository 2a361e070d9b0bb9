// SPDX-License-Identifier: MIT
#pragma once

// Threads for the ranks of a hub: one per rank, the exception of the first that failed, and a barrier among them.

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#include "pipesched/execute/callbacks.hpp"
#include "pipesched/execute/hub.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// A barrier among the ranks of a hub, which lets all go when one of them has failed.
template <typename Mover>
class meeting_point {
 public:
  meeting_point(const basic_hub<Mover>& hub, std::uint32_t ranks) : hub_(hub), ranks_(ranks) {}
  void wait() {
    const std::uint32_t all = (arrived_.fetch_add(1) / ranks_ + 1) * ranks_;
    while (arrived_.load() < all && !hub_.aborted()) std::this_thread::yield();
  }

 private:
  const basic_hub<Mover>& hub_;
  std::uint32_t ranks_;
  std::atomic<std::uint32_t> arrived_{0};
};

/// Runs `run(rank, together)` in a thread per rank; together.wait() is for all of them. @throws what the first one that failed
/// has thrown, once all have ended
template <typename Mover, typename Run>
void run_ranks(basic_hub<Mover>& hub, std::uint32_t ranks, Run&& run) {
  std::vector<std::exception_ptr> errors(ranks);
  meeting_point<Mover> together(hub, ranks);
  std::vector<std::jthread> threads;
  const auto run_rank = [&](std::uint32_t rank) {
    try {
      run(rank, together);
    } catch (...) {
      errors[rank] = std::current_exception();
      hub.abort(rank, text_of_exception());
    }
  };
  try {
    for (std::uint32_t rank = 0; rank < ranks; ++rank) threads.emplace_back(run_rank, rank);
  } catch (const std::exception& e) {
    hub.abort(static_cast<std::uint32_t>(threads.size()), concat({"no thread: ", e.what()}));
    threads.clear();
    throw;
  }
  threads.clear();  // joins
  if (!hub.aborted()) return;
  if (errors[hub.culprit()]) std::rethrow_exception(errors[hub.culprit()]);
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace pipesched::detail
