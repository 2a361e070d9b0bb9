// SPDX-License-Identifier: MIT
// For any bytes the reader returns a schedule or refuses with one line. A schedule survives verify() and a round trip, and
// read_schedule() agrees.

#include <cstdint>
#include <pipesched/io/json.hpp>
#include <pipesched/io/read_schedule.hpp>
#include <pipesched/pipesched.hpp>
#include <sstream>
#include <string>

#include "one_sentence.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  pipesched::schedule s;
  try {
    s = pipesched::read_json(bytes);
  } catch (const pipesched::schedule_error& e) {
    return require_one_sentence(e);
  }
  require(pipesched::read_schedule(std::istringstream(bytes)).schedule == s);
  if (const pipesched::report report = verify(s))
    require(simulate(s).schedule == s);
  else
    require(!to_string(report).empty());
  std::ostringstream out;
  pipesched::write_json(out, s);
  require(pipesched::read_json(out.view()) == s);
  return 0;
}
