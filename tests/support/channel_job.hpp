// SPDX-License-Identifier: MIT
#pragma once

// The ranks of a program over channels of a simulated library, each in a thread and on a simulated device.

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "pipesched/device/channel_transport.hpp"
#include "pipesched/device/side_stream.hpp"
#include "pipesched/execute/run.hpp"
#include "support/fake_cluster.hpp"
#include "support/planned_receives.hpp"
#include "support/stream_trainer.hpp"
#include "support/tanh_model.hpp"
#include "support/thread_coordinator.hpp"

namespace pipesched::tests {

using cluster_trainer = stream_trainer<fake_cluster, side_stream<cluster_runtime>>;
using cluster_transport = channel_transport<cluster_runtime, cluster_library>;

static_assert(transport<cluster_transport>);

// All ranks of a program, each in a thread and on a device of its own.
struct channel_job {
  explicit channel_job(const program& of, int queues = 0, std::uint64_t seed = 1, channel_transport_options with = {})
      : p(of), cluster(queues, seed), jobs(of.schedule.pp()), options(with) {
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) trainers.emplace_back(p, r);
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
      fake_cluster::stream s{};
      cluster.make_stream(static_cast<int>(r), 0, s);
      sides.push_back(std::make_unique<side_stream<cluster_runtime>>(cluster_runtime{&cluster}, static_cast<int>(r)));
      on_device.push_back({&trainers[r], &cluster, s, sides[r].get(), {}});
    }
    cluster.calls = 0;
  }
  // The text that each rank has thrown.
  std::vector<std::string> run(const std::function<void(std::uint32_t, cluster_transport&)>& body) {
    std::vector<std::string> said(p.schedule.pp());
    std::vector<std::jthread> threads;
    own_threads.assign(p.schedule.pp(), {});
    ended = 0;
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r)
      threads.emplace_back([&, r] {
        own_threads[r] = std::this_thread::get_id();
        thread_coordinator control(jobs, r);
        try {
          cluster_transport transport({&cluster}, {&cluster}, {static_cast<int>(r), on_device[r].stream}, control,
                                      options);
          body(r, transport);
        } catch (const std::exception& e) {
          said[r] = e.what();
        }
        ++ended;
      });
    threads.clear();
    return said;
  }
  // If a callback returned earlier, its rank and the others could finish before they hear of the failure.
  void wait_for_the_others() const {
    while (ended + 1 < static_cast<int>(p.schedule.pp())) std::this_thread::yield();
  }
  // Adds steps to the plan by which the cluster checks receives.
  void plan(const program& of, std::size_t steps = 1) {
    const planned_receives planned(of);
    for (; steps > 0; --steps) {
      for (std::uint32_t c = 0; c < of.channels.size(); ++c) {
        const std::uint32_t from = of.channels[c].from, to = of.channels[c].to;
        std::vector<std::uint64_t>& kernels =
            cluster.kernels_before_receive[detail::concat({"pipesched ", from, " to ", to})];
        if (kernels.empty()) kernels.push_back(planned_kernels[to]);  // its first message, before any step
        for (const std::uint32_t n : planned.actions_of(c))
          kernels.push_back(planned_kernels[to] + planned.kernels(to, n));
      }
      for (std::uint32_t r = 0; r < of.actions.size(); ++r)
        planned_kernels[r] += planned.kernels(r, static_cast<std::uint32_t>(of.actions[r].size()));
    }
  }
  std::vector<std::string> train(std::size_t steps) {
    plan(p, steps);
    return run([&](std::uint32_t r, cluster_transport& t) { pipesched::run(p, r, on_device[r], t, {.steps = steps}); });
  }
  void require_trained(std::size_t steps) const {
    const auto orders = small_model::orders_of(p.schedule);
    const auto expected = small_model::on_one_device(p.schedule.stages(), p.schedule.micro, orders);
    for (const auto& t : trainers) {
      for (std::uint32_t m = 0; m < p.schedule.micro; ++m)
        if (t.losses[m] != -1) REQUIRE(t.losses[m] == expected.losses[m]);
      for (std::size_t chunk = 0; chunk < t.stages.size() && !p.schedule.forward_only; ++chunk)
        if (steps == 1) REQUIRE(t.layers[chunk].gradient == expected.layers[t.stages[chunk]].gradient);
    }
  }
  bool trained() const {
    const auto orders = small_model::orders_of(p.schedule);
    const auto expected = small_model::on_one_device(p.schedule.stages(), p.schedule.micro, orders);
    for (const auto& t : trainers)
      for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk)
        if (!(t.layers[chunk].gradient == expected.layers[t.stages[chunk]].gradient)) return false;
    return true;
  }
  std::string first_race() const { return cluster.races.empty() ? "" : cluster.races.front(); }

  const program& p;
  fake_cluster cluster;
  thread_job jobs;
  channel_transport_options options;
  std::vector<small_model::trainer> trainers;
  std::vector<std::unique_ptr<side_stream<cluster_runtime>>> sides;
  std::vector<cluster_trainer> on_device;
  std::map<std::uint32_t, std::uint64_t> planned_kernels;  // by rank
  std::vector<std::thread::id> own_threads;                // not the watchdogs'
  std::atomic<int> ended = 0;                              // ranks of the last run()
};

inline std::vector<std::string> nothing(const program& p) { return std::vector<std::string>(p.schedule.pp()); }

}  // namespace pipesched::tests
