// SPDX-License-Identifier: MIT

#include "pipesched/io/torch_comms_verify.hpp"

#include <doctest/doctest.h>

#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"
#include "support/torch_lockstep.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

std::string report_of(const std::string& text) { return to_string(verify(csv_of_text(text))); }

std::string joined(const std::vector<std::vector<std::string>>& rows) {
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) text += (i == 0 ? "" : ",") + row[i];
    text += "\r\n";
  }
  return text;
}

bool is_message(const std::string& text) { return text.find("SEND_") != text.npos || text.find("RECV_") != text.npos; }

constexpr const char* assumed = "; assumed one communicator, and sends that wait for their receives\n";

}  // namespace

TEST_CASE("torch comms: PyTorch's own files and all that the library writes are valid") {
  for (const char* name : {"dualpipev_pp2_v2_m4_compute_comms.csv", "interleaved1f1b_pp2_v2_m4_compute_comms.csv"})
    CHECK(report_of(golden_text(name)) == "");
  for_all_families(6, 9, [](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    if (s.placement.replicas() > 1) return;
    for (const torch_waits waits : {torch_waits::omitted, torch_waits::written})
      REQUIRE(verify(csv_of_text(comms_csv_of(s, waits))));
  });
}

TEST_CASE("torch comms: a file without communication is verified as a schedule alone") {
  CHECK(report_of("0F0,0B0\r\n1F0,1B0\r\n") == "");
  CHECK(report_of("0F0,0F0,0B0\r\n1F0,1B0\r\n").find("duplicate") != std::string::npos);
  // An invalid schedule is reported without its messages.
  CHECK(report_of("0F0,0SEND_F0\r\n1F0,1B0\r\n") == "rank 0: missing: 0B0; expected one B, or one I and one W\n");
}

TEST_CASE("torch comms: every fault is reported with its rank, column and rule") {
  const std::vector<std::pair<const char*, std::string>> cases = {
      {"0F0,0SEND_F0\r\n1RECV_F0,1F0\r\n", ""},
      {"0F0,0SEND_F0\r\n1F0\r\n", "rank 1: missing: 1RECV_F0, for 0SEND_F0 on rank 0, is in no column; expected one\n"},
      {"0F0\r\n1RECV_F0,1F0\r\n", "rank 0: missing: 0SEND_F0, for 1RECV_F0 on rank 1, is in no column; expected one\n"},
      {"0UNSHARD,0F0\r\n1F0\r\n",
       "rank 0: missing: 0SEND_F0 is in no column; expected one\n"
       "rank 1: missing: 1RECV_F0 is in no column; expected one\n"},
      {"0F0,0SEND_F0,0SEND_F0\r\n1RECV_F0,1F0\r\n",
       "rank 0: duplicate: 0SEND_F0 in column 2 again, first in column 1\n"},
      {"0F0,0SEND_F0,0SEND_B0\r\n1RECV_F0,1F0\r\n",
       "rank 0: message: 0SEND_B0 in column 2: there is no stage at the other end; expected no message\n"},
      {"0F0,0SEND_F0,0RECV_B0\r\n1RECV_F0,1F0\r\n",
       "rank 0: message: 0RECV_B0 in column 2: the schedule has no backward; expected no message\n"},
      {"0F0,0SEND_F0,1F0\r\n",
       "rank 0: message: 0SEND_F0 in column 1: both stages are on this rank; expected no message\n"},
      {"0F0,0SEND_F0,0SEND_F7\r\n1RECV_F0,1F0\r\n",
       "rank 0: range: 0SEND_F7 in column 2; expected stages below 2 and micro-batches below 1\n"},
      {"0SEND_F0,0F0\r\n1RECV_F0,1F0\r\n",
       "rank 0: order: 0SEND_F0 in column 0 comes before 0F0, which makes its tensor\n"},
      {"0F0,0SEND_F0\r\n1F0,1RECV_F0\r\n", "rank 1: order: 1RECV_F0 in column 1 comes after 1F0, which needs it\n"},
      {"0F0,0WAIT_SEND_F0,0SEND_F0\r\n1RECV_F0,1F0\r\n",
       "rank 0: order: 0WAIT_SEND_F0 in column 1 does not come after 0SEND_F0\n"},
      {"0F0,0SEND_F0,0F1,0SEND_F1,0WAIT_SEND_F0\r\n1RECV_F0,1F0,1RECV_F1,1F1\r\n",
       "rank 0: missing: no wait for 0SEND_F1; expected 0WAIT_SEND_F1, as the file has other waits\n"},
      {"0F0,0SEND_F0,0F1,0SEND_F1\r\n1RECV_F1,1RECV_F0,1F0,1F1\r\n",
       "rank 1: message: 1RECV_F1 in column 0 is receive 0 from rank 0, whose send 0 to this rank is 0SEND_F0 in "
       "column "
       "1; expected the same order\n"},
      // The classic of 1F1B: both ranks send first.
      {"0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\r\n"
       "1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1\r\n",
       std::string(
           "rank 0: deadlock: 0SEND_F1 (rank 0, column 3) waits for 1RECV_F1 (rank 1, column 4), which comes after "
           "1SEND_B0; 1SEND_B0 (rank 1, column 3) waits for 0RECV_B0 (rank 0, column 4), which comes after "
           "0SEND_F1") +
           assumed},
      // A receive that is posted long before its message is sent.
      {"0RECV_B0,0F0,0SEND_F0,0B0\r\n1RECV_F0,1F0,1B0,1SEND_B0\r\n",
       std::string(
           "rank 0: deadlock: 0RECV_B0 (rank 0, column 0) waits for 1SEND_B0 (rank 1, column 3), which comes after "
           "1RECV_F0; 1RECV_F0 (rank 1, column 0) waits for 0SEND_F0 (rank 0, column 2), which comes after "
           "0RECV_B0") +
           assumed},
      // Three ranks, of which the last waits for the cycle of the others.
      {"0RECV_B0,0F0,0SEND_F0,0B0\r\n1RECV_F0,1F0,1SEND_F0,1RECV_B0,1B0,1SEND_B0\r\n2RECV_F0,2F0,2B0,2SEND_B0\r\n",
       std::string(
           "rank 0: deadlock: 0RECV_B0 (rank 0, column 0) waits for 1SEND_B0 (rank 1, column 5), which comes after "
           "1RECV_F0; 1RECV_F0 (rank 1, column 0) waits for 0SEND_F0 (rank 0, column 2), which comes after "
           "0RECV_B0") +
           assumed},
      // FSDP's actions count as columns and are not checked.
      {"0UNSHARD,0F0,0SEND_F0,0RESHARD\r\n1RESHARD,1UNSHARD,1F0,1RECV_F0,1REDUCE_GRAD\r\n",
       "rank 1: order: 1RECV_F0 in column 3 comes after 1F0, which needs it\n"},
  };
  for (const auto& one : cases) {
    CAPTURE(one.first);
    CHECK(report_of(one.first) == one.second);
  }
}

