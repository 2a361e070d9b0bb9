// SPDX-License-Identifier: MIT

#include "command_line.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <pipesched/support/error.hpp>
#include <pipesched/support/nearest_name.hpp>
#include <system_error>
#include <utility>

using pipesched::schedule_error;

namespace tool {

namespace {

constexpr std::size_t help_width = 80;

std::string did_you_mean(std::string_view nearest) {
  return nearest.empty() ? std::string() : "; did you mean " + std::string(nearest) + "?";
}

// The option of that name, or null.
const option* find_option(const command& of, std::string_view name) {
  for (const option& o : of.options)
    if (o.name == name || (!o.other_name.empty() && o.other_name == name)) return &o;
  return nullptr;
}

[[noreturn]] void refuse_option(const command& of, const std::vector<command>& all, std::string_view name) {
  std::vector<std::string_view> takers, names;
  for (const command& other : all)
    if (find_option(other, name)) takers.push_back(other.name);
  std::string text = std::string(of.name) + " takes no option " + in_quotes(name);
  if (!takers.empty()) throw schedule_error(text + "; it is an option of " + list_of(takers, "and"));
  for (const option& o : of.options) names.push_back(o.name);
  const std::string_view nearest = pipesched::nearest_name(name, names);
  throw schedule_error(text +
                       (nearest.empty() ? "; see pipesched help " + std::string(of.name) : did_you_mean(nearest)));
}

// Appends words to a line that is `column` long, with line breaks; later lines start at `indent`.
void append_words(std::string& to, std::string_view words, std::size_t column, std::size_t indent) {
  while (!words.empty()) {
    std::size_t end = words.size();
    if (column + end > help_width) {
      end = column < help_width ? words.rfind(' ', help_width - column) : words.npos;
      if (end == words.npos) end = words.find(' ');
      end = std::min(end, words.size());
    }
    to += words.substr(0, end);
    words.remove_prefix(end);
    if (words.empty()) return;
    words.remove_prefix(1);
    to += '\n' + std::string(indent, ' ');
    column = indent;
  }
}

// "--pp N" as two columns; `width` is of the first.
void append_entry(std::string& to, std::string_view left, std::string_view right, std::size_t width) {
  std::string line = "  " + std::string(left);
  line.resize(std::max(width, line.size() + 2), ' ');
  to += line;
  append_words(to, right, line.size(), width);
  to += '\n';
}

std::string left_column(const option& o) {
  std::string text;
  if (o.other_name.size() == 2) text += std::string(o.other_name) + ", ";  // "-o, --output FILE"
  text += o.name;
  if (!o.value.empty()) text += ' ' + std::string(o.value);
  return text;
}

}  // namespace

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string in_quotes(std::string_view text) {
  std::string shown(text.substr(0, 60));
  for (char& c : shown)
    if (c < ' ' || c > '~') c = '?';
  return '"' + shown + (text.size() > 60 ? "...\"" : "\"");
}

std::string wrapped(std::string_view text) {
  std::string lines;
  append_words(lines, text, 0, 2);
  return lines;
}

std::string list_of(const std::vector<std::string_view>& names, std::string_view last) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 == names.size() ? ' ' + std::string(last) + ' ' : ", ";
    text += names[i];
  }
  return text;
}

std::optional<std::string> arguments::text(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::int64_t> arguments::whole_number(std::string_view name) const {
  const std::optional<std::string> given = text(name);
  if (!given) return std::nullopt;
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(given->data(), given->data() + given->size(), number);
  if (error == std::errc::result_out_of_range)
    throw schedule_error(std::string(name) + " takes a whole number of at most 64 bits; got " + in_quotes(*given));
  if (error != std::errc() || end != given->data() + given->size())
    throw schedule_error(std::string(name) + " takes a whole number; got " + in_quotes(*given));
  return number;
}

std::optional<double> arguments::number(std::string_view name) const {
  const std::optional<std::string> given = text(name);
  return given ? std::optional(number_of_text(name, *given)) : std::nullopt;
}

double number_of_text(std::string_view name, const std::string& text) {
  const bool is_word = text == "nan" || text == "inf" || text == "-nan" || text == "-inf";
  const bool is_decimal = text.find_first_not_of("+-.0123456789eE") == text.npos;  // no hexadecimal, no blanks
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || !(is_word || is_decimal) || end != text.c_str() + text.size())
    throw schedule_error(std::string(name) + " takes a number such as 1.5; got " + in_quotes(text));
  if (number == 0 && text.substr(0, text.find_first_of("eE")).find_first_of("123456789") != text.npos)
    throw schedule_error(std::string(name) + " takes 0 or a number of at least 4.94066e-324; got " + in_quotes(text));
  return number;
}

