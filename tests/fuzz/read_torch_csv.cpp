// SPDX-License-Identifier: MIT
// Whatever bytes come, the reader returns a schedule or refuses with one line; what it returns survives verify() and a
// round trip.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <pipesched/io/torch_csv.hpp>
#include <pipesched/pipesched.hpp>
#include <sstream>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pipesched::torch_csv file;
  try {
    file = pipesched::read_torch_csv(std::istringstream(std::string(reinterpret_cast<const char*>(data), size)));
  } catch (const pipesched::schedule_error& e) {
    if (std::strlen(e.what()) < 5 || std::strlen(e.what()) > 500 || std::strchr(e.what(), '\n')) std::abort();
    return 0;
  }
  const pipesched::report report = verify(file.schedule);
  if (report ? !simulate(file.schedule) : to_string(report).empty()) std::abort();
  std::stringstream text;
  pipesched::write_torch_csv(text, file.schedule);
  if (pipesched::read_torch_csv(text).schedule != file.schedule && file.actions.empty()) std::abort();
  return 0;
}
