// SPDX-License-Identifier: MIT
#pragma once

// Programs as JSON for other tools. The library writes this format and does not read it.
//
//   {"format": "pipesched.program", "version": 1, "name": ..., "pp": ..., "stages": ..., "micro": ...,
//    "channels": [{"from": 0, "to": 1, "messages": 8, "receive_buffers": 4, "send_buffers": 4}, ...],
//    "pools": [{"activations": 4, "weights": 0, "kept_inputs": 0, "buffers": 8, "reductions": 0}, ...],
//    "ranks": [[{"receive": "1B0", "channel": 1, "buffer": 4},
//               {"compute": "0F0", "slots": [{"activation": 0, "output": 0}]},
//               {"send": "0F0", "channel": 0, "buffer": 0},
//               {"reduce": 0, "with": 3, "channel": 2, "buffer": 0}], ...]}
//
// A message is written as the op that produces it, 1B0 for the gradient of a B or I, and a weight gradient as "weights 3"
// with its stage. Key "weights" of a pool or slot is the context that I keeps for W. "reduce" is the stage whose weight
// gradient gets that of the stage "with" added.

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>

#include "pipesched/core/notation.hpp"
#include "pipesched/program/program.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

inline std::string producer_of(tensor_id m) {
  if (m.kind == tensor_kind::weight_gradient) return concat({"weights ", m.stage});
  return concat({m.stage, m.kind == tensor_kind::activation ? "F" : "B", m.micro});
}

inline nlohmann::ordered_json slots_of(const op_slots& s) {
  nlohmann::ordered_json j = nlohmann::ordered_json::object();
  if (s.activation != no_slot) j["activation"] = s.activation;
  if (s.context != no_slot) j["weights"] = s.context;
  if (s.kept_input != no_slot) j["kept_input"] = s.kept_input;
  if (s.input != no_slot) j["input"] = s.input;
  if (s.output != no_slot) j["output"] = s.output;
  return j;
}

inline nlohmann::ordered_json json_of(const program& p, std::uint32_t rank, const action& a) {
  nlohmann::ordered_json j;
  switch (a.kind) {
    case action_kind::compute: {
      const cell& c = p.schedule[rank][a.index];
      j["compute"] = to_string(c);
      for (std::size_t i = 0; i < c.size(); ++i) j["slots"].push_back(slots_of(p.slots[rank][a.index][i]));
      return j;
    }
    case action_kind::receive: j["receive"] = producer_of(a.what); break;
    case action_kind::send: j["send"] = producer_of(a.what); break;
    case action_kind::accumulate:
      j["reduce"] = a.index;
      j["with"] = a.what.stage;
      break;
  }
  if (a.channel != no_slot) j["channel"] = a.channel;
  const pool_sizes& pools = p.pools[rank];
  if (a.buffer < pools[pool::tensor])
    j["buffer"] = a.buffer;
  else if (a.buffer < pools.owned_buffers())
    j["buffer"] = a.buffer - pools[pool::tensor];  // among the reductions
  return j;
}

}  // namespace detail

/// Writes a program as JSON, one action per line.
inline void write_json(std::ostream& out, const program& p) {
  nlohmann::ordered_json head = {{"format", "pipesched.program"},  {"version", 1},
                                 {"name", p.schedule.name.view()}, {"pp", p.schedule.pp()},
                                 {"stages", p.schedule.stages()},  {"micro", p.schedule.micro}};
  head["channels"] = nlohmann::ordered_json::array();
  for (const channel& c : p.channels)
    head["channels"].push_back({{"from", c.from},
                                {"to", c.to},
                                {"messages", c.messages},
                                {"receive_buffers", c.receive_buffers},
                                {"send_buffers", c.send_buffers}});
  for (const pool_sizes& s : p.pools)
    head["pools"].push_back({{"activations", s[pool::activation]},
                             {"weights", s[pool::context]},
                             {"kept_inputs", s[pool::kept_input]},
                             {"buffers", s[pool::tensor]},
                             {"reductions", s[pool::reduction]}});
  std::string text = head.dump();
  text.back() = ',';
  out << text << "\n\"ranks\": [\n";
  for (std::uint32_t rank = 0; rank < p.schedule.pp(); ++rank) {
    const auto row = p.actions[rank];
    out << " [";
    for (std::size_t i = 0; i < row.size(); ++i)
      out << (i == 0 ? "\n" : ",\n") << "  " << detail::json_of(p, rank, row[i]).dump();
    out << (rank + 1 < p.schedule.pp() ? "\n ],\n" : "\n ]\n");
  }
  out << "]}\n";
}

}  // namespace pipesched
