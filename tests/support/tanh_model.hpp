// SPDX-License-Identifier: MIT
#pragma once

// A small model for tests of training: each stage computes y = tanh(W x) with four inputs and outputs; the loss of a
// micro-batch is |y|^2 / 2 of the last stage. It runs on one device, or as one trainer per rank.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/execute/trainer.hpp"
#include "pipesched/program/program.hpp"

namespace pipesched::tests {

using tied_stages = std::vector<std::vector<std::int64_t>>;

template <typename Real>
struct tanh_model {
  static constexpr std::size_t width = 4;
  using vector = std::array<Real, width>;
  using matrix = std::array<vector, width>;

  struct layer {
    matrix weights{}, gradient{};
  };
  // The results of I: the gradient before the tanh, for W, and the gradient of the input.
  struct backward_result {
    vector before, input;
  };
  struct results {
    std::vector<Real> losses;   // by micro-batch
    std::vector<layer> layers;  // by stage
  };

  static layer make_layer(std::uint32_t stage) {
    layer l;
    std::mt19937_64 random(stage + 1);
    for (auto& row : l.weights)
      for (Real& w : row) w = static_cast<Real>(random() % 1000) / 1000 - Real(0.5);
    return l;
  }
  // Tied stages start with equal weights, those of the lower stage.
  static layer make_layer(std::uint32_t stage, const tied_stages& tied) {
    for (const auto& group : tied)
      if (std::find(group.begin(), group.end(), stage) != group.end())
        return make_layer(static_cast<std::uint32_t>(*std::min_element(group.begin(), group.end())));
    return make_layer(stage);
  }
  static vector input_of_micro(std::uint32_t micro) {
    vector x;
    for (std::size_t i = 0; i < width; ++i)
      x[i] = static_cast<Real>(std::sin(static_cast<double>(micro * width + i + 1)));
    return x;
  }
  static vector forward_of(const layer& l, const vector& x) {
    vector y{};
    for (std::size_t i = 0; i < width; ++i) {
      for (std::size_t j = 0; j < width; ++j) y[i] += l.weights[i][j] * x[j];
      y[i] = std::tanh(y[i]);
    }
    return y;
  }
  static backward_result backward_of(const layer& l, const vector& y, const vector& dy) {
    backward_result r{};
    for (std::size_t i = 0; i < width; ++i) r.before[i] = dy[i] * (1 - y[i] * y[i]);
    for (std::size_t j = 0; j < width; ++j)
      for (std::size_t i = 0; i < width; ++i) r.input[j] += l.weights[i][j] * r.before[i];
    return r;
  }
  static void add_weights(layer& l, const vector& before, const vector& x) {
    for (std::size_t i = 0; i < width; ++i)
      for (std::size_t j = 0; j < width; ++j) l.gradient[i][j] += before[i] * x[j];
  }
  static void add(matrix& to, const matrix& other) {
    for (std::size_t i = 0; i < width; ++i)
      for (std::size_t j = 0; j < width; ++j) to[i][j] += other[i][j];
  }
  // One step of gradient descent.
  static void update(layer& l) {
    for (std::size_t i = 0; i < width; ++i)
      for (std::size_t j = 0; j < width; ++j) l.weights[i][j] -= l.gradient[i][j] / 64;
    l.gradient = {};
  }
  static Real loss_of(const vector& y) {
    Real loss = 0;
    for (Real v : y) loss += v * v / 2;
    return loss;
  }

  // Trains on one device. Stage `s` sums gradients over the micro-batches in the order `orders[s]`; a stage with two
  // replicas has two orders, whose separate sums are then added.
  using order = std::vector<std::vector<std::uint32_t>>;
  static results on_one_device(std::uint32_t stages, std::uint32_t micro, const std::vector<order>& orders,
                               const tied_stages& tied = {}) {
    std::vector<layer> layers;
    for (std::uint32_t s = 0; s < stages; ++s) layers.push_back(make_layer(s, tied));
    return on_one_device(std::move(layers), micro, orders, tied);
  }
  // A step with the weights of `layers`.
  static results on_one_device(std::vector<layer> layers, std::uint32_t micro, const std::vector<order>& orders,
                               const tied_stages& tied = {}) {
    const auto stages = static_cast<std::uint32_t>(layers.size());
    results r{.losses = {}, .layers = std::move(layers)};
    std::vector<std::vector<vector>> before(stages), inputs(stages);
    for (std::uint32_t m = 0; m < micro; ++m) {
      std::vector<vector> x{input_of_micro(m)};
      for (std::uint32_t s = 0; s < stages; ++s) {
        inputs[s].push_back(x.back());
        x.push_back(forward_of(r.layers[s], x.back()));
      }
      r.losses.push_back(loss_of(x.back()));
      vector d = x.back();
      for (std::uint32_t s = stages; s-- > 0;) {
        const backward_result b = backward_of(r.layers[s], x[s + 1], d);
        before[s].resize(micro);
        before[s][m] = b.before;
        d = b.input;
      }
    }
    for (std::uint32_t s = 0; s < stages; ++s)
      for (const auto& part : orders[s]) {
        layer sum;
        for (const std::uint32_t m : part) add_weights(sum, before[s][m], inputs[s][m]);
        if (&part == &orders[s].front())
          r.layers[s].gradient = sum.gradient;
        else
          add(r.layers[s].gradient, sum.gradient);
      }
    for (const auto& group : tied) {
      const auto gradient_of = [&](std::int64_t stage) -> auto& {
        return r.layers[static_cast<std::size_t>(stage)].gradient;
      };
      for (std::size_t i = 1; i < group.size(); ++i) add(gradient_of(group[0]), gradient_of(group[i]));
      for (const std::int64_t stage : group) gradient_of(stage) = gradient_of(group[0]);
    }
    return r;
  }
  // Sums from the first micro-batch to the last.
  static results on_one_device(std::uint32_t stages, std::uint32_t micro, const tied_stages& tied = {}) {
    std::vector<std::uint32_t> ascending;
    for (std::uint32_t m = 0; m < micro; ++m) ascending.push_back(m);
    return on_one_device(stages, micro, std::vector<order>(stages, order{ascending}), tied);
  }
  // The orders in which the ranks of a schedule sum gradients.
  static std::vector<order> orders_of(const schedule& s) {
    std::vector<order> orders(s.stages());
    for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
      for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica) {
        orders[stage].emplace_back();
        for (const cell& c : s[s.placement.rank_of_stage(replica)[stage]])
          for (const op& o : c)
            if (o.stage == stage && s.placement.replica_of(o.micro) == replica && yields_weight_gradient(o.pass))
              orders[stage].back().push_back(o.micro);
      }
    return orders;
  }

