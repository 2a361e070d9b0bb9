// SPDX-License-Identifier: MIT
#pragma once

// The trainer of one rank. The constructor allocates all memory, as a program knows its slots; addresses never change
// afterwards.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <pipesched/execute/trainer.hpp>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gpt.hpp"
#include "layers.hpp"

namespace train {

/// Text as numbers from 0: the first nine tenths for training, the rest for evaluation.
class text {
 public:
  text(std::string_view characters, std::uint64_t seed) : seed_(seed) {
    std::string known(characters);
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    vocabulary_ = known.size();
    for (char c : characters) tokens_.push_back(static_cast<std::uint8_t>(known.find(c)));
  }
  std::size_t size() const { return tokens_.size(); }
  std::size_t vocabulary() const { return vocabulary_; }
  std::size_t held_out() const { return tokens_.size() / 10; }

  /// Draws the sequences of a micro-batch. They depend on the arguments alone, so that every rank draws the same ones.
  void draw(std::size_t step, std::size_t micro, bool from_held_out, const model_sizes& s,
            std::span<std::uint8_t> tokens) const {
    std::seed_seq numbers{seed_, std::uint64_t{step}, std::uint64_t{micro}, std::uint64_t{from_held_out}};
    std::mt19937 random(numbers);
    const std::size_t length = s.context + 1, learned = tokens_.size() - held_out();
    const std::size_t begin = from_held_out ? learned : 0, size = from_held_out ? held_out() : learned;
    for (std::size_t at = 0; at < tokens.size(); at += length)
      std::copy_n(&tokens_[begin + random() % (size - length + 1)], length, &tokens[at]);
  }

 private:
  std::uint64_t seed_;
  std::size_t vocabulary_ = 0;
  std::vector<std::uint8_t> tokens_;
};

/// The options of all trainers.
struct settings {
  model_sizes sizes;
  const text* data = nullptr;
  std::uint64_t seed = 1;
  double rate = 0.003;               ///< of learning
  pipesched::partition partition{};  ///< of layers_of(sizes); empty: the uniform one
};

template <typename Real>
class trainer {
 public:
  /// @param programs  all that it will run
  /// @throws schedule_error if the partition does not fit the model and the stages
  trainer(std::span<const pipesched::program> programs, std::uint32_t rank, const settings& with)
      : with_(with), ends_(tensor_size()) {
    const pipesched::placement& where = programs.front().schedule.placement;
    numbers_ = where.stages_of(rank);
    const pipesched::partition layers = with.partition.layers.empty()
                                            ? pipesched::uniform_partition(layers_of(with.sizes), where.stages())
                                            : with.partition;
    require_layers(layers, with.sizes, where.stages());
    std::size_t max_blocks = 0;  // of a stage; a slot may hold any of them
    for (const std::size_t number : numbers_) {
      const stage_place at = place_of(layers, number);
      stages_.push_back(std::make_unique<stage<Real>>(with.sizes, at, with.seed));
      optimizers_.emplace_back(stages_.back()->parameters());
      max_blocks = std::max(max_blocks, at.end - at.begin);
    }
    pipesched::pool_sizes pools;
    for (const pipesched::program& p : programs) {
      pools = larger(pools, p.pools[rank]);
      const auto sizes = buffer_bytes(p, rank, [&](pipesched::tensor_id m) { return size_of(m) * sizeof(Real); });
      buffers_.resize(std::max(buffers_.size(), sizes.size()));
      for (std::size_t n = 0; n < sizes.size(); ++n)
        buffers_[n].resize(std::max(buffers_[n].size(), sizes[n] / sizeof(Real)));
    }
    using pipesched::pool;
    kept_.assign(pools[pool::activation], {with.sizes, max_blocks});
    due_.assign(pools[pool::context], {with.sizes, max_blocks});
    kept_inputs_.assign(pools[pool::kept_input], std::vector<Real>(tensor_size()));
    again_.resize(pools[pool::kept_input] > 0 ? tensor_size() : 0);
  }

  /// Called before the steps of a program.
  /// @param losses  one per micro-batch of every step; a rank writes those of the micro-batches whose last stage it runs
  void begin(const pipesched::program& p, std::span<double> losses) {
    micro_ = p.schedule.micro, evaluates_ = p.schedule.forward_only, losses_ = losses;
  }

