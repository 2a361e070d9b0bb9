// SPDX-License-Identifier: MIT
#pragma once

// The strict reader behind read_json() and from_json(): fed with the events of a JSON document, whoever produces them, it
// makes a schedule of them or throws schedule_error with the place of the first thing that is wrong.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/notation.hpp"
#include "pipesched/placement.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

inline constexpr std::string_view json_format = "pipesched.schedule";
inline constexpr std::uint32_t json_version = 1;

namespace detail {

// A reader fed with the events of a JSON document, whoever produces them.
class json_reader {
 public:
  using json = nlohmann::json;

  bool null() { return refuse("null"); }
  bool boolean(bool value) {
    if (at_ != place::top || key_ != "forward_only") return refuse(value ? "true" : "false");
    result_.forward_only = value;
    return true;
  }
  bool number_integer(json::number_integer_t value) {
    return value < 0 ? refuse(std::to_string(value)) : number_unsigned(static_cast<json::number_unsigned_t>(value));
  }
  bool number_unsigned(json::number_unsigned_t value) {
    if (at_ == place::replica) {
      rank_of_stage_.back().push_back(static_cast<std::uint16_t>(within(0, max_stages - 1, value)));
      return true;
    }
    if (at_ != place::top) return refuse(std::to_string(value));
    if (key_ == "version") {
      if (value != json_version) fail("version " + std::to_string(value) + "; this library reads version 1");
    } else if (key_ == "pp") {
      pp_ = within(1, max_stages, value);
    } else if (key_ == "stages") {
      stages_ = within(1, max_stages, value);
    } else if (key_ == "micro") {
      result_.micro = within(1, 0xFFFF'FFFF, value);
    } else {
      return refuse(std::to_string(value));
    }
    return true;
  }
  bool number_float(json::number_float_t, const std::string& text) { return refuse(printable(text, 40)); }
  bool string(std::string& value) {
    if (at_ == place::row) {
      const auto c = parse_cell(value);
      if (!c) fail(quoted(value) + " is no cell; expected <stage><F|B|I|W><micro> or (op;op)");
      row_.push_back(*c);
    } else if (at_ == place::top && key_ == "format") {
      if (value != json_format) fail(quoted(value) + "; expected " + quoted(json_format));
    } else if (at_ == place::top && key_ == "name") {
      try {
        result_.name = fixed_string<63>(std::string_view(value));
      } catch (const schedule_error& e) {
        fail(e.what());
      }
    } else if (at_ == place::placement && key_ == "kind") {
      const auto* kind = std::find(std::begin(placement_kind_names), std::end(placement_kind_names), value);
      if (kind == std::end(placement_kind_names)) fail(quoted(value) + " is no kind of placement");
      kind_ = static_cast<placement_kind>(kind - std::begin(placement_kind_names));
    } else {
      return refuse(quoted(value));
    }
    return true;
  }
  bool binary(json::binary_t&) { return refuse("binary data"); }

  bool start_object(std::size_t) {
    if (at_ == place::outside)
      at_ = place::top;
    else if (at_ == place::top && key_ == "placement")
      at_ = place::placement;
    else
      return refuse("an object");
    key_ = {};
    return true;
  }
  bool key(std::string& name) {
    key_ = {};  // a fault in the name itself is one of the object
    const auto known = at_ == place::top ? std::span<const std::string_view>(top_keys)
                                         : std::span<const std::string_view>(placement_keys);
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end()) fail("unknown key " + quoted(name));
    std::uint32_t& seen = at_ == place::top ? top_seen_ : placement_seen_;
    const std::uint32_t bit = 1u << (found - known.begin());
    if (seen & bit) fail("key " + quoted(name) + " occurs twice");
    seen |= bit;
    key_ = *found;
    return true;
  }
  bool end_object() {
    const bool top = at_ == place::top;
    key_ = {};
    if (top) {
      require_keys(top_keys, top_seen_ | 1u << (top_keys.size() - 1));  // forward_only may be absent
      at_ = place::outside;
    } else {
      require_keys(placement_keys, placement_seen_);
      at_ = place::top;
      key_ = "placement";
    }
    return true;
  }

