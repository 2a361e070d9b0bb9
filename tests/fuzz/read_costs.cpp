// SPDX-License-Identifier: MIT
// For any bytes the reader returns a cost model or refuses with one line. A cost model survives a round trip, and a schedule
// has a time with it or is refused with one line.

#include <cstdint>
#include <pipesched/io/costs_json.hpp>
#include <pipesched/pipesched.hpp>
#include <sstream>
#include <string>

#include "one_sentence.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const pipesched::stage_costs costs =
        pipesched::read_costs(std::istringstream(std::string(reinterpret_cast<const char*>(data), size)));
    require(pipesched::read_costs(std::istringstream(nlohmann::json(costs).dump())) == costs);
    const pipesched::schedule s = pipesched::make_dualpipe_schedule({.pp = 4, .micro = 8});
    require(measure(simulate(s, costs), costs).makespan >= 0);
  } catch (const pipesched::schedule_error& e) {
    return require_one_sentence(e);
  }
  return 0;
}