const command& find_command(std::string_view name, const std::vector<command>& all) {
  std::vector<std::string_view> names;
  for (const command& c : all) {
    if (c.name == name) return c;
    names.push_back(c.name);
  }
  std::vector<std::string_view> suggested = names;
  suggested.insert(suggested.end(), {"help", "--help", "--version"});
  const std::string_view nearest = pipesched::nearest_name(name, suggested);
  throw schedule_error("no command is called " + in_quotes(name) +
                       (nearest.empty() ? "; expected " + list_of(names) : did_you_mean(nearest)));
}

class argument_parser {
 public:
  argument_parser(const command& of, const std::vector<command>& all, const std::vector<std::string>& words)
      : of_(of), all_(all), words_(words) {}

  arguments parse() {
    bool options_end = false;
    for (at_ = 0; at_ < words_.size(); ++at_) {
      const std::string& word = words_[at_];
      if (options_end || word.size() < 2 || word[0] != '-')
        add_operand(word);
      else if (word == "--")
        options_end = true;
      else
        add_option(word);
    }
    if (result_.operands.size() < of_.min_operands)
      throw schedule_error(std::string(of_.name) + " needs " + std::string(of_.usage[0].substr(of_.name.size() + 1)) +
                           "; see pipesched help " + std::string(of_.name));
    return std::move(result_);
  }

 private:
  void add_operand(const std::string& word) {
    if (result_.operands.size() == of_.max_operands) {
      const std::string takes = of_.max_operands == 0   ? "only options"
                                : of_.max_operands == 1 ? "one operand"
                                                        : std::to_string(of_.max_operands) + " operands";
      throw schedule_error(std::string(of_.name) + " takes " + takes + "; got " + in_quotes(word) +
                           (of_.max_operands == 0 ? "" : " as well"));
    }
    result_.operands.push_back(word);
  }

  void add_option(const std::string& word) {
    const bool is_short = word[1] != '-' && word.size() > 2;  // -oplan.json
    const std::size_t end = is_short ? 2 : std::min(word.find('='), word.size());
    const std::string name = word.substr(0, end);
    const option* o = find_option(of_, name);
    if (!o) refuse_option(of_, all_, is_short ? word : name);
    std::optional<std::string> value;
    if (end < word.size()) value = word.substr(word[end] == '=' ? end + 1 : end);
    if (!o->value.empty() && !value) value = next_word(name, *o);
    if (o->value.empty() && value) throw schedule_error(name + " takes no value; got " + in_quotes(*value));
    const auto [at, is_new] = result_.values_.emplace(std::string(o->name), value.value_or(""));
    if (is_new) return;
    const std::string both = o->value.empty() ? "" : ", as " + in_quotes(at->second) + " and " + in_quotes(*value);
    throw schedule_error(std::string(o->name) + " is given twice" + both + "; expected once");
  }

  const std::string& next_word(const std::string& name, const option& o) {
    const std::string takes = name + " takes a value, " + std::string(o.value) + "; got ";
    if (at_ + 1 == words_.size()) throw schedule_error(takes + "none");
    if (find_option(of_, words_[at_ + 1])) throw schedule_error(takes + "the option " + words_[at_ + 1]);
    return words_[++at_];
  }

  const command& of_;
  const std::vector<command>& all_;
  const std::vector<std::string>& words_;
  std::size_t at_ = 0;
  arguments result_;
};

arguments parse_arguments(const command& of, const std::vector<command>& all, const std::vector<std::string>& words) {
  return argument_parser(of, all, words).parse();
}

std::string help_on_program(std::string_view summary, const std::vector<command>& all,
                            const std::vector<std::string_view>& notes) {
  std::string text = std::string(summary) + "\n\nusage: pipesched COMMAND [operands] [options]\n\ncommands:\n";
  for (const command& c : all) append_entry(text, c.name, c.summary, 14);
  append_entry(text, "help", "help on a command: pipesched help simulate", 14);
  append_entry(text, "--version", "the version of the library", 14);
  for (std::string_view note : notes) text += '\n' + std::string(note) + '\n';
  text += "\nexamples:\n";
  for (const command& c : all)
    if (!c.examples.empty()) text += "  pipesched " + std::string(c.examples[0]) + '\n';
  return text;
}

std::string help_on_command(const command& of) {
  std::string text;
  for (std::string_view form : of.usage)
    text += (text.empty() ? "usage: pipesched " : "       pipesched ") + std::string(form) + '\n';
  std::string summary(of.summary);
  summary[0] = static_cast<char>(summary[0] - 'a' + 'A');
  text += '\n' + summary + ".\n";
  if (!of.options.empty()) text += "\noptions:\n";
  std::size_t width = 0;
  for (const option& o : of.options) width = std::max(width, left_column(o).size() + 4);
  for (const option& o : of.options) append_entry(text, left_column(o), o.help, width);
  if (!of.examples.empty()) text += "\nexamples:\n";
  for (std::string_view example : of.examples) text += "  pipesched " + std::string(example) + '\n';
  return text;
}

std::vector<std::string> parts_of(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace tool
