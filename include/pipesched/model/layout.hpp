// SPDX-License-Identifier: MIT
#pragma once

// Layouts: partitions as Megatron-LM's --pipeline-model-parallel-layout writes them, such as "Et*3|(tt|)*29,m|L".
//
//   E t m L    a layer: embedding, transformer layer, multi-token prediction, loss
//   |          the next stage
//   x*n (..)*n repeated n times; what is in parentheses may have bars, but no other parentheses
//   ,          nothing
//
// Source: megatron/core/transformer/pipeline_parallel_layer_layout.py, parse_str_to_list() and validate_layer_layout().

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The letter of a layer: E, m and L for the kinds "embedding", "mtp" and "head", t for all others.
constexpr char layout_letter(std::string_view kind) noexcept {
  return kind == "embedding" ? 'E' : kind == "mtp" ? 'm' : kind == "head" ? 'L' : 't';
}

/// True if Megatron can place the stages so: one after another, in loops.
constexpr bool has_layout(const placement& where) noexcept {
  return where.kind() == placement_kind::linear || where.kind() == placement_kind::looped;
}

namespace detail {

inline std::string layout_refusal(const placement& where) {
  return concat({"a layout places stages on ranks one after another, which is a linear or looped placement; got a ",
                 to_string(where.kind()), " one"});
}
/// @throws schedule_error unless has_layout(where)
inline void require_layout(const placement& where) {
  if (!has_layout(where)) throw schedule_error(layout_refusal(where));
}

// A letter or a bar, and the column of the text that it comes from, from 0.
struct placed_letter {
  char letter;
  std::uint32_t column;
};

[[noreturn]] inline void refuse_column(std::size_t column, std::string_view what) {
  throw schedule_error(concat({"layout: column ", column + 1, " ", what}));
}

class layout_parser {
 public:
  explicit layout_parser(std::string_view text) : text_(text) {}

  /// The letters and bars, without factors and parentheses.
  std::vector<placed_letter> unrolled() {
    std::vector<placed_letter> all;
    for (at_ = 0; at_ < text_.size();) {
      if (text_[at_] == ',') {
        ++at_;
        continue;
      }
      add_repeated(all, text_[at_] == '(' ? group() : unit());
    }
    return all;
  }

 private:
  [[noreturn]] void refuse_letter(std::size_t at) const {
    refuse_column(at, concat({"is '", std::string(1, text_[at] >= ' ' && text_[at] <= '~' ? text_[at] : '?'),
                              "'; expected E, t, m, L, a bar, a comma, or parentheses"}));
  }

