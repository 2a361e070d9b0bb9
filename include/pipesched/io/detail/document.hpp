// SPDX-License-Identifier: MIT
#pragma once

// The text of a document as nlohmann::json, without repeated keys and deep nesting, and the place of each entry.

#include <algorithm>
#include <cstddef>
#include <istream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/io/detail/json_text.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/nearest_name.hpp"

namespace pipesched::detail {

struct unknown_entry {};

/// A fault of one entry of a document, such as "pairs[2].time" of "costs"; what() is the whole sentence.
struct entry_fault : schedule_error {
  entry_fault(std::string_view document, std::string_view entry, std::string_view what)
      : schedule_error(concat({document, ": ", printable(entry, 60), entry.empty() ? "" : " ", what})), path(entry) {}
  // Of an entry that does not exist.
  entry_fault(std::string_view document, std::string_view entry, std::string_view what, unknown_entry)
      : schedule_error(concat({document, ": unknown entry \"", printable(entry, 60), "\"; ", what})), path(entry) {}

  std::string path;
};

/// The value of an enum that has the name of an entry. @param refuse  throws; called for any other entry
template <typename Enum, typename Json, typename Names, typename Refuse>
Enum value_named(const Json& j, const Names& names, const Refuse& refuse) {
  const auto found = std::find_if(names.begin(), names.end(), [&](std::string_view name) { return j == name; });
  if (found == names.end()) refuse();
  return static_cast<Enum>(found - names.begin());
}

/// Refuses a document that names another format or version; both entries may be left out.
template <typename Json>
void require_format(const Json& j, std::string_view document, std::string_view format) {
  if (const auto found = j.find("format"); found != j.end() && *found != format)
    throw entry_fault(document, "format", concat({"is not \"", format, "\""}));
  if (const auto found = j.find("version"); found != j.end() && *found != 1)
    throw entry_fault(document, "version", "is not 1, the only one that this library reads");
}

/// Refuses an entry that does not exist. @param name  the part of its path that may be misspelled; `known`: what it may be
template <typename Names>
[[noreturn]] void refuse_unknown(std::string_view document, std::string_view path, std::string_view name,
                                 const Names& known) {
  const std::string_view near = nearest_name(name, known);
  std::string text;
  for (std::string_view of : known) text += concat({text.empty() ? "expected one of " : ", ", of});
  if (!near.empty()) text = concat({"did you mean \"", near, "\"?"});
  throw entry_fault(document, path, text, unknown_entry{});
}

// Follows the parser, so that every entry has a path.
class document_parser {
 public:
  using json = nlohmann::json;

  /// @param document  what it is, for errors: "costs"
  /// @param example   of a document, for one that is empty
  document_parser(std::string_view text, std::string_view document, std::string_view example)
      : text_(text), document_(document), example_(example), position_(text) {}

  /// @throws schedule_error with line and column when the text is not JSON, repeats a key or is nested too deeply.
  json parse() {
    position_ = text_position(text_);
    frames_.clear();
    try {
      return json::parse(
          json_bytes{position_.begin(), &position_}, json_bytes{position_.end(), &position_},
          [this](int depth, json::parse_event_t event, json& value) { return enter(depth, event, value); });
    } catch (const json::out_of_range& e) {
      const std::string_view what = e.what();  // "... number overflow parsing '1e999'"
      const std::size_t from = what.find('\'') + 1, to = what.rfind('\'');
      throw schedule_error(concat({document_, ": ", printable(what.substr(from, to - from), 40),
                                   " is too large; expected at most 1.8e308", position_.text(true)}));
    } catch (const json::exception& e) {
      if (position_.blank())
        throw schedule_error(concat({document_, ": empty; expected an object such as ", example_}));
      throw schedule_error(concat({document_, ": ", not_json(e.what())}));
    }
  }

  /// " (line 3, column 17)": the end of the entry's first byte or number, or of the key before it. @pre parse() returned
  std::string place_of(const std::string& path) {
    wanted_ = &path;
    place_.clear();
    parse();
    wanted_ = nullptr;
    return place_;
  }

 private:
  static constexpr int max_depth = 3;  // {"pairs": [{"stages": [0, 1]}]}, {"layers": [{"transient": {"F": 0}}]}

  struct frame {
    bool array;
    std::size_t index = 0;
    std::string key{};
    std::set<std::string> keys{};
  };

  std::string path() const {
    std::string text;
    for (const frame& f : frames_)
      if (f.array)
        text += concat({"[", f.index, "]"});
      else if (!f.key.empty())
        text += (text.empty() ? "" : ".") + f.key;
    return text;
  }

  bool enter(int depth, json::parse_event_t event, json& value) {
    using kind = json::parse_event_t;
    switch (event) {
      case kind::object_start:
      case kind::array_start:
        if (depth > max_depth)
          throw schedule_error(
              concat({document_, ": ", printable(path(), 40), " is nested too deeply", position_.text()}));
        note();
        frames_.push_back({event == kind::array_start});
        break;
      case kind::key: {
        frame& top = frames_.back();
        top.key = value.get<std::string>();
        if (!top.keys.insert(top.key).second)
          throw schedule_error(concat({document_, ": ", printable(path(), 40), " occurs twice", position_.text()}));
        note();
        break;
      }
      case kind::object_end:
      case kind::array_end:
        frames_.pop_back();
        next();
        break;
      case kind::value:
        note(value.is_number());
        next();
        break;
    }
    return true;
  }
  void next() {
    if (!frames_.empty() && frames_.back().array) ++frames_.back().index;
  }
  void note(bool number = false) {
    if (wanted_ && path() == *wanted_) place_ = position_.text(number);
  }

  std::string_view text_, document_, example_;
  text_position position_;
  std::vector<frame> frames_;
  const std::string* wanted_ = nullptr;
  std::string place_;
};

}  // namespace pipesched::detail
