// SPDX-License-Identifier: MIT

#include "pipesched/io/torch_csv.hpp"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/generate/by_name.hpp"
#include "pipesched/verify.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

std::string csv_of(const schedule& s) {
  std::ostringstream out;
  write_torch_csv(out, s);
  return out.str();
}

torch_csv read(const std::string& text) { return read_torch_csv(std::istringstream(text)); }

std::string refused(const std::string& text) {
  return refusal_of([&] { read(text); });
}

}  // namespace

TEST_CASE("torch csv: PyTorch's own DualPipeV file comes out byte for byte") {
  CHECK(csv_of(make_dualpipev_schedule({.pp = 2, .micro = 4})) == golden_text("dualpipev_pp2_v2_m4_compute_only.csv"));
}

TEST_CASE("torch csv: PyTorch's own interleaved file is read past its idle cells, and written without them") {
  const schedule s = make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2});
  const std::string file = golden_text("interleaved1f1b_pp2_v2_m4_compute_only.csv");
  torch_csv got = read(file);
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

TEST_CASE("torch csv: files with communication are read whole, their other actions reported") {
  for (const auto& [name, expected] : std::map<std::string, schedule>{
           {"dualpipev_pp2_v2_m4_compute_comms.csv", make_dualpipev_schedule({.pp = 2, .micro = 4})},
           {"interleaved1f1b_pp2_v2_m4_compute_comms.csv",
            make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 2})}}) {
    const std::string file = golden_text(name);
    const torch_csv got = read(file);
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
  const torch_csv got = read("0UNSHARD,0F0,0SEND_F0\r\n1RECV_F0,1F0\r\n");
  CHECK(got.actions == std::vector<torch_action>{{torch_pass::unshard, 0, 0, 0, 0},
                                                 {torch_pass::send_f, 0, 0, 0, 1},
                                                 {torch_pass::recv_f, 1, 0, 1, 0}});
}

TEST_CASE("torch csv: every family that the format can hold survives a round trip") {
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
    const torch_csv got = read(csv_of(s));
    REQUIRE(got.schedule.cells == s.cells);
    REQUIRE(got.schedule.micro == s.micro);
    REQUIRE(got.schedule.forward_only == s.forward_only);
    for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
      REQUIRE(got.schedule.placement.rank_of(stage, 0) == s.placement.rank_of(stage, 0));
    REQUIRE(verify(got.schedule));
  });
}

TEST_CASE("torch csv: pairs that PyTorch does not know are not written") {
  schedule s = make_gpipe_schedule({.pp = 1, .micro = 2});
  const stage_ops a(0);
  s.cells = rows<cell>({{overlap(a.F(0), a.F(1)), a.B(0), a.B(1)}});
  REQUIRE(verify(s));
  CHECK(refusal_of([&] { csv_of(s); }) == "PyTorch overlaps an F with a B or I; got (0F0;0F1) on rank 0");
}

TEST_CASE("torch csv: what PyTorch lets pass is refused with row and column") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no rows; expected one a rank"},
      {"\r\n", "row 0 holds no computation; expected some on every rank"},
      {"0F0,0F1garbage\r\n", "row 0, column 1: \"0F1garbage\" is no action; expected one such as 0F1, "},
      {"0F0\r\n1F0,1F-1\r\n", "row 1, column 1: \"1F-1\" is no action"},
      {"0F0,(0F1;0B0)B\r\n", "row 0, column 1: \"(0F1;0B0)B\" is no action"},
      {"(0F1;0B0)\r\n", "row 0, column 0: \"(0F1;0B0)\" is no action"},
      {"(0F1;0B0)OVERLAP_F_Bx\r\n", "row 0, column 0: "},
      {"0F0,(0F1;0F2)OVERLAP_F_B\r\n", "row 0, column 1: \"(0F1;0F2)OVERLAP_F_B\" is no action"},
      {"0OVERLAP_F_B\r\n", "row 0, column 0: "},
      {"-1F0\r\n", "row 0, column 0: "},
      {"0F\r\n", "row 0, column 0: "},
      {"0F99999999999\r\n", "row 0, column 0: "},
      {"0F4294967295\r\n", "row 0, column 0: a micro-batch of 4294967295; expected at most 4294967294"},
      {"70000F0\r\n", "row 0, column 0: "},
      {"0SEND_F\r\n", "row 0, column 0: "},
      {"0UNSHARD3\r\n", "row 0, column 0: "},
      {"0F0,,0SEND_F0\r\n1RECV_F0,1F0\r\n", "row 0, column 1: an empty cell; a file with communication has none"},
      {"0F0\r\n\r\n", "row 1 holds no computation; expected some on every rank"},
      {"0F0\r\n2F0\r\n", "stage 1 is on no row, though there is a stage 2"},
      {"0F0\r\n1F0,0F1\r\n", "row 1, column 1: stage 0 is on row 0, too; expected every stage on one rank"},
      {"0F0\x01\r\n", "row 0, column 0: \"0F0?\" is no action"},
  };
  for (const auto& one : cases) {
    CAPTURE(one.first);
    CHECK(refused(one.first).substr(0, one.second.size()) == one.second);
  }
  CHECK(refused(" 0F0 , \"\" ,0B0\n1F0,1B0\n") ==
        "");  // spaces, quoted idle time and plain line ends are PyTorch's, too
}

TEST_CASE("torch csv: no change of one byte crashes the reader") {
  const std::string text = golden_text("dualpipev_pp2_v2_m4_compute_comms.csv");
  std::mt19937_64 random(3);
  int refusals = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string broken = text;
    broken[random() % broken.size()] = static_cast<char>(random() % 256);
    refusals += !refused(broken).empty();
  }
  CHECK(refusals > 2000);
}
