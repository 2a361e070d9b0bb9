// SPDX-License-Identifier: MIT

#include "pipesched/io/torch_csv.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/io/torch_comms_csv.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"
#include "support/torch_lockstep.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

std::string csv_of(const schedule& s) {
  std::ostringstream out;
  write_torch_csv(out, s);
  return out.str();
}

std::string refusal_of_csv(const std::string& text) {
  return refusal_of([&] { csv_of_text(text); });
}

}  // namespace

TEST_CASE("torch csv: PyTorch's own DualPipeV file comes out byte for byte") {
  CHECK(csv_of(make_dualpipev_schedule({.pp = 2, .micro = 4})) == golden_text("dualpipev_pp2_v2_m4_compute_only.csv"));
}

TEST_CASE("torch csv: PyTorch's own interleaved file is read with its idle cells and written without them") {
  const schedule s = make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2});
  const std::string file = golden_text("interleaved1f1b_pp2_v2_m4_compute_only.csv");
  torch_csv got = csv_of_text(file);
  CHECK(got.actions.empty());
  got.schedule.name = s.name;
  CHECK(got.schedule == s);
  std::string without_idle;
  for (std::size_t i = 0; i < file.size(); ++i) {
    const bool row_start = i == 0 || file[i - 1] == '\n';
    if (file[i] == ',' && (row_start || file[i - 1] == ',')) continue;
    if (file[i] == ',' && file.compare(i + 1, 1, ",") == 0) {
      std::size_t next = i;
      while (file[next] == ',') ++next;
      if (file[next] == '\r') continue;
    }
    without_idle += file[i];
  }
  CHECK(csv_of(s) == without_idle);
}

TEST_CASE("torch csv: a file with communication gives the schedule and all other actions") {
  for (const auto& [name, expected] : std::map<std::string, schedule>{
           {"dualpipev_pp2_v2_m4_compute_comms.csv", make_dualpipev_schedule({.pp = 2, .micro = 4})},
           {"interleaved1f1b_pp2_v2_m4_compute_comms.csv",
            make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2})}}) {
    const std::string file = golden_text(name);
    const torch_csv got = csv_of_text(file);
    CHECK(got.schedule.cells == expected.cells);
    CHECK(got.schedule.placement == expected.placement);
    std::map<torch_pass, int> counts;
    for (const torch_action& a : got.actions) ++counts[a.pass];
    for (std::size_t i = 0; i < std::size(torch_pass_names); ++i) {
      int written = 0;
      for (std::size_t at = 0; (at = file.find(torch_pass_names[i], at)) != file.npos; ++at) ++written;
      CHECK(counts[static_cast<torch_pass>(i)] == written);
    }
    CHECK(counts[torch_pass::unshard] == 4);
  }
  const torch_csv got = csv_of_text("0UNSHARD,0F0,0SEND_F0\r\n1RECV_F0,1F0\r\n");
  CHECK(got.actions == std::vector<torch_action>{{torch_pass::unshard, 0, 0, 0, 0},
                                                 {torch_pass::send_f, 0, 0, 0, 1},
                                                 {torch_pass::recv_f, 1, 0, 1, 0}});
}

TEST_CASE("torch csv: communication is PyTorch's own but for the places of receives") {
  for (const auto& [name, s] : std::map<std::string, schedule>{
           {"dualpipev_pp2_v2_m4_compute_comms.csv", make_dualpipev_schedule({.pp = 2, .micro = 4})},
           {"interleaved1f1b_pp2_v2_m4_compute_comms.csv",
            make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2})}}) {
    auto expected = cells_of(golden_text(name)), got = cells_of(comms_csv_of(s, torch_waits::omitted));
    REQUIRE(got.size() == expected.size());
    for (std::size_t rank = 0; rank < got.size(); ++rank) {
      std::erase_if(expected[rank], [](const std::string& text) { return text.ends_with("SHARD"); });
      std::sort(expected[rank].begin(), expected[rank].end());
      std::sort(got[rank].begin(), got[rank].end());
      CHECK(got[rank] == expected[rank]);
    }
  }
  CHECK(comms_csv_of(make_1f1b_schedule({.pp = 2, .micro = 2})) ==
        "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0WAIT_SEND_F0,0RECV_B1,0B1,0WAIT_SEND_F1,0REDUCE_GRAD,0WAIT_REDUCE_"
        "GRAD\r\n"
        "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1,1REDUCE_GRAD,1WAIT_REDUCE_GRAD,1WAIT_SEND_B0,1WAIT_SEND_"
        "B1\r\n");
}

