// SPDX-License-Identifier: MIT
#pragma once

// All ranks of a program, and the three ways to run their steps: a thread a rank, one thread for all of them by turns,
// or that captured once into a graph and replayed.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <pipesched/device/cuda.hpp>
#include <pipesched/simulate/timeline.hpp>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "compare.hpp"
#include "memory.hpp"
#include "mlp.hpp"
#include "trainer.hpp"

namespace cuda_mlp {

enum class run_mode { threads, turns, graph };

/// Milliseconds from each time to the next.
inline std::vector<double> between(const std::vector<std::chrono::steady_clock::time_point>& times) {
  std::vector<double> ms;
  for (std::size_t i = 1; i < times.size(); ++i)
    ms.push_back(std::chrono::duration<double, std::milli>(times[i] - times[i - 1]).count());
  return ms;
}

template <typename Real>
class pipeline {
 public:
  using clock = std::chrono::steady_clock;

  /// @param devices  of every rank. @pre p outlives this
  pipeline(const pipesched::program& p, const std::vector<int>& devices, const mlp_sizes& s,
           const trainer_options& options, std::chrono::duration<double> time_limit)
      : p_(p), time_limit_(time_limit) {
    trainers_.reserve(devices.size());
    for (std::uint32_t rank = 0; rank < devices.size(); ++rank) {
      check(cudaSetDevice(devices[rank]), "cudaSetDevice");
      streams_.emplace_back();
      ranks_.push_back({.device = devices[rank], .compute = streams_.back().handle()});
      trainers_.emplace_back(p, rank, ranks_.back(), s, options);
    }
  }

  /// Milliseconds of each step, after some to warm up: all ranks begin together, and the last one ends it.
  std::vector<double> run(run_mode mode, std::size_t steps) {
    pipesched::cuda::peer_hub hub({}, p_, ranks_, {}, time_limit_);
    std::vector<double> ms = mode == run_mode::threads ? in_threads(hub, warm_up + steps, nullptr)
                             : mode == run_mode::turns ? in_turns(hub, warm_up + steps, nullptr)
                                                       : replayed(hub, warm_up + steps);
    ms.erase(ms.begin(), ms.begin() + warm_up);
    return ms;
  }

  /// When the cells of one step ran, in milliseconds, likewise. Cells of a graph cannot be timed: it is run by turns.
  pipesched::timeline run_timed(run_mode mode) {
    pipesched::cuda::peer_hub hub({}, p_, ranks_, {.timed = true}, time_limit_);
    pipesched::timeline t{.schedule = p_.schedule,
                          .intervals = pipesched::rows<pipesched::interval>::for_overwrite_like(p_.schedule.cells)};
    mode == run_mode::threads ? in_threads(hub, warm_up + 1, &t) : in_turns(hub, warm_up + 1, &t);
    t = scaled(starting_at_zero(std::move(t)), 1000);  // milliseconds
    return t;
  }

  /// The largest of all ranks.
  errors worst_errors(const step_results<Real>& expected) {
    errors worst;
    for (std::uint32_t rank = 0; rank < trainers_.size(); ++rank)
      worst = worse(worst, compare(p_, rank, trainers_[rank], expected));
    return worst;
  }
  /// Does this process tell of the results?
  static bool reports() { return true; }

 private:
  static constexpr int warm_up = 2;  // steps
  using peer_transport = pipesched::cuda::peer_transport;

  std::vector<double> in_threads(pipesched::cuda::peer_hub& hub, std::size_t steps, pipesched::timeline* measured) {
    std::vector<clock::time_point> begins;  // of the steps; then the end of the last one
    begins.reserve(steps + 2);
    std::barrier together(std::ssize(ranks_), [&]() noexcept { begins.push_back(clock::now()); });
    const auto run_rank = [&](std::uint32_t rank) {
      try {
        check(cudaSetDevice(ranks_[rank].device), "cudaSetDevice");
        peer_transport transport(hub, rank);
        transport.synchronize();
        for (std::size_t step = 0; step < steps; ++step) {
          together.arrive_and_wait();
          if (hub.aborted()) throw pipesched::pipeline_aborted(hub.cause());
          if (measured != nullptr) transport.start_clock();
          trainers_[rank].begin_step();
          execute(p_, rank, trainers_[rank], transport);
          transport.synchronize();
        }
        together.arrive_and_wait();
        if (measured != nullptr) transport.read_times((*measured)[rank]);
      } catch (const std::exception& e) {
        hub.abort(rank, e.what());  // the others stop, too; the first cause is kept
        together.arrive_and_drop();
      }
    };
    {
      std::vector<std::jthread> threads;
      for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) threads.emplace_back(run_rank, rank);
    }
    if (hub.aborted()) {
      hub.mover().drain(hub.time_limit());
      throw std::runtime_error(hub.cause());
    }
    return between(begins);
  }

  std::vector<double> in_turns(pipesched::cuda::peer_hub& hub, std::size_t steps, pipesched::timeline* measured) {
    const transports by(hub, ranks_.size());
    by.synchronize();
    std::vector<clock::time_point> begins{clock::now()};
    for (std::size_t step = 0; step < steps; ++step) {
      if (measured != nullptr)
        for (peer_transport* t : by.pointers) t->start_clock();
      put_step(by);
      by.synchronize();
      begins.push_back(clock::now());
    }
    for (std::size_t rank = 0; measured != nullptr && rank < ranks_.size(); ++rank)
      by.pointers[rank]->read_times((*measured)[rank]);
    return between(begins);
  }

  std::vector<double> replayed(pipesched::cuda::peer_hub& hub, std::size_t steps) {
    const transports by(hub, ranks_.size());
    put_step(by);  // what CUDA and cuBLAS load at first use is not for a graph
    by.synchronize();
    pipesched::cuda::step_graph graph({}, ranks_, [&] { put_step(by); });
    std::vector<clock::time_point> begins{clock::now()};
    for (std::size_t step = 0; step < steps; ++step) {
      graph.launch();
      check(cudaStreamSynchronize(ranks_[0].compute), "cudaStreamSynchronize");
      begins.push_back(clock::now());
    }
    return between(begins);
  }

  // A transport for each rank, for the one thread that runs them all.
  struct transports {
    transports(pipesched::cuda::peer_hub& hub, std::size_t ranks) {
      for (std::uint32_t rank = 0; rank < ranks; ++rank) {
        each.push_back(std::make_unique<peer_transport>(hub, rank));
        pointers.push_back(each.back().get());
      }
    }
    void synchronize() const {
      for (peer_transport* t : pointers) t->synchronize();
    }
    std::vector<std::unique_ptr<peer_transport>> each;
    std::vector<peer_transport*> pointers;
  };

  void put_step(const transports& by) {
    for (trainer<Real>& t : trainers_) t.begin_step();
    pipesched::execute_by_turns<trainer<Real>, peer_transport>(p_, trainers_, by.pointers);
  }

  const pipesched::program& p_;
  std::chrono::duration<double> time_limit_;
  std::vector<stream> streams_;
  std::vector<pipesched::cuda::rank> ranks_;
  std::vector<trainer<Real>> trainers_;
};

}  // namespace cuda_mlp
