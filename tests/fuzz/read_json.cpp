// SPDX-License-Identifier: MIT
// Whatever bytes come, the reader returns a schedule or refuses with one line; what it returns survives verify() and a
// round trip.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <pipesched/io/json.hpp>
#include <pipesched/pipesched.hpp>
#include <sstream>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pipesched::schedule s;
  try {
    s = pipesched::read_json(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const pipesched::schedule_error& e) {
    if (std::strlen(e.what()) < 5 || std::strlen(e.what()) > 500 || std::strchr(e.what(), '\n')) std::abort();
    return 0;
  }
  const pipesched::report report = verify(s);
  if (report ? !simulate(s) : to_string(report).empty()) std::abort();
  std::ostringstream out;
  pipesched::write_json(out, s);
  if (pipesched::read_json(std::string_view(out.str())) != s) std::abort();
  return 0;
}
