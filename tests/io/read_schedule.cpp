// SPDX-License-Identifier: MIT

#include "pipesched/io/read_schedule.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <sstream>
#include <streambuf>
#include <string>

#include "pipesched/generate/families.hpp"
#include "pipesched/io/costs_json.hpp"
#include "pipesched/io/model_json.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

std::string refusal_of_schedule(const std::string& text) {
  return refusal_of([&] { read_schedule(std::istringstream(text)); });
}

// A stream that cannot seek and gives one byte at a time, as a slow pipe does.
class one_byte_buffer : public std::streambuf {
 public:
  explicit one_byte_buffer(std::string text) : text_(std::move(text)) {}

 private:
  int_type underflow() override {
    if (at_ == text_.size()) return traits_type::eof();
    setg(text_.data() + at_, text_.data() + at_, text_.data() + at_ + 1);
    return traits_type::to_int_type(text_[at_++]);
  }

  std::string text_;
  std::size_t at_ = 0;
};

schedule_file read_slowly(const std::string& text) {
  one_byte_buffer buffer(text);
  std::istream in(&buffer);
  return read_schedule(in);
}

}  // namespace

TEST_CASE("read schedule: either format of every family, with blanks and a byte order mark in front") {
  for_all_families(4, 5, [](const family& f, const schedule_params& p) {
    CAPTURE(f.name);
    const schedule s = f.make(p);
    std::ostringstream as_json, as_csv;
    write_json(as_json, s);
    for (const char* before : {"", "\n \t\r\n", "\xEF\xBB\xBF", "\xEF\xBB\xBF \n"}) {
      const schedule_file got = read_schedule(std::istringstream(before + as_json.str()));
      REQUIRE(got.format == schedule_format::json);
      REQUIRE(got.schedule == s);
    }
    REQUIRE(read_slowly(as_json.str()).schedule == s);
    if (s.placement.replicas() > 1) return;
    write_torch_csv(as_csv, s);
    for (const char* before : {"", "\xEF\xBB\xBF", " \t"}) {
      const schedule_file got = read_schedule(std::istringstream(before + as_csv.str()));
      REQUIRE(got.format == schedule_format::torch_csv);
      REQUIRE(got.schedule.cells == s.cells);
    }
    REQUIRE(read_slowly(as_csv.str()).schedule.cells == s.cells);
  });
}

TEST_CASE("read schedule: a CSV that starts with quotes, idle time or a pair; its other actions are kept") {
  CHECK(read_slowly("\"0F0\",\"0B0\"\r\n").schedule.cells.all().size() == 2);
  CHECK(read_slowly(",0F0,0B0\r\n").schedule.cells.all().size() == 2);
  CHECK(read_slowly("\"\",0F0,0B0\r\n").schedule.cells.all().size() == 2);
  CHECK(read_slowly("(0F1;0B0)OVERLAP_F_B,0F0\r\n").schedule.cells.all().size() == 2);
  const std::string comms = golden_text("dualpipev_pp2_v2_m4_compute_comms.csv");
  CHECK(read_slowly(comms).actions == read_torch_csv(std::istringstream(comms)).actions);
  CHECK(read_slowly(comms).actions.size() > 40);
}

TEST_CASE("read schedule: errors are those of the format, with their places in the whole text") {
  CHECK(refusal_of_schedule("\n\n {\"format\": 7}") == "format: 7; expected a string (line 3, column 13)");
  CHECK(refusal_of_schedule("[]") == "document: an array; expected an object (line 1, column 1)");
  CHECK(refusal_of_schedule("0F0,0F1junk\n").starts_with("row 0, column 1: \"0F1junk\" is not an action"));
  CHECK(refusal_of_schedule("-1F0\n").starts_with("row 0, column 0: \"-1F0\" is not an action"));
  CHECK(refusal_of_schedule("0").starts_with("row 0, column 0: \"0\" is not an action"));
}

TEST_CASE("read schedule: a text of neither format is refused with its first characters") {
  const std::string expected = "expected a schedule as JSON, {\"format\": ...}, or as PyTorch's CSV, 0F0,0F1,...";
  CHECK(refusal_of_schedule("") == "empty; " + expected);
  CHECK(refusal_of_schedule(" \r\n\t\n") == "empty; " + expected);
  CHECK(refusal_of_schedule("\xEF\xBB\xBF") == "empty; " + expected);
  CHECK(refusal_of_schedule("\xEF\xBB\xBF\n") == "empty; " + expected);
  CHECK(refusal_of_schedule("hello world\n") == "starts with \"hello world\"; " + expected);
  CHECK(refusal_of_schedule("\n  <html>") == "starts with \"<html>\"; " + expected);
  CHECK(refusal_of_schedule(std::string(1000, 'x')) == "starts with \"" + std::string(40, 'x') + "...\"; " + expected);
  CHECK(refusal_of_schedule(std::string("\0garbage", 8)) == "starts with \"?garbage\"; " + expected);
  CHECK(refusal_of_schedule("\x89PNG\r\n").starts_with("starts with \"?PNG\"; "));
  CHECK(refusal_of_schedule(std::string("\xFF\xFE{\0\"\0", 6)) ==
        "UTF-16 text, as PowerShell's > writes it; expected UTF-8");
  CHECK(
      refusal_of([] { read_schedule(std::ifstream(PIPESCHED_SOURCE_DIR)); }).starts_with("the stream cannot be read"));
  CHECK(refusal_of([] { read_schedule(std::ifstream("/nowhere")); }) == "the stream cannot be read");
}

namespace {

// A stream of one byte for ever.
class endless : public std::streambuf {
 public:
  explicit endless(char byte) : block_(1 << 12, byte) {}
  std::size_t blocks = 0;

 private:
  int_type underflow() override {
    ++blocks;
    setg(block_.data(), block_.data(), block_.data() + block_.size());
    return traits_type::to_int_type(block_[0]);
  }

  std::string block_;
};

}  // namespace

TEST_CASE(
    "read schedule: a stream of endless zeros is refused at once, by every reader, and a text beyond the limit is") {
  const auto refusal = [](auto read) {
    endless zeros('\0');
    std::istream in(&zeros);
    const std::string text = refusal_of([&] { read(in); });
    CHECK(zeros.blocks <= 16);
    return text;
  };
  CHECK(refusal([](std::istream& in) { read_schedule(in); }).starts_with("starts with \"?\"; expected "));
  CHECK(refusal([](std::istream& in) { read_json(in); }) != "");
  CHECK(refusal([](std::istream& in) { read_costs(in); }).starts_with("costs: "));
  CHECK(refusal([](std::istream& in) { read_model(in); }).starts_with("model: "));

  endless blanks(' ');
  std::istream in(&blanks);
  CHECK(refusal_of([&] { detail::text_of(in, "costs", 3e6); }) ==
        "costs: a text of more than 2 MiB; expected one that fits in memory");
  CHECK(blanks.blocks < 1000);
  std::istringstream whole(std::string(200000, ' ') + "{}");
  CHECK(detail::text_of(whole) == std::string(200000, ' ') + "{}");
}
