// SPDX-License-Identifier: MIT
// The formulas of a GPT against published figures.

#include "pipesched/model/gpt.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>

#include "support/families.hpp"

using namespace pipesched;
using pipesched::tests::refusal_of;

namespace {

double rounded(double value, double unit) { return std::round(value / unit) * unit; }

}  // namespace

TEST_CASE("gpt: numbers of parameters, table 1 of arXiv 2104.04473") {
  struct row {
    double billions;
    std::uint32_t heads, hidden, layers;
  };
  for (const row& r : {row{1.7, 24, 2304, 24},
                       {3.6, 32, 3072, 30},
                       {7.5, 32, 4096, 36},
                       {18.4, 48, 6144, 40},
                       {39.1, 64, 8192, 48},
                       {76.1, 80, 10240, 60},
                       {145.6, 96, 12288, 80},
                       {310.1, 128, 16384, 96},
                       {529.6, 128, 20480, 105},
                       {1008.0, 160, 25600, 128}}) {
    CAPTURE(r.billions);
    const gpt_totals t = totals_of({.layers = r.layers, .hidden = r.hidden, .heads = r.heads});
    CHECK(rounded(t.parameters / 1e9, 0.1) == doctest::Approx(r.billions));
  }
}

TEST_CASE("gpt: selective recomputation, section 5 of arXiv 2205.05198") {
  // 5as/h is 80 for GPT-3 and 64 for MT-NLG: 70 % and 65 % of the activations for 2.7 % and 1.6 % of the operations.
  const gpt_totals gpt3 = totals_of({.layers = 96, .hidden = 12288, .heads = 96, .selective_recomputation = false});
  const gpt_totals mtnlg = totals_of({.layers = 105, .hidden = 20480, .heads = 128, .selective_recomputation = false});
  CHECK(gpt3.layer_activations == 2048.0 * 12288 * (34 + 80));
  CHECK(mtnlg.layer_activations == 2048.0 * 20480 * (34 + 64));
  CHECK(rounded(gpt3.recomputed_share, 0.01) == doctest::Approx(0.70));
  CHECK(rounded(mtnlg.recomputed_share, 0.01) == doctest::Approx(0.65));
  // As printed, with the attention counted three times; in truth it is a third of that.
  CHECK(rounded(3 * gpt3.recomputed_operations / gpt3.operations, 0.001) == doctest::Approx(0.027));
  CHECK(rounded(3 * mtnlg.recomputed_operations / mtnlg.operations, 0.001) == doctest::Approx(0.016));
  CHECK(rounded(gpt3.recomputed_operations / gpt3.operations, 0.001) == doctest::Approx(0.009));
  CHECK(rounded(mtnlg.recomputed_operations / mtnlg.operations, 0.001) == doctest::Approx(0.005));
  for (const gpt_totals& t : {gpt3, mtnlg}) CHECK(t.recomputed_operations < t.recomputed_overhead * t.operations);
}

TEST_CASE("gpt: utilization of A100s, tables 3 and 5 of arXiv 2205.05198") {
  struct row {
    double seconds, batch, gpus, of_model, of_hardware;  // percent of 312e12 operations a second
    gpt_sizes sizes;
  };
  for (const row& r : {row{1.10, 1, 8, 41.5, 43.7, {.layers = 48, .hidden = 6144, .heads = 64, .micro_batch = 4}},
                       {13.75, 64, 64, 51.4, 52.8, {.layers = 96, .hidden = 12288, .heads = 96}},
                       {37.83, 280, 280, 56.0, 57.0, {.layers = 105, .hidden = 20480, .heads = 128}},
                       {71.49, 512, 512, 56.3, 57.0, {.layers = 128, .hidden = 25600, .heads = 160}}}) {
    CAPTURE(r.gpus);
    const gpt_totals t = totals_of(r.sizes);
    const auto percent = [&](double operations, double seconds) {
      return rounded(100 * r.batch * operations / (seconds * r.gpus * 312e12), 0.1);
    };
    // A time is printed to 0.01 s: it may be half of that more or less, which only matters in the first row.
    for (const auto& [operations, printed] :
         {std::pair(t.operations, r.of_model), std::pair(t.operations + 3 * t.recomputed_operations, r.of_hardware)}) {
      CHECK(percent(operations, r.seconds + 0.005) <= printed + 1e-9);
      CHECK(percent(operations, r.seconds - 0.005) >= printed - 1e-9);
      if (r.seconds > 10) CHECK(percent(operations, r.seconds) == doctest::Approx(printed));
    }
  }
}

TEST_CASE("gpt: outputs of the micro-batches on the first of 35 ranks, appendix B of arXiv 2205.05198") {
  const model mtnlg = gpt_model({.layers = 105, .hidden = 20480, .heads = 128});
  CHECK(rounded(35 * mtnlg.layers[1].message / (1 << 30), 0.01) == doctest::Approx(2.73));  // GiB
}

TEST_CASE("gpt: the model's layers add up to the totals") {
  for (const bool selective : {false, true}) {
    const gpt_sizes g{
        .layers = 48, .hidden = 6144, .heads = 64, .micro_batch = 4, .selective_recomputation = selective};
    const gpt_totals t = totals_of(g);
    double operations = 0, weights = 0;
    for (const layer& l : gpt_model(g).layers) {
      operations += l.count * (l.forward + l.backward_times().whole);
      weights += l.count * l.weights;
    }
    if (selective)
      operations /=
          1 + t.recomputed_overhead * 48 * 72 * 4 * 2048.0 * 6144 * 6144 * (1 + 2048 / (6 * 6144.0)) / t.operations;
    CHECK(operations == doctest::Approx(t.operations));
    CHECK(weights / g.bytes_per_parameter - 6144.0 * 51200 == doctest::Approx(t.parameters));
    CHECK(gpt_model(g).layers[1].kept == t.layer_activations);
    gpt_sizes eighth = g;
    eighth.tensor_parallel = 8, eighth.operations_per_second = 1e14;
    const model m = gpt_model(eighth);
    CHECK(m.time_unit == time_unit::s);
    CHECK(m.layers[1].forward == doctest::Approx(gpt_model(g).layers[1].forward / 8e14));
    CHECK(m.layers[1].weights == doctest::Approx(gpt_model(g).layers[1].weights / 8));
    check(m);
  }
  CHECK(refusal_of([] { gpt_model({.layers = 0, .hidden = 1, .heads = 1}); }) ==
        "gpt_model() needs layers of at least 1; got 0, nearest 1");
  CHECK(refusal_of([] { gpt_model({.layers = 1, .hidden = 1, .heads = 1, .bytes_per_parameter = -1}); }) ==
        "gpt_model() needs finite numbers that are not negative; got -1");
}
