// SPDX-License-Identifier: MIT
#pragma once

// A family: one value that knows all of a named rule that makes schedules. Its limits are checked here, its rows made
// here, whether the family is the library's or the caller's own.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/closed_form.hpp"
#include "pipesched/generate/parameters.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/row_rule.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

/// The requirements of a family on `pp`, and the optional parameters that it takes.
struct family_limits {
  std::int64_t stages_per_rank = 1;  ///< unless chunks or waves, where the family takes them, say otherwise
  bool even_pp = false;
  parameter_set takes{};
};

/// A family of schedules. The rows come from `emit`, one rank at a time, or from `search`, all at once.
///
///     inline constexpr family mine{.name = "mine", .place = linear_placement, .emit = [](...) {...}};
///     const schedule s = mine.make({.pp = 4, .micro = 8});
///
/// The order is its author's responsibility; verify() says whether it is valid. `place` is needed, and one of `emit` and
/// `search`; all else may be left out. All functions but `check` get legal parameters, and none that the family does not
/// take.
struct family {
  std::string_view name;       ///< that of its schedules, too
  std::string_view summary{};  ///< one line
  std::string_view source{};   ///< of the order: paper, section or figure; code
  family_limits limits{};
  placement (*place)(const family_params&) = nullptr;
  row_rule emit{};
  rows<cell> (*search)(const family_params&, const placement&) = nullptr;  ///< forward only: the forwards alone
  /// Bytes that `search` takes beside its rows, where they grow faster than the rows.
  double (*search_bytes)(const family_params&) = nullptr;
  /// Throws schedule_error on parameters that break further rules of the family. @pre the limits hold
  void (*check)(const family&, const family_params&) = nullptr;
  /// The peak of activations on a rank, for training.
  activation_peak (*peak)(const family_params&, std::int64_t rank) = nullptr;
  /// The published formula; nothing for parameters that it does not cover.
  std::optional<closed_form> (*formula)(const family_params&, const pass_times&) = nullptr;
  /// The bubble of every rank for F = I = W = 1, B = 2, F&B = 3, of training, where it is known and `formula` does not
  /// give it.
  std::optional<std::int64_t> (*unit_bubble)(const family_params&) = nullptr;

  /// @throws schedule_error on bad parameters, on a parameter that was given and that the family does not take, and on
  /// a placement on another number of ranks than pp. With `emit`, linear in the number of cells.
  constexpr schedule make(const family_params& p) const;
  /// The row of one rank. With `emit`, linear in its length and independent of the number of ranks in nearly all
  /// families; with `search`, as long as make(). @throws schedule_error as make() does, and unless 0 <= rank < pp.
  constexpr std::vector<cell> row(const family_params& p, std::integral auto rank) const;

  constexpr std::int64_t stages_per_rank(const family_params& p) const {
    return limits.takes.contains(parameter::chunks)  ? chunks_of(p)
           : limits.takes.contains(parameter::waves) ? 2 * waves_of(p)
                                                     : limits.stages_per_rank;
  }
};

/// The placements that families share: rank r hosts stage r; stages r, pp + r, ...; stages r and 2pp-1-r; stage r of
/// replica 0 and pp-1-r of replica 1.
constexpr placement linear_placement(const family_params& p) { return placement::linear(p.pp); }
constexpr placement looped_placement(const family_params& p) { return placement::looped(p.pp, chunks_of(p)); }
constexpr placement vee_placement(const family_params& p) { return placement::vee(p.pp); }
constexpr placement bidirectional_placement(const family_params& p) { return placement::bidirectional(p.pp, p.micro); }

namespace detail {

// "1f1b takes no waves; got waves = 9".
inline std::string refusal_of_parameter(std::string_view family, parameter which, const family_params& p) {
  const std::string_view name = to_string(which);
  const auto text = [&](piece value) { return concat({family, " takes no ", name, "; got ", name, " = ", value}); };
  switch (which) {
    case parameter::chunks: return text(*p.chunks);
    case parameter::group_size: return text(*p.group_size);
    case parameter::waves: return text(*p.waves);
    case parameter::memory_limit: return text(*p.memory_limit);
    case parameter::extra_warm_up:
    case parameter::overlap: return text("true");
    case parameter::costs: break;
  }
  return concat({family, " takes no costs; got costs"});
}

constexpr void require_range(std::string_view family, std::int64_t got, std::int64_t most, std::string_view name,
                             std::string_view of) {
  if (got < 1 || got > most)
    throw schedule_error(concat(
        {family, " needs 1 to ", most, " ", name, of, "; got ", name, " = ", got, ", nearest ", got < 1 ? 1 : most}));
}

}  // namespace detail

