// SPDX-License-Identifier: MIT
#pragma once

// A trainer of tanh_model for the simulated devices of fake_device.hpp and fake_cluster.hpp.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "pipesched/execute/trainer.hpp"
#include "pipesched/program/program.hpp"
#include "support/tanh_model.hpp"

namespace pipesched::tests {

// Enqueues the model's ops on its rank's stream as kernels, each with the memory that it reads and writes.
template <typename Device, typename Side>
struct stream_trainer {
  using model = tanh_model<double>;
  using stream_type = typename Device::stream;
  using range = typename Device::range;

  model::trainer* on_host;
  Device* device;
  stream_type stream;
  Side* side = nullptr;             // for the backward of an overlapped pair
  std::function<void(op)> fails{};  // called before every op

  template <typename T>
  static range all(T& value) {
    return {&value, sizeof value};
  }
  void put(task t, bool keeps, bool weighs, void (model::trainer::*work)(task)) { put(stream, t, keeps, weighs, work); }
  void put(stream_type into, task t, bool keeps, bool weighs, void (model::trainer::*work)(task)) {
    if (fails) fails(t.what);
    std::vector<range> reads{all(on_host->layers[t.what.chunk].weights)}, writes;
    if (t.slots.input != no_slot) reads.push_back(all(on_host->buffers[t.slots.input]));
    if (t.slots.output != no_slot) writes.push_back(all(on_host->buffers[t.slots.output]));
    (keeps ? writes : reads).push_back(all(on_host->kept[t.slots.activation]));
    if (t.slots.context != no_slot)
      (t.what.pass == pass::backward_weight ? reads : writes).push_back(all(on_host->due[t.slots.context]));
    if (weighs) writes.push_back(all(on_host->layers[t.what.chunk].gradient));
    device->kernel(into, reads, writes, [trainer = on_host, t, work] { (trainer->*work)(t); });
  }
  void forward(task t) { put(t, true, false, &model::trainer::forward); }
  void backward(task t) { put(t, false, true, &model::trainer::backward); }
  void backward_input(task t) { put(t, false, false, &model::trainer::backward_input); }
  void backward_weight(task t) { put(t, false, true, &model::trainer::backward_weight); }
  void overlapped(task a, task b) {
    side->begin(stream);
    for (const task& t : {a, b})
      if (t.what.pass == pass::forward)
        forward(t);
      else if (t.what.pass == pass::backward)
        put(side->stream(), t, false, true, &model::trainer::backward);
      else
        put(side->stream(), t, false, t.what.pass == pass::backward_weight,
            t.what.pass == pass::backward_weight ? &model::trainer::backward_weight : &model::trainer::backward_input);
    side->end(stream);
  }
  std::span<std::byte> buffer(tensor_id message, std::uint32_t n) { return on_host->buffer(message, n); }
  std::span<std::byte> weight_gradient(std::uint32_t chunk) { return on_host->weight_gradient(chunk); }
  void reduce(reduction r) {
    std::vector<range> reads, writes{all(on_host->layers[r.chunk].gradient)};
    if (r.buffer == no_slot)
      writes.push_back(all(on_host->layers[r.other_chunk].gradient));
    else
      reads.push_back(all(on_host->reduction_at(r.buffer)));
    device->kernel(stream, reads, writes, [t = on_host, r] { t->reduce(r); });
  }
};

}  // namespace pipesched::tests
