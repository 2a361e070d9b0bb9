// SPDX-License-Identifier: MIT
#pragma once

// The trainer of one rank. The constructor allocates all memory, as the program has the number of every slot; from then on
// the trainer only puts work into streams, so that a step can be captured into a graph.
//
// Every op is two halves with a transfer between them, which stands for the all-to-all of experts:
//
//   F    up, gelu                    transfer of g     down; on the last stage also the loss
//   I    gradient of g               transfer of it    gelu's gradient, gradient of x
//   W    gradient of down                              gradient of up
//   B    I and W, half by half
//
// Of a pair that the schedule overlaps, one op runs in the rank's stream and the other in a side stream, and their halves
// alternate: while the intermediate of one is transferred, the other one computes.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <pipesched/device/cuda.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "mlp.hpp"

namespace cuda_mlp {

/// A failure, to see what the other ranks say: a rank throws, is killed or stalls at the forward of a micro-batch.
struct failure_on_demand {
  enum { none, throws, is_killed, stalls } how = none;
  std::uint32_t rank = 0, micro = 0;

  void at(const pipesched::op& o) const {
    if (how == none || o.pass != pipesched::pass::forward || o.micro != micro) return;
    if (how == throws) throw std::runtime_error("asked to fail at " + to_string(o));
    if (how == is_killed) std::raise(SIGKILL);
    while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
  }
};

struct trainer_options {
  bool transfer = false;  ///< each intermediate to the host and back; else it stays where it is
  bool overlap = true;    ///< pairs in two streams; else their ops run one after the other
  failure_on_demand failure{};
};

template <typename Real>
class trainer {
 public:
  using clock = std::chrono::steady_clock;

  trainer(const pipesched::program& p, std::uint32_t rank, int device, const mlp_sizes& s,
          const trainer_options& options)
      : s_(s),
        options_(options),
        rank_(rank),
        device_(on(device)),
        numbers_(p.schedule.placement.stages_of(rank)),
        losses_(p.schedule.micro),
        main_(own_.handle(), s, options.transfer),
        side_(pipesched::cuda::runtime{}, device),
        beside_(side_.stream(), s, options.transfer) {
    using pipesched::pool;
    const pipesched::pool_sizes& pools = p.pools[rank];
    if (rank != options.failure.rank) options_.failure = {};
    const bool has_last = std::count(numbers_.begin(), numbers_.end(), p.schedule.stages() - 1) > 0;
    for (const std::uint16_t number : numbers_) stages_.emplace_back(s, number, main_.stream);
    for (std::uint32_t i = 0; i < pools[pool::activation]; ++i) kept_.emplace_back(s, has_last);
    for (std::uint32_t i = 0; i < pools[pool::context]; ++i) due_.emplace_back(s);
    for (std::uint32_t i = 0; i < pools[pool::tensor]; ++i) buffers_.emplace_back(s.narrow());
    for (std::uint32_t i = 0; i < pools[pool::reduction]; ++i) buffers_.emplace_back(2 * s.matrix());
  }
  std::uint32_t rank() const { return rank_; }
  /// The rank's device and stream.
  pipesched::cuda::rank place() const { return {device_, main_.stream}; }

  std::function<void(std::size_t step)> before_step{};  ///< may be empty
  /// Zeroes the gradients, which a step adds to.
  void begin_step(std::size_t step) {
    if (before_step) before_step(step);
    for (mlp<Real>& stage : stages_) stage.zero_gradients(main_.stream);
  }
  void end_step(std::size_t) { ends_.push_back(clock::now()); }
  /// Times at which the device has ended each step so far.
  const std::vector<clock::time_point>& ends() const { return ends_; }

  void forward(pipesched::task t) { run(main_, t); }
  void backward(pipesched::task t) { run(main_, t); }
  void backward_input(pipesched::task t) { run(main_, t); }
  void backward_weight(pipesched::task t) { run(main_, t); }
  void overlapped(pipesched::task a, pipesched::task b) {
    // Two that add to gradients might add to the same ones; no schedule of the library pairs those.
    const bool both_add = yields_weight_gradient(a.what.pass) && yields_weight_gradient(b.what.pass);
    if (!options_.overlap || both_add) return run(main_, a), run(main_, b);
    side_.begin(main_.stream);
    first_half(main_, a), first_half(beside_, b);
    transfer(main_, a), transfer(beside_, b);
    second_half(main_, a), second_half(beside_, b);
    side_.end(main_.stream);
  }

  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t n) { return buffers_[n].bytes(); }
  std::span<std::byte> weight_gradient(std::uint32_t chunk) { return stages_[chunk].gradients().bytes(); }
  void reduce(pipesched::reduction r) {
    const bool here = r.buffer == pipesched::no_slot;
    const auto& mine = stages_[r.chunk].gradients();
    const auto& other = here ? stages_[r.other_chunk].gradients() : buffers_[r.buffer];
    add(other.data(), mine.data(), mine.size(), main_.stream);
    if (here) copy(main_, mine.data(), other.data(), mine.size());
  }

  /// Losses by micro-batch, of those whose last stage is here, and a stage's gradients. Both wait for the device.
  std::vector<double> losses() const { return on(device_), losses_.to_host(); }
  std::vector<Real> gradients_of(std::uint16_t number) const {
    const auto chunk = std::find(numbers_.begin(), numbers_.end(), number) - numbers_.begin();
    return on(device_), stages_[static_cast<std::size_t>(chunk)].gradients().to_host();
  }