  bool start_array(std::size_t) {
    if (at_ == place::top && key_ == "ranks") {
      at_ = place::ranks;
    } else if (at_ == place::ranks) {
      at_ = place::row;
      row_.clear();
    } else if (at_ == place::placement && key_ == "rank_of_stage") {
      at_ = place::rank_of_stage;
    } else if (at_ == place::rank_of_stage) {
      if (rank_of_stage_.size() == 2) fail("a third replica; expected one or two");
      at_ = place::replica;
      rank_of_stage_.emplace_back();
    } else {
      return refuse("an array");
    }
    return true;
  }
  bool end_array() {
    if (at_ == place::row) {
      result_.cells.append(row_);
      at_ = place::ranks;
    } else if (at_ == place::replica) {
      at_ = place::rank_of_stage;
    } else {
      at_ = at_ == place::ranks ? place::top : place::placement;
    }
    return true;
  }

  template <typename Exception>
  bool parse_error(std::size_t, const std::string& token, const Exception& e) {
    if (e.id == 406) return refuse(printable(token, 40));  // a number beyond a double
    std::string_view what = e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    if (const auto bracket = what.find("] "); bracket != what.npos) what.remove_prefix(bracket + 2);
    throw schedule_error("not JSON: " + printable(what, 200));
  }

  // The schedule, once all events have come.
  schedule result() && {
    if (result_.cells.count() != pp_)
      throw schedule_error("ranks: " + std::to_string(result_.cells.count()) +
                           " rows; expected pp = " + std::to_string(pp_));
    for (const auto& replica : rank_of_stage_)
      if (replica.size() != stages_)
        throw schedule_error("placement.rank_of_stage: " + std::to_string(replica.size()) + " stages; expected " +
                             std::to_string(stages_));
    try {
      auto table = placement::custom(pp_, result_.micro, rank_of_stage_);
      result_.placement =
          kind_ == placement_kind::custom ? std::move(table) : placement::of_kind(kind_, pp_, stages_, result_.micro);
    } catch (const schedule_error& e) {
      throw schedule_error("placement: " + std::string(e.what()));
    }
    require_table_of_kind();
    for (cell& c : result_.cells.all())
      for (op& o : c)
        if (o.stage < stages_) o.chunk = result_.placement.chunk_of(o.stage, o.micro);
    return std::move(result_);
  }

 private:
  enum class place { outside, top, placement, rank_of_stage, replica, ranks, row };

  static constexpr std::array<std::string_view, 9> top_keys = {"format", "version",   "name",  "pp",          "stages",
                                                               "micro",  "placement", "ranks", "forward_only"};
  static constexpr std::array<std::string_view, 2> placement_keys = {"kind", "rank_of_stage"};

  void require_keys(std::span<const std::string_view> keys, std::uint32_t seen) const {
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (!(seen >> i & 1u)) fail("key " + quoted(keys[i]) + " is missing");
  }

  void require_table_of_kind() const {
    const placement& p = result_.placement;
    if (p.replicas() != rank_of_stage_.size())
      throw schedule_error("placement.rank_of_stage: " + std::to_string(rank_of_stage_.size()) +
                           " replicas; expected " + std::to_string(p.replicas()) + " for kind " +
                           std::string(to_string(kind_)));
    for (std::uint32_t replica = 0; replica < p.replicas(); ++replica)
      for (std::size_t stage = 0; stage < stages_; ++stage)
        if (const auto expected = p.rank_of_stage(replica)[stage]; rank_of_stage_[replica][stage] != expected)
          throw schedule_error("placement.rank_of_stage[" + std::to_string(replica) + "][" + std::to_string(stage) +
                               "]: rank " + std::to_string(rank_of_stage_[replica][stage]) + "; kind " +
                               std::string(to_string(kind_)) + " puts the stage on rank " + std::to_string(expected));
  }

