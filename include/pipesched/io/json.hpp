// SPDX-License-Identifier: MIT
#pragma once

// Schedules as JSON: format "pipesched.schedule", versions 1 and 2, specified by schedule.schema.json beside this header.
//
//   write_json(stream, schedule)   writes to a stream without building a document
//   read_json(stream or text)      reads the parser's events without building a document
//   nlohmann::json j = schedule;   and  j.get<pipesched::schedule>()  convert to and from a document
//
// The reader is strict: it refuses any other text with one sentence that gives path, line and column. It does not check
// that the order is valid; verify() does.

#include <cstddef>
#include <cstdint>
#include <istream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/notation.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/io/detail/schedule_sax_handler.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

inline std::string backward_entry(const schedule& s) {
  std::string text;
  for (const stage_backward b : s.backward)
    (((text += text.empty() ? ", \"backward\": [" : ",") += '"') += to_string(b)) += '"';
  return text.empty() ? text : text + ']';
}

}  // namespace detail

/// Makes the document of a schedule: `nlohmann::json j = schedule`.
template <typename Json>
void to_json(Json& j, const schedule& s) {
  j = {{"format", json_format},
       {"version", detail::json_version_of(s)},
       {"name", std::string_view(s.name)},
       {"pp", s.pp()},
       {"stages", s.stages()},
       {"micro", s.micro}};
  if (s.forward_only) j["forward_only"] = true;
  for (const stage_backward b : s.backward) j["backward"].push_back(to_string(b));
  Json tables = Json::array();
  for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica)
    tables.push_back(std::vector(s.placement.rank_of_stage(replica).begin(), s.placement.rank_of_stage(replica).end()));
  j["placement"] = {{"kind", to_string(s.placement.kind())}, {"rank_of_stage", std::move(tables)}};
  Json& ranks = j["ranks"] = Json::array();
  for (std::size_t rank = 0; rank < s.cells.size(); ++rank) {
    Json row = Json::array();
    for (const cell& c : s[rank]) row.push_back(to_string(c));
    ranks.push_back(std::move(row));
  }
}

/// Reads the schedule of a document. @throws schedule_error with the path of the first fault.
template <typename Json>
void from_json(const Json& j, schedule& s) {
  detail::schedule_sax_handler handler;
  detail::replay(j, handler);
  s = std::move(handler).result();
}

/// Writes the same document with one line per rank. Takes memory for the text of one row.
inline void write_json(std::ostream& out, const schedule& s) {
  std::string text =
      "{\"format\": \"" + std::string(json_format) + "\", \"version\": " + std::to_string(detail::json_version_of(s)) +
      ", \"name\": " + nlohmann::json(s.name.view()).dump() + ", \"pp\": " + std::to_string(s.pp()) +
      ", \"stages\": " + std::to_string(s.stages()) + ", \"micro\": " + std::to_string(s.micro) +
      (s.forward_only ? ", \"forward_only\": true" : "") + detail::backward_entry(s) +
      ",\n \"placement\": {\"kind\": \"" + std::string(to_string(s.placement.kind())) + "\", \"rank_of_stage\": [";
  for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica) {
    text += replica == 0 ? "[" : ",[";
    for (std::uint16_t rank : s.placement.rank_of_stage(replica)) (text += std::to_string(rank)) += ',';
    if (text.back() == ',') text.pop_back();
    text += ']';
  }
  out << text << "]},\n \"ranks\": [";
  for (std::size_t rank = 0; rank < s.cells.size(); ++rank) {
    const auto row = s[rank];
    text.resize(row.size() * (max_cell_text + 3) + 8);
    char* to = text.data();
    for (char c : std::string_view(rank == 0 ? "\n  [" : ",\n  [")) *to++ = c;
    for (const cell& c : row) {
      *to++ = '"';
      to = write_cell(to, c);
      *to++ = '"';
      *to++ = ',';
    }
    if (!row.empty()) --to;
    *to++ = ']';
    out.write(text.data(), to - text.data());
  }
  out << "\n ]}\n";
}

/// Reads one document. @throws schedule_error with path, line and column when the text is not JSON or not a schedule of this
/// format. Time and memory are linear in the size of the text.
inline schedule read_json(std::string_view text) {
  detail::text_position position(text);
  detail::schedule_sax_handler handler(&position);
  nlohmann::json::sax_parse(detail::json_bytes{position.begin(), &position},
                            detail::json_bytes{position.end(), &position}, &handler);
  return std::move(handler).result();
}
inline schedule read_json(std::istream& in) { return read_json(detail::text_of(in)); }
inline schedule read_json(std::istream&& in) { return read_json(in); }

}  // namespace pipesched
