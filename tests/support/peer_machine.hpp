// SPDX-License-Identifier: MIT
#pragma once

// The ranks of a program on two simulated devices, each with a stream and a trainer of tanh_model, and their peer_world.

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/device/peer_transport.hpp"
#include "pipesched/device/side_stream.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "support/fake_device.hpp"
#include "support/families.hpp"
#include "support/stream_trainer.hpp"
#include "support/tanh_model.hpp"

namespace pipesched::tests {

using device_trainer = stream_trainer<fake_device, side_stream<fake_runtime>>;

/// @param Runtime  fake_runtime, or a mutant of it. @param Trainer  device_trainer, or one that starts with it
template <typename Runtime = fake_runtime, typename Trainer = device_trainer>
struct peer_machine {
  using model = tanh_model<double>;
  using transport_type = peer_transport<Runtime>;

  explicit peer_machine(const program& of, Runtime runtime = {},
                        const peer_options& options = {.time_limit = std::chrono::seconds(20)})
      : p(of) {
    runtime.device = &device;
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
      trainers.emplace_back(p, r);
      fake_device::stream s{};
      device.make_stream(static_cast<int>(r % 2), s);
      ranks.push_back({.device = static_cast<int>(r % 2), .compute = s});
    }
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
      sides.push_back(std::make_unique<side_stream<fake_runtime>>(fake_runtime{&device}, static_cast<int>(r % 2)));
      on_device.push_back(Trainer{device_trainer{&trainers[r], &device, ranks[r].compute, sides.back().get(), {}}});
    }
    device.reset_counts();
    world = std::make_unique<peer_world<Runtime>>(runtime, ranks, options);
  }
  timeline run(const run_options& options = {}) { return run_all(p, on_device, *world, options); }

  void require_trained(std::size_t steps) const {
    const auto expected = model::on_one_device(p.schedule.stages(), p.schedule.micro, model::orders_of(p.schedule));
    for (const auto& t : trainers) {
      for (std::uint32_t m = 0; m < p.schedule.micro; ++m)
        if (t.losses[m] != -1) REQUIRE(t.losses[m] == expected.losses[m]);
      if (p.schedule.forward_only) continue;
      for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk)
        if (steps == 1)
          REQUIRE(t.layers[chunk].gradient == expected.layers[t.stages[chunk]].gradient);
        else if (p.schedule.placement.replicas() == 1)
          REQUIRE(t.layers[chunk].gradient[1][2] ==
                  doctest::Approx(static_cast<double>(steps) * expected.layers[t.stages[chunk]].gradient[1][2])
                      .epsilon(1e-9));
    }
  }
  std::string first_race() const { return device.races.empty() ? "" : device.races.front(); }

  const program& p;
  fake_device device;
  std::vector<model::trainer> trainers;
  std::vector<device_rank<Runtime>> ranks;
  std::vector<std::unique_ptr<side_stream<fake_runtime>>> sides;
  std::vector<Trainer> on_device;
  std::unique_ptr<peer_world<Runtime>> world;
};

/// A rank that descends along its gradients: it updates its weights in its stream after every step.
struct descending_on_device : device_trainer {
  void begin_step(std::size_t) {
    for (auto& l : on_host->layers)  // a step starts from gradients of 0
      device->kernel(stream, {}, {all(l.gradient)}, [&l] { l.gradient = {}; });
  }
  void end_step(std::size_t step) {
    losses_of_steps.resize(step + 1);
    losses_of_steps[step] = std::exchange(on_host->losses, std::vector<double>(on_host->losses.size(), -1));
    for (auto& l : on_host->layers)
      device->kernel(stream, {}, {all(l.weights), all(l.gradient)}, [&l] { model::update(l); });
  }
  std::vector<std::vector<double>> losses_of_steps{};
};

/// Requires the losses and weights of gradient descent on one device, to the bit. @pre every step is of program `p`
template <typename Machine>
void require_descended(const Machine& m, std::size_t steps) {
  using model = tanh_model<double>;
  const schedule& s = m.p.schedule;
  auto expected = model::on_one_device(s.stages(), s.micro, model::orders_of(s));
  for (std::size_t step = 0; step < steps; ++step) {
    if (step > 0) expected = model::on_one_device(std::move(expected.layers), s.micro, model::orders_of(s));
    for (const auto& t : m.on_device) {
      REQUIRE(t.losses_of_steps.size() == steps);
      for (std::uint32_t micro = 0; micro < s.micro; ++micro) {
        const double loss = t.losses_of_steps[step][micro];
        REQUIRE((loss == -1 || loss == expected.losses[micro]));
      }
    }
    for (auto& l : expected.layers) model::update(l);
  }
  for (const auto& t : m.trainers)
    for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk)
      REQUIRE(t.layers[chunk].weights == expected.layers[t.stages[chunk]].weights);
}

/// Calls `f(program)` for every family on 1, 2 and 4 ranks, with few buffers and many, training and forward only.
template <typename F>
void for_some_programs(F&& f) {
  for (const family& of : families)
    for (const std::int64_t pp : {1, 2, 4})
      for (const std::int64_t micro : {3, 8})
        for (const bool forward_only : {false, true})
          for (const std::uint32_t depth : {1u, 4u}) {
            if (pp % 2 != 0 && needs_even_pp(of)) continue;
            CAPTURE(of.name);
            CAPTURE(pp);
            CAPTURE(micro);
            CAPTURE(forward_only);
            CAPTURE(depth);
            const program p =
                lower(of.make({.pp = pp, .micro = micro, .forward_only = forward_only}), {.depth = depth});
            f(p);
          }
}

}  // namespace pipesched::tests