TEST_CASE("torch comms: the number of reported violations is limited") {
  torch_csv file = csv_of_text(comms_csv_of(make_1f1b_schedule({.pp = 4, .micro = 8})));
  std::erase_if(file.actions, [](const torch_action& a) { return a.pass == torch_pass::recv_f; });
  const report r = verify(file, 5);
  CHECK(r.violations.size() == 5);
  CHECK(r.further == 3 * 8 - 5);
}

TEST_CASE("torch comms: actions that a caller made out of row order are refused") {
  torch_csv file = csv_of_text("0F0,0SEND_F0\r\n1RECV_F0,1F0\r\n");
  std::swap(file.actions[0], file.actions[1]);
  CHECK(verify(file).names(rule::shape));
  file.actions = {{torch_pass::send_f, 0, 0, 7, 0}};
  CHECK(verify(file).names(rule::shape));
  file.actions = {{torch_pass::send_f, 0, 0, 0, 9}};
  CHECK(verify(file).names(rule::shape));
  file.actions = {{torch_pass::send_f, 0, 0, 0, 1}, {torch_pass::recv_f, 9, 0, 1, 0}};
  CHECK(verify(file).names(rule::range));
  file.actions = {{torch_pass::send_f, 1, 0, 0, 1}};
  CHECK(verify(file).names(rule::placement));
}

TEST_CASE("torch comms: after random changes of messages, valid exactly if a slow player runs the file to its end") {
  std::mt19937_64 random(17);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const schedule plans[] = {make_1f1b_schedule({.pp = 3, .micro = 3}), make_zb1p_schedule({.pp = 2, .micro = 3}),
                            make_dualpipev_schedule({.pp = 2, .micro = 4}),
                            make_interleaved_1f1b_schedule({.pp = 2, .micro = 2, .chunks = 2}),
                            make_gpipe_schedule({.pp = 3, .micro = 2, .forward_only = true})};
  int valid = 0, deadlocks = 0, misordered = 0, missing = 0;
  for (int i = 0; i < 6000; ++i) {
    const schedule& s = plans[below(std::size(plans))];
    const bool waits = below(2) == 1;
    auto rows = cells_of(comms_csv_of(s, waits ? torch_waits::written : torch_waits::omitted));
    for (std::size_t changes = 1 + below(2); changes > 0; --changes) {
      auto& row = rows[below(rows.size())];
      const std::size_t from = below(row.size());
      if (!is_message(row[from])) continue;
      const std::string text = row[from];
      const std::size_t what = below(waits ? 8 : 10);  // a lost or repeated wait would not stop the slow player
      if (what < 8) {
        row.erase(row.begin() + static_cast<std::ptrdiff_t>(from));
        const std::size_t to = what < 4 ? below(row.size() + 1) : std::min(row.size(), from + 1);
        row.insert(row.begin() + static_cast<std::ptrdiff_t>(to), text);
      } else if (what == 8) {
        row.erase(row.begin() + static_cast<std::ptrdiff_t>(from));
      } else {
        row.insert(row.begin() + static_cast<std::ptrdiff_t>(below(row.size() + 1)), text);
      }
    }
    const torch_csv file = csv_of_text(joined(rows));
    const report r = verify(file);
    CAPTURE(joined(rows));
    CAPTURE(to_string(r));
    REQUIRE(static_cast<bool>(r) == runs_in_lockstep(file));
    valid += static_cast<bool>(r);
    deadlocks += r.names(rule::deadlock);
    misordered += r.names(rule::message) || r.names(rule::order);
    missing += r.names(rule::missing) || r.names(rule::duplicate);
  }
  CHECK(valid > 500);
  CHECK(deadlocks > 200);
  CHECK(misordered > 300);
  CHECK(missing > 200);
}
