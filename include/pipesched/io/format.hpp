// SPDX-License-Identifier: MIT
#pragma once

// fmt formatters: `fmt::print("{} {}", some_op, some_cell)` prints the library's notation. Width, fill and alignment work as
// for strings. A schedule prints one line with its name and sizes, then one line per rank.

#include <fmt/format.h>

#include <string_view>

#include "pipesched/core/notation.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"

template <>
struct fmt::formatter<pipesched::cell> : fmt::formatter<std::string_view> {
  template <typename Context>
  auto format(const pipesched::cell& c, Context& context) const {
    char text[pipesched::max_cell_text];
    const char* end = pipesched::write_cell(text, c);
    return fmt::formatter<std::string_view>::format({text, static_cast<std::size_t>(end - text)}, context);
  }
};

template <>
struct fmt::formatter<pipesched::op> : fmt::formatter<pipesched::cell> {};

template <>
struct fmt::formatter<pipesched::schedule> {
  constexpr auto parse(fmt::format_parse_context& context) { return context.begin(); }

  template <typename Context>
  auto format(const pipesched::schedule& s, Context& context) const {
    using pipesched::detail::count_text;
    auto out =
        fmt::format_to(context.out(), "{}: {}, {} ({}), {}{}", std::string_view(s.name), count_text(s.pp(), "rank"),
                       count_text(s.stages(), "stage"), to_string(s.placement.kind()),
                       count_text(s.micro, "micro-batch"), s.forward_only ? ", forward only" : "");
    for (std::size_t rank = 0; rank < s.cells.size(); ++rank) {
      out = fmt::format_to(out, "\nrank {}:", rank);
      for (const pipesched::cell& c : s[rank]) out = fmt::format_to(out, " {}", c);
    }
    return out;
  }
};