  // Where in the document the reader stands.
  std::string where() const {
    switch (at_) {
      case place::outside: return "document";
      case place::top: return key_.empty() ? "document" : std::string(key_);
      case place::placement: return key_.empty() ? "placement" : "placement." + std::string(key_);
      case place::rank_of_stage: return "placement.rank_of_stage[" + std::to_string(rank_of_stage_.size()) + "]";
      case place::replica:
        return "placement.rank_of_stage[" + std::to_string(rank_of_stage_.size() - 1) + "][" +
               std::to_string(rank_of_stage_.back().size()) + "]";
      case place::ranks: return "ranks[" + std::to_string(result_.cells.count()) + "]";
      case place::row:
        return "ranks[" + std::to_string(result_.cells.count()) + "][" + std::to_string(row_.size()) + "]";
    }
    return {};
  }

  std::string_view expected() const {
    switch (at_) {
      case place::outside: return "an object";
      case place::top:
        if (key_ == "forward_only") return "true or false";
        if (key_ == "format" || key_ == "name") return "a string";
        if (key_ == "placement") return "an object";
        return key_ == "ranks" ? "an array" : "a whole number that is not negative";
      case place::placement: return key_ == "kind" ? "a string" : "an array";
      case place::rank_of_stage:
      case place::ranks: return "an array";
      case place::replica: return "a rank";
      case place::row: return "a string such as \"0F7\"";
    }
    return {};
  }

  [[noreturn]] void fail(const std::string& what) const { throw schedule_error(where() + ": " + what); }
  bool refuse(const std::string& got) const { fail(got + "; expected " + std::string(expected())); }

  std::uint32_t within(std::uint64_t least, std::uint64_t most, std::uint64_t value) const {
    if (value < least || value > most)
      fail(std::to_string(value) + "; expected " + std::to_string(least) + " to " + std::to_string(most));
    return static_cast<std::uint32_t>(value);
  }

  // For messages: short, one line, no control characters.
  static std::string printable(std::string_view text, std::size_t most) {
    std::string shown;
    for (char c : text.substr(0, most)) shown += c >= ' ' && c <= '~' ? c : '?';
    if (text.size() > most) shown += "...";
    return shown;
  }
  static std::string quoted(std::string_view text) { return '"' + printable(text, 40) + '"'; }

  schedule result_;
  std::uint32_t pp_ = 0, stages_ = 0;
  placement_kind kind_ = placement_kind::custom;
  std::vector<std::vector<std::uint16_t>> rank_of_stage_;
  std::vector<cell> row_;

  place at_ = place::outside;
  std::string_view key_;  // of the value to come, in the object that `at_` names
  std::uint32_t top_seen_ = 0, placement_seen_ = 0;
};

// Plays a document to the reader. The reader refuses what is nested deeper than a schedule is, so this does not recurse
// further than four levels.
template <typename Json>
void replay(const Json& j, json_reader& reader) {
  switch (j.type()) {
    case nlohmann::json::value_t::object:
      reader.start_object(j.size());
      for (const auto& [name, value] : j.items()) {
        std::string key = name;
        reader.key(key);
        replay(value, reader);
      }
      reader.end_object();
      break;
    case nlohmann::json::value_t::array:
      reader.start_array(j.size());
      for (const auto& value : j) replay(value, reader);
      reader.end_array();
      break;
    case nlohmann::json::value_t::string: {
      auto text = j.template get<std::string>();
      reader.string(text);
      break;
    }
    case nlohmann::json::value_t::boolean: reader.boolean(j.template get<bool>()); break;
    case nlohmann::json::value_t::number_integer: reader.number_integer(j.template get<std::int64_t>()); break;
    case nlohmann::json::value_t::number_unsigned: reader.number_unsigned(j.template get<std::uint64_t>()); break;
    case nlohmann::json::value_t::binary: {
      nlohmann::json::binary_t bytes;
      reader.binary(bytes);
      break;
    }
    case nlohmann::json::value_t::number_float: reader.number_float(0, j.dump()); break;
    default: reader.null(); break;
  }
}

}  // namespace detail
}  // namespace pipesched