/// @throws schedule_error unless 1 <= pp, pp is even where the family needs it, stages <= 65536, 1 <= micro,
/// and stages * micro <= 2^28; and unless there are 1 to 256 chunks and 1 to 128 waves, where the family takes them.
constexpr void require_sizes(const family& f, const family_params& p) {
  using detail::concat;
  if (f.limits.takes.contains(parameter::chunks))
    detail::require_range(f.name, chunks_of(p), max_chunks, "chunks", " per rank");
  if (f.limits.takes.contains(parameter::waves))
    detail::require_range(f.name, waves_of(p), max_chunks / 2, "waves", "");
  detail::require_range(f.name, f.limits.stages_per_rank, max_chunks, "stages_per_rank", "");
  const std::int64_t stages_per_rank = f.stages_per_rank(p), max_pp = max_stages / stages_per_rank;
  if (f.limits.even_pp && p.pp < 2)
    throw schedule_error(concat({f.name, " needs an even number of pipeline ranks; got pp = ", p.pp, ", nearest 2"}));
  if (p.pp < 1)
    throw schedule_error(concat({f.name, " needs at least 1 pipeline rank; got pp = ", p.pp, ", nearest 1"}));
  if (p.pp > max_pp)
    throw schedule_error(
        concat({f.name, " needs at most ", max_pp, " pipeline ranks (stages are 16-bit numbers); got pp = ", p.pp,
                ", nearest ", max_pp}));
  if (f.limits.even_pp && p.pp % 2 != 0)
    throw schedule_error(concat({f.name, " needs an even number of pipeline ranks; got pp = ", p.pp, ", nearest ",
                                 p.pp - 1, " or ", p.pp + 1}));
  if (p.micro < 1)
    throw schedule_error(concat({f.name, " needs at least 1 micro-batch; got micro = ", p.micro, ", nearest 1"}));
  detail::require_pairs(f.name, p.pp * stages_per_rank, p.micro);
}

/// @throws schedule_error unless make() takes these parameters.
constexpr void require(const family& f, const family_params& p) {
  if (!f.place || !f.emit == !f.search)
    throw schedule_error(detail::concat({f.name, " needs a place, and one of emit and search"}));
  for (parameter which : all_parameters)
    if (is_given(p, which) && !f.limits.takes.contains(which))
      throw schedule_error(detail::refusal_of_parameter(f.name, which, p));
  require_sizes(f, p);
  if (f.check) f.check(f, p);
}

namespace detail {

// @throws schedule_error unless the family's placement is on pp ranks
constexpr placement placement_of(const family& f, const family_params& p) {
  placement where = f.place(p);
  if (where.ranks() != p.pp)
    throw schedule_error(concat({f.name, " needs a placement on pp = ", count_text(p.pp, "rank"), "; got one on ",
                                 where.ranks(), ", nearest ", p.pp}));
  require_pairs(f.name, where.stages(), p.micro);
  return where;
}

// The number of stages of a placement that families share, which is on pp ranks; 0 for any other.
constexpr std::int64_t stages_of_shared(const family& f, const family_params& p) {
  return f.place == linear_placement || f.place == bidirectional_placement ? p.pp
         : f.place == looped_placement                                     ? p.pp * chunks_of(p)
         : f.place == vee_placement                                        ? p.pp * 2
                                                                           : 0;
}

// Checks what placement_of() checks. A shared placement is made only if it is refused, so that a row does not take as long
// as there are stages.
constexpr void require_placement(const family& f, const family_params& p) {
  const std::int64_t stages = stages_of_shared(f, p);
  if (stages < 1 || stages > max_stages || p.micro > max_pairs / stages) placement_of(f, p);
}

constexpr rows<cell> searched_rows(const family& f, const family_params& p, const placement& where) {
  rows<cell> all = f.search(p, where);
  if (all.size() != where.ranks())
    throw schedule_error(concat({f.name, " needs a search that makes the rows of ", count_text(where.ranks(), "rank"),
                                 "; got ", all.size(), ", nearest ", where.ranks()}));
  return all;
}

// Not a conditional expression: g++ 12 destroys its value twice in constant expressions.
constexpr rows<cell> rows_of(const family& f, const family_params& p, const placement& where) {
  if (f.emit) return f.emit.rows(p);
  return searched_rows(f, p, where);
}

}  // namespace detail

constexpr schedule family::make(const family_params& p) const {
  require(*this, p);
  placement where = detail::placement_of(*this, p);
  rows<cell> cells = detail::rows_of(*this, p, where);
  return {.name = name,
          .placement = std::move(where),
          .micro = static_cast<std::uint32_t>(p.micro),
          .forward_only = p.forward_only,
          .cells = std::move(cells)};
}

constexpr std::vector<cell> family::row(const family_params& p, std::integral auto number) const {
  require(*this, p);
  if (std::cmp_less(number, 0) || std::cmp_greater_equal(number, p.pp))
    throw schedule_error(detail::concat({name, " needs a rank from 0 to pp - 1 = ", p.pp - 1, "; got rank = ", number,
                                         ", nearest ", std::cmp_less(number, 0) ? 0 : p.pp - 1}));
  const auto rank = static_cast<std::int64_t>(number);
  if (emit) {
    detail::require_placement(*this, p);
    return emit.row(p, rank);
  }
  const placement where = detail::placement_of(*this, p);
  const rows<cell> all = detail::searched_rows(*this, p, where);
  const auto found = all[static_cast<std::size_t>(rank)];
  return {found.begin(), found.end()};
}

}  // namespace pipesched