 private:
  // A stream with the memory that ops in it share.
  struct lane {
    lane(cudaStream_t in, const mlp_sizes& s, bool transfers)
        : stream(in), math(in), moved(s.wide()), scratch(s.wide()), y(s.narrow()), target(s.narrow()), sums(loss_sums) {
      if (transfers) host.emplace(s.wide());
    }
    cudaStream_t stream;
    blas math;
    device_array<Real> moved, scratch;  // g or its gradient, which is transferred; g of W, which is not
    device_array<Real> y, target;       // on the last stage
    device_array<double> sums;
    std::optional<pinned_array<Real>> host{};
  };
  struct activation {  // kept by F for I and W
    activation(const mlp_sizes& s, bool may_be_last) : x(s.narrow()), h(s.wide()), dy(may_be_last ? s.narrow() : 1) {}
    device_array<Real> x, h;
    device_array<Real> dy;  // of the loss, on the last stage
  };
  struct context {  // kept by I for W, or by B's first half for its second
    explicit context(const mlp_sizes& s) : dy(s.narrow()), dh(s.wide()) {}
    device_array<Real> dy, dh;
  };

  void run(const lane& l, const pipesched::task& t) {
    first_half(l, t);
    transfer(l, t);
    second_half(l, t);
  }

  void first_half(const lane& l, const pipesched::task& t) {
    mlp<Real>& stage = stages_[t.what.chunk];
    const activation& kept = kept_[t.slots.activation];
    options_.failure.at(t.what);
    if (t.what.pass == pipesched::pass::forward) {
      if (t.slots.input == pipesched::no_slot)
        fill(kept.x.data(), s_.narrow(), seed_of(made::input, t.what.micro), unit, l.stream);
      else
        copy(l, buffers_[t.slots.input].data(), kept.x.data(), s_.narrow());
      return stage.forward_up(l.math, kept.x.data(), kept.h.data(), l.moved.data());
    }
    const Real* dy = t.what.pass == pipesched::pass::backward_weight ? due_[t.slots.context].dy.data()
                     : t.slots.input == pipesched::no_slot           ? kept.dy.data()
                                                                     : buffers_[t.slots.input].data();
    if (yields_input_gradient(t.what.pass)) stage.input_down(l.math, dy, l.moved.data());
    if (yields_weight_gradient(t.what.pass)) stage.weight_down(l.math, kept.h.data(), dy, l.scratch.data());
    if (t.what.pass == pipesched::pass::backward_input) copy(l, dy, due_[t.slots.context].dy.data(), s_.narrow());
  }

  void transfer(const lane& l, const pipesched::task& t) {
    if (!l.host || t.what.pass == pipesched::pass::backward_weight) return;
    const std::size_t size = l.moved.bytes().size();
    check(cudaMemcpyAsync(l.host->data(), l.moved.data(), size, cudaMemcpyDeviceToHost, l.stream), "cudaMemcpyAsync");
    check(cudaMemcpyAsync(l.moved.data(), l.host->data(), size, cudaMemcpyHostToDevice, l.stream), "cudaMemcpyAsync");
  }

  void second_half(const lane& l, const pipesched::task& t) {
    mlp<Real>& stage = stages_[t.what.chunk];
    const activation& kept = kept_[t.slots.activation];
    Real* const output = t.slots.output == pipesched::no_slot ? nullptr : buffers_[t.slots.output].data();
    if (t.what.pass == pipesched::pass::forward) {
      stage.forward_down(l.math, l.moved.data(), output == nullptr ? l.y.data() : output);
      if (output != nullptr) return;
      fill(l.target.data(), s_.narrow(), seed_of(made::target, t.what.micro), unit, l.stream);
      return mean_squared_error(l.y.data(), l.target.data(), kept.dy.data(), s_.narrow(), l.sums.data(),
                                losses_.data() + t.what.micro, l.stream);
    }
    Real* const dh = due_[t.slots.context].dh.data();
    if (yields_input_gradient(t.what.pass)) stage.input_up(l.math, kept.h.data(), l.moved.data(), dh, output);
    if (yields_weight_gradient(t.what.pass)) stage.weight_up(l.math, kept.x.data(), dh);
  }

  static void copy(const lane& l, const Real* from, Real* to, std::size_t n) {
    check(cudaMemcpyAsync(to, from, n * sizeof(Real), cudaMemcpyDeviceToDevice, l.stream), "cudaMemcpyAsync");
  }
  // Kernels and cuBLAS need the rank's device to be the thread's; run() sees to that within a step.
  static int on(int device) {
    check(cudaSetDevice(device), "cudaSetDevice");
    return device;
  }

  mlp_sizes s_;
  trainer_options options_;
  std::uint32_t rank_;
  int device_;
  std::vector<std::uint16_t> numbers_;  // of the stages here, by chunk
  device_array<double> losses_;         // by micro-batch
  stream own_;
  lane main_;
  pipesched::cuda::side_stream side_;
  lane beside_;
  std::vector<mlp<Real>> stages_;
  std::vector<activation> kept_;
  std::vector<context> due_;
  std::vector<device_array<Real>> buffers_;  // tensors, then reductions
  std::vector<clock::time_point> ends_;
};

}  // namespace cuda_mlp
