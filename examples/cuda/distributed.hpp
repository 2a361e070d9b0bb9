// SPDX-License-Identifier: MIT
#pragma once

// The rank of this process over NCCL: every rank a process, on a GPU of its own or sharing one, on one host or many.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <pipesched/device/nccl.hpp>
#include <pipesched/launch/tcp_coordinator.hpp>
#include <pipesched/simulate/timeline.hpp>
#include <string>
#include <vector>

#include "check.hpp"
#include "compare.hpp"
#include "memory.hpp"
#include "mlp.hpp"
#include "pipeline.hpp"
#include "trainer.hpp"

namespace cuda_mlp {

template <typename Real>
class distributed {
 public:
  using clock = std::chrono::steady_clock;

  /// @param device  of this process, and this thread. @pre p and control outlive this
  distributed(const pipesched::program& p, pipesched::tcp_coordinator& control, int device, const mlp_sizes& s,
              const trainer_options& options, std::chrono::duration<double> time_limit)
      : p_(p),
        control_(control),
        time_limit_(time_limit),
        world_(control, time_limit),
        where_{.device = device, .compute = stream_.handle()},
        trainer_(p, control.rank(), where_, s, options) {}

  /// Milliseconds of each step, after some to warm up, from the end of the one before on this rank.
  std::vector<double> run(run_mode mode, std::size_t steps) {
    std::vector<clock::time_point> ends;
    pipesched::nccl::transport transport(p_, world_.handle(), where_, control_, {.time_limit = time_limit_});
    all_stop_if_it_throws(transport, [&] {
      transport.warm(trainer_);
      for (int i = 0; i < warm_up; ++i) put_step(transport), transport.synchronize();
      if (mode == run_mode::graph) return replay(transport, steps, ends);
      ends.push_back(clock::now());
      for (std::size_t step = 0; step < steps; ++step) {
        put_step(transport);
        transport.synchronize();
        ends.push_back(clock::now());
      }
    });
    return between(ends);
  }

  /// When the cells of one step ran, in milliseconds: those of all ranks on process 0, only its own elsewhere.
  pipesched::timeline run_timed(run_mode) {
    pipesched::timeline t{.schedule = p_.schedule,
                          .intervals = pipesched::rows<pipesched::interval>::for_overwrite_like(p_.schedule.cells)};
    std::ranges::fill(t.intervals.all(), pipesched::interval{});
    const std::uint32_t rank = control_.rank();
    pipesched::nccl::transport transport(p_, world_.handle(), where_, control_,
                                         {.timed = true, .time_limit = time_limit_});
    all_stop_if_it_throws(transport, [&] {
      transport.warm(trainer_);
      for (int i = 0; i < warm_up; ++i) put_step(transport), transport.synchronize();
      control_.broadcast("the clocks start");
      transport.start_clock();
      put_step(transport);
      transport.synchronize();
      transport.read_times(t[rank]);
    });
    const auto own = std::as_bytes(t[rank]);
    const std::vector<std::string> all = gather(control_, {reinterpret_cast<const char*>(own.data()), own.size()});
    for (std::uint32_t r = 0; r < all.size(); ++r) std::memcpy(t[r].data(), all[r].data(), t[r].size_bytes());
    t = scaled(starting_at_zero(std::move(t)), 1000);  // milliseconds
    return t;
  }

  /// The largest of all ranks, on process 0.
  errors worst_errors(const step_results<Real>& expected) {
    const errors own = compare(p_, control_.rank(), trainer_, expected);
    errors worst = own;
    for (const std::string& text : gather(control_, {reinterpret_cast<const char*>(&own), sizeof own})) {
      errors theirs;
      std::memcpy(&theirs, text.data(), sizeof theirs);
      worst = worse(worst, theirs);
    }
    return worst;
  }
  bool reports() const { return control_.rank() == 0; }

 private:
  static constexpr int warm_up = 2;  // steps

  void put_step(pipesched::nccl::transport& transport) {
    trainer_.begin_step();
    execute(p_, transport.rank(), trainer_, transport);
  }
  void replay(pipesched::nccl::transport& transport, std::size_t steps, std::vector<clock::time_point>& ends) {
    auto graph = transport.capture(trainer_);
    if (reports()) std::puts("replaying a graph"), std::fflush(stdout);
    ends.push_back(clock::now());
    for (std::size_t step = 0; step < steps; ++step) {
      trainer_.begin_step();
      graph.launch();
      transport.synchronize();
      ends.push_back(clock::now());
    }
  }
  template <typename Body>
  static void all_stop_if_it_throws(pipesched::nccl::transport& transport, Body&& body) {
    try {
      body();
    } catch (const std::exception& e) {
      transport.abort(e.what());
      throw;
    }
  }

  const pipesched::program& p_;
  pipesched::tcp_coordinator& control_;
  std::chrono::duration<double> time_limit_;
  pipesched::nccl::world world_;
  stream stream_;
  pipesched::cuda::rank where_;
  trainer<Real> trainer_;
};

}  // namespace cuda_mlp
