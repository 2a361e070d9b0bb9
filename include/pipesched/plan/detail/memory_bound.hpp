// SPDX-License-Identifier: MIT
#pragma once

// How long a step takes at least because its activations do not fit into the memory of a rank at the same time, by the layers
// of the rank.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "pipesched/model/model.hpp"

namespace pipesched::detail {

/// The least times of the ops of one layer, in pairs or alone.
struct layer_times {
  double forward = 0, gradient = 0;  // gradient: of B or I, whichever is shorter
  double whole = 0, weight = 0;      // B and W
};

/// Little's law for the ranks of a linear placement or a V. An activation of a stage that begins with layer a lives while its
/// micro-batch goes forward from a to the last layer and back. So the bytes that live on a rank, added up over time, are at least
/// those of a stage times that, for every micro-batch; and at most the memory times the time between the first F and the last
/// op that frees any. The memory cannot be full all of that time: it fills no faster than F's run, and empties no faster than
/// the ops that free it. Both gaps are taken off where the bytes of all micro-batches are at least twice the memory, as no time
/// lies in both then; else the larger one.
///  * To the end of B or I, which the gradient leaves for the first rank: `kept`, or what recomputation starts from.
///  * To the end of B or W, without recomputation: the lesser of `kept` and `context` after I.
///
/// And the work of a rank, if no pair saves time. Before its first backward it runs only F's, as many as the memory holds, and
/// idles for the rest of the time until the first gradient comes. When its last F has ended, at most the backwards of the
/// activations that the memory holds are left, but the micro-batch of that F has the way to the last layer and back to go. For
/// micro-batches of one length, stages that all have a whole backward.
class memory_bound {
 public:
  /// @param times  by layer. @param recompute  ops may recompute. @param pairs_save  pairs may take less than their ops alone
  memory_bound(const model& m, std::vector<double> limits, std::vector<double> speeds, double micro, bool recompute,
               bool pairs_save, const std::vector<layer_times>& times)
      : limits_(std::move(limits)),
        speeds_(std::move(speeds)),
        micro_(micro),
        recompute_(recompute),
        pairs_save_(pairs_save),
        sums_(1) {
    fastest_ = *std::max_element(speeds_.begin(), speeds_.end());
    std::size_t i = 0;
    for (const layer& l : m.layers)
      for (std::uint32_t n = 0; n < l.count; ++n, ++i) {
        sums s = sums_.back();
        s.forward += times[i].forward, s.gradient += times[i].gradient, s.whole += times[i].whole;
        s.weight += times[i].weight, s.kept += l.kept, s.weights += l.weights;
        s.input += recompute ? l.kept_input : l.kept, s.context += std::min(l.kept, l.context.value_or(l.kept));
        sums_.push_back(s);
      }
  }

  /// The bound of a rank with the layers from a to b and from c to d; infinite if one micro-batch does not fit.
  double operator()(std::size_t rank, std::size_t a, std::size_t b, std::size_t c, std::size_t d) const {
    const stage front = stage_of(rank, a, b), back = stage_of(rank, c, d);
    const double room = (limits_[rank] - front.weights - back.weights) * (1 + 1e-9);
    if (!(room < std::numeric_limits<double>::max())) return 0;
    // While an op of one of the stages runs, the other keeps no more than what recomputation starts from.
    const double needed = recompute_ ? std::max(front.kept, front.input + back.kept) : front.kept + back.kept;
    if (needed > room) return std::numeric_limits<double>::infinity();
    const double head = sums_[a].forward / fastest_, tail = sums_[a].gradient / fastest_;
    double bound = head + tail + time_of(front, back, room, &stage::input, &stage::to_gradient, &stage::gradient);
    if (!recompute_)
      bound = std::max(bound, head + time_of(front, back, room, &stage::least, &stage::to_weight, &stage::freeing));
    if (!pairs_save_) bound = std::max(bound, head + time_of_work(front, back, room, head, tail));
    return bound * (1 - 1e-9);
  }

 private:
  struct sums {
    double forward = 0, gradient = 0, whole = 0, weight = 0;  // times
    double kept = 0, input = 0, context = 0, weights = 0;     // bytes
  };
  struct stage {
    std::size_t layers;
    double kept, input, least, held,
        weights;                    // bytes: of F, to the end of the gradient, to the end of W, of one that is left
    double to_gradient, to_weight;  // from the start of F
    double forward, gradient, backward;  // times of its own ops: of B, or I and W
    double freeing, after;               // the last op that frees, and what of it may come after the gradient
    double first_gradient;               // from the start of the step: when its first gradient may come
    double after_forward,
        after_gradient;  // of a micro-batch, from the end of F and of the gradient to that of the first layer
  };