  // One rank's part of the model. `before` is called before every op; buffer `short_buffer` has the wrong size.
  struct trainer {
    trainer(const program& p, std::uint32_t own, const tied_stages& tied = {})
        : rank(own),
          where(&p.schedule.placement),
          trains(!p.schedule.forward_only),
          stages(p.schedule.placement.stages_of(rank)),
          losses(p.schedule.micro, -1),
          buffers(p.pools[rank][pool::tensor]),
          kept(p.pools[rank][pool::activation]),
          due(p.pools[rank][pool::context]),
          kept_inputs(p.pools[rank][pool::kept_input]),
          reductions(p.pools[rank][pool::reduction]) {
      for (std::uint16_t s : stages) layers.push_back(make_layer(s, tied));
    }

    void forward(task t) {
      begin(t);
      const vector x = t.slots.input == no_slot ? input_of_micro(t.what.micro) : buffers[t.slots.input];
      const vector y = forward_of(layers[t.what.chunk], x);
      if (trains) kept[t.slots.activation] = {x, y};
      if (t.slots.kept_input != no_slot) kept_inputs[t.slots.kept_input] = x;
      if (t.slots.output == no_slot)
        losses[t.what.micro] = loss_of(y);
      else
        buffers[t.slots.output] = y;
    }
    void recompute(task t) {
      begin(t);
      const vector& x = kept_inputs.at(t.slots.kept_input);
      kept[t.slots.activation] = {x, forward_of(layers[t.what.chunk], x)};
    }
    void backward_input(task t) {
      const vector before_tanh = input_gradient(t);
      if (t.slots.context != no_slot) due[t.slots.context] = before_tanh;
    }
    void backward_weight(task t) {
      begin(t);
      add_weights(layers[t.what.chunk], due[t.slots.context], kept[t.slots.activation][0]);
    }
    void backward(task t) {  // I, then W, through the context slot of the B
      due.at(t.slots.context) = input_gradient(t);
      add_weights(layers[t.what.chunk], due[t.slots.context], kept[t.slots.activation][0]);
    }
    std::span<std::byte> buffer(tensor_id message, std::uint32_t n) {
      if (message.kind == tensor_kind::weight_gradient) return std::as_writable_bytes(std::span(reduction_at(n)));
      const auto whole = std::as_writable_bytes(std::span(buffers[n]));
      return n == short_buffer ? whole.first(8) : whole;
    }
    std::span<std::byte> weight_gradient(std::uint32_t chunk) {
      return std::as_writable_bytes(std::span(layers[chunk].gradient));
    }
    void reduce(reduction r) {
      if (stages.at(r.chunk) != r.stage) throw std::logic_error("the stage of another chunk");
      if (r.buffer != no_slot) return add(layers[r.chunk].gradient, reduction_at(r.buffer));
      if (stages.at(r.other_chunk) != r.other.stage) throw std::logic_error("another stage than that of the chunk");
      add(layers[r.chunk].gradient, layers[r.other_chunk].gradient);  // both are on this rank
      layers[r.other_chunk].gradient = layers[r.chunk].gradient;
    }
    matrix& reduction_at(std::uint32_t buffer) { return reductions.at(buffer - buffers.size()); }
    layer& layer_of(std::uint16_t stage) {
      return layers[static_cast<std::size_t>(std::find(stages.begin(), stages.end(), stage) - stages.begin())];
    }

    std::uint32_t rank;
    const placement* where;
    bool trains;
    std::vector<std::uint16_t> stages;
    std::vector<layer> layers;
    std::vector<Real> losses;  // -1 where another rank has it
    std::vector<vector> buffers;
    std::vector<std::array<vector, 2>> kept;
    std::vector<vector> due, kept_inputs;
    std::vector<matrix> reductions;
    std::function<void(op)> before;
    std::size_t short_buffer = ~std::size_t{0};

   private:
    void begin(task t) {
      if (before) before(t.what);
      if (where->rank_of(t.what.stage, t.what.micro) != rank) throw std::logic_error("an op of another rank");
    }
    vector input_gradient(task t) {
      begin(t);
      const vector& y = kept[t.slots.activation][1];
      const backward_result r =
          backward_of(layers[t.what.chunk], y, t.slots.input == no_slot ? y : buffers[t.slots.input]);
      if (t.slots.output != no_slot) buffers[t.slots.output] = r.input;
      return r.before;
    }
  };
};

using small_model = tanh_model<double>;

}  // namespace pipesched::tests
