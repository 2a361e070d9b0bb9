// SPDX-License-Identifier: MIT
// For any bytes the reader returns a model or refuses with one line. A model survives a round trip, and has costs under a
// partition or is refused with one line. So are layouts.

#include <cstdint>
#include <pipesched/io/model_json.hpp>
#include <pipesched/model/costs_of.hpp>
#include <pipesched/model/layout.hpp>
#include <sstream>
#include <string>

#include "one_sentence.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pipesched;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const placement where = placement::looped(2, 2);
  try {
    const model blocks{.layers = {{.kind = "embedding"}, {.count = 5}, {.kind = "head"}}};
    const partition p = parse_layout(text, blocks, where);
    require(parse_layout(to_layout(p, blocks, where), blocks, where) == p);
  } catch (const schedule_error& e) {
    require_one_sentence(e);
  }
  try {
    const model m = read_model(std::istringstream(text));
    require(read_model(std::istringstream(model_document(m).dump())) == m);
    costs_of(m, uniform_partition(m, where.stages()), where);
  } catch (const schedule_error& e) {
    require_one_sentence(e);
  }
  return 0;
}