TEST_CASE(
    "torch csv: with communication, every family runs to the end even if sends and receives wait for each other") {
  for_all_families(6, 13, [](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    if (s.placement.replicas() > 1) {
      REQUIRE(refusal_of([&] { comms_csv_of(s); }).find("PyTorch's CSV has each stage on one rank, and ") == 0);
      return;
    }
    for (const torch_waits waits : {torch_waits::omitted, torch_waits::written}) {
      const torch_csv got = csv_of_text(comms_csv_of(s, waits));
      REQUIRE(got.schedule.cells == s.cells);
      REQUIRE(runs_in_lockstep(got));
      std::map<torch_pass, std::size_t> counts;
      for (const torch_action& a : got.actions) ++counts[a.pass];
      using enum torch_pass;
      const std::size_t crossings = counts[send_f];
      REQUIRE(counts[recv_f] == crossings);
      REQUIRE(counts[send_b] == (s.forward_only ? 0 : crossings));
      REQUIRE(counts[recv_b] == counts[send_b]);
      REQUIRE(counts[wait_send_f] == (waits == torch_waits::written ? crossings : 0));
      REQUIRE(counts[wait_send_b] == (waits == torch_waits::written ? counts[send_b] : 0));
      REQUIRE(counts[reduce_grad] == (s.forward_only ? 0 : s.stages()));
      REQUIRE(counts[wait_reduce_grad] == (waits == torch_waits::written ? counts[reduce_grad] : 0));
    }
  });
  // Receives at the front of their rows, or in another order than their sends, do not.
  CHECK(runs_in_lockstep(csv_of_text("0F0,0SEND_F0,0F1,0SEND_F1\r\n1RECV_F0,1F0,1RECV_F1,1F1\r\n")));
  CHECK(!runs_in_lockstep(csv_of_text("0F0,0SEND_F0,0F1,0SEND_F1\r\n1RECV_F1,1RECV_F0,1F0,1F1\r\n")));
  CHECK(!runs_in_lockstep(csv_of_text("0RECV_B0,0F0,0SEND_F0,0B0\r\n1RECV_F0,1F0,1B0,1SEND_B0\r\n")));
  CHECK(!runs_in_lockstep(csv_of_text("0F0,0SEND_F0\r\n1F0,1RECV_F0\r\n")));
}

TEST_CASE("torch csv: every family that the format can express survives a round trip") {
  for_all_families(6, 13, [](const family& f, const schedule_params& p) {
    schedule s = f.make(p);
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    if (s.placement.replicas() > 1) {
      REQUIRE(refusal_of([&] { csv_of(s); }) == "PyTorch's CSV has each stage on one rank, and " + std::string(f.name) +
                                                    " holds every stage twice; dualpipev and hanayo hold it once");
      return;
    }
    const torch_csv got = csv_of_text(csv_of(s));
    REQUIRE(got.schedule.cells == s.cells);
    REQUIRE(got.schedule.micro == s.micro);
    REQUIRE(got.schedule.forward_only == s.forward_only);
    for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
      REQUIRE(got.schedule.placement.rank_of(stage, 0) == s.placement.rank_of(stage, 0));
    REQUIRE(verify(got.schedule));
  });
}

TEST_CASE("torch csv: overlapped pairs unknown to PyTorch are refused") {
  schedule s = make_gpipe_schedule({.pp = 1, .micro = 2});
  const stage_ops a(0);
  s.cells = rows<cell>({{overlap(a.F(0), a.F(1)), a.B(0), a.B(1)}});
  REQUIRE(verify(s));
  CHECK(refusal_of([&] { csv_of(s); }) == "PyTorch overlaps an F with a B or I; got (0F0;0F1) on rank 0");
}

TEST_CASE("torch csv: malformed cells, which PyTorch accepts in part, are refused with row and column") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "empty; expected one row per rank, such as 0F0,0F1,0B0,0B1"},
      {"\r\n", "row 0 has no computation; expected some on each rank"},
      {"0F0,0F1garbage\r\n", "row 0, column 1: \"0F1garbage\" is not an action; expected one such as 0F1, "},
      {"0F0\r\n1F0,1F-1\r\n", "row 1, column 1: \"1F-1\" is not an action"},
      {"0F0,(0F1;0B0)B\r\n", "row 0, column 1: \"(0F1;0B0)B\" is not an action"},
      {"(0F1;0B0)\r\n", "row 0, column 0: \"(0F1;0B0)\" is not an action"},
      {"(0F1;0B0)OVERLAP_F_Bx\r\n", "row 0, column 0: "},
      {"0F0,(0F1;0F2)OVERLAP_F_B\r\n", "row 0, column 1: \"(0F1;0F2)OVERLAP_F_B\" is not an action"},
      {"0OVERLAP_F_B\r\n", "row 0, column 0: "},
      {"-1F0\r\n", "row 0, column 0: "},
      {"0F\r\n", "row 0, column 0: "},
      {"0F99999999999\r\n", "row 0, column 0: "},
      {"0F4294967295\r\n", "row 0, column 0: a micro-batch of 4294967295; expected at most 4294967294"},
      {"70000F0\r\n", "row 0, column 0: "},
      {"0SEND_F\r\n", "row 0, column 0: "},
      {"0UNSHARD3\r\n", "row 0, column 0: "},
      {"0F0,,0SEND_F0\r\n1RECV_F0,1F0\r\n",
       "row 0, column 1: an empty cell; expected none in a file with communication"},
      {"0F0\r\n\r\n", "row 1 has no computation; expected some on each rank"},
      {"0F0\r\n2F0\r\n", "stage 1 is on no row; expected all stages up to 2"},
      {"0F0\r\n1F0,0F1\r\n", "row 1, column 1: stage 0 is on row 0, too; expected each stage on one rank"},
      {"0F0\x01\r\n", "row 0, column 0: \"0F0?\" is not an action"},
  };
  for (const auto& one : cases) {
    CAPTURE(one.first);
    CHECK(refusal_of_csv(one.first).substr(0, one.second.size()) == one.second);
  }
  CHECK(refusal_of_csv(" 0F0 , \"\" ,0B0\n1F0,1B0\n") ==
        "");  // spaces, quoted idle time and plain line ends are PyTorch's, too
}