  void add_repeated(std::vector<placed_letter>& to, const std::vector<placed_letter>& what) {
    const std::size_t times = factor();
    if (to.size() + times * what.size() > max_layers + max_stages)
      refuse_column(at_ - 1, "makes too many layers or stages");
    for (std::size_t i = 0; i < times; ++i) to.insert(to.end(), what.begin(), what.end());
  }
  std::vector<placed_letter> unit() {
    if (std::string_view("EtmL|").find(text_[at_]) == std::string_view::npos) refuse_letter(at_);
    const auto column = static_cast<std::uint32_t>(at_);
    return {{text_[at_++], column}};
  }
  std::vector<placed_letter> group() {
    const std::size_t open = at_++;
    std::vector<placed_letter> inside;
    while (at_ < text_.size() && text_[at_] != ')') {
      if (text_[at_] == '(') refuse_column(at_, "opens parentheses inside parentheses; expected none");
      if (text_[at_] == ',') {
        ++at_;
        continue;
      }
      add_repeated(inside, unit());
    }
    if (at_ == text_.size()) refuse_column(open, "opens parentheses that nothing closes");
    const std::size_t close = at_++;
    if (at_ == text_.size() || text_[at_] != '*')
      refuse_column(close, "closes parentheses without a factor; expected one such as *2");
    if (inside.empty()) refuse_column(open, "opens empty parentheses");
    return inside;
  }
  // The number after "*"; 1 without one.
  std::size_t factor() {
    if (at_ == text_.size() || text_[at_] != '*') return 1;
    const std::size_t star = at_++;
    std::size_t n = 0, digits = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9' && digits < 9; ++at_, ++digits)
      n = 10 * n + static_cast<std::size_t>(text_[at_] - '0');
    if (digits == 0) refuse_column(star, "is a * without a number");
    if (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9')
      refuse_column(star, "is a * with a number of more than 9 digits");
    return n;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

inline std::string letters_of(const model& m) {
  std::string letters;
  for (const layer& l : m.layers) letters.append(l.count, layout_letter(l.kind));
  return letters;
}
inline std::string with_article(char letter) { return concat({letter == 't' ? "a " : "an ", std::string(1, letter)}); }

// A layer that Megatron-LM refuses at its place.
struct layout_fault {
  std::size_t layer;  // of all letters
  std::string text;
};

// The first fault of the letters of the stages; a missing E or L is no fault.
inline std::optional<layout_fault> fault_of(const std::vector<std::string>& stages, std::size_t ranks) {
  std::size_t all = 0, at = 0;
  for (const std::string& letters : stages) all += letters.size();
  std::optional<std::size_t> stage_of_m;
  for (std::size_t s = 0; s < stages.size(); ++s)
    for (const char letter : stages[s]) {
      const std::size_t own = at++;
      if (letter == 'E' && own > 0)
        return layout_fault{own, "is an E after another layer; Megatron-LM takes one E, which is the first layer"};
      if (letter == 'L' && own + 1 < all)
        return layout_fault{own, "is an L before another layer; Megatron-LM takes one L, which is the last layer"};
      if (letter == 't' && stage_of_m) return layout_fault{own, "is a t after an m; Megatron-LM takes m after all t"};
      if (letter != 'm') continue;
      const std::size_t first = stages.size() - std::min(ranks, stages.size());
      if (s < first)
        return layout_fault{own, concat({"is an m on stage ", s, "; Megatron-LM takes m on the last stage of a rank, ",
                                         first, " to ", stages.size() - 1})};
      if (stage_of_m && *stage_of_m != s)
        return layout_fault{own, concat({"is an m on stage ", s, "; Megatron-LM takes all m on one stage, and stage ",
                                         *stage_of_m, " has one"})};
      stage_of_m = s;
    }
  return std::nullopt;
}

// "ttttL" as "t*4L".
inline std::string shortened(const std::string& letters) {
  std::string text;
  for (std::size_t i = 0; i < letters.size();) {
    std::size_t end = i;
    while (end < letters.size() && letters[end] == letters[i]) ++end;
    text += end - i > 2 ? concat({std::string(1, letters[i]), "*", end - i}) : letters.substr(i, end - i);
    i = end;
  }
  return text;
}

}  // namespace detail

/// The partition that a layout describes. An E may come first where the first layer of the model is no embedding, and an L
/// last where its last one is no head; these stand for layers that cost nothing.
/// @throws schedule_error, with the column, if the text is not a layout; if its layers are not those of the model, or its
/// stages not those of the placement; if Megatron-LM refuses it, as to_layout() has it; unless the placement is linear or
/// looped. Linear in the layers.
inline partition parse_layout(std::string_view text, const model& m, const placement& where) {
  using detail::concat;
  detail::require_layout(where);
  const std::vector<detail::placed_letter> all = detail::layout_parser(text).unrolled();
  std::vector<std::string> stages(1);
  std::vector<std::size_t> columns;  // of the letters
  for (const auto [letter, column] : all) {
    if (letter != '|') {
      stages.back() += letter, columns.push_back(column);
      continue;
    }
    if (stages.size() == where.stages())
      detail::refuse_column(
          column, concat({"begins stage ", stages.size(), "; expected ", detail::count_text(where.stages(), "stage")}));
    stages.emplace_back();
  }
  if (stages.size() != where.stages())
    detail::refuse_column(text.size(), concat({"ends the layout after ", detail::count_text(stages.size(), "stage"),
                                               "; expected ", where.stages()}));
  const std::string expected = detail::letters_of(m);
  partition p;
  std::size_t next = 0, at = 0;
  for (const std::string& letters : stages) {
    p.layers.push_back(0);
    for (const char letter : letters) {
      const std::size_t own = at++;
      if (own == 0 && letter == 'E' && !expected.starts_with('E')) continue;
      if (own + 1 == columns.size() && letter == 'L' && !expected.ends_with('L')) continue;
      if (next == expected.size() || expected[next] != letter)
        detail::refuse_column(
            columns[own], concat({"is ", detail::with_article(letter), " where the model has ",
                                  next < expected.size() ? detail::with_article(expected[next]) : "no layer left"}));
      ++next, ++p.layers.back();
    }
  }
  if (next < expected.size())
    detail::refuse_column(text.size(), concat({"ends the layout after ", next, " of the model's ",
                                               detail::count_text(expected.size(), "layer"), "; expected ",
                                               detail::with_article(expected[next])}));
  if (const auto fault = detail::fault_of(stages, where.ranks()))
    detail::refuse_column(columns[fault->layer], fault->text);
  return p;
}

namespace detail {

// The letters of the stages, with the E and the L that the model lacks.
inline std::vector<std::string> stages_of_layout(const partition& p, const model& m) {
  const std::string letters = letters_of(m);
  std::vector<std::string> stages;
  std::size_t next = 0;
  for (const std::uint32_t n : p.layers) stages.push_back(letters.substr(next, n)), next += n;
  if (!letters.starts_with('E')) stages.front().insert(0, "E");
  if (!letters.ends_with('L')) stages.back() += "L";
  return stages;
}

}  // namespace detail

/// The reason why a partition has no layout that Megatron-LM takes; empty if it has one. Its rules: one E, which is the first
/// layer; one L, which is the last; all m after all t, on one stage, which is the last stage of its rank.
/// @throws schedule_error if the partition does not fit the model and the placement
inline std::string layout_refusal(const partition& p, const model& m, const placement& where) {
  require_partition(p, m, where.stages());
  if (!has_layout(where)) return detail::layout_refusal(where);
  const auto fault = detail::fault_of(detail::stages_of_layout(p, m), where.ranks());
  if (!fault) return {};
  const std::size_t layer = fault->layer - (detail::letters_of(m).starts_with('E') ? 0 : 1);
  return detail::concat({"layout: layer ", layer, " ", fault->text});
}

/// The layout of a partition, which parse_layout() reads. Megatron-LM needs an embedding first and a loss last: where the model
/// has no such layer, the first and the last stage get the letter all the same.
/// @throws schedule_error with layout_refusal(), if there is one; if the partition does not fit the model and the placement
inline std::string to_layout(const partition& p, const model& m, const placement& where) {
  if (const std::string refusal = layout_refusal(p, m, where); !refusal.empty()) throw schedule_error(refusal);
  const std::vector<std::string> stages = detail::stages_of_layout(p, m);
  std::string text;
  for (std::size_t s = 0; s < stages.size();) {
    std::size_t end = s;
    while (end + 1 < stages.size() && stages[end] == stages[s]) ++end;  // no bar follows the last stage
    const std::string one = detail::shortened(stages[s]);
    const std::string repeated =
        one.empty() ? detail::concat({"|*", end - s}) : detail::concat({"(", one, "|)*", end - s});
    if (!text.empty() && text.back() >= '0' && text.back() <= '9' && !one.empty()) text += ',';
    if (repeated.size() < (one.size() + 1) * (end - s)) {
      text += repeated, s = end;
      continue;
    }
    text += one;
    if (++s < stages.size()) text += '|';
  }
  return text;
}

}  // namespace pipesched
