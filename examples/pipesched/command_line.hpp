// SPDX-License-Identifier: MIT
#pragma once

// Command lines of the form `program command operands --option value`: parsing, numbers, and help, from one table of
// commands. Every error is a schedule_error with one sentence: the value got, the rule, and the nearest legal value.

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tool {

/// An option of a command.
struct option {
  std::string_view name;          ///< "--pp"
  std::string_view value;         ///< placeholder of its value, "N"; empty for a flag
  std::string_view help;          ///< meaning, range, default
  std::string_view other_name{};  ///< a second name: "-o"
};

class arguments;

struct command {
  std::string_view name;
  std::vector<std::string_view> usage;  ///< one line per form, without the program's name
  std::string_view summary;             ///< one line
  std::size_t min_operands = 0, max_operands = 0;
  std::vector<option> options;
  std::vector<std::string_view> examples;
  int (*run)(const arguments&);
};

/// The operands and options of one run.
class arguments {
 public:
  std::vector<std::string> operands;

  bool has(std::string_view name) const { return values_.contains(name); }
  /// The text of an option, or nothing if it was not given.
  std::optional<std::string> text(std::string_view name) const;
  /// @throws schedule_error unless the text is a decimal number that fits in 64 bits.
  std::optional<std::int64_t> whole_number(std::string_view name) const;
  /// @throws schedule_error unless the text is a decimal number. It may be negative, infinite or NaN.
  std::optional<double> number(std::string_view name) const;

 private:
  friend class argument_parser;

  std::map<std::string, std::string, std::less<>> values_;
};

/// The command of that name. @throws schedule_error, with the nearest name, if no command is called so.
const command& find_command(std::string_view name, const std::vector<command>& all);

/// Parses what follows the command. An option's value is the next word, or follows "=". Words after "--" are operands.
/// @throws schedule_error on an option that is unknown, given twice, or lacks its value, and on a wrong number of operands.
arguments parse_arguments(const command& of, const std::vector<command>& all, const std::vector<std::string>& words);

/// Help on the program and on one command, at most 80 columns wide.
std::string help_on_program(std::string_view summary, const std::vector<command>& all,
                            const std::vector<std::string_view>& notes);
std::string help_on_command(const command& of);

/// The text with line breaks, so that no line is longer than a terminal of 80 columns; later lines are indented by two.
std::string wrapped(std::string_view text);

/// "a, b or c".
std::string list_of(const std::vector<std::string_view>& names, std::string_view last = "or");

/// The lines of a text.
std::vector<std::string> lines_of(std::string_view text);

/// A decimal number, which may be negative, infinite or NaN. @param name  of its option  @throws schedule_error for other texts
double number_of_text(std::string_view name, const std::string& text);

/// The texts between commas, or others than these.
std::vector<std::string> parts_of(std::string_view text, char separator = ',');

/// The text in quotes, at most 60 characters of it, with "?" for what is not printable ASCII.
std::string in_quotes(std::string_view text);

}  // namespace tool
