// SPDX-License-Identifier: MIT
#pragma once

// A timeline in the Trace Event Format, for ui.perfetto.dev and chrome://tracing. One process per rank, with a track for
// compute, tracks for transfers to other ranks (as many as keep the events of a track apart), a counter of live activations
// (1 is one micro-batch through the rank's whole share), and flow arrows from the producer of a tensor to its user.
// Format: "Trace Event Format", Google, events M, X, s, t, f, C; times in microseconds.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/time_unit.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/render/write.hpp"
#include "pipesched/simulate/explain.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

struct trace_style {
  double microseconds = 1000;  ///< per unit of the timeline: 1000 for milliseconds, 1e6 for seconds
};

/// The style for times in this unit; for none, that of milliseconds.
constexpr trace_style trace_style_of(time_unit unit) noexcept {
  return unit == time_unit::none ? trace_style{} : trace_style{.microseconds = 1e6 / units_per_second(unit)};
}

namespace detail {

template <typename Costs>
class trace_writer {
 public:
  trace_writer(const timeline& t, const Costs& costs, const trace_style& style)
      : t_(t), s_(t.schedule), costs_(costs), style_(style), users_(drawable(t, style), {}) {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      for (std::uint32_t i = 0; i < s_[rank].size(); ++i)
        for (op o : s_[rank][i])
          if (const auto in = input_of(o, s_.chain())) users_[*in] = {rank, i};
  }

  std::string write() {
    out_ = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n";
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      name("process_name", rank, 0, concat({"rank ", rank}));
      number_event("process_sort_index", rank, rank);
      name("thread_name", rank, 0, "compute");
      write_compute(rank);
      write_transfers(rank);
      write_activations(rank);
    }
    if (out_.ends_with(",\n")) out_.resize(out_.size() - 2);
    return std::move(out_ += "\n]}\n");
  }

 private:
  // The schedule of a timeline whose times, in microseconds, are numbers that JSON has.
  static const schedule& drawable(const timeline& t, const trace_style& style) {
    require_timeline(t);
    double end = 1;
    for (const interval& i : t.intervals.all()) end = std::max({end, i.end, -i.start});
    if (!(style.microseconds > 0 && std::isfinite(end * style.microseconds)))
      throw schedule_error(concat({"a trace takes a unit of time above 0 microseconds, and finite times in it; got ",
                                   style.microseconds, " microseconds per unit and times up to ", end}));
    return t.schedule;
  }

  struct message {
    double start, end;
    tensor_id what;
    op producer;
    std::uint32_t to;
  };

  void name(std::string_view what, std::uint32_t rank, std::size_t track, std::string_view is) {
    out_ += concat({"{\"ph\":\"M\",\"name\":\"", what, "\",\"pid\":", rank, ",\"tid\":", track,
                    ",\"args\":{\"name\":\"", is, "\"}},\n"});
  }
  void number_event(std::string_view what, std::uint32_t rank, std::uint32_t is) {
    out_ += concat(
        {"{\"ph\":\"M\",\"name\":\"", what, "\",\"pid\":", rank, ",\"tid\":0,\"args\":{\"sort_index\":", is, "}},\n"});
  }
  void begin(std::string_view phase, std::uint32_t rank, std::size_t track, double time) {
    out_ += concat({"{\"ph\":\"", phase, "\",\"pid\":", rank, ",\"tid\":", track, ",\"ts\":"});
    append_value(out_, time * style_.microseconds);
  }
  void flow(std::string_view phase, std::uint32_t rank, std::size_t track, double time, std::uint64_t id) {
    begin(phase, rank, track, time);
    out_ +=
        concat({",\"id\":", id, ",\"name\":\"tensor\",\"cat\":\"flow\"", phase == "f" ? ",\"bp\":\"e\"},\n" : "},\n"});
  }
  static std::string_view colour(const cell& c) {
    switch (without_recompute(c[0].pass)) {
      case pass::forward: return c.overlapped() ? "thread_state_running" : "thread_state_iowait";
      case pass::backward: return "thread_state_running";
      case pass::backward_input: return "good";
      case pass::recompute: return "thread_state_unknown";
      default: return "thread_state_runnable";
    }
  }

  void write_compute(std::uint32_t rank) {
    for (std::uint32_t i = 0; i < s_[rank].size(); ++i) {
      const auto [start, end] = t_[rank][i];
      const cell& c = s_[rank][i];
      begin("X", rank, 0, start);
      out_ += ",\"dur\":";
      append_value(out_, (end - start) * style_.microseconds);
      out_ += ",\"name\":\"";
      append_cell(out_, c);
      out_ += concat({"\",\"cat\":\"", c.overlapped() ? "overlapped" : "compute", "\",\"cname\":\"", colour(c),
                      "\",\"args\":{\"stage\":", c[0].stage, ",\"micro\":", c[0].micro, "}},\n"});
      for (op o : c)  // arrows that arrive from other ranks end here, arrows to other ranks begin here
        if (const auto in = input_of(o, s_.chain()); in && s_.placement.rank_of(in->stage, in->micro) != rank)
          flow("f", rank, 0, start, id_of(*in));
      const bool swapped = c.overlapped() && released_at(c, {rank, i}, 1) < released_at(c, {rank, i}, 0);
      for (std::size_t n = 0; n < c.size(); ++n) {
        const std::size_t k = swapped ? 1 - n : n;
        if (const auto out = output_of(c[k], s_.chain()); out && users_[*out].rank != rank)
          flow("s", rank, 0, start + 0.99 * (released_at(c, {rank, i}, k) - start), id_of(*out));
      }
    }
  }

