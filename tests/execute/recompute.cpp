// SPDX-License-Identifier: MIT
// Recomputation and frozen stages in the executor: training under them equals training without, to the bit, and the bytes that
// a trainer takes are those that fits() foretells.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../../examples/train/trainer.hpp"
#include "pipesched/core/recompute.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/execute/thread_transport.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/fits.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/verify.hpp"
#include "support/any_variant.hpp"
#include "support/families.hpp"
#include "support/tanh_model.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

std::deque<small_model::trainer> trained(const program& p) {
  std::deque<small_model::trainer> trainers;
  for (std::uint32_t rank = 0; rank < p.schedule.pp(); ++rank) trainers.emplace_back(p, rank);
  thread_world world(p.schedule.pp());
  run_all(p, trainers, world);
  return trainers;
}

// Takes and frees bytes as ops begin and end, and knows no slots: only which activations are recomputed.
class bytes_of_rank {
 public:
  bytes_of_rank(const schedule& s, const stage_costs& costs) : s_(s), costs_(costs) {
    for (const cell& c : s.cells.all())
      for (const op o : c)
        if (o.pass == pass::recompute || o.pass == pass::recompute_backward || o.pass == pass::recompute_backward_input)
          recomputed_[{o.stage, o.micro}] = true;
  }
  double most = 0;

  void begin(op o) {
    if (o.pass == pass::forward) held_[{o.stage, o.micro}] = kept(o);
    if (o.pass == pass::recompute || o.pass == pass::recompute_backward || o.pass == pass::recompute_backward_input)
      held_[{o.stage, o.micro}] = kept(o);
    running_.push_back(transient(o));
    look();
  }
  void end(op o) {
    running_.erase(running_.begin());
    double& held = held_.at({o.stage, o.micro});
    const bool frozen = !s_.backward.empty() && s_.backward[o.stage] != stage_backward::full;
    switch (o.pass) {
      case pass::forward:
        if (s_.forward_only || (!s_.backward.empty() && s_.backward[o.stage] == stage_backward::none))
          held = 0;
        else if (recomputed_.count({o.stage, o.micro}) > 0)
          held = costs_.kept_input[o.stage] * length(o);
        break;
      case pass::backward_input:
      case pass::recompute_backward_input: held = frozen ? 0 : (*costs_.context)[o.stage] * length(o); break;
      case pass::recompute: break;
      default: held = 0;
    }
    look();
  }

 private:
  double length(op o) const { return costs_.micro_batches.empty() ? 1 : costs_.micro_batches[o.micro]; }
  double kept(op o) const { return costs_.kept_by_forward[o.stage] * length(o); }
  double transient(op o) const {
    const double f = costs_.transient_forward[o.stage], b = costs_.transient_backward[o.stage],
                 r = costs_.transient_recompute ? (*costs_.transient_recompute)[o.stage] : f;
    switch (o.pass) {
      case pass::forward: return f * length(o);
      case pass::recompute: return r * length(o);
      case pass::recompute_backward:
      case pass::recompute_backward_input: return std::max(b, r) * length(o);
      default: return b * length(o);
    }
  }
  void look() {
    double sum = 0;
    for (const auto& [of, bytes] : held_) sum += bytes;
    for (const double bytes : running_) sum += bytes;
    most = std::max(most, sum);
  }

  const schedule& s_;
  const stage_costs& costs_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, bool> recomputed_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, double> held_;
  std::vector<double> running_;
};

// The trainer of the example, with an account of its bytes.
struct counted_trainer : train::trainer<float> {
  counted_trainer(std::span<const program> programs, std::uint32_t rank, const train::settings& with,
                  const stage_costs& costs)
      : train::trainer<float>(programs, rank, with),
        bytes(programs[0].schedule, costs),
        chunks(programs[0].schedule.placement.stages_of(rank).size()) {}

