// SPDX-License-Identifier: MIT
#pragma once

// Published formulas: the bubble of the rank that idles longest and its peak of activations. Each assumes that all stages
// cost the same, that transfers cost nothing, and what its `assumes` says. If an assumption fails, believe the simulator:
// with F != I != W, for example, DualPipe's bubble differs from rank to rank, and from the formula.

#include <algorithm>
#include <cstdint>
#include <initializer_list>
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
  std::string_view formula;     ///< in the letters of this library; PP counts stages
  std::string_view source;      ///< paper and section or table
  std::string_view assumes;     ///< about sizes and times, besides equal stages and free transfers; may be empty
  double bubble = 0;            ///< of the rank that idles longest, in the unit of the times
  double peak_activations = 0;  ///< on the rank that keeps most, in shares as in rank_metrics
  std::string_view fails{};     ///< the first assumption that fails; empty if all hold

  constexpr bool holds() const noexcept { return fails.empty(); }
};

namespace detail {

struct assumption {
  bool holds;
  std::string_view text;
};

// The first one that fails.
constexpr std::string_view first_failing(std::initializer_list<assumption> all) {
  for (const assumption& a : all)
    if (!a.holds) return a.text;
  return {};
}

constexpr bool divides(double divisor, double number) {
  return static_cast<std::int64_t>(number) % static_cast<std::int64_t>(divisor) == 0;
}

}  // namespace detail

namespace formulas {

/// Source: Huang et al., GPipe (arXiv 1811.06965), section 2.3.
constexpr closed_form gpipe(double pp, double micro, const pass_times& t) {
  return {"(PP-1)(F+B)", "GPipe, arXiv 1811.06965, section 2.3", "", (pp - 1) * (t.F + t.B), micro};
}
/// Source: Qi et al., Zero Bubble (arXiv 2401.10241), table 2.
constexpr closed_form one_f_one_b(double pp, double micro, const pass_times& t) {
  return {"(PP-1)(F+B)", "Zero Bubble, arXiv 2401.10241, table 2", "", (pp - 1) * (t.F + t.B), std::min(micro, pp)};
}
/// With v stages per rank; times of one stage.
/// Source: Narayanan et al., Megatron-LM (arXiv 2104.04473), section 2.2; the peak follows from the warm-up.
constexpr closed_form interleaved_1f1b(double pp, double micro, double v, const pass_times& t) {
  return {"(PP-1)(F+B)",
          "Megatron-LM, arXiv 2104.04473, section 2.2",
          "micro a multiple of pp",
          (pp - 1) * (t.F + t.B),
          std::min(micro * v, 2 * (pp - 1) + (v - 1) * pp + 1) / v,
          detail::first_failing({{detail::divides(pp, micro), "micro a multiple of pp"}})};
}
/// DeepSeek's table writes (PP-1)(F+B-2W) with B the full backward, the paper (p-1)(T_F+T_B-T_W): the same for B = I + W.
/// Source: Zero Bubble (arXiv 2401.10241), table 2.
constexpr closed_form zb_h1(double pp, double micro, const pass_times& t) {
  return {"(PP-1)(F+B-2W)",
          "Zero Bubble, arXiv 2401.10241, table 2",
          "micro >= pp, W <= F, W <= I",
          (pp - 1) * (t.F + t.I - t.W),
          std::min(micro, pp),
          detail::first_failing({{micro >= pp, "micro >= pp"}, {t.W <= t.F, "W <= F"}, {t.W <= t.I, "W <= I"}})};
}
/// A bubble of the span: ranks start one F after the other, and the last ends that much later.
/// Source: Zero Bubble (arXiv 2401.10241), table 2.
constexpr closed_form zb_h2(double pp, double micro, const pass_times& t) {
  return {"(PP-1)(F+I-2W)",
          "Zero Bubble, arXiv 2401.10241, table 2",
          "micro >= 2 pp - 1, F = I = W",
          (pp - 1) * (t.F + t.I - 2 * t.W),
          std::min(micro, 2 * pp - 1),
          detail::first_failing({{micro >= 2 * pp - 1, "micro >= 2 pp - 1"}, {t.F == t.I && t.I == t.W, "F = I = W"}})};
}
/// Source: DeepSeek-V3 (arXiv 2412.19437), table 2.
constexpr closed_form dualpipe(double pp, double micro, const pass_times& t) {
  return {"(PP/2-1)(F&B+B-3W)",
          "DeepSeek-V3, arXiv 2412.19437, table 2",
          "micro even and >= 2 pp, F = I = W, B = I + W, B <= F&B <= F+B",
          (pp / 2 - 1) * (t.FB + t.B - 3 * t.W),
          pp + 1,
          detail::first_failing({{micro >= 2 * pp, "micro >= 2 pp"},
                                 {detail::divides(2, micro), "micro even"},
                                 {t.F == t.I && t.I == t.W, "F = I = W"},
                                 {t.B == t.I + t.W, "B = I + W"},
                                 {t.B <= t.FB && t.FB <= t.F + t.B, "B <= F&B <= F+B"}})};
}
/// On pp ranks with PP = 2 pp stages; times of one stage.
/// Source: deepseek-ai/DualPipe, README.
constexpr closed_form dualpipev(double pp, double micro, const pass_times& t) {
  return {"(PP/2-1)(F&B+B-3W)",
          "deepseek-ai/DualPipe, README",
          "micro >= 2 pp, F = I = W, B = I + W, B <= F&B <= F+B",
          (pp - 1) * (t.FB + t.B - 3 * t.W),
          (2 * pp + 1) / 2,
          detail::first_failing({{micro >= 2 * pp, "micro >= 2 pp"},
                                 {t.F == t.I && t.I == t.W, "F = I = W"},
                                 {t.B == t.I + t.W, "B = I + W"},
                                 {t.B <= t.FB && t.FB <= t.F + t.B, "B <= F&B <= F+B"}})};
}

/// Printed as the ratio (D-2)/(2N+D-2) for D ranks, N micro-batches and F = B. The peak is on the middle ranks.
/// Source: Li and Hoefler, Chimera (arXiv 2107.06925), table 2.
constexpr closed_form chimera(double pp, double micro, const pass_times& t) {
  return {"(PP-2)B",
          "Chimera, arXiv 2107.06925, table 2",
          "micro a multiple of pp, F = B",
          (pp - 2) * t.B,
          std::min(micro, pp),
          detail::first_failing({{detail::divides(pp, micro), "micro a multiple of pp"}, {t.F == t.B, "F = B"}})};
}

}  // namespace formulas

/// The formula published for a family, for stages that all take these times; nothing if no paper gives one. Forward only:
/// (PP-1)F for one stage per rank.
constexpr std::optional<closed_form> closed_form_of(std::string_view family, const schedule_params& p,
                                                    const pass_times& t) {
  const double pp = static_cast<double>(p.pp), micro = static_cast<double>(p.micro);
  if (p.forward_only) {
    if (family != "gpipe" && family != "1f1b" && family != "zb1p") return std::nullopt;
    return closed_form{"(PP-1)F", "GPipe, arXiv 1811.06965, section 2.3", "", (pp - 1) * t.F, 1};
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
