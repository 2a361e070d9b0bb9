// SPDX-License-Identifier: MIT
#pragma once

// The published formulas, as they are published: bubble per rank and activations kept on the worst rank. Each assumes that
// all stages cost the same, that transfers cost nothing, and what its `assumes` says; where that does not hold the
// simulator tells the truth and the formula does not (with F != I != W, DualPipe's bubble differs from rank to rank and
// from it).

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

#include "pipesched/generate/schedule_params.hpp"

namespace pipesched {

/// Durations of one stage: F, I, W, the full backward B and an overlapped pair F&B.
struct pass_times {
  double F = 1, I = 1, W = 1, B = I + W, FB = F + B;
};

/// A published bubble, and whether its assumptions hold for the sizes and times asked for.
struct closed_form {
  std::string_view formula;  ///< in the letters of this library; PP counts stages
  std::string_view source;
  std::string_view assumes;
  double bubble = 0;            ///< per rank, in the unit of the times
  double peak_activations = 0;  ///< of one stage and micro-batch, on the worst rank
  bool holds = false;           ///< whether `assumes` is true here
};

namespace formulas {

/// Source: Huang et al., GPipe (arXiv 1811.06965), section 2.3.
constexpr closed_form gpipe(double pp, double micro, const pass_times& t) {
  return {"(PP-1)(F+B)", "GPipe, arXiv 1811.06965, section 2.3", "", (pp - 1) * (t.F + t.B), micro, true};
}
/// Source: Qi et al., Zero Bubble (arXiv 2401.10241), table 2.
constexpr closed_form one_f_one_b(double pp, double micro, const pass_times& t) {
  return {"(PP-1)(F+B)", "Zero Bubble, arXiv 2401.10241, table 2", "", (pp - 1) * (t.F + t.B), std::min(micro, pp),
          true};
}
/// With v chunks a rank; times and activations of one chunk, of which a share of the model has v.
/// Source: Narayanan et al., Megatron-LM (arXiv 2104.04473), section 2.2; the peak follows from the warm-up.
constexpr closed_form interleaved_1f1b(double pp, double micro, double v, const pass_times& t) {
  return {"(PP-1)(F+B)",
          "Megatron-LM, arXiv 2104.04473, section 2.2",
          "micro a multiple of pp",
          (pp - 1) * (t.F + t.B),
          std::min(micro * v, 2 * (pp - 1) + (v - 1) * pp + 1),
          static_cast<std::int64_t>(micro) % static_cast<std::int64_t>(pp) == 0};
}
/// DeepSeek's table writes (PP-1)(F+B-2W) with B the full backward, the paper (p-1)(T_F+T_B-T_W): the same for B = I + W.
/// Source: Zero Bubble (arXiv 2401.10241), table 2.
constexpr closed_form zb_h1(double pp, double micro, const pass_times& t) {
  return {"(PP-1)(F+B-2W)",
          "Zero Bubble, arXiv 2401.10241, table 2",
          "micro >= pp, W <= F, W <= I",
          (pp - 1) * (t.F + t.I - t.W),
          std::min(micro, pp),
          micro >= pp && t.W <= t.F && t.W <= t.I};
}
/// A bubble of the span: ranks start one F after the other, and the last ends that much later.
/// Source: Zero Bubble (arXiv 2401.10241), table 2.
constexpr closed_form zb_h2(double pp, double micro, const pass_times& t) {
  return {"(PP-1)(F+I-2W)",
          "Zero Bubble, arXiv 2401.10241, table 2",
          "micro >= 2 pp - 1, F = I = W",
          (pp - 1) * (t.F + t.I - 2 * t.W),
          std::min(micro, 2 * pp - 1),
          micro >= 2 * pp - 1 && t.F == t.I && t.I == t.W};
}
/// Source: DeepSeek-V3 (arXiv 2412.19437), table 2.
constexpr closed_form dualpipe(double pp, double micro, const pass_times& t) {
  return {"(PP/2-1)(F&B+B-3W)",
          "DeepSeek-V3, arXiv 2412.19437, table 2",
          "micro even and >= 2 pp, F = I = W; F&B < F+B: on the rank that idles longest",
          (pp / 2 - 1) * (t.FB + t.B - 3 * t.W),
          pp + 1,
          micro >= 2 * pp && static_cast<std::int64_t>(micro) % 2 == 0 && t.F == t.I && t.I == t.W && t.B == t.I + t.W};
}
/// On pp ranks with PP = 2 pp stages; times and activations of one stage.
/// Source: deepseek-ai/DualPipe, README.
constexpr closed_form dualpipev(double pp, double micro, const pass_times& t) {
  return {"(PP/2-1)(F&B+B-3W)",
          "deepseek-ai/DualPipe, README",
          "micro >= 2 pp, F = I = W; F&B < F+B: on the rank that idles longest",
          (pp - 1) * (t.FB + t.B - 3 * t.W),
          2 * pp + 1,
          micro >= 2 * pp && t.F == t.I && t.I == t.W && t.B == t.I + t.W};
}

/// Printed as the ratio (D-2)/(2N+D-2) for D ranks, N micro-batches and F = B. The peak is the middle ranks'.
/// Source: Li and Hoefler, Chimera (arXiv 2107.06925), table 2.
constexpr closed_form chimera(double pp, double micro, const pass_times& t) {
  return {"(PP-2)B",
          "Chimera, arXiv 2107.06925, table 2",
          "F = B, micro a multiple of pp",
          (pp - 2) * t.B,
          std::min(micro, pp),
          t.F == t.B && static_cast<std::int64_t>(micro) % static_cast<std::int64_t>(pp) == 0};
}

}  // namespace formulas

/// The formula published for a family of families[]; nothing where none is. Forward only: (PP-1)F for one stage a rank.
constexpr std::optional<closed_form> closed_form_of(std::string_view family, const schedule_params& p,
                                                    const pass_times& t) {
  const double pp = static_cast<double>(p.pp), micro = static_cast<double>(p.micro);
  if (p.forward_only) {
    if (family != "gpipe" && family != "1f1b" && family != "zb1p") return std::nullopt;
    return closed_form{"(PP-1)F", "GPipe, arXiv 1811.06965, section 2.3", "", (pp - 1) * t.F, 1, true};
  }
  if (family == "gpipe") return formulas::gpipe(pp, micro, t);
  if (family == "1f1b") return formulas::one_f_one_b(pp, micro, t);
  if (family == "interleaved_1f1b" && !p.group_size && !p.overlap && !p.extra_warm_up)
    return formulas::interleaved_1f1b(pp, micro, static_cast<double>(p.chunks.value_or(2)), t);
  if (family == "zb1p" || family == "zb_h1") return formulas::zb_h1(pp, micro, t);
  if (family == "dualpipe") return formulas::dualpipe(pp, micro, t);
  if (family == "chimera") return formulas::chimera(pp, micro, t);
  if (family == "dualpipev") return formulas::dualpipev(pp, micro, t);
  return std::nullopt;
}

}  // namespace pipesched