  bytes_of_rank bytes;
  std::size_t chunks;
  std::vector<std::byte> gradients;  // of all stages and steps

  void end_step(std::size_t step) {
    for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) {
      const std::span<std::byte> of = weight_gradient(chunk);
      gradients.insert(gradients.end(), of.begin(), of.end());
    }
    train::trainer<float>::end_step(step);
  }

  void forward(task t) {
    lone(t, [&] { train::trainer<float>::forward(t); });
  }
  void backward(task t) {
    lone(t, [&] { train::trainer<float>::backward(t); });
  }
  void backward_input(task t) {
    lone(t, [&] { train::trainer<float>::backward_input(t); });
  }
  void backward_weight(task t) {
    lone(t, [&] { train::trainer<float>::backward_weight(t); });
  }
  void recompute(task t) {
    if (t.what.pass != pass::recompute) return train::trainer<float>::recompute(t);  // inside of a backward
    lone(t, [&] { train::trainer<float>::recompute(t); });
  }
  void overlapped(task a, task b) {
    bytes.begin(a.what), bytes.begin(b.what);
    for (const task& t : {a, b}) {
      if (recomputes(t.what.pass)) train::trainer<float>::recompute(t);
      switch (without_recompute(t.what.pass)) {
        case pass::forward: train::trainer<float>::forward(t); break;
        case pass::backward: train::trainer<float>::backward(t); break;
        case pass::backward_input: train::trainer<float>::backward_input(t); break;
        case pass::backward_weight: train::trainer<float>::backward_weight(t); break;
        default: break;
      }
    }
    // Both end together: what one frees is not free before the other ends.
    bytes.end(b.what.pass == pass::forward ? a.what : b.what),
        bytes.end(b.what.pass == pass::forward ? b.what : a.what);
  }

 private:
  template <typename Work>
  void lone(task t, Work&& work) {
    bytes.begin(t.what);
    work();
    bytes.end(t.what);
  }
};

}  // namespace

TEST_CASE("recompute: every family trains as without, to the bit, and what is frozen has no gradient") {
  std::mt19937_64 random(15);
  int recomputing = 0, frozen = 0;
  for_all_families(4, 5, [&](const family& f, const schedule_params& p) {
    if (p.forward_only || (p.pp == 3 && p.micro % 2 == 0)) return;
    const schedule s = f.make(p), other = any_variant(s, random);
    CAPTURE(to_string(other));
    const program of = lower(other, {.depth = p.micro % 2 == 0 ? 4u : 1u});
    REQUIRE(to_string(verify(of)) == "");
    const auto whole = trained(lower(s)), got = trained(of);
    const auto order = [&](const schedule& x) { return small_model::orders_of(x); };
    for (std::size_t rank = 0; rank < got.size(); ++rank) {
      REQUIRE(got[rank].losses == whole[rank].losses);
      for (std::size_t chunk = 0; chunk < got[rank].layers.size(); ++chunk) {
        const std::uint16_t stage = got[rank].stages[chunk];
        if (other.backward_of(stage) != stage_backward::full)
          REQUIRE(got[rank].layers[chunk].gradient == small_model::matrix{});
        else if (order(other)[stage] == order(s)[stage])
          REQUIRE(got[rank].layers[chunk].gradient == whole[rank].layers[chunk].gradient);
      }
    }
    recomputing += detail::recomputed_ops(other).any(), frozen += !other.backward.empty();
  });
  CHECK(recomputing > 50);
  CHECK(frozen > 50);
}