  double released_at(const cell& c, cell_ref at, std::size_t k) const {
    if constexpr (
        requires { costs_.release(c, k); } || requires { costs_.release(c, k, at.rank); })
      return t_[at.rank][at.index].start + release_of(costs_, at.rank, c, k);
    else
      return t_[at.rank][at.index].end;
  }

  // In the order of their starts, each message takes the first free lane.
  void write_transfers(std::uint32_t rank) {
    std::vector<message> messages;
    for (std::uint32_t i = 0; i < s_[rank].size(); ++i)
      for (std::size_t k = 0; k < s_[rank][i].size(); ++k) {
        const cell& c = s_[rank][i];
        const auto out = output_of(c[k], s_.chain());
        if (!out) continue;
        const cell_ref to = users_[*out];
        if (to.rank == rank) continue;
        const double made = released_at(c, {rank, i}, k);
        double arrives = t_[to.rank][to.index].start;  // measured: it arrived at that time at the latest
        if constexpr (cost_model<Costs>) arrives = t_[rank][i].start + time_to_arrive(s_, costs_, rank, c, k, *out);
        messages.push_back({made, std::max(made, arrives), *out, c[k], to.rank});
      }
    std::stable_sort(messages.begin(), messages.end(),
                     [](const message& a, const message& b) { return a.start < b.start; });
    std::vector<double> free_from;  // of each lane
    for (const message& m : messages) {
      std::size_t lane = 0;
      while (lane < free_from.size() && free_from[lane] > m.start) ++lane;
      if (lane == free_from.size()) {
        free_from.push_back(0);
        name("thread_name", rank, lane + 1, lane == 0 ? "transfers" : concat({"transfers ", lane + 1}));
      }
      free_from[lane] = m.end;
      begin("X", rank, lane + 1, m.start);
      out_ += ",\"dur\":";
      append_value(out_, (m.end - m.start) * style_.microseconds);
      out_ += concat({",\"name\":\"", m.what.kind == tensor_kind::gradient ? "gradient of " : "output of ",
                      to_string(m.producer), " to rank ", m.to, "\",\"cat\":\"transfer\"},\n"});
      flow("t", rank, lane + 1, m.start, id_of(m.what));
    }
  }

  void write_activations(std::uint32_t rank) {
    const activation_unit& unit = units_[rank];
    const uniform_costs none;  // of bytes
    memory_levels memory(s_, recomputed_, unit, none);
    std::int64_t shown = 0;
    const auto sample = [&](double time, std::int64_t live) {
      if (std::exchange(shown, live) == live) return;
      begin("C", rank, 0, time);
      out_ += ",\"name\":\"live activations (of the rank's share)\",\"args\":{\"live\":";
      append_value(out_, static_cast<double>(live) / static_cast<double>(unit.share));
      out_ += "}},\n";
    };
    for (std::size_t i = 0; i < s_[rank].size(); ++i) {
      memory.start(s_[rank][i], t_[rank][i].start);
      sample(t_[rank][i].start, memory.activations.now);
      memory.finish(s_[rank][i], t_[rank][i].end);
      sample(t_[rank][i].end, memory.activations.now);
    }
  }

  std::uint64_t id_of(tensor_id t) const {
    return 1 + (static_cast<std::uint64_t>(t.kind) * s_.stages() + t.stage) * s_.micro + t.micro;
  }

  const timeline& t_;
  const schedule& s_;
  const Costs& costs_;
  const trace_style& style_;
  tensor_table<cell_ref> users_;
  std::vector<activation_unit> units_ = activation_units(s_.placement);
  recomputed_ops recomputed_{s_};
  std::string out_;
};

}  // namespace detail

/// The trace of a timeline that was simulated with these costs. Linear, but for the sorting of messages.
/// @throws schedule_error unless the timeline has one interval of finite times per cell and a valid schedule, and the unit is
/// above 0
template <cost_model Costs>
std::string render_chrome_trace(const timeline& t, const Costs& costs, const trace_style& style = {}) {
  return detail::trace_writer(t, costs, style).write();
}

/// The trace of a measured timeline. A message is drawn from the end of its producer to the start of its user.
/// @throws schedule_error as above
inline std::string render_chrome_trace(const timeline& t, const trace_style& style = {}) {
  const detail::as_measured none;
  return detail::trace_writer(t, none, style).write();
}

}  // namespace pipesched
