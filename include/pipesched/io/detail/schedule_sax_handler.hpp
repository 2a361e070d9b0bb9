// SPDX-License-Identifier: MIT
#pragma once

// The strict reader of read_json() and from_json(): takes the events of a JSON document and makes a schedule, or throws
// schedule_error with the place of the first fault.

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

#include "pipesched/core/notation.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/io/detail/json_text.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

inline constexpr std::string_view json_format = "pipesched.schedule";
/// Version 2 has ops that recompute and stages that are frozen; what needs neither is written as version 1.
inline constexpr std::uint32_t max_json_version = 2;

namespace detail {

inline std::uint32_t json_version_of(const schedule& s) {
  const auto cells = s.cells.all();
  const auto recomputes_any = [](const cell& c) { return recomputes(c[0].pass) || recomputes(c[1].pass); };
  return s.backward.empty() && std::none_of(cells.begin(), cells.end(), recomputes_any) ? 1 : 2;
}

// A handler of SAX events, from nlohmann's parser or from replay(). With a position, errors give line and column.
class schedule_sax_handler {
 public:
  using json = nlohmann::json;

  explicit schedule_sax_handler(const text_position* position = nullptr) : position_(position) {}

  bool null() { return refuse("null"); }
  bool boolean(bool value) {
    if (at_ != place::top || key_ != "forward_only") return refuse(value ? "true" : "false");
    result_.forward_only = value;
    return true;
  }
  bool number_integer(json::number_integer_t value) {
    at_number_ = true;
    return value < 0 ? refuse(std::to_string(value)) : number_unsigned(static_cast<json::number_unsigned_t>(value));
  }
  bool number_unsigned(json::number_unsigned_t value) {
    at_number_ = true;
    if (at_ == place::replica) {
      rank_of_stage_.back().push_back(static_cast<std::uint16_t>(within(0, max_stages - 1, value)));
      at_number_ = false;
      return true;
    }
    if (at_ != place::top) return refuse(std::to_string(value));
    if (key_ == "version") {
      if (value < 1 || value > max_json_version)
        fail("version " + std::to_string(value) + "; this library reads versions 1 and 2");
      version_ = static_cast<std::uint32_t>(value);
    } else if (key_ == "pp") {
      pp_ = within(1, max_stages, value);
    } else if (key_ == "stages") {
      stages_ = within(1, max_stages, value);
    } else if (key_ == "micro") {
      result_.micro = within(1, 0xFFFF'FFFF, value);
    } else {
      return refuse(std::to_string(value));
    }
    at_number_ = false;
    return true;
  }
  bool number_float(json::number_float_t, const std::string& text) {
    at_number_ = true;
    return refuse(printable(text, 40));
  }
  bool string(std::string& value) {
    if (at_ == place::row) {
      const auto c = parse_cell(value);
      if (!c) fail(in_quotes(value) + " is not a cell; expected <stage><F|B|I|W|R|RB|RI><micro> or (op;op)");
      row_.push_back(*c);
    } else if (at_ == place::backward) {
      const auto found = std::find(stage_backward_names.begin(), stage_backward_names.end(), value);
      if (found == stage_backward_names.end()) return refuse(in_quotes(value));
      result_.backward.push_back(static_cast<stage_backward>(found - stage_backward_names.begin()));
    } else if (at_ == place::top && key_ == "format") {
      if (value != json_format) fail(in_quotes(value) + "; expected " + in_quotes(json_format));
    } else if (at_ == place::top && key_ == "name") {
      try {
        result_.name = fixed_string<63>(std::string_view(value));
      } catch (const schedule_error& e) {
        fail(e.what());
      }
    } else if (at_ == place::placement && key_ == "kind") {
      const auto* kind = std::find(std::begin(placement_kind_names), std::end(placement_kind_names), value);
      if (kind == std::end(placement_kind_names))
        fail(in_quotes(value) +
             " is not a kind of placement; expected linear, looped, vee, wave, bidirectional or custom");
      kind_ = static_cast<placement_kind>(kind - std::begin(placement_kind_names));
    } else {
      return refuse(in_quotes(value));
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
    key_ = {};  // an unknown or repeated key is a fault of the object
    const auto known = at_ == place::top ? std::span<const std::string_view>(top_keys)
                                         : std::span<const std::string_view>(placement_keys);
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end()) fail("unknown key " + in_quotes(name));
    std::uint32_t& seen = at_ == place::top ? top_seen_ : placement_seen_;
    const std::uint32_t bit = 1u << (found - known.begin());
    if (seen & bit) fail("key " + in_quotes(name) + " occurs twice");
    seen |= bit;
    key_ = *found;
    return true;
  }
  bool end_object() {
    const bool top = at_ == place::top;
    key_ = {};
    if (top) {
      require_keys(top_keys, top_seen_ | 3u << (top_keys.size() - 2));  // the last two may be absent
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
    } else if (at_ == place::top && key_ == "backward") {
      at_ = place::backward;
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
      at_ = at_ == place::ranks || at_ == place::backward ? place::top : place::placement;
    }
    return true;
  }

  template <typename Exception>
  bool parse_error(std::size_t, const std::string& token, const Exception& e) {
    if (e.id == 406) {  // beyond the range of a double
      at_number_ = true;
      return refuse(printable(token, 40));
    }
    if (position_ && position_->blank())
      throw schedule_error("empty; expected a schedule, {\"format\": \"pipesched.schedule\", ...}");
    throw schedule_error(not_json(e.what()));
  }

  // The schedule, after the last event.
  schedule result() && {
    require_version();
    if (result_.cells.size() != pp_)
      throw schedule_error("ranks: " + std::to_string(result_.cells.size()) +
                           " rows; expected pp = " + std::to_string(pp_));
    for (const auto& replica : rank_of_stage_)
      if (replica.size() != stages_)
        throw schedule_error("placement.rank_of_stage: " + count_text(replica.size(), "stage") + "; expected " +
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
  enum class place { outside, top, placement, rank_of_stage, replica, ranks, row, backward };

  static constexpr std::array<std::string_view, 10> top_keys = {
      "format", "version", "name", "pp", "stages", "micro", "placement", "ranks", "forward_only", "backward"};
  static constexpr std::array<std::string_view, 2> placement_keys = {"kind", "rank_of_stage"};

  void require_keys(std::span<const std::string_view> keys, std::uint32_t seen) const {
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (!(seen >> i & 1u)) fail("key " + in_quotes(keys[i]) + " is missing");
  }

  void require_version() const {
    const bool has_backward = (top_seen_ >> (top_keys.size() - 1) & 1u) != 0;
    if (has_backward && result_.backward.size() != stages_)
      throw schedule_error("backward: " + count_text(result_.backward.size(), "stage") +
                           "; expected stages = " + std::to_string(stages_));
    if (version_ != 1) return;
    if (has_backward)
      throw schedule_error("backward: a key of version 2 in a document of version 1; expected \"version\": 2");
    for (const cell& c : result_.cells.all())
      for (const op o : c)
        if (recomputes(o.pass))
          throw schedule_error("ranks: " + to_string(o) +
                               " is an op of version 2 in a document of version 1; expected \"version\": 2");
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

  // The reader's place in the document, as a path.
  std::string where() const {
    switch (at_) {
      case place::outside: return "document";
      case place::top: return key_.empty() ? "document" : std::string(key_);
      case place::placement: return key_.empty() ? "placement" : "placement." + std::string(key_);
      case place::rank_of_stage: return "placement.rank_of_stage[" + std::to_string(rank_of_stage_.size()) + "]";
      case place::replica:
        return "placement.rank_of_stage[" + std::to_string(rank_of_stage_.size() - 1) + "][" +
               std::to_string(rank_of_stage_.back().size()) + "]";
      case place::ranks: return "ranks[" + std::to_string(result_.cells.size()) + "]";
      case place::backward: return "backward[" + std::to_string(result_.backward.size()) + "]";
      case place::row:
        return "ranks[" + std::to_string(result_.cells.size()) + "][" + std::to_string(row_.size()) + "]";
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
        return key_ == "ranks" || key_ == "backward" ? "an array" : "a whole number that is not negative";
      case place::placement: return key_ == "kind" ? "a string" : "an array";
      case place::rank_of_stage:
      case place::ranks: return "an array";
      case place::replica: return "a rank";
      case place::row: return "a string such as \"0F7\"";
      case place::backward: return "\"none\", \"input\" or \"full\"";
    }
    return {};
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw schedule_error(where() + ": " + what + (position_ ? position_->text(at_number_) : ""));
  }
  bool refuse(const std::string& got) const { fail(got + "; expected " + std::string(expected())); }

  std::uint32_t within(std::uint64_t min, std::uint64_t max, std::uint64_t value) const {
    if (value < min || value > max)
      fail(std::to_string(value) + "; expected " + std::to_string(min) + " to " + std::to_string(max));
    return static_cast<std::uint32_t>(value);
  }

  schedule result_;
  std::uint32_t pp_ = 0, stages_ = 0, version_ = 1;
  placement_kind kind_ = placement_kind::custom;
  std::vector<std::vector<std::uint16_t>> rank_of_stage_;
  std::vector<cell> row_;

  const text_position* position_;
  bool at_number_ = false;  // the event is a number, beyond which the parser has read one byte
  place at_ = place::outside;
  std::string_view key_;  // of the value to come, in the object that `at_` names
  std::uint32_t top_seen_ = 0, placement_seen_ = 0;
};

// Sends the events of a document to the handler, which refuses deeper nesting than a schedule's: at most four levels of
// recursion.
template <typename Json>
void replay(const Json& j, schedule_sax_handler& handler) {
  switch (j.type()) {
    case nlohmann::json::value_t::object:
      handler.start_object(j.size());
      for (const auto& [name, value] : j.items()) {
        std::string key = name;
        handler.key(key);
        replay(value, handler);
      }
      handler.end_object();
      break;
    case nlohmann::json::value_t::array:
      handler.start_array(j.size());
      for (const auto& value : j) replay(value, handler);
      handler.end_array();
      break;
    case nlohmann::json::value_t::string: {
      auto text = j.template get<std::string>();
      handler.string(text);
      break;
    }
    case nlohmann::json::value_t::boolean: handler.boolean(j.template get<bool>()); break;
    case nlohmann::json::value_t::number_integer: handler.number_integer(j.template get<std::int64_t>()); break;
    case nlohmann::json::value_t::number_unsigned: handler.number_unsigned(j.template get<std::uint64_t>()); break;
    case nlohmann::json::value_t::binary: {
      nlohmann::json::binary_t bytes;
      handler.binary(bytes);
      break;
    }
    case nlohmann::json::value_t::number_float: handler.number_float(0, j.dump()); break;
    default: handler.null(); break;
  }
}

}  // namespace detail
}  // namespace pipesched