TEST_CASE(
    "recompute: the example's model has the same losses and gradients, to the bit, and takes the bytes that fits() "
    "foretells") {
  const std::string characters =
      "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. ";
  std::string much;
  for (int i = 0; i < 8; ++i) much += characters;
  const train::text data(much, 1);
  train::model_sizes sizes{
      .vocabulary = data.vocabulary(), .layers = 4, .width = 8, .heads = 2, .context = 8, .batch = 1};
  std::mt19937_64 random(4);
  int recomputing = 0, compared = 0;
  for (const char* name : {"1f1b", "zb1p", "interleaved_1f1b", "dualpipev", "zbv", "dualpipe", "gpipe"})
    for (int round = 0; round < 6; ++round) {
      const schedule s = make_schedule(name, {.pp = 2, .micro = 4});
      schedule other = any_variant(s, random);
      if (!other.backward.empty()) other = recompute(s, {.count = 1, .of_every = 2, .inside_backward = round % 2 == 0});
      recomputing += detail::recomputed_ops(other).any();
      stage_costs costs;
      const auto number = [&] { return static_cast<double>(random() % 50); };
      std::vector<double> kept, input, context, weights, run_f, run_b, run_r, message;
      for (std::uint32_t stage = 0; stage < s.stages(); ++stage) {
        input.push_back(number()), kept.push_back(input.back() + number()), context.push_back(number());
        weights.push_back(number()), run_f.push_back(number()), run_b.push_back(number()), run_r.push_back(number());
        message.push_back(number());
      }
      costs.kept_by_forward = per_stage(kept), costs.kept_input = per_stage(input), costs.context = per_stage(context);
      costs.weight_bytes = per_stage(weights), costs.transient_forward = per_stage(run_f);
      costs.transient_backward = per_stage(run_b), costs.message_bytes = per_stage(message);
      if (round % 2 == 0) costs.transient_recompute = per_stage(run_r);
      if (round % 3 == 0) costs.micro_batches = {1, 0.5, 2, 0.25};
      CAPTURE(to_string(other));
      const program programs[] = {lower(other)}, plain[] = {lower(s)};
      const auto losses = [&](std::span<const program> of, auto&&... more) {
        std::vector<double> found(2 * s.micro);
        std::deque<counted_trainer> trainers;
        for (std::uint32_t rank = 0; rank < 2; ++rank) {
          trainers.emplace_back(of, rank, train::settings{sizes, &data, 1, 0.01}, costs);
          trainers.back().begin(of[0], found);
        }
        thread_world world(2);
        run_all(of[0], trainers, world, {.steps = 2});
        (more(trainers), ...);
        return found;
      };
      const memory_report foretold = fits(programs[0], costs);
      std::vector<std::vector<std::byte>> gradients, plain_gradients;
      const auto got = losses(programs, [&](auto& trainers) {
        for (std::uint32_t rank = 0; rank < 2; ++rank)
          REQUIRE(trainers[rank].bytes.most == foretold.ranks[rank].activations);
        for (const auto& t : trainers) gradients.push_back(t.gradients);
      });
      const auto same_order = small_model::orders_of(other) == small_model::orders_of(s);
      if (!same_order) continue;
      REQUIRE(got == losses(plain, [&](auto& trainers) {
                for (const auto& t : trainers) plain_gradients.push_back(t.gradients);
              }));
      REQUIRE(std::any_of(gradients[0].begin(), gradients[0].end(), [](std::byte b) { return b != std::byte{0}; }));
      REQUIRE(gradients == plain_gradients);
      ++compared;
    }
  CHECK(recomputing > 10);
  CHECK(compared > 10);
}

TEST_CASE("recompute: a trainer without recompute is refused before anything runs") {
  struct plain {
    void forward(task) {}
    void backward(task) {}
    std::span<std::byte> buffer(tensor_id, std::uint32_t) { return bytes; }
    std::byte bytes[1]{};
  };
  const program p = lower(recompute(make_1f1b_schedule({.pp = 2, .micro = 2})));
  std::vector<plain> trainers(2);
  thread_world world(2);
  CHECK(refusal_of([&] { run_all(p, trainers, world); })
            .find("the trainer has no recompute, which 0R0 needs; keep_activations() makes a schedule that recomputes "
                  "nothing") != std::string::npos);
}