TEST_CASE("torch csv: quotes, blanks, line ends and a byte order mark are read as Python's csv module reads them") {
  const schedule plain = csv_of_text("0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1\r\n").schedule;
  for (const char* text : {
           "\"0F0\",\"0F1\",\"0B0\",\"0B1\"\r\n\"1F0\",\"1B0\",\"1F1\",\"1B1\"\r\n",
           "0F0,\t0F1\t,0B0 ,  0B1\n1F0,1B0,1F1,1B1",
           "\xEF\xBB\xBF"
           "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n",
           "\xEF\xBB\xBF\"0F0\",0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n",
           "0F0,0F1,0B0,0B1\r1F0,1B0,1F1,1B1\r",
           "0F0,0F1,\" 0B0\n\",0B1\r\n1F0,1B0,1F1,1B1\r\n",
           "\"0\"F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1,\r\n",
           "0F0,,\"\",0F1, \"\" ,0B0,0B1,,\r\n,1F0,1B0,1F1,1B1\r\n",
       }) {
    CAPTURE(text);
    const torch_csv got = csv_of_text(text);
    CHECK(got.schedule == plain);
    CHECK(got.actions.empty());
  }
  CHECK(refusal_of_csv("\"0F0,0B0\n") ==
        "row 0, column 0: a quote that is never closed; expected \" at the end of the cell");
  CHECK(refusal_of_csv("0F0,\"0B0").starts_with("row 0, column 1: a quote that is never closed"));
  CHECK(refusal_of_csv("\"0F\"\"0\",0B0\n").starts_with("row 0, column 0: \"0F\"0\" is not an action"));
  CHECK(refusal_of_csv("0F\"0\",0B0\n").starts_with("row 0, column 0: \"0F\"0\"\" is not an action"));
  for (const char* text : {"\xEF", "\xEF\xBF", "\xEF\xBB", "\xEF\xBB\xBB", "\xEF\"0F0\""}) {  // parts of a mark
    CAPTURE(text);
    CHECK(refusal_of_csv(std::string(text) + "0F0,0B0\n").find("is not an action") != std::string::npos);
    CHECK(refusal_of_csv(text).find("is not an action") != std::string::npos);
  }
  CHECK(refusal_of_csv("\xEF\xBB\xBF").starts_with("empty; "));
  CHECK(refusal_of([] { read_torch_csv(std::ifstream(PIPESCHED_SOURCE_DIR)); }) != "");
}

TEST_CASE("torch csv: a file in the letters of 2024 is refused with a hint") {
  CHECK(refusal_of_csv("0F0,0F1,0BW0,0BW1\r\n") ==
        "row 0, column 2: \"0BW0\" has the letters of PyTorch in 2024: BW was the full backward and B the backward for "
        "inputs; expected B for BW, and I for B");
  CHECK(refusal_of_csv("0F0,0B0,0F1,0B1,0W0,0W1\r\n") ==
        "row 0, column 4: 0W0 beside 0B0 in a file without I has the letters of PyTorch in 2024, where B was the "
        "backward for "
        "inputs; expected I for B, and B for BW");
  CHECK(refusal_of_csv("0F0,0B0W\r\n").starts_with("row 0, column 1: \"0B0W\" is not an action"));
  CHECK(refusal_of_csv("0F0,0BW\r\n").starts_with("row 0, column 1: \"0BW\" is not an action"));
  // Today's letters with a fault of another kind are read, and verify() reports the fault.
  for (const char* text : {"0F0,0B0,0F1,0W1\r\n", "0F0,0B0,0W0,0F1,0I1,0W1\r\n"})
    CHECK(!verify(csv_of_text(text).schedule));
}

TEST_CASE("torch csv: no change of one byte crashes the reader") {
  const std::string text = golden_text("dualpipev_pp2_v2_m4_compute_comms.csv");
  std::mt19937_64 random(3);
  int refusals = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string broken = text;
    broken[random() % broken.size()] = static_cast<char>(random() % 256);
    refusals += !refusal_of_csv(broken).empty();
  }
  CHECK(refusals > 2000);
}
