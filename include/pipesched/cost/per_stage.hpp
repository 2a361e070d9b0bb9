// SPDX-License-Identifier: MIT
#pragma once

// One number for all stages, or one per stage.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/cost/cost_model.hpp"
#include "pipesched/support/concat.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

// "1 or 4, one per stage".
inline std::string numbers_expected(std::size_t stages, bool per_cut) {
  if (stages == 1) return "1, for 1 stage";
  if (per_cut && stages == 2) return "1, for the cut between 2 stages";
  if (per_cut) return concat({"1 or ", stages - 1, ", one per cut between ", count_text(stages, "stage")});
  return concat({"1 or ", stages, ", one per stage"});
}

}  // namespace detail

/// One number for all stages, or one per stage: `per_stage(2)`, `per_stage{1, 2, 2, 3}`.
class per_stage {
 public:
  constexpr per_stage(double same = 0) : values_{same} {}  // NOLINT: implicit
  constexpr per_stage(std::initializer_list<double> values) : values_(values) {}
  constexpr explicit per_stage(std::vector<double> values) : values_(std::move(values)) {}

  /// The number of a stage. @pre check() accepts the numbers and the stage exists
  constexpr double operator[](std::uint32_t stage) const noexcept { return values_[values_.size() == 1 ? 0 : stage]; }
  constexpr const std::vector<double>& values() const noexcept { return values_; }

  /// @throws schedule_error unless there is one number or one per stage, all finite and not negative. A number per cut
  /// between stages may leave out the one after the last stage.
  constexpr void check(std::string_view name, std::uint32_t stages, bool per_cut = false) const {
    const std::size_t n = values_.size();
    if (n != 1 && n != stages && !(per_cut && n + 1 == stages && n > 0))
      throw schedule_error(detail::concat({"costs: ", name, " has ", detail::count_text(n, "number"), "; expected ",
                                           detail::numbers_expected(stages, per_cut)}));
    for (std::size_t i = 0; i < n; ++i)
      detail::require_cost(values_[i], name, n == 1 ? -1 : static_cast<std::int64_t>(i));
  }

  friend constexpr bool operator==(const per_stage&, const per_stage&) = default;

 private:
  std::vector<double> values_;
};

/// A per_stage or nothing: `{}`, `2`, `{1, 2, 2, 3}`. Used like a std::optional.
class optional_per_stage {
 public:
  constexpr optional_per_stage() = default;
  constexpr optional_per_stage(per_stage numbers) : numbers_(std::move(numbers)) {}  // NOLINT: implicit
  constexpr optional_per_stage(double same) : numbers_(per_stage(same)) {}           // NOLINT: implicit
  constexpr optional_per_stage(std::initializer_list<double> values) : numbers_(per_stage(values)) {}

  constexpr bool has_value() const noexcept { return numbers_.has_value(); }
  constexpr explicit operator bool() const noexcept { return has_value(); }
  constexpr void reset() noexcept { numbers_.reset(); }

  /// @pre has_value(), here and below
  constexpr const per_stage& operator*() const noexcept { return *numbers_; }
  constexpr per_stage& operator*() noexcept { return *numbers_; }
  constexpr const per_stage* operator->() const noexcept { return &*numbers_; }
  constexpr per_stage* operator->() noexcept { return &*numbers_; }
  constexpr double operator[](std::uint32_t stage) const noexcept { return (*numbers_)[stage]; }

  friend constexpr bool operator==(const optional_per_stage&, const optional_per_stage&) = default;

 private:
  std::optional<per_stage> numbers_;
};

}  // namespace pipesched
