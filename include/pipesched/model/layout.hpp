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

#include <cstddef>
#include <cstdint>
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

/// @throws schedule_error unless has_layout(where)
inline void require_layout(const placement& where) {
  if (!has_layout(where))
    throw schedule_error(
        concat({"a layout places stages on ranks one after another, which is a linear or looped placement; got a ",
                to_string(where.kind()), " one"}));
}

class layout_parser {
 public:
  explicit layout_parser(std::string_view text) : text_(text) {}

  /// The letters of every stage.
  std::vector<std::string> stages() {
    std::vector<std::string> found(1);
    for (const char c : unrolled()) {
      if (c == '|')
        found.emplace_back();
      else
        found.back() += c;
    }
    return found;
  }

 private:
  [[noreturn]] void refuse(std::size_t at, std::string_view what) const {
    throw schedule_error(concat({"layout: column ", at + 1, " ", what}));
  }
  [[noreturn]] void refuse_letter(std::size_t at) const {
    refuse(at, concat({"is '", std::string(1, text_[at] >= ' ' && text_[at] <= '~' ? text_[at] : '?'),
                       "'; expected E, t, m, L, a bar, a comma, or parentheses"}));
  }

  std::string unrolled() {
    std::string all;
    for (at_ = 0; at_ < text_.size();) {
      if (text_[at_] == ',') {
        ++at_;
        continue;
      }
      add_repeated(all, text_[at_] == '(' ? group() : unit());
    }
    return all;
  }
  void add_repeated(std::string& to, const std::string& what) {
    const std::size_t times = factor();
    if (to.size() + times * what.size() > max_layers + max_stages) refuse(at_ - 1, "makes too many layers or stages");
    for (std::size_t i = 0; i < times; ++i) to += what;
  }
  std::string unit() {
    if (std::string_view("EtmL|").find(text_[at_]) == std::string_view::npos) refuse_letter(at_);
    return std::string(1, text_[at_++]);
  }
  std::string group() {
    const std::size_t open = at_++;
    std::string inside;
    while (at_ < text_.size() && text_[at_] != ')') {
      if (text_[at_] == '(') refuse(at_, "opens parentheses inside parentheses; expected none");
      if (text_[at_] == ',') {
        ++at_;
        continue;
      }
      add_repeated(inside, unit());
    }
    if (at_ == text_.size()) refuse(open, "opens parentheses that nothing closes");
    const std::size_t close = at_++;
    if (at_ == text_.size() || text_[at_] != '*')
      refuse(close, "closes parentheses without a factor; expected one such as *2");
    if (inside.empty()) refuse(open, "opens empty parentheses");
    return inside;
  }
  // The number after "*"; 1 without one.
  std::size_t factor() {
    if (at_ == text_.size() || text_[at_] != '*') return 1;
    const std::size_t star = at_++;
    std::size_t n = 0, digits = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9' && digits < 9; ++at_, ++digits)
      n = 10 * n + static_cast<std::size_t>(text_[at_] - '0');
    if (digits == 0) refuse(star, "is a * without a number");
    if (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9')
      refuse(star, "is a * with a number of more than 9 digits");
    return n;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

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

/// The partition that a layout describes. A letter E, m or L for which the model has no layer at that place stands for one that
/// costs nothing.
/// @throws schedule_error, with the column, if the text is not a layout; if its layers are not those of the model, or its
/// stages not those of the placement; unless the placement is linear or looped. Linear in the layers.
inline partition parse_layout(std::string_view text, const model& m, const placement& where) {
  using detail::concat;
  detail::require_layout(where);
  const std::vector<std::string> stages = detail::layout_parser(text).stages();
  if (stages.size() != where.stages())
    throw schedule_error(concat({"layout: there are ", stages.size(), " stages; expected ", where.stages()}));
  std::string expected;
  for (const layer& l : m.layers) expected.append(l.count, layout_letter(l.kind));
  partition p;
  std::size_t next = 0;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    p.layers.push_back(0);
    for (const char letter : stages[s])
      if (next < expected.size() && expected[next] == letter)
        ++next, ++p.layers.back();
      else if (letter == 't')
        throw schedule_error(concat({"layout: stage ", s, " has a t where the model has ",
                                     next < expected.size() ? std::string(1, expected[next]) : "no layer left"}));
  }
  if (next < expected.size())
    throw schedule_error(concat({"layout: there are ", next, " layers of the model's ", expected.size(), "; layer ",
                                 next, ", ", std::string(1, expected[next]), ", has no place"}));
  return p;
}

/// The layout of a partition, which parse_layout() reads. Megatron wants an embedding first and a loss last: where the model
/// has no such layer, the first and the last stage get the letter all the same.
/// @throws schedule_error if the partition does not fit the model and the placement, or the placement is neither linear nor looped
inline std::string to_layout(const partition& p, const model& m, const placement& where) {
  detail::require_layout(where);
  require_partition(p, m, where.stages());
  std::string letters;
  for (const layer& l : m.layers) letters.append(l.count, layout_letter(l.kind));
  std::vector<std::string> stages;
  std::size_t next = 0;
  for (const std::uint32_t n : p.layers) stages.push_back(letters.substr(next, n)), next += n;
  if (letters.empty() || letters.front() != 'E') stages.front().insert(0, "E");
  if (letters.empty() || letters.back() != 'L') stages.back() += "L";
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
