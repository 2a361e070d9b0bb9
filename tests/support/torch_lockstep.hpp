// SPDX-License-Identifier: MIT
#pragma once

// A slow interpreter of PyTorch's files with communication. It shares no code with the library's verifier.

#include <algorithm>
#include <cstdint>
#include <pipesched/core/dependencies.hpp>
#include <pipesched/io/torch_comms_csv.hpp>
#include <pipesched/io/torch_csv.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace pipesched::tests {

inline std::string comms_csv_of(const schedule& s, torch_waits waits = torch_waits::written) {
  std::ostringstream out;
  write_torch_comms_csv(out, s, waits);
  return out.str();
}

inline torch_csv csv_of_text(const std::string& text) { return read_torch_csv(std::istringstream(text)); }

inline std::vector<std::vector<std::string>> cells_of(const std::string& file) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream in(file);
  for (std::string line; std::getline(in, line);) {
    rows.emplace_back();
    line.erase(std::remove(line.begin(), line.end(), '\r'), line.end());
    std::istringstream cells(line);
    for (std::string text; std::getline(cells, text, ',');) rows.back().push_back(text);
  }
  return rows;
}

/// Runs all ranks under the strictest rule: a send and its receive block until both are posted. True if all ranks finish,
/// every input has arrived when an op needs it, and every wait follows its send.
inline bool runs_in_lockstep(const torch_csv& file) {
  const schedule& s = file.schedule;
  std::vector<std::vector<torch_action>> actions(s.pp());
  for (const torch_action& a : file.actions) actions[a.rank].push_back(a);
  std::vector<std::size_t> cell(s.pp()), action(s.pp());
  std::set<std::string> there;  // "rank:text"
  const auto has = [&](std::uint32_t rank, torch_pass pass, std::uint32_t stage, std::uint32_t micro) {
    return there.contains(std::to_string(rank) + torch_pass_names[static_cast<std::size_t>(pass)].data() +
                          std::to_string(stage) + ":" + std::to_string(micro));
  };
  const auto put = [&](std::uint32_t rank, torch_pass pass, std::uint32_t stage, std::uint32_t micro) {
    there.insert(std::to_string(rank) + torch_pass_names[static_cast<std::size_t>(pass)].data() +
                 std::to_string(stage) + ":" + std::to_string(micro));
  };
  const auto at_action = [&](std::uint32_t rank) {
    return action[rank] < actions[rank].size() && actions[rank][action[rank]].before_cell == cell[rank];
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
      for (;; moved = true) {
        if (!at_action(rank)) {
          if (cell[rank] == s[rank].size()) break;
          for (op o : s[rank][cell[rank]]) {
            if (const auto in = input_of(o, s.stages()))
              if (s.placement.rank_of(in->stage, in->micro) != rank &&
                  !has(rank, in->kind == tensor_kind::gradient ? torch_pass::recv_b : torch_pass::recv_f, o.stage,
                       o.micro))
                return false;
            if (o.pass == pass::forward) put(rank, torch_pass::send_f, o.stage, o.micro);
            if (yields_input_gradient(o.pass)) put(rank, torch_pass::send_b, o.stage, o.micro);
          }
          ++cell[rank];
          continue;
        }
        const torch_action a = actions[rank][action[rank]];
        if (a.pass == torch_pass::wait_send_f || a.pass == torch_pass::wait_send_b) {
          // Each wait must follow its send.
          if (!has(rank, a.pass, a.stage, a.micro)) return false;
        } else if (a.pass == torch_pass::send_f || a.pass == torch_pass::send_b) {
          const bool forward = a.pass == torch_pass::send_f;
          const std::uint32_t stage = forward ? a.stage + 1u : a.stage - 1u,
                              other = s.placement.rank_of(stage, a.micro);
          const torch_action expected{.pass = forward ? torch_pass::recv_f : torch_pass::recv_b,
                                      .stage = static_cast<std::uint16_t>(stage),
                                      .micro = a.micro,
                                      .rank = other,
                                      .before_cell = static_cast<std::uint32_t>(cell[other])};
          if (!has(rank, a.pass, a.stage, a.micro)) return false;
          if (!at_action(other) || actions[other][action[other]] != expected) break;
          put(other, expected.pass, stage, a.micro);
          put(rank, forward ? torch_pass::wait_send_f : torch_pass::wait_send_b, a.stage, a.micro);
          ++action[other];
        } else if (a.pass == torch_pass::recv_f || a.pass == torch_pass::recv_b) {
          break;  // the sender advances both
        }
        ++action[rank];
      }
  }
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    if (cell[rank] < s[rank].size() || action[rank] < actions[rank].size()) return false;
  return true;
}

}  // namespace pipesched::tests
