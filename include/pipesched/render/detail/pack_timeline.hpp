// SPDX-License-Identifier: MIT
#pragma once

// The cells of a timeline as a short text, for pages. A row becomes words: a word is a cell without its stage and
// micro-batch, with its duration, the gap before it and the op whose input it waits for. Rows repeat themselves and each
// other, so that most of them is copies of earlier words. html_data.hpp reads the text.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/render/write.hpp"
#include "pipesched/simulate/explain.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

// Appends a whole number in digits of 5 bits, the lowest first; 32 is added to all but the last.
inline void append_digits_of_32(std::string& to, std::uint64_t n) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  for (; n >= 32; n /= 32) to += digits[32 + n % 32];
  to += digits[n];
}
// 0, -1, 1, -2, ... as 0, 1, 2, 3, ...
constexpr std::uint64_t without_sign(std::int64_t n) noexcept {
  return n < 0 ? 2 * static_cast<std::uint64_t>(-(n + 1)) + 1 : 2 * static_cast<std::uint64_t>(n);
}

// Appends numbers: 2 n is the number n, 2 n + 1 and a distance a copy of the n numbers that begin that far back. Linear.
inline void append_with_copies(std::string& to, const std::vector<std::uint32_t>& numbers) {
  constexpr std::size_t shortest = 3;
  std::unordered_map<std::uint64_t, std::size_t> seen;  // the last place of three numbers
  const auto three_at = [&](std::size_t i) {
    return (std::uint64_t{numbers[i]} * 0x9E3779B97F4A7C15u + numbers[i + 1]) * 0x9E3779B97F4A7C15u + numbers[i + 2];
  };
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t length = 0, from = 0;
    if (i + shortest <= numbers.size())
      if (const auto at = seen.find(three_at(i)); at != seen.end()) {
        from = at->second;
        while (i + length < numbers.size() && numbers[from + length] == numbers[i + length]) ++length;
      }
    if (length < shortest) {
      length = 1;
      append_digits_of_32(to, 2 * std::uint64_t{numbers[i]});
    } else {
      append_digits_of_32(to, 2 * length + 1);
      append_digits_of_32(to, i - from);
    }
    for (const std::size_t end = i + length; i < end; ++i)
      if (i + shortest <= numbers.size()) seen[three_at(i)] = i;
  }
}

// "words": [[gap, duration, op waited for, pass, chunk, micro-batch - the one expected, ...], ...], "cells": their text.
// The op waited for is 0 for none, 1 or 2; a pass is its number in the enumeration. The micro-batch expected is one more
// than the last of the same chunk and kind of pass in the row. Times are exact to 1e-12 of the longest.
class timeline_packer {
 public:
  /// @param stalls  by rank, then by time
  timeline_packer(const timeline& t, const std::vector<stall>& stalls) : t_(t), stalls_(stalls) {
    for (const interval& i : t.intervals.all()) longest_ = std::max({longest_, std::fabs(i.start), std::fabs(i.end)});
    if (longest_ > std::numeric_limits<double>::max() / 4)
      throw schedule_error(concat({"a page shows times up to 4e307; got ", longest_}));
    for (std::uint32_t rank = 0; rank < t.schedule.pp(); ++rank) append_digits_of_32(cells_, t[rank].size());
    for (std::uint32_t rank = 0; rank < t.schedule.pp(); ++rank) add_row(rank);
  }

  void write(std::string& out) {
    append_with_copies(cells_, row_words_);
    out += "\"words\":[" + words_ + "],\n\"cells\":\"" + cells_ + '"';
  }

 private:
  // Gap, duration, op waited for; pass, chunk and difference of micro-batches of both ops.
  using key = std::array<std::int64_t, 9>;

  void add_row(std::uint32_t rank) {
    std::map<std::uint32_t, std::uint32_t> next;  // micro-batch, by kind of pass and chunk
    double end = 0;
    for (std::uint32_t i = 0; i < t_[rank].size(); ++i) {
      const interval at = t_[rank][i];
      const cell& c = t_.schedule[rank][i];
      key k{in_units(at.start - end), in_units(at.end - at.start), waits(rank, i, c)};
      for (std::size_t o = 0; o < c.size(); ++o) {
        std::uint32_t& expected = next[kind_of(c[o].pass) * 256 + c[o].chunk];
        k[3 + 3 * o] = static_cast<std::int64_t>(c[o].pass);
        k[4 + 3 * o] = c[o].chunk;
        k[5 + 3 * o] = std::int64_t{c[o].micro} - expected;
        expected = c[o].micro + 1;
      }
      const auto [word, is_new] = word_of_.emplace(k, static_cast<std::uint32_t>(word_of_.size()));
      if (is_new) add_word(k, at.start - end, at.end - at.start);
      row_words_.push_back(word->second);
      end = at.end;
    }
  }

  void add_word(const key& k, double gap, double duration) {
    words_ += words_.empty() ? "[" : ",[";
    append_value(words_, k[0] == 0 ? 0 : gap);
    words_ += ',';
    append_value(words_, duration);
    for (std::size_t n = 2; n < (k[6] == 0 ? 6u : 9u); ++n) words_ += concat({",", k[n]});
    words_ += ']';
  }

  // 0 for none, or the op of the cell, from 1, whose input arrives last.
  std::int64_t waits(std::uint32_t rank, std::uint32_t index, const cell& c) {
    if (stalls_done_ == stalls_.size() || stalls_[stalls_done_].before != cell_ref{rank, index}) return 0;
    return stalls_[stalls_done_++].waiting == c[0] ? 1 : 2;
  }

  // Passes that follow the same order of micro-batches: all that make an input gradient.
  static std::uint32_t kind_of(pass p) { return yields_input_gradient(p) ? 0 : static_cast<std::uint32_t>(p); }

  std::int64_t in_units(double time) const {
    return longest_ > 0 ? static_cast<std::int64_t>(std::nearbyint(time / longest_ * 1e12)) : 0;
  }

  struct hash {
    std::size_t operator()(const key& k) const noexcept {
      std::uint64_t h = 0;
      for (const std::int64_t n : k) h = (h ^ static_cast<std::uint64_t>(n)) * 0x9E3779B97F4A7C15u, h ^= h >> 29;
      return static_cast<std::size_t>(h);
    }
  };

  const timeline& t_;
  const std::vector<stall>& stalls_;
  std::size_t stalls_done_ = 0;
  double longest_ = 0;
  std::unordered_map<key, std::uint32_t, hash> word_of_;
  std::vector<std::uint32_t> row_words_;
  std::string words_, cells_;
};

// Cells as a text: for each the differences of rank and index to the one before it.
inline std::string packed_cells(const std::vector<cell_ref>& cells) {
  std::string text;
  cell_ref last;
  for (const cell_ref c : cells) {
    append_digits_of_32(text, without_sign(std::int64_t{c.rank} - last.rank));
    append_digits_of_32(text, without_sign(std::int64_t{c.index} - last.index));
    last = c;
  }
  return text;
}

}  // namespace pipesched::detail
