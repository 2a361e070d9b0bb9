// SPDX-License-Identifier: MIT
#pragma once

// Schedules as JSON (format "pipesched.schedule", version 1; its JSON Schema lies beside this header).
//
//   write_json(stream, schedule)   straight to a stream, no document in memory
//   read_json(stream or text)      straight from the parser's events, no document in memory
//   nlohmann::json j = schedule;   and  j.get<pipesched::schedule>(),  for those who want the document
//
// Reading takes nothing on trust: whatever is not a schedule of this format is refused with one sentence that gives the
// place. What a schedule *means* is not judged here; verify() does that.

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

#include "pipesched/error.hpp"
#include "pipesched/io/json_reader.hpp"
#include "pipesched/notation.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

namespace detail {

// The bytes of a stream or text. nlohmann's parser takes a NUL for the end of all input, so that anything could follow one:
// here it is another byte that JSON does not allow.
template <typename Iterator>
struct json_bytes {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = char;

  char operator*() const { return *at == '\0' ? '\x01' : *at; }
  json_bytes& operator++() {
    ++at;
    return *this;
  }
  friend bool operator==(const json_bytes& a, const json_bytes& b) { return a.at == b.at; }
  friend bool operator!=(const json_bytes& a, const json_bytes& b) { return !(a.at == b.at); }

  Iterator at;
};

template <typename Iterator>
schedule read_json_from(Iterator first, Iterator last) {
  json_reader reader;
  nlohmann::json::sax_parse(json_bytes<Iterator>{first}, json_bytes<Iterator>{last}, &reader);
  return std::move(reader).result();
}

}  // namespace detail

/// The document of a schedule, for nlohmann's `json j = schedule`.
template <typename Json>
void to_json(Json& j, const schedule& s) {
  j = {{"format", json_format}, {"version", json_version}, {"name", std::string_view(s.name)},
       {"pp", s.pp()},          {"stages", s.stages()},    {"micro", s.micro}};
  if (s.forward_only) j["forward_only"] = true;
  Json tables = Json::array();
  for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica)
    tables.push_back(std::vector(s.placement.rank_of_stage(replica).begin(), s.placement.rank_of_stage(replica).end()));
  j["placement"] = {{"kind", to_string(s.placement.kind())}, {"rank_of_stage", std::move(tables)}};
  Json& ranks = j["ranks"] = Json::array();
  for (std::size_t rank = 0; rank < s.cells.count(); ++rank) {
    Json row = Json::array();
    for (const cell& c : s[rank]) row.push_back(to_string(c));
    ranks.push_back(std::move(row));
  }
}

/// The schedule of a document. @throws schedule_error when it is none of this format.
template <typename Json>
void from_json(const Json& j, schedule& s) {
  detail::json_reader reader;
  detail::replay(j, reader);
  s = std::move(reader).result();
}

/// Writes the same document, a line a rank; needs memory for one row of text alone.
inline void write_json(std::ostream& out, const schedule& s) {
  std::string text = "{\"format\": \"" + std::string(json_format) + "\", \"version\": " + std::to_string(json_version) +
                     ", \"name\": " + nlohmann::json(s.name.view()).dump() + ", \"pp\": " + std::to_string(s.pp()) +
                     ", \"stages\": " + std::to_string(s.stages()) + ", \"micro\": " + std::to_string(s.micro) +
                     (s.forward_only ? ", \"forward_only\": true" : "") + ",\n \"placement\": {\"kind\": \"" +
                     std::string(to_string(s.placement.kind())) + "\", \"rank_of_stage\": [";
  for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica) {
    text += replica == 0 ? "[" : ",[";
    for (std::uint16_t rank : s.placement.rank_of_stage(replica)) (text += std::to_string(rank)) += ',';
    if (text.back() == ',') text.pop_back();
    text += ']';
  }
  out << text << "]},\n \"ranks\": [";
  for (std::size_t rank = 0; rank < s.cells.count(); ++rank) {
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

/// Reads one document. @throws schedule_error when it is not JSON or no schedule of this format: one sentence with the
/// place. Linear in the size of the text, memory likewise.
inline schedule read_json(std::istream& in) {
  try {
    return detail::read_json_from(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  } catch (const std::ios_base::failure& e) {
    throw schedule_error(std::string("the stream cannot be read: ") + e.what());
  }
}
inline schedule read_json(std::istream&& in) { return read_json(in); }
inline schedule read_json(std::string_view text) { return detail::read_json_from(text.begin(), text.end()); }

}  // namespace pipesched
