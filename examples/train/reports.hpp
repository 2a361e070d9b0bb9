// SPDX-License-Identifier: MIT
#pragma once

// Reports of the example: losses, predicted times, costs of layers, and a picture.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <pipesched/generate/families.hpp>
#include <pipesched/io/model_json.hpp>
#include <pipesched/model/costs_of.hpp>
#include <pipesched/render/html.hpp>
#include <pipesched/simulate/fit_costs.hpp>
#include <pipesched/simulate/fit_model.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "layers.hpp"
#include "options.hpp"

namespace train {

using namespace pipesched;
using real = float;
using std::chrono::steady_clock;

inline double seconds_since(steady_clock::time_point start = {}) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

inline double mean(std::span<const double> v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

/// A plot of ten lines and up to 60 columns, each the mean of equally many steps.
inline std::string loss_curve(const std::vector<double>& losses) {
  const std::size_t height = 10, width = std::min<std::size_t>(60, losses.size());
  std::vector<double> columns;
  for (std::size_t c = 0; c < width; ++c) {
    const std::size_t begin = c * losses.size() / width, end = (c + 1) * losses.size() / width;
    columns.push_back(mean(std::span(losses).subspan(begin, end - begin)));
  }
  const auto [least, most] = std::minmax_element(columns.begin(), columns.end());
  const double step = std::max(1e-9, (*most - *least) / static_cast<double>(height - 1));
  std::string text;
  for (std::size_t line = height; line-- > 0;) {
    text += fmt::format("{:7.3f} |", *least + static_cast<double>(line) * step);
    for (double value : columns) text += std::lround((value - *least) / step) == static_cast<long>(line) ? '*' : ' ';
    text += '\n';
  }
  return text + fmt::format("{:>9}{:-<{}}\n{:>9}1{:>{}}\n", '+', "", width, "", losses.size(), width - 1);
}

/// Prints the loss of steps as they end: of every tenth, or on a terminal of each, on one line.
class loss_report {
 public:
  /// @param characters  that a step learns from
  loss_report(std::size_t steps, std::size_t characters) : steps_(steps), characters_(characters) {}

  void add(double loss) {
    losses_.push_back(loss);
    const std::size_t done = losses_.size();
    if (!terminal_ && done != 1 && done % 10 != 0) return;
    fmt::print("{}step {:4} of {}   loss {:.4f}   {:.0f} characters/s{}", terminal_ ? "\r" : "", done, steps_, loss,
               static_cast<double>(done * characters_) / seconds_since(start_), terminal_ ? "\x1b[K" : "\n");
    std::fflush(stdout);
  }
  /// Prints the time and the curve.
  void end() const {
    fmt::print("{}{:.1f} s\n\n{}", terminal_ ? "\n" : "", seconds_since(start_), loss_curve(losses_));
  }
  const std::vector<double>& losses() const { return losses_; }

 private:
  std::size_t steps_, characters_;
  bool terminal_ = isatty(STDOUT_FILENO) != 0;
  steady_clock::time_point start_ = steady_clock::now();
  std::vector<double> losses_;
};

/// Compares the loss of every step with that of one device.
inline void print_comparison(const std::vector<double>& losses, const std::vector<double>& expected) {
  double most = 0;
  for (std::size_t i = 0; i < losses.size(); ++i)
    most = std::max(most, std::abs(losses[i] - expected[i]) / expected[i]);
  fmt::print("one device: last loss {:.4f}; largest relative difference of a step's loss {:.2g}\n", expected.back(),
             most);
}

inline void write_page(const std::string& name, timeline last) {
  html_panel panel = make_panel(std::move(last));
  panel.title += " (measured, in ms)";
  std::ofstream file(name, std::ios::binary);
  if (!(file << render_html(panel)).flush()) throw schedule_error("--html " + name + ": cannot write the file");
}

/// Prints predicted times of a step, for this schedule and others, from costs fitted to the last step. The other schedules
/// need as many stages as this one.
inline void predict(const options& o, const timeline& last) {
  const stage_costs costs = fit_costs(last);
  fmt::print("last step: measured {:.1f} ms, simulated with the fitted costs {:.1f} ms\n", measure(last).makespan,
             measure(simulate(last.schedule, costs)).makespan);
  for (const std::string& name : o.predict)
    fmt::print("{}: {:.1f} ms with these costs\n", name,
               measure(simulate(make_schedule(name, keep_taken(o.plan, find_family(name).limits)), costs)).makespan);
}

/// The timeline of several runs of one program, with the shortest time of every cell, which no other process has delayed.
inline timeline shortest(std::span<const timeline> measured) {
  timeline t = measured[0];
  for (const timeline& other : measured)
    for (std::uint32_t rank = 0; rank < t.schedule.pp(); ++rank)
      for (std::size_t i = 0; i < t[rank].size(); ++i)
        t.intervals[rank][i].end =
            t[rank][i].start + std::min(t[rank][i].end - t[rank][i].start, other[rank][i].end - other[rank][i].start);
  return t;
}

/// Prints the costs of layers that were fitted, beside those of each layer alone.
inline void print_layers(const model& fitted, const model& alone) {
  const auto print = [](const std::string& kind, char letter, double time, double by_itself) {
    fmt::print("{:<9} {}  {:8.4f} {:8.4f}  {:+.1f} %\n", kind, letter, time, by_itself,
               by_itself > 0 ? 100 * (time / by_itself - 1) : 0);
  };
  for (std::size_t i = 0; i < alone.layers.size(); ++i) {
    const layer &got = fitted.layers[i], &expected = alone.layers[i];
    print(got.kind, 'F', got.forward, expected.forward);
    if (got.backward) {
      print(got.kind, 'B', *got.backward, expected.backward_times().whole);
    } else {
      print(got.kind, 'I', got.backward_times().input, expected.backward_times().input);
      print(got.kind, 'W', got.backward_times().weight, expected.backward_times().weight);
    }
  }
}

/// Fits costs of layers to measured steps, writes and prints them.
inline void fit_layers(const options& o, const std::vector<timeline>& measured, const partition& layers) {
  const timeline times[] = {shortest(measured)};
  const model_fit fit = fit_model(times, std::span(&layers, 1), layers_of(o.model));
  std::vector<double> steps;
  for (const timeline& t : measured) steps.push_back(measure(t).makespan);
  std::nth_element(steps.begin(), steps.begin() + std::ssize(steps) / 2, steps.end());
  const schedule& s = times[0].schedule;
  fmt::print("step: measured {:.2f} ms, median of {}; simulated with the fitted costs {:.2f} ms\n",
             steps[steps.size() / 2], steps.size(),
             measure(simulate(s, costs_of(fit.fitted, layers, s.placement))).makespan);
  if (!o.fitted.empty()) {
    std::ofstream file(o.fitted, std::ios::binary);
    if (!(file << model_document(fit.fitted).dump(2) << '\n').flush())
      throw schedule_error("--fitted " + o.fitted + ": cannot write the file");
  }
  fmt::print("costs of layers in ms, fitted to {} steps and measured alone\n", measured.size());
  const auto now = [] { return 1000 * seconds_since(); };
  print_layers(fit.fitted, costs_alone<real>(o.model, o.seed, measured.size(), now));
  for (const std::vector<std::string>& alike : fit.alike)
    fmt::print("these steps do not tell apart {}\n", fmt::join(alike, " and "));
}

}  // namespace train
