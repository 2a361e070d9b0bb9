// SPDX-License-Identifier: MIT
// For any bytes the reader returns a file or refuses with one line. Its messages survive verify(), its schedule a round trip,
// with communication as well, and read_schedule() agrees.

#include <cstdint>
#include <pipesched/io/read_schedule.hpp>
#include <pipesched/io/torch_comms_csv.hpp>
#include <pipesched/io/torch_comms_verify.hpp>
#include <pipesched/io/torch_csv.hpp>
#include <pipesched/pipesched.hpp>
#include <sstream>
#include <string>

#include "one_sentence.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  pipesched::torch_csv file;
  try {
    file = pipesched::read_torch_csv(std::istringstream(bytes));
  } catch (const pipesched::schedule_error& e) {
    return require_one_sentence(e);
  }
  const pipesched::schedule& s = file.schedule;
  require(pipesched::read_schedule(std::istringstream(bytes)).actions == file.actions);
  std::stringstream text;
  pipesched::write_torch_csv(text, s);
  if (file.actions.empty())
    require(pipesched::read_torch_csv(text).schedule == s);  // else a stage may only have actions
  const pipesched::report report = verify(file);
  if (!report) require(!to_string(report).empty());
  if (!verify(s)) {
    require(!report);
    return 0;
  }
  const auto counts = counts_of(file.actions);
  const auto of = [&](pipesched::torch_pass p) { return counts[static_cast<std::size_t>(p)]; };
  if (report) require(of(pipesched::torch_pass::send_f) == of(pipesched::torch_pass::recv_f));
  std::stringstream comms;
  write_torch_comms_csv(comms, s);
  const pipesched::torch_csv again = pipesched::read_torch_csv(comms);
  require(again.schedule == s && verify(again));
  return 0;
}
