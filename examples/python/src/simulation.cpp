// SPDX-License-Identifier: MIT
// Simulation: timelines, metrics, explanations and noise.

#include <nanobind/ndarray.h>
#include <nanobind/operators.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <pipesched/plan/memory_caps.hpp>
#include <pipesched/render/write.hpp>
#include <pipesched/simulate/explain.hpp>
#include <pipesched/simulate/metrics.hpp>
#include <pipesched/simulate/noise.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <pipesched/simulate/timeline.hpp>

#include "module.hpp"
#include "record.hpp"
#include "rows.hpp"
#include "watched.hpp"

namespace python {

namespace {

using costs_or_none = std::optional<stage_costs>;
using array = nb::ndarray<const double, nb::memview, nb::ndim<1>>;

// The starts or the ends of intervals as an array that looks into them.
nb::object times_of(nb::handle owner, std::span<const interval> all, double interval::*which) {
  static const double nothing = 0;
  constexpr std::int64_t stride = sizeof(interval) / sizeof(double);
  return nb::cast(array(all.empty() ? &nothing : &(all.data()->*which), {all.size()}, owner, {stride}));
}
nb::object times_of_timeline(nb::handle t, double interval::*which) {
  return times_of(t, nb::cast<const timeline&>(t).intervals.all(), which);
}
nb::object times_of_row(const row_view<interval>& row, double interval::*which) {
  return times_of(row.owner, row.values, which);
}

std::vector<std::size_t> offsets_of(const timeline& t) {
  std::vector<std::size_t> offsets = {0};
  for (const auto row : t.intervals) offsets.push_back(offsets.back() + row.size());
  return offsets;
}

// The arguments of the constructor.
struct timeline_arguments {
  pipesched::schedule schedule{};
  nb::object intervals{};
};

timeline make_timeline(const nb::args& positions, const nb::kwargs& keywords) {
  using a = timeline_arguments;
  static const record_entry entry{"timeline", {field<&a::schedule>("schedule"), field<&a::intervals>("intervals")}};
  a given;
  entry.fill(&given, positions, keywords, "timeline", 2);
  timeline t{.schedule = std::move(given.schedule)};
  if (!nb::hasattr(given.intervals, "__iter__"))
    refuse("timeline: intervals takes a sequence of rows of intervals, one row per rank", given.intervals);
  for (nb::handle row : nb::iter(given.intervals)) {
    if (!nb::hasattr(row, "__iter__")) refuse("a row is a sequence of intervals", row);
    std::vector<interval> times;
    for (nb::handle from : nb::iter(row)) {
      if (interval* given = nullptr; nb::try_cast(from, given) && given) {
        times.push_back(*given);
        continue;
      }
      std::array<double, 2> ends{};
      from_python(from, ends);
      times.push_back({ends[0], ends[1]});
    }
    t.intervals.append(times);
  }
  pipesched::detail::require_timeline(t);
  return t;
}

void define_timeline(nb::module_& m) {
  define<interval>(m, "interval", "Start and end of a cell.", field<&interval::start>("start"),
                   field<&interval::end>("end"));
  define_row<interval>(m, "interval_row", "The times of the cells of one rank; start and end are arrays of them.",
                       "interval")
      .def_prop_ro(
          "start", [](const row_view<interval>& r) { return times_of_row(r, &interval::start); },
          nb::sig("def start(self) -> memoryview"))
      .def_prop_ro(
          "end", [](const row_view<interval>& r) { return times_of_row(r, &interval::end); },
          nb::sig("def end(self) -> memoryview"));
  nb::class_<timeline> type(
      m, "timeline",
      "Start and end of every cell, simulated or measured: t[rank][i] is the time of t.schedule[rank][i].\n"
      "start and end are arrays over all cells, rank after rank; numpy.asarray() copies nothing.");
  add_sequence(type,
               {"rank", "interval_row", [](nb::handle t) { return nb::cast<const timeline&>(t).intervals.size(); },
                [](nb::handle t, std::size_t rank) {
                  return nb::cast(row_of(t, nb::cast<const timeline&>(t).intervals, rank));
                }});
  type.def(
          "__init__",
          [](timeline* self, const nb::args& positions, const nb::kwargs& keywords) {
            new (self) timeline(make_timeline(positions, keywords));
          },
          nb::sig("def __init__(self, schedule: schedule, intervals: "
                  "collections.abc.Iterable[collections.abc.Iterable[interval | tuple[float, "
                  "float]]]) -> None"))
      .def_ro("schedule", &timeline::schedule)
      .def_prop_ro(
          "intervals", [](nb::handle t) { return rows_of(t, nb::cast<const timeline&>(t).intervals); },
          "one row per rank", nb::sig("def intervals(self) -> tuple[interval_row, ...]"))
      .def_prop_ro(
          "start", [](nb::handle t) { return times_of_timeline(t, &interval::start); }, "of all cells",
          nb::sig("def start(self) -> memoryview"))
      .def_prop_ro(
          "end", [](nb::handle t) { return times_of_timeline(t, &interval::end); }, "of all cells",
          nb::sig("def end(self) -> memoryview"))
      .def_prop_ro("offsets", &offsets_of, "the cells of rank r are offsets[r] up to offsets[r + 1] in start and end")
      .def_prop_ro("makespan", &pipesched::detail::last_end, "the last end")
      .def("__hash__", [](nb::handle t) { return nb::hash(nb::make_tuple(t.attr("schedule"), t.attr("makespan"))); })
      .def(nb::self == nb::self, nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__repr__",
           [](const timeline& t) {
             return pipesched::detail::concat({"<timeline of ", t.schedule.name.view(), ": ",
                                               pipesched::detail::count_text(t.schedule.pp(), "rank"), ", makespan ",
                                               pipesched::detail::last_end(t), ">"});
           })
      .def("__getstate__", [](const timeline& t) { return nb::make_tuple(t.schedule, state_of(t.intervals)); })
      .def("__setstate__", [](timeline& self, const nb::tuple& state) {
        timeline t{.schedule = nb::cast<schedule>(state[0]),
                   .intervals = rows_from_state<interval>(nb::cast<nb::tuple>(state[1]))};
        new (&self) timeline(std::move(t));
      });
  m.def(
      "simulate",
      [](const schedule& s, const costs_or_none& costs) {
        return without_gil([&] { return simulate(s, costs.value_or(stage_costs())); });
      },
      nb::arg("plan"), nb::arg("costs") = nb::none(),
      "The timeline of a schedule under these costs by stage, from time 0. Default: F, I and W last 1, a B 2, "
      "transfers 0.");
  m.def("scaled", &scaled, nb::arg("t"), nb::arg("factor"), "The timeline with every time multiplied.");
  m.def("starting_at_zero", &starting_at_zero, nb::arg("t"), "The timeline moved so that its first cell starts at 0.");
  m.def(
      "facts_of", [](const timeline& t) { return pipesched::detail::facts_of(t, measure(t)); }, nb::arg("t"),
      "Name, size, makespan, idle share and peak in one line.");
}

void define_metrics(nb::module_& m) {
  using r = rank_metrics;
  define<r>(m, "rank_metrics", "Times and memory of a rank.", field<&r::busy>("busy"), field<&r::bubble>("bubble"),
            field<&r::span>("span", "from its first start to its last end"),
            field<&r::peak_activations>("peak_activations"), field<&r::peak_activations_at>("peak_activations_at"),
            field<&r::peak_bytes>("peak_bytes"), field<&r::peak_bytes_at>("peak_bytes_at"),
            field<&r::peak_kept_bytes>("peak_kept_bytes"), field<&r::overlapped_fraction>("overlapped_fraction"),
            field<&r::parameter_copies>("parameter_copies"), field<&r::weight_bytes>("weight_bytes"));
  using a = metrics;
  define<a>(m, "metrics", "Times and memory of a step.", field<&a::makespan>("makespan"), field<&a::bubble>("bubble"),
            field<&a::max_bubble>("max_bubble"), field<&a::bubble_ratio>("bubble_ratio"), field<&a::span>("span"),
            field<&a::peak_activations>("peak_activations", "1 is one micro-batch through a rank's whole share"),
            field<&a::peak_bytes>("peak_bytes"), field<&a::overlapped_fraction>("overlapped_fraction"),
            field<&a::parameter_copies>("parameter_copies"), field<&a::weight_bytes>("weight_bytes"),
            field<&a::ranks>("ranks"));
  m.def(
      "measure",
      [](const timeline& t, const costs_or_none& costs) {
        if (costs) costs->check(t.schedule.stages(), t.schedule.pp(), t.schedule.micro);
        return without_gil([&] { return measure(t, costs.value_or(stage_costs())); });
      },
      nb::arg("t"), nb::arg("costs") = nb::none(), "Times and memory of a timeline, by rank and in all.");
  m.def(
      "peak_activations",
      [](const row_view<cell>& row, bool forward_only) { return peak_activations(row.values, forward_only); },
      nb::arg("row"), nb::arg("forward_only") = false, "The most activations of stages that a row keeps.");
  m.def(
      "fits", [](const memory_caps& caps, const metrics& of) { return fits(caps, of); }, nb::arg("caps"), nb::arg("m"),
      "True if the peaks are within the limits.");
}

void define_explanation(nb::module_& m) {
  define<cell_ref>(m, "cell_ref", "A cell by its place.", field<&cell_ref::rank>("rank"),
                   field<&cell_ref::index>("index"))
      .def(nb::self < nb::self)
      .def(nb::self > nb::self)
      .def(nb::self <= nb::self)
      .def(nb::self >= nb::self);
  define<stall>(m, "stall", "A time in which a rank waits, and for what.", field<&stall::before>("before"),
                field<&stall::start>("start"), field<&stall::end>("end"), field<&stall::waiting>("waiting"),
                field<&stall::made_by>("made_by"), field<&stall::made_in>("made_in"));
  define<explanation>(m, "explanation", "Why a step takes as long as it does.",
                      field<&explanation::critical_path>("critical_path"), field<&explanation::stalls>("stalls"));
  m.def(
      "explain",
      [](const timeline& t, const costs_or_none& costs) {
        if (!costs) return without_gil([&] { return explain(t); });
        costs->check(t.schedule.stages(), t.schedule.pp(), t.schedule.micro);
        return without_gil([&] { return explain(t, *costs); });
      },
      nb::arg("t"), nb::arg("costs") = nb::none(), "The critical path of a timeline, and all its stalls.");
}

void define_noise(nb::module_& m) {
  using o = noise_options;
  define<o>(m, "noise_options", "Random delays: each cell takes up to `noise` longer.", field<&o::noise>("noise"),
            field<&o::draws>("draws"), field<&o::seed>("seed"));
  using n = noisy_makespan;
  define<n>(m, "noisy_makespan", "Makespans under noise.", field<&n::options>("options"), field<&n::exact>("exact"),
            field<&n::mean>("mean"), field<&n::standard_deviation>("standard_deviation"),
            field<&n::percentile_5>("percentile_5"), field<&n::median>("median"),
            field<&n::percentile_95>("percentile_95"), field<&n::draws>("draws"));
  m.attr("max_draws") = max_draws;
  m.def(
      "simulate_noise",
      [](const schedule& s, const costs_or_none& costs, o options, const progress_argument& progress) {
        const stage_costs given = costs.value_or(stage_costs());
        return watched(progress, options.draws, [&](const reporter& report) {
          options.progress = [&](std::uint32_t draws) { return report([draws] { return nb::cast(draws); }); };
          return simulate_noise(s, given, options);
        });
      },
      nb::arg("s"), nb::arg("costs") = nb::none(), nb::arg("options") = o(), nb::arg("progress") = nb::none(),
      "Makespans with random delays of cells.\n\n"
      "`progress` is called now and then with the number of draws, and stops with the draws so far if it returns "
      "False; True shows a bar. Ctrl-C raises Interrupted, whose `result` has the draws so far.");
}

}  // namespace

void define_simulation(nb::module_& m) {
  define_timeline(m);
  define_metrics(m);
  define_explanation(m);
  define_noise(m);
}

}  // namespace python