  void begin_step(std::size_t step) { step_ = step; }
  /// Updates the weights. Replicas have bitwise equal gradients, so they keep equal weights without exchange. No barrier: a
  /// rank may begin the next step while others still run this one.
  void end_step(std::size_t step) {
    for (std::size_t i = 0; i < stages_.size() && !evaluates_; ++i)
      optimizers_[i].step(stages_[i]->store(), 1 / static_cast<double>(micro_), with_.rate);
    if (after_step && !evaluates_) after_step(step, losses_.subspan(step * micro_, micro_));
  }
  std::function<void(std::size_t step, std::span<double> losses)> after_step;  ///< of training

  void forward(pipesched::task t) {
    auto& kept = kept_[t.slots.activation];
    draw_characters(t, kept);
    const std::span<Real> x = moved(t);
    if (t.slots.kept_input != pipesched::no_slot) std::ranges::copy(x, kept_inputs_[t.slots.kept_input].begin());
    const double loss = stage_of(t).forward(kept, x);
    if (stage_of(t).last()) losses_[step_ * micro_ + t.what.micro] = loss;
  }
  void recompute(pipesched::task t) {
    auto& kept = kept_[t.slots.activation];
    draw_characters(t, kept);
    std::ranges::copy(kept_inputs_[t.slots.kept_input], again_.begin());
    stage_of(t).forward(kept, again_);
  }
  void backward_input(pipesched::task t) {
    stage_of(t).backward_input(kept_[t.slots.activation], due_[t.slots.context], moved(t));
  }
  void backward_weight(pipesched::task t) {
    stage_of(t).backward_weight(kept_[t.slots.activation], due_[t.slots.context]);
  }
  void backward(pipesched::task t) {
    backward_input(t);
    backward_weight(t);
  }

  std::span<std::byte> buffer(pipesched::tensor_id message, std::uint32_t n) {
    return std::as_writable_bytes(std::span(buffers_[n]).first(size_of(message)));
  }
  std::span<std::byte> weight_gradient(std::uint32_t chunk) {
    return std::as_writable_bytes(std::span(stages_[chunk]->store().gradients));
  }
  void reduce(pipesched::reduction r) {
    const bool here = r.buffer == pipesched::no_slot;  // both copies of the stage are on this rank
    auto& mine = stages_[r.chunk]->store().gradients;  // another rank computes the same sum: addition commutes
    auto& other = here ? stages_[r.other_chunk]->store().gradients : buffers_[r.buffer];
    std::transform(mine.begin(), mine.end(), other.begin(), mine.begin(), std::plus<Real>());
    if (here) other = mine;
  }

 private:
  stage<Real>& stage_of(const pipesched::task& t) { return *stages_[t.what.chunk]; }
  void draw_characters(const pipesched::task& t, typename stage<Real>::activation& kept) {
    if (stage_of(t).reads_characters()) with_.data->draw(step_, t.what.micro, evaluates_, with_.sizes, kept.tokens);
  }
  std::size_t tensor_size() const { return with_.sizes.rows() * with_.sizes.width; }
  // Numbers in a message. Weight gradients are those of this rank's stages.
  std::size_t size_of(pipesched::tensor_id message) const {
    if (message.kind != pipesched::tensor_kind::weight_gradient) return tensor_size();
    const auto at = std::find(numbers_.begin(), numbers_.end(), message.stage);
    return stages_[static_cast<std::size_t>(at - numbers_.begin())]->parameters();
  }
  // Copies the input of an op to the buffer of its output, where the stage works in place. The first stage has no input and
  // the last one no output.
  std::span<Real> moved(const pipesched::task& t) {
    const auto numbers_in = [&](std::uint32_t n) {
      return std::span(n == pipesched::no_slot ? ends_ : buffers_[n]).first(tensor_size());
    };
    const std::span<Real> to = numbers_in(t.slots.output);
    if (t.slots.input != pipesched::no_slot) std::ranges::copy(numbers_in(t.slots.input), to.begin());
    return to;
  }

  settings with_;
  std::vector<std::uint16_t> numbers_;  // of the stages, by chunk
  std::vector<std::unique_ptr<stage<Real>>> stages_;
  std::vector<adam<Real>> optimizers_;
  std::vector<typename stage<Real>::activation> kept_;
  std::vector<typename stage<Real>::context> due_;
  std::vector<std::vector<Real>> buffers_;
  std::vector<Real> ends_;
  std::vector<std::vector<Real>> kept_inputs_;
  std::vector<Real> again_;  // the output of a recomputation, which no op reads
  std::span<double> losses_;
  std::size_t micro_ = 0, step_ = 0;
  bool evaluates_ = false;
};

}  // namespace train