  stage stage_of(std::size_t rank, std::size_t begin, std::size_t end) const {
    const sums &from = sums_[begin], &to = sums_[end], &all = sums_.back();
    const double speed = speeds_[rank], gradient = (to.gradient - from.gradient) / speed,
                 weight = (to.weight - from.weight) / speed, whole = (to.whole - from.whole) / speed,
                 after = std::max(0.0, std::min(weight, whole - gradient)), input = to.input - from.input,
                 least = to.context - from.context,
                 round = (all.forward - from.forward + all.gradient - from.gradient) / fastest_;
    return {.layers = end - begin,
            .kept = to.kept - from.kept,
            .input = input,
            .least = least,
            .held = std::min(input, least),
            .weights = to.weights - from.weights,
            .to_gradient = round,
            .to_weight = round + after,
            .forward = (to.forward - from.forward) / speed,
            .gradient = gradient,
            .backward = std::min(whole, gradient + weight),
            .freeing = std::min(weight, whole),
            .after = after,
            .first_gradient = (all.forward + all.gradient - to.gradient) / fastest_,
            .after_forward = (all.forward - to.forward + all.gradient) / fastest_,
            .after_gradient = from.gradient / fastest_};
  }

  // The time between the first F and the end of the step, by the work of the rank.
  double time_of_work(const stage& front, const stage& back, double room, double head, double tail) const {
    if (front.layers + back.layers == 0) return 0;
    const stage &last_forward = back.layers > 0 ? back : front, &last_gradient = front.layers > 0 ? front : back;
    const auto of_all = [&](double stage::*time) { return micro_ * (front.*time + back.*time); };
    const double forwards = of_all(&stage::forward), gradients = of_all(&stage::gradient),
                 backwards = of_all(&stage::backward);
    // The first backward of the rank is of the stage that the last F is of, too.
    const double early = most(front, back, room, &stage::input, &stage::forward),
                 idle = std::max(0.0, last_forward.first_gradient - head - early);
    const double before_weights = idle + forwards + gradients + tail, whole = idle + forwards + backwards;
    const double left = most(front, back, room, &stage::held, &stage::backward),
                 way = last_forward.after_forward - last_gradient.after_gradient + std::max(tail, last_gradient.after);
    const bool must_free = micro_ * (front.input + back.input) > room;
    return std::max({before_weights, whole, (must_free ? idle : 0) + forwards + backwards - left + way});
  }
  // The most time that ops of a kind take, one for each activation that the memory holds.
  double most(const stage& front, const stage& back, double room, double stage::*bytes, double stage::*time) const {
    double most = 0;
    for (const stage* s : {&front, &back}) {
      if (!(s->*time > 0)) continue;
      if (!(s->*bytes > 0)) return std::numeric_limits<double>::infinity();
      const bool alone = (s == &front ? back : front).layers == 0;
      const double fit = alone ? std::floor(room / (s->*bytes) + 1e-9) : room / (s->*bytes);
      most = std::max(most, fit * (s->*time));
    }
    return most;
  }

  // The time between the first F and the last op that frees bytes.
  double time_of(const stage& front, const stage& back, double room, double stage::*bytes, double stage::*life,
                 double stage::*freeing) const {
    const double of_front = front.*bytes, of_back = back.*bytes;
    const double lives = micro_ * (of_front * front.*life + of_back * back.*life);
    if (of_front <= 0 || of_back <= 0) {  // whole micro-batches
      const stage& only = of_back > 0 ? back : front;
      if (!(only.*bytes > 0)) return 0;
      const double fit = std::min(micro_, std::max(1.0, std::floor(room / (only.*bytes) + 1e-9)));
      const double fill = (fit - 1) / 2 * only.forward, empty = (fit - 1) / 2 * only.*freeing;
      return micro_ * (only.*life) / fit + (micro_ >= 2 * fit ? fill + empty : std::max(fill, empty));
    }
    const double fill = gap(room, of_front, front.forward, of_back, back.forward),
                 empty = gap(room, of_front, front.*freeing, of_back, back.*freeing);
    const bool both = micro_ * (of_front + of_back) >= 2 * room;
    return (lives + (both ? fill + empty : std::max(fill, empty))) / room;
  }
  // Memory times time that stays free while it fills with ops of two kinds: one op's bytes at once, then at the higher rate.
  static double gap(double room, double a, double time_of_a, double b, double time_of_b) {
    const double slowest = std::min(time_of_a / a, time_of_b / b), rest = std::max(0.0, room - std::max(a, b));
    return rest * rest / 2 * slowest;
  }

  std::vector<double> limits_, speeds_;
  double micro_, fastest_ = 1;
  bool recompute_, pairs_save_;
  std::vector<sums> sums_;  // over the first layers
};

}  // namespace pipesched::detail
