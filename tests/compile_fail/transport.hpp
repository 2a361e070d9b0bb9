// SPDX-License-Identifier: MIT
#pragma once

// A trainer, for transports of which one function is wrong.

#include <pipesched/execute/recording_transport.hpp>
#include <pipesched/execute/run.hpp>

struct trainer {
  void forward(pipesched::task) {}
  void backward(pipesched::task) {}
  std::span<std::byte> buffer(pipesched::tensor_id, std::uint32_t) { return {}; }
};
