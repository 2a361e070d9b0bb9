// SPDX-License-Identifier: MIT
#pragma once

// The trainer of one rank, with the callbacks of the executor. The constructor allocates all memory, as the program knows
// the number of slots; addresses never change afterwards.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <pipesched/execute/callbacks.hpp>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gpt.hpp"

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

/// The stages of a rank, by chunk, with their optimizer states. The trainers for training and for evaluation share it.
template <typename Real>
struct rank_model {
  rank_model(const model_sizes& s, const pipesched::placement& placement, std::uint32_t rank, std::uint64_t seed)
      : numbers(placement.stages_of(rank)) {
    for (std::size_t number : numbers) {
      const typename stage<Real>::place at{number, placement.stages()};
      stages.push_back(std::make_unique<stage<Real>>(s, at, seed));
      optimizers.emplace_back(stages.back()->parameters());
      max_blocks = std::max(max_blocks, at.end(s) - at.begin(s));
    }
  }
  /// Updates the weights after a step. Replicas have bitwise equal gradients, so they keep equal weights without exchange.
  void update(std::size_t micro, double rate) {
    for (std::size_t i = 0; i < stages.size(); ++i)
      optimizers[i].step(stages[i]->store(), 1 / static_cast<double>(micro), rate);
  }

  std::vector<std::uint16_t> numbers;
  std::vector<std::unique_ptr<stage<Real>>> stages;
  std::vector<adam<Real>> optimizers;
  std::size_t max_blocks = 0;  // most blocks of a stage on this rank; each activation slot may hold any stage
};

/// @param losses  one per micro-batch of every step; a rank writes those of the micro-batches whose last stage it runs
template <typename Real>
class trainer {
 public:
  trainer(const pipesched::program& p, std::uint32_t rank, rank_model<Real>& model, const model_sizes& s,
          const text& data, std::span<double> losses)
      : s_(s),
        model_(model),
        data_(data),
        losses_(losses),
        micro_(p.schedule.micro),
        forward_only_(p.schedule.forward_only),
        kept_(p.pools[rank].activations, {s, model.max_blocks}),
        due_(p.pools[rank].contexts, {s, model.max_blocks}),
        buffers_(p.pools[rank].buffers, std::vector<Real>(s.rows() * s.width)),
        ends_(s.rows() * s.width) {
    // Stages differ in their number of weights. The receive action says which stage a reduction buffer is for.
    reductions_.resize(p.pools[rank].reductions);
    for (const pipesched::action& a : p.actions[rank])
      if (a.kind == pipesched::action_kind::receive && a.what.kind == pipesched::tensor_kind::weight_gradient)
        reductions_[a.buffer].resize(gradients(a.what.stage).size());
  }

  /// Selects the data of a step. Called before the step.
  void begin(std::size_t step) { step_ = step; }

  void forward(pipesched::task t) {
    auto& kept = kept_[t.slots.activation];
    data_.draw(step_, t.what.micro, forward_only_, s_, kept.tokens);
    const double loss = stage_of(t).forward(kept, moved(t));
    if (stage_of(t).last()) losses_[step_ * micro_ + t.what.micro] = loss;
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

  std::span<std::byte> buffer(std::uint32_t n) { return std::as_writable_bytes(std::span(buffers_[n])); }
  std::span<std::byte> weight_gradient(std::uint16_t number) {
    return std::as_writable_bytes(std::span(gradients(number)));
  }
  std::span<std::byte> reduction_buffer(std::uint32_t n) { return std::as_writable_bytes(std::span(reductions_[n])); }
  void reduce(std::uint16_t number, std::uint16_t, std::span<const std::byte> other) {
    for (Real& mine : gradients(number)) {
      Real theirs;
      std::memcpy(&theirs, other.data(), sizeof theirs);
      mine += theirs;  // the other rank computes the same sum: floating-point addition commutes
      other = other.subspan(sizeof theirs);
    }
  }

 private:
  stage<Real>& stage_of(const pipesched::task& t) { return *model_.stages[t.what.chunk]; }
  std::vector<Real>& gradients(std::uint16_t number) {
    const auto at = std::find(model_.numbers.begin(), model_.numbers.end(), number);
    return model_.stages[static_cast<std::size_t>(at - model_.numbers.begin())]->store().gradients;
  }
  // Copies the input of an op to the buffer of its output, where the stage works in place. The first stage has no input and
  // the last one no output.
  std::span<Real> moved(const pipesched::task& t) {
    std::vector<Real>& to = t.slots.output == pipesched::no_slot ? ends_ : buffers_[t.slots.output];
    if (t.slots.input != pipesched::no_slot) to = buffers_[t.slots.input];  // equal sizes: no allocation
    return to;
  }

  model_sizes s_;
  rank_model<Real>& model_;
  const text& data_;
  std::span<double> losses_;
  std::size_t micro_, step_ = 0;
  bool forward_only_;
  std::vector<typename stage<Real>::activation> kept_;
  std::vector<typename stage<Real>::context> due_;
  std::vector<std::vector<Real>> buffers_;
  std::vector<Real> ends_;
  std::vector<std::vector<Real>> reductions_;
};

}  // namespace train
